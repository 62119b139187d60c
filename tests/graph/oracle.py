"""ONNX Runtime as the oracle, and the bound on how far two correct float32 results may lie apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort
from onnx import ModelProto


def onnxruntime_outputs(model: ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name, computed on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def accumulated_bound(depths: list[int], scale: float) -> float:
    """Bound on the difference of two float32 evaluations of a chain of reductions of these ``depths``.

    A sum of n products formed in any order is within n * 2**-24 of exact relative to the sum of
    magnitudes; random signs make the typical error grow with sqrt(n). Errors of the layers add up.
    ``scale`` is the largest magnitude of the result; 8 covers cancellation inside a layer.
    """
    unit = 2.0**-24
    return 8.0 * unit * scale * sum(np.sqrt(d) for d in depths)


def reduction_depths(model: ModelProto) -> list[int]:
    """Length of every reduction in the model, from its weights (and one for each other node)."""
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    depths = []
    for n in model.graph.node:
        weight = next((shapes[i] for i in n.input[1:2] if i in shapes), ())
        match n.op_type:
            case "Conv":
                depths.append(int(np.prod(weight[1:])))
            case "Gemm" | "MatMul":
                depths.append(int(max(weight, default=64)))
            case "LayerNormalization" | "Softmax" | "LRN" | "AveragePool" | "GlobalAveragePool":
                depths.append(64)
            case _:
                depths.append(1)
    return depths
