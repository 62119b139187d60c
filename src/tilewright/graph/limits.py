"""Limits of integers as limits of the numbers that they are made from: what follows a saturating conversion becomes part of it."""

from __future__ import annotations

from tilewright.ir import expr as ex
from tilewright.ir.expr import Binary, Cast, Const, Expr


def merged_limits(e: Expr) -> Expr:
    """``e`` with ``max(i8(min(max(v, -128.0), 127.0)), 0)`` as ``i8(min(max(v, 0.0), 127.0))``, and ``min`` likewise.

    Conversion of a number keeps the order and leaves whole numbers as they are, so limits inside those of ``v`` mean the same
    before it.
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
        case Binary(op="min", a=Binary(op="max", a=v, b=Const() as lo), b=Const() as hi) if limited.dtype.is_int and v.dtype.is_float:
            new: Const = Const(float(limit.value), v.dtype)
        case Binary(op="min", a=Binary(op="max", a=v, b=Const() as lo), b=Const() as hi) if limited.dtype.is_int and v.dtype.is_int:
            new = Const(int(limit.value), v.dtype)
        case _:
            return None
    if not lo.value <= limit.value <= hi.value:
        return None
    lo, hi = (new, hi) if e.op == "max" else (lo, new)
    return ex.cast(ex.binary("min", ex.binary("max", v, lo), hi), limited.dtype)
