"""The same operator by other libraries: PyTorch (eager), ONNX Runtime, NumPy with OpenBLAS.

Each peer gets what its users give it: torch's ``out=`` where it has one, ONNX Runtime inputs and
outputs bound once, NumPy's ``out=``. Peers that are not installed are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from benchmarks.report import installed
from benchmarks.workloads import Workload

Contender = Callable[[], object]
Result = Callable[[], np.ndarray]


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """All peers on ``threads`` threads (ONNX Runtime is told when a session is made)."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads):
        if not installed("torch"):
            yield
            return
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)


def contenders(w: Workload, arrays: Sequence[np.ndarray], threads: int) -> dict[str, tuple[Contender, Result]]:
    """By peer: the function to time, and one that computes the result as an array."""
    found: dict[str, tuple[Contender, Result]] = {}
    if installed("torch"):
        found["torch"] = _torch(w, arrays, channels_last=False)
        if w.images:
            found["torch nhwc"] = _torch(w, arrays, channels_last=True)
    if installed("onnxruntime"):
        found["onnxruntime"] = _onnxruntime(w, arrays, threads)
    if w.numpy is not None:
        found["numpy"] = _numpy(w, w.numpy, arrays)
    return found


def _torch(w: Workload, arrays: Sequence[np.ndarray], channels_last: bool) -> tuple[Contender, Result]:
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    tensors = [torch.from_numpy(a).contiguous(memory_format=layout) for a in arrays]
    out = torch.empty(w.output)
    return lambda: w.torch(torch, *tensors, out=out), lambda: w.torch(torch, *tensors, out=out).contiguous().numpy()


def _numpy(w: Workload, function: Callable[..., object], arrays: Sequence[np.ndarray]) -> tuple[Contender, Result]:
    out = np.empty(w.output, np.float32)

    def run() -> np.ndarray:
        function(np, *arrays, out=out)
        return out

    return run, run


def _onnxruntime(w: Workload, arrays: Sequence[np.ndarray], threads: int) -> tuple[Contender, Result]:
    import onnxruntime as ort
    from onnx import TensorProto, helper

    names = [f"x{n}" for n in range(len(arrays))]
    order = w.onnx.order or tuple(range(len(arrays)))
    node = helper.make_node(w.onnx.kind, [names[n] for n in order], ["y"], **w.onnx.attributes)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in zip(names, arrays, strict=True)]
    graph = helper.make_graph([node], "operator", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, w.output)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", w.onnx.opset)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, a in zip(names, arrays, strict=True):
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(a))
    result = ort.OrtValue.ortvalue_from_numpy(np.empty(w.output, np.float32))
    binding.bind_ortvalue_output("y", result)

    def run() -> None:
        session.run_with_iobinding(binding)

    def value() -> np.ndarray:
        run()
        return result.numpy()

    return run, value


def session_options(threads: int) -> object:
    """ONNX Runtime with all optimisations on ``threads`` threads that do not spin once a run has ended."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 4
    return options
