"""PyTorch's way in: ``torch.compile(model, backend="tilewright")``, and modules as ONNX models.

PyTorch captures a model as a graph of its own functions, its exporter writes that graph as ONNX, and the importer reads it. Parameters
and buffers of modules are constants, so their layout is chosen ahead of time. Nothing here computes gradients.
"""

from __future__ import annotations

import io
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright.graph.compiler import compile
from tilewright.graph.network import Network
from tilewright.util.errors import ImportFailure, RuntimeFailure

if TYPE_CHECKING:
    import torch

#: The version of ONNX's operators that is asked for: the first with layer normalisation.
OPSET = 17

#: PyTorch's exporter has global state: one model at a time.
_EXPORTER = threading.RLock()


def compiled(graph: torch.fx.GraphModule, example_inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None) -> CompiledGraph:
    """A backend of ``torch.compile``: ``torch.compile(model, backend="tilewright", options={"threads": 2})``.

    ``options`` are those of :func:`tilewright.graph.compile`: threads, fusion, layouts. Networks are made when the graph is first called
    with arguments of some shapes. :class:`CompiledGraph` says what is refused.
    """
    return CompiledGraph(graph, options or {})


def exported(module: Callable[..., Any] | torch.export.ExportedProgram, arguments: Sequence[Any]) -> bytes:
    """A module, a captured graph or a program of ``torch.export`` as an ONNX model, for arguments of these shapes.

    Tensors among ``arguments`` become the inputs ``x0``, ``x1`` .. in order; everything else keeps its value. Results are ``y0``, ``y1`` ..
    ImportFailure when PyTorch's exporter refuses, for other results than tensors, for modules that write into their arguments, and for
    modules in training mode.
    """
    import torch

    run = module.module() if isinstance(module, torch.export.ExportedProgram) else module
    if isinstance(run, torch.nn.Module) and not isinstance(run, torch.fx.GraphModule) and run.training:
        raise ImportFailure("the module is in training mode", hint="model.eval()")
    tensors = [n for n, a in enumerate(arguments) if isinstance(a, torch.Tensor)]

    class Captured(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.run = run  # where it is a module, its parameters are this one's
            self.training = False

        def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
            every = list(arguments)
            for n, tensor in zip(tensors, given, strict=True):
                every[n] = tensor
            # Every result is a value of its own, also one that is an argument, or another result.
            return tuple(r.clone() for r in _tuple(self.run(*every)))

    file: Any = io.BytesIO()
    # Nothing counts the writes into tensors made in inference mode; copies made outside of it are ordinary ones.
    with _EXPORTER, torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what tracing fixes: shapes, which are fixed here
        copies = [a.detach().clone() if isinstance(a, torch.Tensor) else a for a in arguments]
        names = [f"y{n}" for n in range(_results(run, copies))]
        try:
            torch.onnx.export(
                Captured(), tuple(copies[n] for n in tensors), file, dynamo=False, opset_version=OPSET,
                training=torch.onnx.TrainingMode.PRESERVE,  # programs of torch.export cannot be told
                input_names=[f"x{n}" for n in range(len(tensors))], output_names=names,
            )  # fmt: skip
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError, ValueError) as error:
            raise ImportFailure(f"PyTorch's exporter cannot write this as ONNX: {str(error).strip().partition(chr(10))[0]}") from error
    return file.getvalue()


class CompiledGraph:
    """A captured graph. For each combination of shapes it is called with there is one network."""

    def __init__(self, graph: Callable[..., Any], options: Mapping[str, Any]):
        self._graph = graph
        self._options = dict(options)
        self._networks: dict[tuple[Any, ...], tuple[tuple[_State, ...], Network]] = {}
        self._making = threading.Lock()  # several threads may call it first

    def __call__(self, *arguments: Any) -> tuple[torch.Tensor, ...]:
        """Results for ``arguments``, on the CPU. RuntimeFailure where gradients are asked for, or an argument is elsewhere."""
        import torch

        tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
        if torch.is_grad_enabled() and any(a.requires_grad for a in tensors):
            raise RuntimeFailure("tilewright computes no gradients", hint="call the model inside `with torch.no_grad():`")
        if elsewhere := {str(a.device) for a in tensors if a.device.type != "cpu"}:
            raise RuntimeFailure(f"arguments on {', '.join(sorted(elsewhere))}", hint="move model and arguments to the CPU: .to('cpu')")
        network = self._network(arguments, tensors)
        arrays = {f"x{n}": array_of(a) for n, a in enumerate(tensors)}
        found = network({name: arrays[name] for name in network.input_names})
        return tuple(tensor_of(found[name], network.input_names, arrays) for name in network.output_names)

    def _network(self, arguments: Sequence[Any], tensors: Sequence[torch.Tensor]) -> Network:
        """The network for arguments like these; made again when a parameter was written to since."""
        fixed = {f"x{n}": a for n, a in enumerate(tensors) if _is_static(a)}
        # Numbers by how they are written: 1, 1.0 and True are equal, as are the zeros of both signs, and nan is not itself.
        key = tuple((tuple(a.shape), a.dtype) if hasattr(a, "shape") else (type(a), repr(a)) for a in arguments)
        with self._making:
            known = self._networks.get(key)
            if known is None or not all(s.of(a) for s, a in zip(known[0], fixed.values(), strict=True)):
                known = tuple(map(_State, fixed.values())), self._made(exported(self._graph, arguments), fixed)
                self._networks[key] = known
        return known[1]

    def _made(self, model: bytes, fixed: Mapping[str, torch.Tensor]) -> Network:
        import onnx

        used = {v.name for v in onnx.load_from_string(model).graph.input}
        return compile(model, constants={name: array_of(a).copy() for name, a in fixed.items() if name in used}, **self._options)


class _State:
    """What a tensor held when this was made. An address alone does not say: another tensor may have it later."""

    def __init__(self, tensor: torch.Tensor):
        self._tensor = weakref.ref(tensor)
        self._written = _written(tensor)

    def of(self, tensor: torch.Tensor) -> bool:
        """Whether it is of this tensor, and nothing was written to it since."""
        return self._tensor() is tensor and self._written == _written(tensor)


def _written(tensor: torch.Tensor) -> tuple[int, int]:
    """Where its elements are, and how often they were written to, as far as PyTorch counts."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """The elements of a tensor on the CPU, without a copy where they are contiguous."""
    import ml_dtypes
    import torch

    plain = tensor.detach().contiguous()
    return plain.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if plain.dtype == torch.bfloat16 else plain.numpy()


def tensor_of(array: np.ndarray, inputs: Sequence[str] = (), arrays: Mapping[str, np.ndarray] | None = None) -> torch.Tensor:
    """An array as a tensor that shares its elements, unless they are those of one of ``arrays`` named in ``inputs``: then a copy."""
    import torch

    if arrays is not None and any(np.may_share_memory(array, arrays[name]) for name in inputs):
        array = array.copy()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _is_static(tensor: torch.Tensor) -> bool:
    """Whether it is a parameter or buffer of a module: PyTorch marks those of the modules that it captures."""
    import torch

    return isinstance(tensor, torch.nn.Parameter) or getattr(tensor, "_dynamo_static_input_type", None) is not None


def _results(run: Callable[..., Any], copies: Sequence[Any]) -> int:
    """How many tensors ``run`` gives for arguments; ImportFailure if it writes into them, or gives other things."""
    import torch

    before = [a._version for a in copies if isinstance(a, torch.Tensor)]
    found = _tuple(run(*copies))
    if before != [a._version for a in copies if isinstance(a, torch.Tensor)]:
        raise ImportFailure("the module writes into its arguments", hint="use functions that return what they compute, and model.eval()")
    if strange := [type(r).__name__ for r in found if not isinstance(r, torch.Tensor)]:
        raise ImportFailure(f"the module returns {', '.join(strange)} beside tensors", hint="return tensors, alone or in a tuple")
    return len(found)


def _tuple(results: Any) -> tuple[Any, ...]:
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)
