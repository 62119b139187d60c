"""Bounds of an integer result in one place: a ReLU means the same before a scale as after it, and hardware has it in one of them.

Functions that never fall pass bounds on: ``round(f32(max(x, 0)) * 0.5)`` is ``max(round(f32(x) * 0.5), 0)``. So all minima and maxima with
constants come together as one ``min(max(core, lo), hi)``, in the type that is then narrowed. Of floats that stay floats nothing is
changed: the sign of a zero might be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir import values
from tilewright.ir.expr import Binary, Cast, Compare, Const, Expr, Intrinsic, Where
from tilewright.ir.types import DType

#: Functions of one number that never fall.
_RISING = ("round", "floor", "ceil", "trunc")
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def clamped(e: Expr) -> Expr:
    """``e``, of an integer type, with its bounds as ``min(max(core, lo), hi)`` inside the conversions that narrow; others as they are."""
    return _read(e).expr if _is_plain(e.dtype) else e


@dataclass(frozen=True, slots=True)
class _Clamp:
    """``min(max(core, lo), hi)``, where lo <= hi; None: no such bound."""

    core: Expr
    lo: Any = None
    hi: Any = None

    @property
    def expr(self) -> Expr:
        e = self.core
        for op, bound in (("max", self.lo), ("min", self.hi)):
            e = e if bound is None else Binary(op, e, ex.const(bound, e.dtype), e.dtype)
        return e

    def limited(self, op: str, c: Any) -> _Clamp:
        """``op`` (min or max) of this and ``c``."""
        pick = min if op == "min" else max
        lo, hi = (None if x is None else pick(x, c) for x in (self.lo, self.hi))
        return _Clamp(self.core, lo, c if hi is None else hi) if op == "min" else _Clamp(self.core, c if lo is None else lo, hi)

    def mapped(self, core: Expr, rising: Callable[[Any], Any]) -> _Clamp:
        """A function that never falls of this: ``core`` is what it makes of the core."""
        return _Clamp(core, *(None if x is None else rising(x) for x in (self.lo, self.hi)))

    def within(self, dtype: DType) -> bool:
        """Whether all values are known to be numbers of ``dtype``, once they are whole."""
        low, high = dtype.range
        return self.lo is not None and self.hi is not None and low <= self.lo and self.hi <= high


def _read(e: Expr) -> _Clamp:
    match e:
        case Binary(op="min" | "max", a=x, b=Const() as c) | Binary(op="min" | "max", a=Const() as c, b=x) if x.dtype == c.dtype == e.dtype:
            return _limited(e.op, _read(x), _value(c))
        case Where(cond=Compare() as cond) if _is_plain(e.dtype):
            return _chosen(e, cond) or _Clamp(e)
        case Intrinsic(name=name, args=(x,)) if name in _RISING:
            return _read(x).mapped(Intrinsic(name, (_read(x).core,), e.dtype), values.intrinsic(name, e.dtype))
        case Binary(op="*", a=x, b=Const() as c) | Binary(op="*", a=Const() as c, b=x) if _scales(e, x, c):
            return _scaled(e.dtype, _read(x), _value(c))
        case Binary(op="/", a=x, b=Const() as c) if _scales(e, x, c) and math.frexp(_value(c))[0] == 0.5:
            return _scaled(e.dtype, _read(x), 1 / _value(c))
        case Cast(a=x) if _is_number(x.dtype) and _is_number(e.dtype):
            return _converted(_read(x), x.dtype, e.dtype)
    return _Clamp(e)


def _limited(op: str, x: _Clamp, c: Any) -> _Clamp:
    """``op`` of ``x`` and ``c``; where x is a number narrowed without loss, before it is."""
    if isinstance(x.core, Cast) and x.lo is x.hi is None:
        inner = _read(x.core.a)
        if _is_plain(x.core.dtype) and inner.within(x.core.dtype) and values.literal(c, x.core.a.dtype) == c:
            return _Clamp(Cast(inner.limited(op, c).expr, x.core.dtype))
    return x.limited(op, c)


def _chosen(e: Where, cond: Compare) -> _Clamp | None:
    """``where(x > c, f(x), c)`` and the like, f a clamp: integers, of which any two compare."""
    x, c, op = (cond.b, cond.a, _TURNED.get(cond.op)) if isinstance(cond.a, Const) else (cond.a, cond.b, cond.op)
    if not isinstance(c, Const) or op not in _TURNED or not x.dtype == c.dtype == e.dtype:
        return None
    limit, other = (e.a, e.b) if isinstance(e.a, Const) else (e.b, e.a)
    f, plain = _read(other), _read(x)
    if limit != c or f.core != plain.core or not plain.lo is plain.hi is None:
        return None
    if (f.lo is not None and f.lo > _value(c)) or (f.hi is not None and f.hi < _value(c)):
        return None  # on one side of c, where its limit is not c
    above = (op[0] == ">") == (limit is e.a)  # what is above c becomes c
    return f.limited("min" if above else "max", _value(c))


def _scales(e: Expr, x: Expr, c: Const) -> bool:
    return e.dtype.is_float and x.dtype == c.dtype == e.dtype and 0 < _value(c) < math.inf


def _scaled(dtype: DType, x: _Clamp, factor: float) -> _Clamp:
    def product(v: float) -> float:
        return float(values.literal(float(v) * factor, dtype))  # exact before it is rounded, but of f64, where it is rounded once

    return x.mapped(Binary("*", x.core, ex.const(factor, dtype), dtype), product)


def _converted(x: _Clamp, src: DType, dst: DType) -> _Clamp:
    convert = values.converter(src, dst) or (lambda v: v)
    keeps = _is_plain(src) and _is_plain(dst) and dst.range[0] <= src.range[0] and src.range[1] <= dst.range[1]
    if keeps or (dst.is_float and not src.is_float):
        return x.mapped(Cast(x.core, dst), lambda v: convert(values.literal(v, src)))
    return _Clamp(Cast(x.expr, dst))


def _value(c: Const) -> Any:
    v = values.literal(c.value, c.dtype)
    return float(v) if c.dtype.is_float else v


def _is_plain(dtype: DType) -> bool:
    return dtype.kind in (ty.INT, ty.UINT)


def _is_number(dtype: DType) -> bool:
    return dtype.is_float or _is_plain(dtype)
