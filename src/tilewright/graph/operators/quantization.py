"""Quantised tensors: integers with a scale and a zero point, for a tensor, an axis or blocks of an axis."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np

from tilewright.graph.elements import ONNX_TYPES, onnx_dtype
from tilewright.graph.exact_sums import Term, integer_sum
from tilewright.graph.lowering import Lowering, broadcast, operator
from tilewright.graph.model import Tensor
from tilewright.graph.operators.contraction import matmul
from tilewright.graph.operators.convolution import convolve
from tilewright.graph.operators.elementwise import clamp
from tilewright.ir import types as ty
from tilewright.ir.expr import Expr, cast, const, idx, intrinsic
from tilewright.ir.types import DType


def parameter(op: Lowering, p: Tensor, x: Tensor, i: tuple[Expr, ...]) -> Expr:
    """Scale or zero point that belongs to element ``i`` of ``x``."""
    if p.rank == 0 or all(s == 1 for s in p.shape):
        return p[(idx(0),) * p.rank]
    axis = op.axis(op.attribute("axis", 1), x.rank)
    block = op.attribute("block_size", 0)
    if block:
        return p[tuple(e // block if d == axis else e for d, e in enumerate(i))]
    return p[i[axis]]


def saturated(value: Expr, zero: Expr | None, dtype: DType) -> Expr:
    """``value`` (a float) rounded half to even, shifted by ``zero`` and limited to ``dtype``."""
    lo, hi = dtype.range
    rounded = intrinsic("round", value)
    shifted = rounded if zero is None else rounded + cast(zero, value.dtype)
    return cast(clamp(shifted, float(lo), float(hi)), dtype)


def _wide(dtype: DType) -> DType:
    return ty.f32 if dtype.bits < 32 else dtype


@operator("QuantizeLinear")
def quantize(op: Lowering, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    declared = op.attribute("output_dtype", 0)
    dtype = zero.dtype if zero is not None else onnx_dtype(declared, "output_dtype") if declared else ty.u8
    wide = _wide(x.dtype) if x.dtype.is_float else _wide(scale.dtype)

    def element(*i: Expr) -> Expr:
        z = None if zero is None else parameter(op, zero, x, i)
        return saturated(cast(x[i], wide) / cast(parameter(op, scale, x, i), wide), z, dtype)

    return op.compute(x.shape, element, dtype)


@operator("DequantizeLinear")
def dequantize(op: Lowering, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    declared = op.attribute("output_dtype", 0)
    dtype = ONNX_TYPES.get(declared, scale.dtype)

    def element(*i: Expr) -> Expr:
        value = x[i] if zero is None else x[i] - parameter(op, zero, x, i)
        return cast(value, ty.f32) * cast(parameter(op, scale, x, i), ty.f32)

    return op.compute(x.shape, element, dtype)


@operator("MatMulInteger")
def matmul_integer(op: Lowering, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
    return matmul(op, _centred(op, a, a_zero, -2), _centred(op, b, b_zero, -1), ty.i32)


def _centred(op: Lowering, x: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    """``x - zero`` in i32; a vector of zero points runs along ``axis``."""
    if zero is None or _is_zero(zero):
        return x

    def element(*i: Expr) -> Expr:
        if zero.rank == 0 or all(s == 1 for s in zero.shape):
            return x[i] - zero[(idx(0),) * zero.rank]
        return x[i] - (zero[i[axis]] if zero.rank == 1 else zero.at(i))

    return op.compute(x.shape, element, ty.i32, "centred")


def _is_zero(zero: Tensor) -> bool:
    """Whether a zero point is known to shift nothing, so that sums of products are those of the stored numbers."""
    return zero.value is not None and not zero.value.any()


def _scale_at(s: Tensor, along: Expr) -> Expr:
    """A scale that is one number or a vector along a dimension of the result."""
    return cast(s[(idx(0),) * s.rank] if all(e == 1 for e in s.shape) else s[along], ty.f32)


def _factor(a: Tensor, of_a: Expr, b: Tensor, of_b: Expr, y: Tensor, of_y: Expr) -> Expr:
    """``a * b / y`` of the scales at these places, each step rounded to f32; one literal where all three are known numbers."""
    values = [s.value for s in (a, b, y) if s.value is not None and s.value.size == 1]
    if len(values) == 3:
        x, w, z = (np.float32(v.reshape(())) for v in values)
        return const(float(x * w / z), ty.f32)
    return _scale_at(a, of_a) * _scale_at(b, of_b) / _scale_at(y, of_y)


def _requantized(total: Expr, factor: Expr, zero: Tensor) -> Expr:
    """An integer sum scaled, rounded half to even and limited to the type of the ``zero`` point, which is one number."""
    shift = None if _is_zero(zero) else zero[(idx(0),) * zero.rank]
    return saturated(cast(total, ty.f32) * factor, shift, zero.dtype)


@operator("QLinearMatMul")
def qlinear_matmul(
    op: Lowering, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor, y_scale: Tensor, y_zero: Tensor
) -> Tensor:
    total = matmul(op, _centred(op, a, a_zero, -2), _centred(op, b, b_zero, -1), ty.i32)

    def element(*i: Expr) -> Expr:
        return _requantized(total[i], _factor(a_scale, i[-2], b_scale, i[-1], y_scale, i[-2]), y_zero)

    return op.compute(total.shape, element, y_zero.dtype)


@operator("QLinearConv")
def qlinear_conv(
    op: Lowering,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    def pixel(v: Expr) -> Expr:
        return v if _is_zero(x_zero) else v - x_zero[(idx(0),) * x_zero.rank]

    def weight(v: Expr, k: Expr) -> Expr:
        return v if _is_zero(w_zero) else v - w_zero[(idx(0),) * w_zero.rank if all(e == 1 for e in w_zero.shape) else (k,)]

    total = convolve(op, x, w, op.attribute("group", 1), ty.i32, pixel, weight)

    def element(*i: Expr) -> Expr:
        # ONNX accumulates in int32, the bias included: narrowing only says that the sum wraps as the accumulator does. Where it does
        # not overflow the numbers are those of a wider sum, and as sums that wrap may be formed in any order, an accumulator can
        # start at the bias.
        value = total[i] if bias is None else cast(total[i] + bias[i[1]], ty.i32)
        return _requantized(value, _factor(x_scale, i[1], w_scale, i[1], y_scale, i[1]), y_zero)

    return op.compute(total.shape, element, y_zero.dtype)


@operator("QGemm", domain="com.microsoft")
def qgemm(
    op: Lowering,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    bias: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero: Tensor | None = None,
) -> Tensor:
    if y_scale is None or y_zero is None:
        raise op.refuse("its result is float", "give the scale and zero point of the result")
    if op.attribute("alpha", 1.0) != 1.0:
        raise op.refuse(f"alpha is {op.attribute('alpha')}", "multiply the scale of an operand by it")
    left, right = _centred(op, a, a_zero, -2), _centred(op, b, b_zero, 0 if op.attribute("transB", 0) else -1)
    rows, depth = left.shape[::-1] if op.attribute("transA", 0) else left.shape
    columns = right.shape[0] if op.attribute("transB", 0) else right.shape[1]

    def multiplied(i: Expr, j: Expr, k: Expr) -> Expr:
        x = left[(k, i)] if op.attribute("transA", 0) else left[(i, k)]
        return x * (right[(j, k)] if op.attribute("transB", 0) else right[(k, j)])

    total = op.reduce([rows, columns], [depth], multiplied, ty.i32)

    def element(i: Expr, j: Expr) -> Expr:
        value = total[i, j] if bias is None else cast(total[i, j] + bias.at((i, j)), ty.i32)
        return _requantized(value, _factor(a_scale, i, b_scale, j, y_scale, j), y_zero)

    return op.compute(total.shape, element, y_zero.dtype)


@operator("QLinearAdd", domain="com.microsoft")
def qlinear_add(
    op: Lowering, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor, y_scale: Tensor, y_zero: Tensor
) -> Tensor:
    """``round(a * (sa / sy) + (b * (sb / sy) + shift))``, each product and sum rounded to f32 once: what ONNX Runtime does where the
    processor multiplies and adds at once. A sum of integers, scaled once, where that is the same for all of them.
    """
    of_a, of_b, of_y = (_known_number(op, s, "scale") for s in (a_scale, b_scale, y_scale))
    zeros = [_known_number(op, z, "zero point") for z in (a_zero, b_zero, y_zero)]
    left, right = of_a / of_y, of_b / of_y
    shift = zeros[2] - (left * zeros[0] + right * zeros[1])
    whole = integer_sum(left, right, a.dtype, y_zero.dtype) if a.dtype == b.dtype and not any(zeros) else None

    def term(value: Expr, t: Term) -> list[Expr]:
        return [value if t.scale == 1 else saturated(cast(value, ty.f32) * t.scale, None, a.dtype)] * t.times

    def element(*i: Expr) -> Expr:
        if whole is not None:
            total = reduce(add, [*term(a.at(i, shape), whole.left), *term(b.at(i, shape), whole.right)])
            if whole.factor == 1:
                return cast(clamp(total, *y_zero.dtype.range), y_zero.dtype)
            return saturated(cast(total, ty.f32) * whole.factor, None, y_zero.dtype)
        second = intrinsic("fma", cast(b.at(i, shape), ty.f32), float(right), const(float(shift), ty.f32))
        return saturated(intrinsic("fma", cast(a.at(i, shape), ty.f32), float(left), second), None, y_zero.dtype)

    shape = broadcast(op, a, b)
    return op.compute(shape, element, y_zero.dtype)


@operator("QLinearGlobalAveragePool", domain="com.microsoft")
def qlinear_global_average_pool(op: Lowering, x: Tensor, x_scale: Tensor, x_zero: Tensor, y_scale: Tensor, y_zero: Tensor) -> Tensor:
    """The exact sum, scaled once by ``sx / (sy * elements)``."""
    if op.attribute("channels_last", 0):
        raise op.refuse("channels_last is set", hint="transpose around it")
    zero = int(_known_number(op, x_zero, "zero point"))
    elements = np.float32(np.prod(x.shape[2:]))
    factor = _known_number(op, x_scale, "scale") / (_known_number(op, y_scale, "scale") * elements)

    def centred(*i: Expr) -> Expr:
        value = cast(x[(*i[:2], *i[x.rank :])], ty.i32)
        return value - zero if zero else value

    total = op.reduce([*x.shape[:2], *[1] * (x.rank - 2)], x.shape[2:], centred, ty.i32)
    return op.compute(total.shape, lambda *i: _requantized(total[i], const(float(factor), ty.f32), y_zero), y_zero.dtype)


def _known_number(op: Lowering, t: Tensor, what: str) -> np.float32:
    value = op.known(t, what)
    if value.size != 1:
        raise op.refuse(f"its {what} has {value.size} elements", hint="one for each tensor")
    return np.float32(value.reshape(()))
