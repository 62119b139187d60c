"""Softmax and the normalisations: reductions along rows and element-wise nests around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tilewright.graph.elements import onnx_dtype
from tilewright.graph.lowering import Lowering, operator
from tilewright.graph.model import Tensor
from tilewright.graph.operators.elementwise import pointwise
from tilewright.graph.operators.reduction import extremum_position, fold_axes
from tilewright.ir import types as ty
from tilewright.ir.expr import Const, Expr, cast, compare, idx, intrinsic, logical, where
from tilewright.ir.types import DType


def flattened(i: Sequence[Expr], axes: Sequence[int]) -> tuple[Expr, ...]:
    """``i`` with the reduced ``axes`` (kept with extent 1) at 0."""
    return tuple(idx(0) if d in axes else e for d, e in enumerate(i))


def _softmax_axes(op: Lowering, x: Tensor) -> list[int]:
    """One axis since opset 13; before, all axes from ``axis`` on count as one row."""
    axis = op.axis(op.attribute("axis", -1 if op.opset >= 13 else 1), x.rank)
    return [axis] if op.opset >= 13 else list(range(axis, x.rank))


@operator("Softmax", "LogSoftmax")
def softmax(op: Lowering, x: Tensor) -> Tensor:
    return softmax_along(op, x, _softmax_axes(op, x), logarithm=op.kind == "LogSoftmax")


def softmax_along(op: Lowering, x: Tensor, axes: Sequence[int], logarithm: bool = False) -> Tensor:
    """exp(x - max) * (1 / sum), or its logarithm, over ``axes``."""
    wide = ty.f32 if x.dtype.bits < 32 else x.dtype
    peak = fold_axes(op, x, axes, lambda v: v, "max", stem="peak")
    powers = op.compute(x.shape, lambda *i: intrinsic("exp", cast(x[i], wide) - peak[flattened(i, axes)]), wide, "powers")
    total = fold_axes(op, powers, axes, lambda v: v, "+", stem="total")
    if logarithm:
        return op.compute(
            x.shape, lambda *i: cast(x[i], wide) - peak[flattened(i, axes)] - intrinsic("log", total[flattened(i, axes)]), x.dtype
        )
    share = pointwise(op, lambda v: 1 / v, total)  # one division for each row
    return op.compute(x.shape, lambda *i: powers[i] * share[flattened(i, axes)], x.dtype)


@operator("Hardmax")
def hardmax(op: Lowering, x: Tensor) -> Tensor:
    axes = _softmax_axes(op, x)
    if len(axes) > 1:
        raise op.refuse(f"rows over several axes {axes} (opset before 13) are not lowered", hint="convert the model to opset 13 or newer")
    first = extremum_position(op, x, axes[0], "max")
    return op.compute(
        x.shape,
        lambda *i: where(compare("==", cast(i[axes[0]], ty.i64), first[flattened(i, axes)]), Const(1.0, x.dtype), Const(0.0, x.dtype)),
        x.dtype,
    )


def moments(op: Lowering, x: Tensor, axes: Sequence[int], dtype: DType) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance over ``axes``, in two passes so that no precision is lost."""
    scale = 1.0 / max(math.prod(x.shape[d] for d in axes), 1)
    total = _sum(op, x, axes, dtype, lambda v, i: cast(v, dtype))
    mean = pointwise(op, lambda v: v * scale, total)
    squares = _sum(op, x, axes, dtype, lambda v, i: _square(cast(v, dtype) - mean[flattened(i, axes)]))
    return mean, pointwise(op, lambda v: v * scale, squares)


def _square(v: Expr) -> Expr:
    return v * v


def _sum(op: Lowering, x: Tensor, axes: Sequence[int], dtype: DType, f: Callable[[Expr, tuple[Expr, ...]], Expr]) -> Tensor:
    """Sum over ``axes`` (kept) of ``f(element, index)``."""
    shape = [1 if d in axes else s for d, s in enumerate(x.shape)]

    def element(*i: Expr) -> Expr:
        reduced = iter(i[x.rank :])
        at = tuple(next(reduced) if d in axes else i[d] for d in range(x.rank))
        return f(x[at], at)

    return op.reduce(shape, [x.shape[d] for d in axes], element, dtype)


@operator("LayerNormalization")
def layer_norm(op: Lowering, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
    axes = list(range(op.axis(op.attribute("axis", -1), x.rank), x.rank))
    dtype = onnx_dtype(op.attribute("stash_type", 1), "stash_type") if x.dtype != ty.f64 else ty.f64
    mean, variance = moments(op, x, axes, dtype)
    inverse = pointwise(op, lambda v: 1 / intrinsic("sqrt", v + op.attribute("epsilon", 1e-5)), variance)

    def element(*i: Expr) -> Expr:
        row = flattened(i, axes)
        value = cast((cast(x[i], dtype) - mean[row]) * inverse[row], x.dtype) * scale.at(i)
        return value if bias is None else value + bias.at(i)

    return op.compute(x.shape, element, x.dtype), mean, inverse


@operator("RMSNormalization")
def rms_norm(op: Lowering, x: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(op.axis(op.attribute("axis", -1), x.rank), x.rank))
    dtype = onnx_dtype(op.attribute("stash_type", 1), "stash_type") if x.dtype != ty.f64 else ty.f64
    count = math.prod(x.shape[d] for d in axes)
    squares = _sum(op, x, axes, dtype, lambda v, i: _square(cast(v, dtype)))
    inverse = pointwise(op, lambda v: 1 / intrinsic("sqrt", v * (1.0 / count) + op.attribute("epsilon", 1e-5)), squares)
    return op.compute(x.shape, lambda *i: cast(cast(x[i], dtype) * inverse[flattened(i, axes)], x.dtype) * scale.at(i), x.dtype)


@operator("BatchNormalization")
def batch_norm(op: Lowering, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Inference form; constant statistics become one multiply and one add per element."""
    if op.attribute("training_mode", 0) or (op.opset < 7 and not op.attribute("is_test", 0)) or any(op.outputs[1:]):
        raise op.refuse("training mode is not supported", hint="export the model for inference (training_mode=0)")
    epsilon = op.attribute("epsilon", 1e-5)
    if all(t.value is not None for t in (scale, bias, mean, variance)):
        factor, shift = folded_batch_norm(scale, bias, mean, variance, epsilon)
        a, b = op.array(factor.astype(x.dtype.to_numpy()), x.dtype), op.array(shift.astype(x.dtype.to_numpy()), x.dtype)
        return op.compute(x.shape, lambda *i: x[i] * a[i[1]] + b[i[1]], x.dtype)

    def element(*i: Expr) -> Expr:
        c = i[1] if x.rank > 1 else idx(0)
        return (x[i] - mean[c]) / intrinsic("sqrt", variance[c] + epsilon) * scale[c] + bias[c]

    return op.compute(x.shape, element, x.dtype)


def folded_batch_norm(scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Factor and shift (f64, one for each channel) that constant statistics amount to."""
    s, b, m, v = (np.asarray(t.value, np.float64) for t in (scale, bias, mean, variance))
    factor = s / np.sqrt(v + epsilon)
    return factor, b - m * factor


@operator("InstanceNormalization")
def instance_norm(op: Lowering, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    axes = list(range(2, x.rank))
    mean, variance = moments(op, x, axes, x.dtype)
    inverse = pointwise(op, lambda v: 1 / intrinsic("sqrt", v + op.attribute("epsilon", 1e-5)), variance)
    return op.compute(
        x.shape, lambda *i: (x[i] - mean[flattened(i, axes)]) * inverse[flattened(i, axes)] * scale[i[1]] + bias[i[1]], x.dtype
    )


@operator("LpNormalization")
def lp_norm(op: Lowering, x: Tensor) -> Tensor:
    axes = [op.axis(op.attribute("axis", -1), x.rank)]
    p = op.attribute("p", 2)
    total = fold_axes(op, x, axes, (lambda v: v * v) if p == 2 else (lambda v: intrinsic("abs", v)), "+")
    norm = pointwise(op, lambda v: intrinsic("sqrt", v) if p == 2 else v, total)

    def element(*i: Expr) -> Expr:
        n = norm[flattened(i, axes)]
        return where(compare("==", n, 0), Const(0.0, x.dtype), x[i] / n)

    return op.compute(x.shape, element, x.dtype)


@operator("LRN")
def local_response(op: Lowering, x: Tensor) -> Tensor:
    """x / (bias + alpha/size * sum of squares over ``size`` neighbouring channels) ** beta."""
    size = op.attribute("size")
    alpha, beta, bias = op.attribute("alpha", 1e-4), op.attribute("beta", 0.75), op.attribute("bias", 1.0)
    before, channels = (size - 1) // 2, x.shape[1]

    def padded(*i: Expr) -> Expr:
        inside = logical("and", compare(">=", i[1], before), compare("<", i[1], before + channels))
        here = x[(i[0], i[1] - before, *i[2:])]
        return where(inside, here * here, Const(0.0, x.dtype))

    squares = op.compute([x.shape[0], channels + size - 1, *x.shape[2:]], padded, x.dtype, "squares")
    total = op.reduce(x.shape, [size], lambda *i: squares[(i[0], i[1] + i[-1], *i[2:-1])], x.dtype)
    return op.compute(x.shape, lambda *i: x[i] / intrinsic("pow", total[i] * (alpha / size) + bias, beta), x.dtype)
