"""The same network by other runtimes: ONNX Runtime, OpenVINO, PyTorch (eager and compiled). All in float32."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from benchmarks.peers import openvino_options, session_options
from benchmarks.report import installed
from onnx import ModelProto

Inputs = dict[str, np.ndarray]
Run = Callable[[], list[np.ndarray]]


def network_peers(proto: ModelProto, inputs: Inputs, threads: int) -> dict[str, Run]:
    """Every peer that is installed, by name; those of PyTorch have to run inside :func:`benchmarks.peers.limited_threads`."""
    found: dict[str, Run] = {}
    if installed("onnxruntime"):
        found["onnxruntime"] = onnxruntime_run(proto, inputs, threads)
    if installed("openvino"):
        found["openvino"] = openvino_run(proto, inputs, threads)
    if installed("torch"):
        found |= torch_runs(proto, inputs, threads)
    return found


def onnxruntime_run(proto: ModelProto, inputs: Inputs, threads: int) -> Run:
    """The network in ONNX Runtime."""
    import onnxruntime as ort

    session = ort.InferenceSession(proto.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def openvino_run(proto: ModelProto, inputs: Inputs, threads: int) -> Run:
    """The network in OpenVINO, kept in float32 (it would use bfloat16 where the processor has it)."""
    import io

    import openvino as ov

    core = ov.Core()
    found = core.read_model(io.BytesIO(proto.SerializeToString()))
    found.reshape({i: inputs[i.get_any_name()].shape for i in found.inputs})
    request = core.compile_model(found, "CPU", openvino_options(threads)).create_infer_request()

    def run() -> list[np.ndarray]:
        return list(request.infer(inputs).values())

    return run


def torch_runs(proto: ModelProto, inputs: Inputs, threads: int) -> dict[str, Run]:
    """Eager PyTorch (for images also channels-last) and torch.compile with its weights frozen.

    Compilation happens at the first call. Without a C++ compiler torch.compile is left out, which is said on stderr.
    """
    import torch
    from benchmarks.torch_networks import Unsupported, torch_module

    values = [torch.from_numpy(a) for a in inputs.values()]
    plain = torch.contiguous_format
    inside = torch.channels_last if any(v.dim() == 4 for v in values) else plain

    def run_of(layout: torch.memory_format, finish: Callable[[Any], Any] = lambda module: module) -> Run:
        module = torch_module(proto, {n: a.shape for n, a in inputs.items()})
        function = finish(module if layout == plain else module.to(memory_format=layout))

        def run() -> list[np.ndarray]:
            return [y.numpy() for y in function(*(v.contiguous(memory_format=layout) if v.dim() == 4 else v for v in values))]

        return run

    def compiled(module: Any) -> Any:
        torch._dynamo.reset()
        return torch.compile(module, options={"freezing": True, "cpp.threads": threads})

    try:
        found = {"torch": run_of(plain)}
    except Unsupported as error:
        print(f"no PyTorch module of {proto.graph.name}: {error}", file=sys.stderr)
        return {}
    if inside != plain:
        found["torch nhwc"] = run_of(inside)
    if not (shutil.which("g++") or shutil.which("clang++")):
        print("torch.compile is left out: it needs a C++ compiler", file=sys.stderr)
        return found
    return found | {"torch.compile": run_of(inside, compiled)}
