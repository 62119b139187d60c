"""Accesses that surely leave their buffer: found before they can crash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Const, Expr, Load, Var, unconditional
from tilewright.ir.index_scope import IndexScope
from tilewright.ir.interval import Range
from tilewright.ir.stmt import Block, For, If, Kernel, Stmt, Store
from tilewright.util.errors import ExecutionError, Location


@dataclass(frozen=True, slots=True)
class Outside:
    """An access in which index ``dim`` is ``element`` in some iteration, where ``buffer`` has no such element."""

    buffer: Buffer
    indices: tuple[Expr, ...]
    dim: int
    element: int
    stores: bool
    loc: Location | None


def surely_outside(kernel: Kernel) -> Iterator[Outside]:
    """Accesses that leave their buffer in some iteration, whatever the data and the sizes.

    Only what is certain is found: accesses under conditions, in loops whose bounds vary, or by calls are not looked at, nor
    indices that are no sums of multiples of loops.
    """
    yield from _outside(kernel.body, {})


def check_inside(kernel: Kernel) -> None:
    """ExecutionError for the first access of :func:`surely_outside`."""
    for o in surely_outside(kernel):
        at = ", ".join(str(o.element) if d == o.dim else str(i) for d, i in enumerate(o.indices))
        shape = ", ".join(map(str, o.buffer.shape))
        raise ExecutionError(
            f"{kernel.name}: {o.buffer.name}[{at}] is outside {o.buffer.name}, whose shape is [{shape}]",
            hint="check the loop bounds, or guard the access",
            location=o.loc,
        )


def _outside(s: Stmt, ranges: Mapping[str, Range]) -> Iterator[Outside]:
    """Of accesses that happen in every iteration of rectangular loops, which go over ``ranges``."""
    match s:
        case Block():
            for t in s.stmts:
                yield from _outside(t, ranges)
        case For(lo=Const(value=lo), hi=Const(value=hi)) if lo < hi:
            last = int(lo) + (int(hi) - 1 - int(lo)) // s.step * s.step
            yield from _outside(s.body, {**ranges, s.name: (int(lo), last)})
        case Store():
            scope = IndexScope(dict(ranges))
            yield from _beyond(scope, s.buffer, s.indices, s.loc, stores=True)
            for e in (*s.indices, s.value):
                yield from _read(scope, e, s.loc)
        case If():
            yield from _read(IndexScope(dict(ranges)), s.cond, s.loc)


def _read(scope: IndexScope, e: Expr, loc: Location | None) -> Iterator[Outside]:
    """Of loads that no choice guards."""
    for load in unconditional(e):
        if isinstance(load, Load):
            yield from _beyond(scope, load.buffer, load.indices, loc, stores=False)


def _beyond(scope: IndexScope, b: Buffer, indices: tuple[Expr, ...], loc: Location | None, stores: bool) -> Iterator[Outside]:
    for dim, (i, extent) in enumerate(zip(indices, b.shape, strict=True)):
        form = scope.linear(i)
        if not all(isinstance(a, Var) and a.name in scope.ranges for a in form.terms):
            continue
        lo, hi = scope.bounds(form)  # taken in some iteration: each variable has its own loop
        if lo is not None and lo < 0:
            yield Outside(b, indices, dim, lo, stores, loc)
        elif hi is not None and isinstance(extent, Const) and hi >= extent.value:
            yield Outside(b, indices, dim, hi, stores, loc)
