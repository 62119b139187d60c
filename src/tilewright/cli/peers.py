"""Other runtimes, to be compared with: optional packages behind one call form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from os import fspath
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright.util.errors import RuntimeFailure

if TYPE_CHECKING:
    from os import PathLike

#: The same call on the same inputs, ready to be timed.
Call = Callable[[], object]


def settling(threads: int) -> float:
    """Seconds to wait before a sample: by then the idle threads of the contender before have stopped spinning."""
    return 0.03 if threads > 1 else 0.0


def installed(package: str) -> bool:
    """Whether an optional package can be imported."""
    return find_spec(package) is not None


class OnnxRuntime:
    """A model in ONNX Runtime on ``threads`` threads. RuntimeFailure when it is not installed or refuses the model."""

    def __init__(self, model: str | PathLike[str] | bytes, threads: int = 1):
        if not installed("onnxruntime"):
            raise RuntimeFailure("onnxruntime is not installed, there is nothing to compare with", hint="pip install onnxruntime")
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        source = model if isinstance(model, bytes) else fspath(model)
        try:
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base below Exception
            raise RuntimeFailure(f"ONNX Runtime refuses the model: {error}", hint="run without the comparison") from error
        self._names = [o.name for o in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name."""
        return dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))


def torch_call(kind: str, inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any], threads: int) -> Call | None:
    """One ONNX node of ``kind`` (MatMul, Conv) in PyTorch; None when it is not installed."""
    if not installed("torch"):
        return None
    import torch

    torch.set_num_threads(threads)
    x, w = (torch.from_numpy(a) for a in inputs.values())
    if kind == "MatMul":
        return lambda: torch.matmul(x, w)
    stride, dilation, groups = (attributes[k] for k in ("strides", "dilations", "group"))
    return lambda: torch.nn.functional.conv2d(x, w, None, tuple(stride), 0, tuple(dilation), groups)
