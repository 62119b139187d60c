"""Reductions of tensor expressions: axes, and what is done along them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Expr, ExprLike, Var
from tilewright.ir.types import DType
from tilewright.util.errors import LanguageError

_ZERO = ex.Const(0, ty.index)


@dataclass(frozen=True, slots=True, repr=False)
class Axis(Var):
    """A reduction axis over ``lo <= axis < hi``; used like an index."""

    lo: Expr = _ZERO
    hi: Expr = _ZERO


@dataclass(frozen=True, slots=True)
class Reduction:
    """``op`` over all points of ``axes``, starting from ``identity``."""

    op: str
    value: Expr
    axes: tuple[Axis, ...]
    identity: Callable[[DType], int | float | bool]

    def _refuse(self, *_: object) -> NoReturn:
        raise LanguageError("arithmetic on a reduction", hint="compute the reduction as a tensor of its own, then use its elements")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = _refuse


def reduce_axis(lo: ExprLike, hi: ExprLike, name: str) -> Axis:
    """An axis to reduce over, ``lo`` included and ``hi`` excluded."""
    return Axis(name, ty.index, ex.idx(lo), ex.idx(hi))


def _lowest(t: DType) -> int | float:
    return -math.inf if t.is_float else t.range[0] / 2**t.frac if t.is_fixed else t.range[0]


def _highest(t: DType) -> int | float:
    return math.inf if t.is_float else t.range[1] / 2**t.frac if t.is_fixed else t.range[1]


def _reduction(op: str, value: ExprLike, axes: Axis | Sequence[Axis], identity: Callable[[DType], int | float | bool]) -> Reduction:
    listed = (axes,) if isinstance(axes, Axis) else tuple(axes)
    if not listed or [a for a in listed if not isinstance(a, Axis)]:
        raise LanguageError("a reduction needs axes", hint="make them with reduce_axis(lo, hi, name)")
    return Reduction(op, ex.as_expr(value), listed, identity)


def sum(value: ExprLike, axes: Axis | Sequence[Axis]) -> Reduction:
    """Sum over ``axes``."""
    return _reduction("+", value, axes, lambda t: 0)


def prod(value: ExprLike, axes: Axis | Sequence[Axis]) -> Reduction:
    """Product over ``axes``."""
    return _reduction("*", value, axes, lambda t: 1)


def min(value: ExprLike, axes: Axis | Sequence[Axis]) -> Reduction:
    """Smallest value over ``axes``."""
    return _reduction("min", value, axes, _highest)


def max(value: ExprLike, axes: Axis | Sequence[Axis]) -> Reduction:
    """Largest value over ``axes``."""
    return _reduction("max", value, axes, _lowest)


def any(value: Expr, axes: Axis | Sequence[Axis]) -> Reduction:
    """Whether a condition holds anywhere on ``axes``."""
    return _reduction("|", _boolean(value), axes, lambda t: False)


def all(value: Expr, axes: Axis | Sequence[Axis]) -> Reduction:
    """Whether a condition holds everywhere on ``axes``."""
    return _reduction("&", _boolean(value), axes, lambda t: True)


def _boolean(value: Expr) -> Expr:
    if value.dtype != ty.boolean:
        raise LanguageError(f"`{value}` has type {value.dtype}, not bool", hint="compare it: ir.expr.compare('!=', x, 0)")
    return value
