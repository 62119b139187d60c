"""Zero points of activations as part of the bias: sums of products of the integers as they are.

``sum((x - z) * w)`` is ``sum(x * w) - z * sum(w)``, exactly, as sums of integers wrap alike. Where the weights are constants the
second part is a number for each output channel. Not with padding: what lies around an image is ``z``, which adds nothing, and
would have to be loaded as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tilewright.graph.elements import tensor_array

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

#: Places of the zero points of both factors, the weights and the bias among the inputs.
_PLACES = {"QLinearConv": (2, 5, 3, 8), "QGemm": (2, 5, 3, 6)}


def fold_zero_points(model: ModelProto, folder: str) -> None:
    """Moves the zero points of the inputs of QLinearConv and QGemm into their biases where that is exact, in place."""
    from onnx import numpy_helper

    constants = {t.name: t for t in model.graph.initializer}

    def known(name: str) -> NDArray[np.generic] | None:
        return tensor_array(constants[name], folder) if name in constants else None

    def constant(name: str, value: NDArray[np.generic]) -> str:
        while name in constants:
            name += "_"
        constants[name] = numpy_helper.from_array(value, name)
        model.graph.initializer.append(constants[name])
        return name

    for number, node in enumerate(model.graph.node):
        if node.op_type not in _PLACES or len(node.input) <= max(_PLACES[node.op_type][:3]) or _padded(node):
            continue
        zero_at, weight_zero_at, weights_at, bias_at = _PLACES[node.op_type]
        zero, weight_zero, weights = (known(node.input[n]) for n in (zero_at, weight_zero_at, weights_at))
        named = node.input[bias_at] if len(node.input) > bias_at else ""
        bias = known(named) if named else np.zeros(1, np.int32)
        if zero is None or zero.size != 1 or not zero.any() or weight_zero is None or weight_zero.any() or weights is None or bias is None:
            continue
        rows = node.op_type == "QLinearConv" or _attribute(node, "transB")
        sums = weights.astype(np.int64).sum(axis=tuple(range(1, weights.ndim)) if rows else 0)
        folded = (bias.astype(np.int64) - int(zero.reshape(())) * sums).astype(np.int32)
        inputs = [*node.input, *[""] * (bias_at + 1 - len(node.input))]
        inputs[bias_at] = constant(f"{node.output[0]}_bias_{number}", folded)
        inputs[zero_at] = constant(f"{node.output[0]}_zero_{number}", np.zeros_like(zero))
        del node.input[:]
        node.input.extend(inputs)


def _padded(node: NodeProto) -> bool:
    automatic = next((a.s for a in node.attribute if a.name == "auto_pad"), b"NOTSET")
    return automatic not in (b"NOTSET", b"VALID") or any(p for a in node.attribute if a.name == "pads" for p in a.ints)


def _attribute(node: NodeProto, name: str) -> int:
    return next((a.i for a in node.attribute if a.name == name), 0)
