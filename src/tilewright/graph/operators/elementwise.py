"""Element-wise operators: one expression per element, operands broadcast."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np

from tilewright.graph.elements import ONNX_TYPES, onnx_dtype
from tilewright.graph.lowering import Lowering, broadcast, operator
from tilewright.graph.model import Tensor
from tilewright.ir import types as ty
from tilewright.ir.expr import Expr, ExprLike, Not, binary, bitcast, cast, compare, const, intrinsic, logical, where
from tilewright.ir.types import DType

# --- shared by other families -----------------------------------------------------------------


def convert(x: Expr, dtype: DType) -> Expr:
    """ONNX Cast: like ``cast``, but anything non-zero is True."""
    if dtype.kind == ty.BOOL and x.dtype.kind != ty.BOOL:
        return compare("!=", x, 0)
    return cast(x, dtype)


def pointwise(op: Lowering, f: Callable[..., ExprLike], *xs: Tensor, dtype: DType | None = None) -> Tensor:
    """``f`` of the broadcast operands at every index; the type of the first operand unless given."""
    shape = broadcast(op, *xs)
    return op.compute(shape, lambda *i: f(*(x.at(i, shape) for x in xs)), dtype or xs[0].dtype)


def clamp(x: Expr, lo: ExprLike, hi: ExprLike) -> Expr:
    """``x`` limited to [lo, hi]."""
    return binary("min", binary("max", x, lo), hi)


def quotient(a: Expr, b: Expr) -> Expr:
    """Division as ONNX defines it: exact for floats, towards zero for integers."""
    if a.dtype.is_float:
        return a / b
    floor = a // b
    if not a.dtype.signed:
        return floor
    inexact = compare("!=", a % b, 0)
    negative = compare("!=", compare("<", a, 0), compare("<", b, 0))
    return where(logical("and", inexact, negative), cast(floor + 1, a.dtype), cast(floor, a.dtype))


def power(a: Expr, b: Expr) -> Expr:
    """``a ** b``; small constant exponents become multiplications, integers go through f64."""
    exponent = getattr(b, "value", None)
    if exponent == 2:
        return a * a
    if exponent == 3:
        return a * a * a
    if a.dtype.is_float:
        if exponent == 0.5:
            return intrinsic("sqrt", a)
        return intrinsic("pow", a, cast(b, a.dtype))
    return intrinsic("pow", cast(a, ty.f64), cast(b, ty.f64))


# --- one operand ------------------------------------------------------------------------------


def _float(name: str) -> Callable[[Expr], Expr]:
    return lambda x: intrinsic(name, x)


def _sign(x: Expr) -> Expr:
    one = const(1, x.dtype)
    positive = where(compare(">", x, 0), one, const(0, x.dtype))
    return where(compare("<", x, 0), const(-1, x.dtype), positive) if x.dtype.signed else positive


def _softplus(x: Expr) -> Expr:
    return intrinsic("log1p", intrinsic("exp", -intrinsic("abs", x))) + binary("max", x, 0)


_UNARY: dict[str, Callable[[Expr], Expr]] = {
    **{
        n.capitalize(): _float(n)
        for n in (
            "exp",
            "log",
            "sqrt",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "sinh",
            "cosh",
            "tanh",
            "asinh",
            "acosh",
            "atanh",
            "erf",
            "sigmoid",
        )
    },
    "Abs": lambda x: intrinsic("abs", x) if x.dtype.signed else x,
    "Neg": lambda x: x * -1 if x.dtype.is_float else -x,  # 0 - x would lose the sign of zero
    "Floor": lambda x: intrinsic("floor", x),
    "Ceil": lambda x: intrinsic("ceil", x),
    "Round": lambda x: intrinsic("round", x),
    "Reciprocal": lambda x: 1 / x,
    "Relu": lambda x: binary("max", x, 0),
    "Sign": _sign,
    "Softplus": _softplus,
    "Softsign": lambda x: x / (intrinsic("abs", x) + 1),
    "HardSwish": lambda x: x * clamp(x * (1 / 6) + 0.5, 0, 1),
    "Mish": lambda x: x * intrinsic("tanh", _softplus(x)),
    "BitwiseNot": lambda x: x ^ -1 if x.dtype.signed else x ^ x.dtype.range[1],
}


@operator(*_UNARY)
def unary(op: Lowering, x: Tensor) -> Tensor:
    return pointwise(op, _UNARY[op.kind], x)


@operator("Not")
def negate(op: Lowering, x: Tensor) -> Tensor:
    return pointwise(op, Not, x)


@operator("IsNaN")
def is_nan(op: Lowering, x: Tensor) -> Tensor:
    return pointwise(op, lambda v: intrinsic("isnan", v), x, dtype=ty.boolean)


@operator("IsInf")
def is_inf(op: Lowering, x: Tensor) -> Tensor:
    largest = float(np.finfo(x.dtype.to_numpy()).max) if x.dtype != ty.bf16 else 3.3895313892515355e38
    positive, negative = op.attribute("detect_positive", 1), op.attribute("detect_negative", 1)

    def infinite(v: Expr) -> Expr:
        above = compare(">", v, largest) if positive else const(False)
        return logical("or", above, compare("<", v, -largest) if negative else const(False))

    return pointwise(op, infinite, x, dtype=ty.boolean)


# --- activations with parameters ---------------------------------------------------------------


def _elu(op: Lowering, x: Expr) -> Expr:
    return where(compare("<", x, 0), intrinsic("expm1", x) * op.attribute("alpha", 1.0), x)


def _selu(op: Lowering, x: Expr) -> Expr:
    alpha, gamma = op.attribute("alpha", 1.67326319217681884765625), op.attribute("gamma", 1.05070102214813232421875)
    return where(compare("<=", x, 0), intrinsic("expm1", x) * alpha, x) * gamma


def _celu(op: Lowering, x: Expr) -> Expr:
    alpha = op.attribute("alpha", 1.0)
    return binary("max", x, 0) + binary("min", intrinsic("expm1", x / alpha) * alpha, 0)


def _gelu(op: Lowering, x: Expr) -> Expr:
    if op.attribute("approximate", "none") == "tanh":
        return x * 0.5 * (intrinsic("tanh", (x + x * x * x * 0.044715) * 0.7978845608028654) + 1)
    return x * 0.5 * (intrinsic("erf", x * 0.7071067811865476) + 1)


def _shrink(op: Lowering, x: Expr) -> Expr:
    lambd, bias = op.attribute("lambd", 0.5), op.attribute("bias", 0.0)
    below, above = cast(x + bias, x.dtype), cast(x - bias, x.dtype)
    return where(compare("<", x, -lambd), below, where(compare(">", x, lambd), above, const(0, x.dtype)))


_ACTIVATIONS: dict[str, Callable[[Lowering, Expr], Expr]] = {
    "LeakyRelu": lambda op, x: where(compare("<", x, 0), x * op.attribute("alpha", 0.01), x),
    "ThresholdedRelu": lambda op, x: where(compare(">", x, op.attribute("alpha", 1.0)), x, 0),
    "HardSigmoid": lambda op, x: clamp(x * op.attribute("alpha", 0.2) + op.attribute("beta", 0.5), 0, 1),
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "Gelu": _gelu,
    "Shrink": _shrink,
    "Swish": lambda op, x: x * intrinsic("sigmoid", x * op.attribute("alpha", 1.0)),
}


@operator(*_ACTIVATIONS)
def activation(op: Lowering, x: Tensor) -> Tensor:
    return pointwise(op, lambda v: _ACTIVATIONS[op.kind](op, v), x)


@operator("PRelu")
def prelu(op: Lowering, x: Tensor, slope: Tensor) -> Tensor:
    return pointwise(op, lambda v, s: where(compare("<", v, 0), cast(v * s, v.dtype), v), x, slope)


@operator("Clip")
def clip(op: Lowering, x: Tensor, lo: Tensor | None = None, hi: Tensor | None = None) -> Tensor:
    def limited(v: Expr) -> Expr:
        low = lo[()] if lo is not None else op.attribute("min")
        high = hi[()] if hi is not None else op.attribute("max")
        v = v if low is None else binary("max", v, low)
        return v if high is None else binary("min", v, high)

    return pointwise(op, limited, x)


# --- two and more operands ---------------------------------------------------------------------


def _mod(op: Lowering, a: Expr, b: Expr) -> Expr:
    if a.dtype.is_float:
        remainder = intrinsic("fmod", a, b)
        if op.attribute("fmod", 0):
            return remainder
        crosses = logical("and", compare("!=", remainder, 0), compare("!=", compare("<", remainder, 0), compare("<", b, 0)))
        return where(crosses, remainder + b, remainder)
    if not op.attribute("fmod", 0) or not a.dtype.signed:
        return a % b
    floored = cast(a % b, a.dtype)  # has the sign of b; fmod has the sign of a
    differs = logical("and", compare("!=", floored, 0), compare("!=", compare("<", a, 0), compare("<", b, 0)))
    return where(differs, cast(floored - b, a.dtype), floored)


def _shift(op: Lowering, a: Expr, b: Expr) -> Expr:
    """A shift by an amount outside [0, bits) moves every bit out: zero, or copies of the sign."""
    inside = compare("<", b, a.dtype.bits)
    if b.dtype.signed:
        inside = logical("and", inside, compare(">=", b, 0))
    if op.attribute("direction") == "LEFT":
        return where(inside, binary("<<", a, b), const(0, a.dtype))
    emptied = where(compare("<", a, 0), const(-1, a.dtype), const(0, a.dtype)) if a.dtype.signed else const(0, a.dtype)
    return where(inside, binary(">>", a, b), emptied)


_BINARY: dict[str, Callable[[Lowering, Expr, Expr], Expr]] = {
    "Add": lambda op, a, b: a + b,
    "Sub": lambda op, a, b: a - b,
    "Mul": lambda op, a, b: a * b,
    "Div": lambda op, a, b: quotient(a, b),
    "Pow": lambda op, a, b: power(a, b),
    "Mod": _mod,
    "BitShift": _shift,
    "BitwiseAnd": lambda op, a, b: a & b,
    "BitwiseOr": lambda op, a, b: a | b,
    "BitwiseXor": lambda op, a, b: a ^ b,
}
_COMPARISONS = {"Less": "<", "LessOrEqual": "<=", "Greater": ">", "GreaterOrEqual": ">=", "Equal": "=="}


def aligned(op: Lowering, a: Tensor, b: Tensor) -> Tensor:
    """``b`` with trailing 1-extents, as the ``axis`` attribute of opsets before 7 aligned operands."""
    if op.opset >= 7 or not op.attribute("broadcast", 0) or b.rank == 0:
        return b
    axis = op.axis(op.attribute("axis", a.rank - b.rank), a.rank)
    return op.view(b, [*b.shape, *[1] * (a.rank - axis - b.rank)])


@operator(*_BINARY)
def arithmetic(op: Lowering, a: Tensor, b: Tensor) -> Tensor:
    return pointwise(op, lambda x, y: _BINARY[op.kind](op, x, y), a, aligned(op, a, b))


@operator(*_COMPARISONS)
def comparison(op: Lowering, a: Tensor, b: Tensor) -> Tensor:
    return pointwise(op, lambda x, y: compare(_COMPARISONS[op.kind], x, y), a, aligned(op, a, b), dtype=ty.boolean)


@operator("And", "Or")
def conjunction(op: Lowering, a: Tensor, b: Tensor) -> Tensor:
    return pointwise(op, lambda x, y: logical(op.kind.lower(), x, y), a, aligned(op, a, b))


@operator("Xor")
def exclusive_or(op: Lowering, a: Tensor, b: Tensor) -> Tensor:
    return pointwise(op, lambda x, y: x ^ y, a, aligned(op, a, b))


_VARIADIC = {"Sum": "+", "Mean": "+", "Min": "min", "Max": "max"}


@operator(*_VARIADIC)
def variadic(op: Lowering, *xs: Tensor) -> Tensor:
    def combined(*values: Expr) -> Expr:
        total = reduce(lambda a, b: binary(_VARIADIC[op.kind], a, b), values)
        return total / len(xs) if op.kind == "Mean" else total

    return pointwise(op, combined, *xs)


@operator("Where")
def select(op: Lowering, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return pointwise(op, where, condition, a, b, dtype=a.dtype)


# --- types -------------------------------------------------------------------------------------


def _cast_to(op: Lowering, x: Tensor, dtype: DType) -> Tensor:
    if x.dtype == dtype:
        return op.view(x, x.shape)
    return pointwise(op, lambda v: convert(v, dtype), x, dtype=dtype)


@operator("Cast")
def cast_node(op: Lowering, x: Tensor) -> Tensor:
    return _cast_to(op, x, onnx_dtype(op.attribute("to"), f"the result of Cast node {op.name!r}"))


@operator("CastLike")
def cast_like(op: Lowering, x: Tensor, like: Tensor) -> Tensor:
    return _cast_to(op, x, like.dtype)


@operator("BitCast")
def bit_cast(op: Lowering, x: Tensor) -> Tensor:
    dtype = ONNX_TYPES.get(op.attribute("to"))
    if dtype is not None and {dtype.kind, x.dtype.kind} == {ty.BOOL, ty.UINT} and dtype.nbytes == x.dtype.nbytes:
        return pointwise(op, lambda v: convert(v, dtype), x, dtype=dtype)  # a bool is stored as a byte of 0 or 1
    if dtype is None or dtype.bits != x.dtype.bits:
        raise op.refuse(f"the bits of {x.dtype} cannot be read as {dtype or 'an unsupported type'}")
    return pointwise(op, lambda v: bitcast(v, dtype), x, dtype=dtype)
