"""Expressions over whole iteration grids: loop variables are arrays, one axis for each loop.

Integers are int64, floats arrays of their type (bf16: float32 arrays holding bf16 values). What
this cannot do exactly (wider integers, fixed point, an error the program makes) raises
:class:`NotVectorizable`, and the caller turns to the interpreter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tilewright.ir import types as ty
from tilewright.ir.expr import Binary, Bitcast, Cast, Compare, Const, Expr, Intrinsic, Load, Logical, Not, Var, Where
from tilewright.ir.types import DType

Array = Any
_FLOAT = {16: np.float16, 32: np.float32, 64: np.float64}
_UFUNC = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
    "//": np.floor_divide,
    "%": np.remainder,
    "min": np.minimum,
    "max": np.maximum,
    "&": np.bitwise_and,
    "|": np.bitwise_or,
    "^": np.bitwise_xor,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
}
_MATH: dict[str, Any] = {
    **{n: getattr(np, n) for n in ("exp", "exp2", "expm1", "log", "log2", "log1p", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{n: getattr(np, n) for n in ("floor", "ceil", "trunc", "fmod", "copysign", "isnan", "isinf", "abs")},
    **{n: getattr(np, "arc" + n[1:]) for n in ("asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2")},
    "round": np.rint,
    "pow": np.power,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
}


class NotVectorizable(Exception):
    """Internal signal: whole-array evaluation would not be exact here."""


def supported(t: DType) -> bool:
    """Do int64 or NumPy floats hold every value of the type?"""
    return t.is_float or t.kind == ty.BOOL or (t.is_int and t.bits <= (64 if t.signed else 63))


def storage(t: DType) -> np.dtype:
    """The dtype of working arrays of an element type."""
    if t.kind == ty.BOOL:
        return np.dtype(np.bool_)
    return np.dtype(_FLOAT[32 if t.kind == ty.BFLOAT else t.bits]) if t.is_float else np.dtype(np.int64)


def round_bf16(v: Array) -> Array:
    """bf16 values nearest to an array of floats (half to even), as float32."""
    wide = np.asarray(v)
    single = wide.astype(np.float32)
    bits = single.view(np.uint32).astype(np.uint64)
    if wide.dtype == np.float64:  # round to odd first, so that rounding twice equals rounding once
        inexact = (single != wide) & np.isfinite(single)
        bits = np.where(inexact, (bits - (np.abs(single) > np.abs(wide))) | 1, bits)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(single), rounded, single)


def convert(v: Array, src: DType, dst: DType) -> Array:
    """Conversion on assignment or cast, as :func:`tilewright.ir.values.converter` defines it."""
    if src == dst:
        return v
    if dst.kind == ty.BOOL:
        return np.asarray(v) != 0
    if dst.kind == ty.BFLOAT:
        return round_bf16(np.asarray(v, dtype=np.float64) if src.is_int else v)
    if dst.is_float:
        return np.asarray(v).astype(_FLOAT[dst.bits])
    return wrap(np.trunc(np.asarray(v, dtype=np.float64)) if src.is_float else np.asarray(v).astype(np.int64), dst)


def wrap(v: Array, t: DType) -> Array:
    """Low bits of whole numbers (int64 or float64) as values of an integer type."""
    if t.bits < 64:
        lo, _ = t.range
        span = 1 << t.bits
        v = (v - lo) % span + lo
    return np.asarray(v).astype(np.int64)


class Grid:
    """Evaluates expressions with ``env`` (loop variables: ints or broadcastable arrays) over ``arrays``."""

    def __init__(self, arrays: Mapping[str, np.ndarray], env: Mapping[str, Array]) -> None:
        self.arrays = arrays
        self.env = env

    def value(self, e: Expr, mask: Array | None = None) -> Array:
        """The value of ``e`` at every point; where ``mask`` is False it may be anything."""
        if not supported(e.dtype):
            raise NotVectorizable
        match e:
            case Const():
                return storage(e.dtype).type(round_bf16(e.value) if e.dtype.kind == ty.BFLOAT else e.value)
            case Var():
                return self.env[e.name]
            case Load():
                return self.arrays[e.buffer.name][self.indices(e.buffer.name, e.indices, mask)]
            case Binary():
                return self.binary(e, mask)
            case Compare():
                return self.compare(e, mask)
            case Logical():
                return _UFUNC[e.op](self.value(e.a, mask), self.value(e.b, mask))
            case Not():
                return np.logical_not(self.value(e.a, mask))
            case Where():
                c = self.value(e.cond, mask)
                outside = np.logical_not(c)
                a = self.value(e.a, c if mask is None else mask & c)
                return np.where(c, a, self.value(e.b, outside if mask is None else mask & outside))
            case Cast():
                return convert(self.value(e.a, mask), e.a.dtype, e.dtype)
            case Bitcast():
                return self.bitcast(e, mask)
            case Intrinsic():
                return self.intrinsic(e, mask)
        raise NotVectorizable

    def indices(self, name: str, indices: tuple[Expr, ...], mask: Array | None = None) -> tuple[Array, ...]:
        """Index arrays, checked where ``mask`` holds and clipped elsewhere."""
        out = []
        for e, n in zip(indices, self.arrays[name].shape, strict=True):
            i = self.value(e, mask)
            bad = (i < 0) | (i >= n)
            if np.any(bad if mask is None else bad & mask):
                raise NotVectorizable  # out of bounds: the interpreter will say where
            if mask is not None:
                if n == 0:
                    raise NotVectorizable
                i = np.clip(i, 0, n - 1)
            out.append(i)
        return tuple(out)

    def binary(self, e: Binary, mask: Array | None) -> Array:
        a, b = self.value(e.a, mask), self.value(e.b, mask)
        if e.dtype.is_float:
            result = _UFUNC[e.op](convert(a, e.a.dtype, e.dtype), convert(b, e.b.dtype, e.dtype))
            return round_bf16(result) if e.dtype.kind == ty.BFLOAT else result
        if e.dtype.kind != ty.BOOL:
            a, b = (np.asarray(x).astype(np.int64) if x_t.kind == ty.BOOL else x for x, x_t in ((a, e.a.dtype), (b, e.b.dtype)))
        if e.op in ("//", "%"):
            zero = np.asarray(b) == 0
            if np.any(zero if mask is None else zero & mask):
                raise NotVectorizable
            b = np.where(zero, 1, b)
        if e.op in ("<<", ">>"):
            return self.shift(e, a, b)
        return _UFUNC[e.op](a, b)

    def shift(self, e: Binary, a: Array, n: Array) -> Array:
        if np.any(np.asarray(n) < 0):
            raise NotVectorizable
        if e.op == ">>":
            return np.right_shift(a, np.minimum(n, 63))
        return wrap(np.where(np.asarray(n) > 63, 0, np.left_shift(a, np.minimum(n, 63))), e.dtype)

    def compare(self, e: Compare, mask: Array | None) -> Array:
        a, b = self.value(e.a, mask), self.value(e.b, mask)
        if e.a.dtype.is_float != e.b.dtype.is_float:
            integer = e.b.dtype if e.a.dtype.is_float else e.a.dtype
            if integer.bits > 53 and integer.kind != ty.INDEX:
                raise NotVectorizable
            a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        return _UFUNC[e.op](a, b)

    def bitcast(self, e: Bitcast, mask: Array | None) -> Array:
        src, dst = e.a.dtype, e.dtype
        if src.bits not in (16, 32, 64) or ty.BFLOAT in (src.kind, dst.kind):
            raise NotVectorizable
        return np.array(self.value(e.a, mask), dtype=src.to_numpy(), order="C").view(dst.to_numpy()).astype(storage(dst))

    def intrinsic(self, e: Intrinsic, mask: Array | None) -> Array:
        args = [self.value(a, mask) for a in e.args]
        if e.name == "abs" and not e.dtype.is_float:
            return wrap(np.abs(np.asarray(args[0]).astype(np.int64)), e.dtype)
        if e.name == "fma":
            if e.dtype == ty.f64:
                raise NotVectorizable
            return convert(np.asarray(args[0], np.float64) * np.asarray(args[1], np.float64) + args[2], ty.f64, e.dtype)
        result = _MATH[e.name](*(np.asarray(a, dtype=np.float64) for a in args))
        return result if e.dtype.kind == ty.BOOL else convert(result, ty.f64, e.dtype)
