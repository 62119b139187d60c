"""Work done once at compile time: nodes of constants are evaluated, per-channel scaling goes into convolution weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilewright.graph.kernels import operation_kernel
from tilewright.graph.lowering import Lowering
from tilewright.graph.model import Operation, Tensor
from tilewright.graph.operators.normalisation import folded_batch_norm
from tilewright.ir.buffer import Buffer

#: Constants are folded unless the result has more elements than this and more than its operands.
_LARGEST_GROWTH = 1 << 22


def worth_folding(results: list[Tensor], inputs: list[Tensor]) -> bool:
    """Whether evaluating now is better than keeping the small operands (think of a broadcast zero)."""
    made = sum(int(np.prod(t.shape)) for t in results)
    return made <= max(_LARGEST_GROWTH, sum(int(np.prod(t.shape)) for t in inputs))


def evaluate(operation: Operation, buffers: Mapping[str, Buffer], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run an operation whose operands are all known; its outputs by buffer name (storage form)."""
    from tilewright.ir.reference import reference

    call = operation_kernel(operation, buffers)
    out = {name: np.zeros(buffers[name].static_shape, buffers[name].dtype.to_numpy()) for name in operation.outputs}
    reference(call.kernel, [arrays[n] if n in arrays else out[n] for n in call.arguments])
    return out


def channel_affine(
    kind: str, attributes: Mapping[str, Any], x: Tensor, others: list[Tensor], opset: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """(factor, shift) per channel (f64) when the node is ``x * factor[c] + shift[c]`` with known vectors, else None."""
    if any(t.value is None for t in others) or x.rank < 3:
        return None
    channels = x.shape[1]
    if kind == "BatchNormalization" and len(others) == 4 and not attributes.get("training_mode"):
        scale, bias, mean, variance = others
        return folded_batch_norm(scale, bias, mean, variance, attributes.get("epsilon", 1e-5))
    if kind in ("Mul", "Add") and len(others) == 1 and opset >= 7:
        other = others[0]
        spread = (1,) * (x.rank - other.rank) + other.shape
        if len(spread) != x.rank or spread[1] not in (1, channels) or any(s != 1 for d, s in enumerate(spread) if d != 1):
            return None
        vector = np.broadcast_to(np.asarray(other.value, np.float64).reshape(-1), (channels,))
        return (vector, np.zeros(channels)) if kind == "Mul" else (np.ones(channels), vector)
    return None


def scaled_conv(op: Lowering, weights: Tensor, bias: Tensor | None, factor: np.ndarray, shift: np.ndarray) -> tuple[Tensor, Tensor]:
    """Weights and bias of a convolution followed by ``* factor + shift``."""
    w = np.asarray(weights.value, np.float64) * factor.reshape(-1, *[1] * (weights.rank - 1))
    b = shift if bias is None else np.asarray(bias.value, np.float64) * factor + shift
    kind = weights.dtype.to_numpy()
    return op.array(w.astype(kind), weights.dtype), op.array(b.astype(kind), weights.dtype)
