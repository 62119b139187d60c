"""The light models of the onnx wheel, with random weights so that their outputs say something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = ("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19", "zfnet512")


def light_model(name: str, seed: int = 0, *, final_softmax: bool = False) -> ModelProto:
    """Model ``name`` with the constant fill of its weights replaced by scaled random numbers.

    The wheel's files fill every weight with one number: every class comes out equal. The final
    softmax is dropped by default, since it would hide differences of the logits.
    """
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    roles = _roles(model)
    rng = np.random.default_rng(seed)
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(int(s) for s in shapes[node.input[0]])
        model.graph.initializer.append(numpy_helper.from_array(_fill(rng, roles.get(node.output[0], ""), shape), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    if not final_softmax and kept[-1].op_type == "Softmax":
        last = model.graph.node.pop()
        shape = [1, 1000] if model.graph.node[-1].op_type == "Gemm" else [1, 1000, 1, 1]
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info(last.input[0], onnx.TensorProto.FLOAT, shape))
    return model


def _roles(model: ModelProto) -> dict[str, str]:
    """What each value is used as: "Conv.1" is the second operand of a convolution."""
    return {name: f"{n.op_type}.{k}" for n in model.graph.node for k, name in enumerate(n.input)}


def _fill(rng: np.random.Generator, role: str, shape: tuple[int, ...]) -> np.ndarray:
    if role in ("BatchNormalization.1", "BatchNormalization.4"):  # scale, variance: positive
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    fan_in = np.prod(shape[1:]) if len(shape) > 1 else 100.0
    return (rng.standard_normal(shape) * np.sqrt(2.0 / max(fan_in, 1.0))).astype(np.float32)
