"""Reductions of tensor expressions: axes, and what is done along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Expr, ExprLike, Var
from tilewright.util.errors import LanguageError

_ZERO = ex.Const(0, ty.index)


@dataclass(frozen=True, slots=True, repr=False)
class Axis(Var):
    """A reduction axis over ``lo <= axis < hi``; used like an index."""

    lo: Expr = _ZERO
    hi: Expr = _ZERO


@dataclass(frozen=True, slots=True)
class Reduction:
    """``op`` over all points of ``axes``, starting from what is neutral to it."""

    op: str
    value: Expr
    axes: tuple[Axis, ...]

    def _refuse(self, *_: object) -> NoReturn:
        raise LanguageError("arithmetic on a reduction", hint="compute the reduction as a tensor of its own, then use its elements")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = _refuse


def reduce_axis(lo: ExprLike, hi: ExprLike, name: str) -> Axis:
    """An axis to reduce over, ``lo`` included and ``hi`` excluded."""
    return Axis(name, ty.index, ex.idx(lo), ex.idx(hi))


def _reduction(op: str, value: ExprLike, axes: Axis | Sequence[Axis]) -> Reduction:
    listed = (axes,) if isinstance(axes, Axis) else tuple(axes)
    if not listed or [a for a in listed if not isinstance(a, Axis)]:
        raise LanguageError("a reduction needs axes", hint="make them with reduce_axis(lo, hi, name)")
    return Reduction(op, ex.as_expr(value), listed)


def sum(value: ExprLike, axes: Axis | Sequence[Axis]) -> Reduction:
    """Sum over ``axes``."""
    return _reduction("+", value, axes)


def prod(value: ExprLike, axes: Axis | Sequence[Axis]) -> Reduction:
    """Product over ``axes``."""
    return _reduction("*", value, axes)


def min(value: ExprLike, axes: Axis | Sequence[Axis]) -> Reduction:
    """Smallest value over ``axes``."""
    return _reduction("min", value, axes)


def max(value: ExprLike, axes: Axis | Sequence[Axis]) -> Reduction:
    """Largest value over ``axes``."""
    return _reduction("max", value, axes)


def any(value: Expr, axes: Axis | Sequence[Axis]) -> Reduction:
    """Whether a condition holds anywhere on ``axes``."""
    return _reduction("|", _boolean(value), axes)


def all(value: Expr, axes: Axis | Sequence[Axis]) -> Reduction:
    """Whether a condition holds everywhere on ``axes``."""
    return _reduction("&", _boolean(value), axes)


def _boolean(value: Expr) -> Expr:
    if value.dtype != ty.boolean:
        raise LanguageError(f"`{value}` has type {value.dtype}, not bool", hint="compare it: ir.expr.compare('!=', x, 0)")
    return value
