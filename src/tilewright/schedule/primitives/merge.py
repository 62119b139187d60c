"""merge: two adjacent loops over the same range become one."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir.affine import Statement, Time, region
from tilewright.ir.expr import Expr
from tilewright.ir.simplify import bounds
from tilewright.ir.stmt import Alloc, Block, For, Kernel
from tilewright.schedule.legality import check_concurrency, check_order
from tilewright.schedule.nest import loop_place, reads_in, replace_stmt, substituted, trip_count
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError


@primitive
def merge(kernel: Kernel, first: str, second: str) -> tuple[Kernel, tuple[str, ...]]:
    """Run the body of ``second`` right after the body of ``first``, iteration by iteration.

    The loops must stand next to each other in one block (allocations may stand between them) and
    have the same number of iterations, kind and step. Returns (first,). ScheduleError: loops that are not
    adjacent or differ in shape, or an iteration of ``second`` that needs a later one of ``first``.
    """
    a, b = loop_place(kernel, first, "merge"), loop_place(kernel, second, "merge")
    f, g = a.node, b.node
    if not isinstance(f, For) or not isinstance(g, For):
        raise ScheduleError(f"merge {first}, {second}: not loops")
    between = _between(f, g, a.block if a.block is b.block else Block(()))
    subject = f"merge {first}, {second}"
    if between is None:
        raise ScheduleError(f"{subject}: {second} does not come right after {first} in the same block", location=g.loc)
    offset = _offset(f, g, subject)
    part = region(Block((f, g)), a.ancestors)
    shifted: Expr = g.var - offset

    def new_time(s: Statement) -> Time:
        head, position, it, *rest = s.time
        return (head, it, 0, *rest) if position == 1 else (head, shifted, 1, *rest)

    check_order(part, new_time, subject)
    merged = replace(f, body=Block((*f.body.stmts, *substituted(g.body, {second: f.var + offset}).stmts)))
    for s in (*between, g):
        kernel = replace_stmt(kernel, s)
    kernel = replace_stmt(kernel, f, *between, merged)
    check_concurrency(kernel, merged, subject)
    return kernel, (first,)


def _between(f: For, g: For, block: Block) -> list[Alloc] | None:
    """The allocations between two loops of a block; None when anything else is, or ``g`` does not follow."""
    out: list[Alloc] = []
    seen = False
    for s in block.stmts:
        if s is f:
            seen = True
        elif s is g:
            return out if seen else None
        elif seen:
            if not isinstance(s, Alloc):
                return None
            out.append(s)
    return None


def _offset(f: For, g: For, subject: str) -> int:
    """How much later ``g`` starts than ``f``; refuses loops of different shape."""
    if f.step != g.step or f.kind is not g.kind or f.unit != g.unit:
        raise ScheduleError(f"{subject}: the loops differ in step or kind", location=g.loc)
    if reads_in(f.lo, f.hi, g.lo, g.hi):
        raise ScheduleError(f"{subject}: a bound reads memory", location=g.loc)
    lo, hi = bounds(g.lo - f.lo, {}), bounds(g.hi - f.hi, {})
    if lo[0] is None or lo[0] != lo[1] or lo != hi:
        counts = (
            f"{trip_count(f) if trip_count(f) is not None else f.extent} and {trip_count(g) if trip_count(g) is not None else g.extent}"
        )
        raise ScheduleError(f"{subject}: they are not known to have equally many iterations ({counts})", location=g.loc)
    return lo[0]
