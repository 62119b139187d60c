"""fuse: two perfectly nested loops become one over all pairs of iterations."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Expr, Var
from tilewright.ir.stmt import For, Kernel, LoopKind, names
from tilewright.schedule.legality import check_concurrency
from tilewright.schedule.nest import fresh, get_loop, range_text, reads_in, replace_stmt, substituted, trip_count
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError


@primitive
def fuse(kernel: Kernel, outer: str, inner: str) -> tuple[Kernel, tuple[str, ...]]:
    """Collapse ``outer`` and the loop ``inner`` that is all of its body into one loop.

    Returns (fused,). The order of iterations stays. ScheduleError: the loops are not perfectly
    nested, or the bounds of the inner one depend on the outer one or on memory.
    """
    f = get_loop(kernel, outer, "fuse")
    g = get_loop(kernel, inner, "fuse")
    if len(f.body.stmts) != 1 or f.body.stmts[0] is not g:
        raise ScheduleError(
            f"fuse {outer}, {inner}: {inner} is not the whole body of {outer}", hint="fission the outer loop first", location=f.loc
        )
    if outer in ex.free_vars(g.lo) | ex.free_vars(g.hi) or reads_in(g.lo, g.hi):
        raise ScheduleError(f"fuse {outer}, {inner}: the range of {inner}, {range_text(g)}, changes during {outer}", location=g.loc)
    if f.kind is not g.kind:
        raise ScheduleError(f"fuse {outer}, {inner}: one runs as {f.kind.value}, the other as {g.kind.value}", location=f.loc)
    columns = _count(g)
    fused = Var(fresh(names(kernel), outer + inner))
    width = columns if trip_count(g) != 0 else ex.idx(1)  # an empty nest has no index to divide
    env: dict[str, Expr] = {outer: f.lo + (fused // width) * f.step, inner: g.lo + (fused % width) * g.step}
    kind = LoopKind.SERIAL if f.kind is LoopKind.BIND else f.kind
    new = replace(f, var=fused, lo=ex.idx(0), hi=_count(f) * columns, step=1, kind=kind, unit=None, body=substituted(g.body, env))
    kernel = replace_stmt(kernel, f, new)
    check_concurrency(kernel, new, f"fuse {outer}, {inner}")
    return kernel, (fused.name,)


def _count(f: For) -> Expr:
    """Iterations of ``f``: never negative, even where its bounds cross."""
    count = trip_count(f)
    return ex.idx(count) if count is not None else ex.binary("max", f.extent, ex.Const(0, ty.index))
