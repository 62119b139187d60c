"""Limits of integers as limits of the numbers that they are made from: what follows a saturating conversion becomes part of it."""

from __future__ import annotations

from tilewright.ir import expr as ex
from tilewright.ir.expr import Binary, Cast, Const, Expr
from tilewright.ir.types import DType


def merged_limits(e: Expr) -> Expr:
    """``e`` with ``max(i8(min(max(v, -128.0), 127.0)), 0)`` as ``i8(min(max(v, 0.0), 127.0))``, and ``min`` likewise.

    Conversion of a number that the integers have keeps the order and leaves whole numbers as they are, so limits inside those
    of ``v`` mean the same before it. Numbers they do not have (limits of -1000 and 1000 before ``i8``) wrap around: those stay.
    """
    return ex.transform(e, _merged)


def _merged(e: Expr) -> Expr | None:
    match e:
        case (
            Binary(op="min" | "max", a=Cast() as limited, b=Const() as limit)
            | Binary(op="min" | "max", a=Const() as limit, b=Cast() as limited)
        ):
            pass
        case _:
            return None
    match limited.a:
        case Binary(op="min", a=Binary(op="max", a=v, b=Const() as lo), b=Const() as hi) if limited.dtype.is_int:
            new = _same(limit, v.dtype)
        case _:
            return None
    if new is None or not lo.value <= limit.value <= hi.value or not all(_held(c, limited.dtype) for c in (lo, hi)):
        return None
    lo, hi = (new, hi) if e.op == "max" else (lo, new)
    return ex.cast(ex.binary("min", ex.binary("max", v, lo), hi), limited.dtype)


def _same(limit: Const, dtype: DType) -> Const | None:
    """The whole number ``limit`` as one of ``dtype``; None where that has not just this one."""
    if dtype.is_int:
        return Const(int(limit.value), dtype)
    if not dtype.is_float or _stored(float(limit.value), dtype) != limit.value:
        return None
    return Const(float(limit.value), dtype)


def _held(c: Const, dtype: DType) -> bool:
    """Whether the integers of ``dtype`` have the number that ``c`` is where it is computed with."""
    least, most = dtype.range
    return least <= (_stored(float(c.value), c.dtype) if c.dtype.is_float else c.value) <= most


def _stored(value: float, dtype: DType) -> float:
    """``value`` as a float of ``dtype``: 2147483647.0 is 2147483648.0 in single precision."""
    stored = dtype.to_numpy()
    return float(stored.type(value)) if stored.kind == "f" else value
