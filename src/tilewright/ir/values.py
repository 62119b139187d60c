"""Exact scalar arithmetic: the values the interpreter computes with, and every conversion between them.

Representation of a value by type: Python int for Int, UInt, index and (raw) fixed point; Python
bool; a NumPy scalar of the type for f16, f32, f64; for bf16 a np.float32 that holds a bf16 value.
:data:`UNDEFINED` stands for data nobody wrote: it propagates through arithmetic, and is an error
where it would decide something (an index, a branch).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from tilewright.ir import types as ty
from tilewright.ir.types import DType
from tilewright.util.errors import ExecutionError, IRTypeError

Convert = Callable[[Any], Any]


class Undefined:
    """Data that was never written. Arithmetic on it gives it back; using it for a decision raises."""

    __slots__ = ()
    __array_ufunc__ = None  # NumPy scalars leave binary operations with it to the methods below

    def _same(self, *_: object) -> Undefined:
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _same
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _same
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = __neg__ = __lt__ = __le__ = __gt__ = __ge__ = _same
    __eq__ = __ne__ = _same  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise ExecutionError("undefined data decides a branch or an index", hint="write the buffer before it is read")

    def __index__(self) -> int:
        raise ExecutionError("undefined data is a loop bound", hint="write the buffer before it is read")

    def __repr__(self) -> str:
        return "UNDEFINED"


UNDEFINED = Undefined()


def wrap(value: int, dtype: DType) -> int:
    """The low bits of ``value`` read as an integer of ``dtype`` (raw integer for fixed point)."""
    low = value & ((1 << dtype.bits) - 1)
    return low - (1 << dtype.bits) if dtype.signed and low >> (dtype.bits - 1) else low


def shifted(value: int, bits: int) -> int:
    """``value * 2**bits`` rounded towards minus infinity."""
    return value << bits if bits >= 0 else value >> -bits


def to_bf16(value: Any) -> np.float32:
    """The bf16 value nearest to a number (half to even), as np.float32."""
    single = np.float32(value)
    bits = int(single.view(np.uint32))
    if not np.isfinite(single):
        return single
    if float(single) != value:  # round to odd first, so that rounding twice equals rounding once
        if abs(float(single)) > abs(value):
            bits -= 1
        bits |= 1
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.uint32(bits).view(np.float32)


def from_int(value: int, dtype: DType) -> Any:
    """An integer as a float of ``dtype``, rounded once."""
    if value.bit_length() > 62:  # keep 62 bits and a sticky bit: enough for one correct rounding of 53
        cut = value.bit_length() - 62
        sticky = int(value & ((1 << cut) - 1) != 0)
        try:
            scaled = math.ldexp(float(_f64_odd((value >> cut) | sticky)), cut)
        except OverflowError:
            scaled = math.inf if value > 0 else -math.inf
        return _round_float(scaled, dtype) if dtype != ty.f64 else np.float64(_exact_f64(value))
    if dtype == ty.f64:
        return np.float64(value)
    return _round_float(_f64_odd(value), dtype)


def _f64_odd(value: int) -> float:
    """``value`` as f64 rounded to odd: rounding it again to at most 51 bits equals rounding once."""
    extra = value.bit_length() - 53
    if extra <= 0:
        return float(value)
    kept = value >> extra
    return float((kept | int(value & ((1 << extra) - 1) != 0)) << extra)


def _exact_f64(value: int) -> float:
    try:
        return float(value)  # Python rounds ints of any size correctly
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _round_float(value: Any, dtype: DType) -> Any:
    if dtype.kind == ty.BFLOAT:
        return to_bf16(value)
    return FLOATS[dtype.bits](value)


FLOATS: dict[int, Any] = {16: np.float16, 32: np.float32, 64: np.float64}


def _float_to_raw(value: Any, dtype: DType) -> Any:
    """A float to an integer (towards zero) or raw fixed point (towards minus infinity), wrapped."""
    number = float(value)
    if not math.isfinite(number):
        return UNDEFINED
    if dtype.is_fixed:
        return wrap(math.floor(Fraction(number) * Fraction(2) ** dtype.frac), dtype)
    return wrap(int(number), dtype)


def _fixed_to_int(raw: int, frac: int) -> int:
    return -shifted(-raw, -frac) if raw < 0 else shifted(raw, -frac)


def _fixed_to_float(raw: int, frac: int, dtype: DType) -> Any:
    """Raw fixed point to a float, rounded once."""
    if frac <= 0:
        return from_int(shifted(raw, -frac), dtype)
    if dtype == ty.f64:
        return np.float64(float(Fraction(raw, 1 << frac)))
    return _round_float(math.ldexp(_f64_odd(raw), -frac), dtype)


def literal(value: int | float | bool, dtype: DType) -> Any:
    """The value of a literal of type ``dtype``."""
    if dtype.is_float:
        return _round_float(value, dtype)
    if dtype.is_fixed:
        return wrap(math.floor(Fraction(value) * Fraction(2) ** dtype.frac), dtype)
    return bool(value) if dtype.kind == ty.BOOL else int(value)


def converter(src: DType, dst: DType) -> Convert | None:
    """The conversion from ``src`` to ``dst`` on assignment or cast; None if values stay as they are."""
    if src == dst:
        return None
    f = _conversion(src, dst)
    return lambda v: v if v is UNDEFINED else f(v)


def _conversion(src: DType, dst: DType) -> Convert:
    if dst.kind == ty.BOOL:
        return lambda v: bool(v != 0)
    if dst.is_float:
        if src.is_float:
            return lambda v: _round_float(v, dst)
        if src.is_fixed:
            return lambda v: _fixed_to_float(v, src.frac, dst)
        return lambda v: from_int(int(v), dst)
    if src.is_float:
        return lambda v: _float_to_raw(v, dst)
    if dst.is_fixed:
        return lambda v: wrap(shifted(int(v), dst.frac - src.frac), dst)
    if src.is_fixed:
        return lambda v: wrap(_fixed_to_int(v, src.frac), dst)
    return lambda v: wrap(int(v), dst)


def bitcaster(src: DType, dst: DType) -> Convert:
    """The conversion that keeps the bits."""

    def to_bits(v: Any) -> int:
        if src.kind == ty.BFLOAT:
            return int(v.view(np.uint32)) >> 16
        return int(v.view(np.dtype(f"u{src.nbytes}"))) if src.is_float else int(v) & ((1 << src.bits) - 1)

    def of_bits(bits: int) -> Any:
        if dst.kind == ty.BFLOAT:
            return np.uint32(bits << 16).view(np.float32)
        if dst.is_float:
            return np.array(bits, dtype=f"u{dst.nbytes}").view(dst.to_numpy())[()]
        return bool(bits) if dst.kind == ty.BOOL else wrap(bits, dst)

    return lambda v: v if v is UNDEFINED else of_bits(to_bits(v))


def exact(dtype: DType) -> Convert:
    """A conversion to numbers that Python compares exactly across types."""
    if dtype.is_float:
        return lambda v: v if v is UNDEFINED else float(v)
    if dtype.is_fixed:
        scale = Fraction(2) ** dtype.frac
        return lambda v: v if v is UNDEFINED else v / scale
    return lambda v: v


# --- operations that are more than one Python operator ----------------------------------------


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two values; NaN and UNDEFINED win."""
    if a is UNDEFINED or b is UNDEFINED:
        return UNDEFINED
    return a if a < b or a != a else b


def maximum(a: Any, b: Any) -> Any:
    """The larger of two values; NaN and UNDEFINED win."""
    if a is UNDEFINED or b is UNDEFINED:
        return UNDEFINED
    return a if a > b or a != a else b


def floor_divide(a: Any, b: Any) -> Any:
    """``a // b`` on integers; ExecutionError when b is 0."""
    if b is not UNDEFINED and b == 0:
        raise ExecutionError(f"division by zero: {a} // 0", hint="guard it: where(b != 0, a // b, ...)")
    return a // b


def modulo(a: Any, b: Any) -> Any:
    """``a % b`` on integers; ExecutionError when b is 0."""
    if b is not UNDEFINED and b == 0:
        raise ExecutionError(f"division by zero: {a} % 0", hint="guard it: where(b != 0, a % b, ...)")
    return a % b


def shift_left(dtype: DType) -> Callable[[Any, Any], Any]:
    """``a << n`` in ``dtype``: bits shifted out are lost."""

    def shift(a: Any, n: Any) -> Any:
        if a is UNDEFINED or n is UNDEFINED:
            return UNDEFINED
        return wrap(int(a) << min(_amount(n), dtype.bits), dtype)

    return shift


def shift_right(a: Any, n: Any) -> Any:
    """``a >> n``: arithmetic for signed values."""
    if a is UNDEFINED or n is UNDEFINED:
        return UNDEFINED
    return int(a) >> _amount(n)


def _amount(n: int) -> int:
    if n < 0:
        raise ExecutionError(f"shift by {n}", hint="shift amounts are at least 0")
    return int(n)


def fixed_operation(op: str, a: DType, b: DType) -> Callable[[Any, Any], Any]:
    """``op`` on raw fixed point (or integer) operands, giving the raw result of arithmetic_type."""
    frac = max(a.frac, b.frac)
    ua, ub = frac - a.frac, frac - b.frac
    compute: dict[str, Callable[[int, int], int]] = {
        "+": lambda x, y: shifted(x, ua) + shifted(y, ub),
        "-": lambda x, y: shifted(x, ua) - shifted(y, ub),
        "*": lambda x, y: x * y,
        "/": lambda x, y: floor_divide(shifted(x, b.frac), y),
        "min": lambda x, y: min(shifted(x, ua), shifted(y, ub)),
        "max": lambda x, y: max(shifted(x, ua), shifted(y, ub)),
    }
    f = compute[op]
    return lambda x, y: UNDEFINED if x is UNDEFINED or y is UNDEFINED else f(int(x), int(y))


_MATH: dict[str, Callable[..., Any]] = {
    **{n: getattr(np, n) for n in ("exp", "exp2", "expm1", "log", "log2", "log1p", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{n: getattr(np, n) for n in ("floor", "ceil", "trunc", "fmod", "copysign", "isnan", "isinf", "abs")},
    **{n: getattr(np, "arc" + n[1:]) for n in ("asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2")},
    "round": np.rint,
    "pow": np.power,
    "erf": lambda x: math.erf(x),
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "fma": lambda a, b, c: _fused(float(a), float(b), float(c)),
}


def _fused(a: float, b: float, c: float) -> float:
    if not all(map(math.isfinite, (a, b, c))):
        return np.float64(a) * b + c
    total = Fraction(a) * Fraction(b) + Fraction(c)
    return float(total) if total else a * b + c


def intrinsic(name: str, dtype: DType) -> Callable[..., Any]:
    """The function ``name`` on values of ``dtype``: computed in f64 (fma: exactly), rounded once."""
    if name == "abs" and not dtype.is_float:
        return lambda x: x if x is UNDEFINED else wrap(abs(int(x)), dtype)
    if name not in _MATH:
        raise IRTypeError(f"unknown function {name!r}")
    f = _MATH[name]

    def apply(*args: Any) -> Any:
        if any(a is UNDEFINED for a in args):
            return UNDEFINED
        result = f(*(np.float64(a) for a in args))
        return bool(result) if name in ("isnan", "isinf") else _round_float(result, dtype)

    return apply
