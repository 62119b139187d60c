"""Accesses that surely leave their array: found before they can crash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Const, Expr, Load, Var, Where
from tilewright.ir.index_scope import IndexScope
from tilewright.ir.stmt import Block, For, If, Kernel, Stmt, Store
from tilewright.lang.block.source import BlockError
from tilewright.util.errors import Location

Ranges = Mapping[str, tuple[int | None, int | None]]


def check_inside(kernel: Kernel) -> None:
    """BlockError for an access to a (still flat) argument that is outside it in some iteration, whatever the data.

    Only what is certain is refused: accesses under conditions, or in loops whose bounds vary, are not looked at.
    """
    arguments = {b.name for b in kernel.args}
    for buffer, indices, ranges, loc, what in _accesses(kernel.body, {}):
        if buffer.name in arguments:
            _check(buffer, indices, ranges, loc, what)


def _accesses(s: Stmt, ranges: Ranges) -> Iterator[tuple[Buffer, tuple[Expr, ...], Ranges, Location | None, str]]:
    """Accesses that happen in every iteration of rectangular loops, with the bounds of those."""
    match s:
        case Block():
            for t in s.stmts:
                yield from _accesses(t, ranges)
        case For(lo=Const(value=lo), hi=Const(value=hi)) if lo < hi:
            yield from _accesses(s.body, {**ranges, s.name: (int(lo), int(hi) - 1)})
        case Store():
            yield s.buffer, s.indices, ranges, s.loc, "stores"
            for e in (*s.indices, s.value):
                for ld in _loads(e):
                    yield ld.buffer, ld.indices, ranges, s.loc, "loads"
        case If():
            for ld in _loads(s.cond):
                yield ld.buffer, ld.indices, ranges, s.loc, "loads"


def _loads(e: Expr) -> Iterator[Load]:
    """Loads that no condition guards."""
    if isinstance(e, Load):
        yield e
    for c in (e.cond,) if isinstance(e, Where) else ex.children(e):
        yield from _loads(c)


def _check(b: Buffer, indices: tuple[Expr, ...], ranges: Ranges, loc: Location | None, what: str) -> None:
    scope = IndexScope(dict(ranges))
    for i, extent in zip(indices, b.static_shape, strict=True):
        form = scope.linear(i)
        if not all(isinstance(a, Var) and a.name in ranges for a in form.terms):
            continue
        lo, hi = scope.bounds(form)
        if lo is None or hi is None or (lo >= 0 and hi < extent):
            continue
        where = f"element {lo if lo < 0 else hi} of {b.name}, which has {extent}"
        raise BlockError(f"a program {what} {where}", hint="mask what is outside: mask=offsets < n", location=loc)
