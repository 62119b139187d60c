"""The same operator by other libraries: PyTorch (eager), ONNX Runtime, OpenVINO, NumPy with OpenBLAS.

Each peer gets what its users give it: torch's ``out=`` where it has one, ONNX Runtime and OpenVINO inputs and
outputs bound once, NumPy's ``out=``. Peers that are not installed are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from benchmarks.report import installed
from benchmarks.workloads import OnnxNode, Workload
from onnx import ModelProto

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
        found["onnxruntime"] = _onnxruntime(w, _model(w, w.onnx, arrays), arrays, threads)
        if w.older:
            found["onnxruntime nodes"] = _onnxruntime(w, _model(w, w.older, arrays), arrays, threads)
    if installed("openvino") and (runs := _openvino(w, _model(w, w.older or w.onnx, arrays), arrays, threads)) is not None:
        found["openvino"] = runs
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


def _model(w: Workload, nodes: Sequence[OnnxNode], arrays: Sequence[np.ndarray]) -> ModelProto:
    """The workload in ONNX; constants are initialisers."""
    from onnx import TensorProto, helper, numpy_helper

    names = [f"x{n}" for n in range(len(arrays))]
    made = [helper.make_node(n.kind, list(names if n.inputs is None else n.inputs), [n.output], **n.attributes) for n in nodes]
    given = [helper.make_tensor_value_info(names[n], TensorProto.FLOAT, arrays[n].shape) for n in _given(w)]
    known = [numpy_helper.from_array(arrays[n], names[n]) for n in w.constants]
    graph = helper.make_graph(made, "operator", given, [helper.make_tensor_value_info("y", TensorProto.FLOAT, w.output)], known)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", max(n.opset for n in nodes))], ir_version=10)


def _given(w: Workload) -> list[int]:
    """Positions of the inputs that come with the call."""
    return [n for n in range(len(w.inputs)) if n not in w.constants]


def _onnxruntime(w: Workload, model: ModelProto, arrays: Sequence[np.ndarray], threads: int) -> tuple[Contender, Result]:
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for n in _given(w):
        binding.bind_ortvalue_input(f"x{n}", ort.OrtValue.ortvalue_from_numpy(arrays[n]))
    result = ort.OrtValue.ortvalue_from_numpy(np.empty(w.output, np.float32))
    binding.bind_ortvalue_output("y", result)

    def run() -> None:
        session.run_with_iobinding(binding)

    def value() -> np.ndarray:
        run()
        return result.numpy()

    return run, value


def _openvino(w: Workload, model: ModelProto, arrays: Sequence[np.ndarray], threads: int) -> tuple[Contender, Result] | None:
    """None when OpenVINO does not take the operator (convolutions want weights that are known)."""
    import io

    import openvino as ov

    core = ov.Core()
    try:
        compiled = core.compile_model(core.read_model(io.BytesIO(model.SerializeToString())), "CPU", openvino_options(threads))
    except RuntimeError as error:
        print(f"{w.name}: OpenVINO refuses: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
        return None
    request = compiled.create_infer_request()
    for position, n in enumerate(_given(w)):
        request.set_input_tensor(position, ov.Tensor(arrays[n], shared_memory=True))
    out = np.empty(w.output, np.float32)
    request.set_output_tensor(0, ov.Tensor(out, shared_memory=True))

    def value() -> np.ndarray:
        request.infer()
        return out

    return request.infer, value


def openvino_options(threads: int) -> dict[str, object]:
    """One stream on ``threads`` threads, float32. Several are pinned: left free they undo where the measurement put them, and
    get in each other's way after a pause. One is not: it is the caller's, which is confined while measuring."""
    return {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": threads > 1,
    }  # fmt: skip


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
