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
from dataclasses import dataclass
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
    ImportFailure when PyTorch's exporter refuses, for other results than tensors, for modules that write into their arguments or read
    the value of a tensor, and for modules in training mode.
    """
    found = _exported(module, arguments)
    if found.read:
        raise ImportFailure("the module reads the value of an argument", hint="pass a number: the model is then one for this number")
    if strange := [type(r).__name__ for r in found.results if r is not _TENSOR]:
        raise ImportFailure(f"the module returns {', '.join(strange)} beside tensors", hint="return tensors, alone or in a tuple")
    return found.model


#: In the place of a result that is a tensor.
_TENSOR = object()


@dataclass(frozen=True, slots=True)
class _Exported:
    """``model`` gives the tensors among ``results``; all else there is known. It is for these values of the arguments ``read``."""

    model: bytes
    results: tuple[Any, ...]
    read: frozenset[int]


def _exported(module: Callable[..., Any] | torch.export.ExportedProgram, arguments: Sequence[Any]) -> _Exported:
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
            with _floors():
                results = _tuple(self.run(*every))
            # Every result is a value of its own, also one that is an argument, or another result.
            return tuple(r.clone() for r in results if isinstance(r, torch.Tensor))

    file: Any = io.BytesIO()
    # Nothing counts the writes into tensors made in inference mode; copies made outside of it are ordinary ones.
    with _EXPORTER, torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what tracing fixes: shapes, which are fixed here
        copies = [a.detach().clone() if isinstance(a, torch.Tensor) else a for a in arguments]
        results, read = _observed(run, copies)
        try:
            torch.onnx.export(
                Captured(), tuple(copies[n] for n in tensors), file, dynamo=False, opset_version=OPSET,
                training=torch.onnx.TrainingMode.PRESERVE,  # programs of torch.export cannot be told
                input_names=[f"x{n}" for n in range(len(tensors))], output_names=[f"y{n}" for n in range(results.count(_TENSOR))],
            )  # fmt: skip
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError, ValueError) as error:
            raise ImportFailure(f"PyTorch's exporter cannot write this as ONNX: {str(error).strip().partition(chr(10))[0]}") from error
    return _Exported(file.getvalue(), results, read)


class CompiledGraph:
    """A captured graph. For each combination of shapes it is called with there is one network."""

    def __init__(self, graph: Callable[..., Any], options: Mapping[str, Any]):
        self._graph = graph
        self._options = dict(options)
        self._networks: dict[tuple[Any, ...], _Made] = {}
        self._read: frozenset[int] = frozenset()  # arguments whose values it reads, as far as known
        self._making = threading.Lock()  # several threads may call it first

    def __call__(self, *arguments: Any) -> tuple[Any, ...]:
        """Results for ``arguments``, on the CPU. RuntimeFailure where gradients are asked for, or an argument is elsewhere."""
        import torch

        tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
        if torch.is_grad_enabled() and any(a.requires_grad for a in tensors):
            raise RuntimeFailure("tilewright computes no gradients", hint="call the model inside `with torch.no_grad():`")
        if elsewhere := {str(a.device) for a in tensors if a.device.type != "cpu"}:
            raise RuntimeFailure(f"arguments on {', '.join(sorted(elsewhere))}", hint="move model and arguments to the CPU: .to('cpu')")
        made = self._made(arguments, tensors)
        arrays = {f"x{n}": array_of(a) for n, a in enumerate(tensors)}
        names = made.network.input_names
        found = made.network({name: arrays[name] for name in names})
        given = (tensor_of(found[name], names, arrays) for name in made.network.output_names)
        return tuple(next(given) if r is _TENSOR else r for r in made.results)

    def _made(self, arguments: Sequence[Any], tensors: Sequence[torch.Tensor]) -> _Made:
        """What is made for arguments like these; made again when a parameter was written to since."""
        fixed = {f"x{n}": a for n, a in enumerate(tensors) if _is_static(a)}
        with self._making:
            known = self._networks.get(self._key(arguments))
            if known is None or not all(s.of(a) for s, a in zip(known.states, fixed.values(), strict=True)):
                states, found = tuple(map(_State, fixed.values())), _exported(self._graph, arguments)
                self._read |= found.read
                known = _Made(states, self._compiled(found.model, fixed), found.results)
                self._networks[self._key(arguments)] = known
        return known

    def _key(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """What a network is for. Numbers are known by how they are written: 1, 1.0 and True are equal, and nan is not itself."""

        def part(n: int, a: Any) -> tuple[Any, ...]:
            if not hasattr(a, "shape"):
                return type(a), repr(a)
            return tuple(a.shape), a.dtype, _is_static(a), repr(a.tolist()) if n in self._read else ""

        return tuple(part(n, a) for n, a in enumerate(arguments))

    def _compiled(self, model: bytes, fixed: Mapping[str, torch.Tensor]) -> Network:
        import onnx

        used = {v.name for v in onnx.load_from_string(model).graph.input}
        return compile(model, constants={name: array_of(a).copy() for name, a in fixed.items() if name in used}, **self._options)


@dataclass(frozen=True, slots=True)
class _Made:
    """A network for parameters in these ``states``; it gives the tensors among ``results``."""

    states: tuple[_State, ...]
    network: Network
    results: tuple[Any, ...]


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


def _observed(run: Callable[..., Any], copies: Sequence[Any]) -> tuple[tuple[Any, ...], frozenset[int]]:
    """What ``run`` gives, with _TENSOR for tensors, and which of its arguments it reads the value of.

    ImportFailure if it writes into them, reads the value of another tensor (a trace would keep it), or gives other things than tensors,
    numbers and None.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    reading = {getattr(torch.Tensor, f) for f in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "numpy")}
    read: list[Any] = []

    class Watching(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in reading:
                read.append(args[0])
            return func(*args, **(kwargs or {}))

    before = [a._version for a in copies if isinstance(a, torch.Tensor)]
    with Watching():
        found = _tuple(run(*copies))
    if before != [a._version for a in copies if isinstance(a, torch.Tensor)]:
        raise ImportFailure("the module writes into its arguments", hint="use functions that return what they compute, and model.eval()")
    own = {id(a): n for n, a in enumerate(copies)}
    if any(id(a) not in own for a in read):
        raise ImportFailure("the module reads the value of a tensor that it computes", hint="torch.where chooses without reading")
    if strange := [type(r).__name__ for r in found if not isinstance(r, (torch.Tensor, int, float, type(None)))]:
        raise ImportFailure(f"the module returns {', '.join(strange)} beside tensors", hint="return tensors, alone or in a tuple")
    if not any(isinstance(r, torch.Tensor) for r in found):
        raise ImportFailure("the module returns no tensor", hint="there is nothing to compute")
    return tuple(_TENSOR if isinstance(r, torch.Tensor) else r for r in found), frozenset(own[id(a)] for a in read)


def _floors() -> Any:
    """Where ``//`` is a division with its rounding named: the exporter writes what ``//`` was once, a division that truncates."""
    import torch
    from torch.overrides import TorchFunctionMode

    ordered = {torch.floor_divide, torch.Tensor.floor_divide, torch.Tensor.__floordiv__}
    in_place = {torch.Tensor.floor_divide_, torch.Tensor.__ifloordiv__}

    class Floors(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in ordered and not kwargs:
                return torch.div(*args, rounding_mode="floor")
            if func in in_place and not kwargs:
                return args[0].div_(args[1], rounding_mode="floor")
            if func is torch.Tensor.__rfloordiv__:
                return torch.div(torch.as_tensor(args[1]), args[0], rounding_mode="floor")
            return func(*args, **(kwargs or {}))

    return Floors()


def _tuple(results: Any) -> tuple[Any, ...]:
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)
