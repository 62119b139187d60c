"""Masked lanes that do not count: conditions under which an element takes part in a reduction."""

from __future__ import annotations

import math

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Binary, Cast, Compare, Const, Expr, Intrinsic, Logical, Where


def masked(value: Expr, op: str) -> tuple[Expr | None, Expr]:
    """``value`` as (condition, value where it holds); elsewhere it is the identity of ``op``.

    ``sum(where(c, x, 0))`` only adds where c holds. So does ``sum(exp(where(c, x, -inf) - m))``: exp(-inf) is zero,
    taking m for a number, and ``sum(where(c, x, 0) * y)``, taking y for a number.
    """
    guard: Expr | None = None
    neutral = value.dtype.neutral(op)
    for c in _conditions(value):
        rest = folded(assumed(value, c, False))
        if isinstance(rest, Const) and rest.value == neutral:
            guard = c if guard is None else Logical("and", guard, c)
            value = assumed(value, c, True)
    return guard, value


def constant_lanes(value: Expr) -> tuple[Expr | None, Expr, Const | None]:
    """(condition, value where it holds, constant elsewhere), or (None, value, None)."""
    for c in _conditions(value):
        rest = folded(assumed(value, c, False))
        if isinstance(rest, Const):
            return c, assumed(value, c, True), rest
    return None, value, None


def assumed(value: Expr, condition: Expr, truth: bool) -> Expr:
    """``value`` where ``condition`` is known."""

    def choose(e: Expr) -> Expr | None:
        return (e.a if truth else e.b) if isinstance(e, Where) and e.cond == condition else None

    return ex.transform(value, choose)


def folded(e: Expr) -> Expr:
    """``e`` with constants followed through what a masked lane usually meets."""
    return ex.transform(e, _fold)


def _conditions(value: Expr) -> list[Expr]:
    return list(dict.fromkeys(e.cond for e in ex.walk(value) if isinstance(e, Where) and _is_affine(e.cond)))


def _is_affine(cond: Expr) -> bool:
    """Whether it compares indices only: data-dependent conditions stay where they are."""
    match cond:
        case Logical():
            return _is_affine(cond.a) and _is_affine(cond.b)
        case Compare():
            return cond.a.dtype.kind == ty.INDEX and cond.b.dtype.kind == ty.INDEX and not ex.loads(cond)
    return False


def _fold(e: Expr) -> Expr | None:
    match e:
        case Cast(a=Const() as a):
            return ex.cast(a, e.dtype)
        case Binary(op="*") if any(isinstance(x, Const) and x.value == 0 for x in (e.a, e.b)):
            return ex.const(0, e.dtype)
        case Binary(op="+" | "-") if isinstance(e.a, Const) and e.a.value in (math.inf, -math.inf):
            return e.a if not isinstance(e.b, Const) or math.isfinite(e.b.value) else None
        case Binary(op="+") if isinstance(e.b, Const) and e.b.value in (math.inf, -math.inf):
            return e.b if not isinstance(e.a, Const) or math.isfinite(e.a.value) else None
        case Binary(op="*", a=Const(value=x), b=Const(value=y)) if e.dtype.is_float:
            return ex.const(x * y, e.dtype)
        case Binary(op="/", a=Const(value=0)) if e.dtype.is_float:
            return e.a
        case Binary(op="+" | "-", a=Const(value=0), b=Const(value=0)):
            return ex.const(0, e.dtype)
        case Binary(op="max" | "min", a=Const() as a, b=Const() as b):
            return ex.const((max if e.op == "max" else min)(a.value, b.value), e.dtype)
        case Intrinsic(name="exp" | "exp2", args=(Const(value=x),)) if x == -math.inf:
            return ex.const(0, e.dtype)
        case Intrinsic(name="abs" | "sqrt", args=(Const(value=0) as a,)):
            return a
    return None
