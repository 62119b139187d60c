"""skew: the iterations of an inner loop are renumbered so that a wavefront becomes a loop."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir.expr import Expr, Var
from tilewright.ir.stmt import Kernel, names
from tilewright.schedule.nest import fresh, get_loop, loop_place, replace_stmt, substituted
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError


@primitive
def skew(kernel: Kernel, outer: str, inner: str, factor: int = 1) -> tuple[Kernel, tuple[str, ...]]:
    """Shift ``inner`` by ``factor`` times ``outer``: its new index is inner + factor * outer.

    Returns (skewed,), the loop that took the place of ``inner``. The order of iterations stays;
    what becomes possible is to reorder the two and run a diagonal in parallel. ScheduleError: unknown
    loops, ``inner`` not inside ``outer``, a factor that is not an int.
    """
    f, place = get_loop(kernel, outer, "skew"), loop_place(kernel, inner, "skew")
    g = get_loop(kernel, inner, "skew")
    if f not in place.loops:
        raise ScheduleError(f"skew {outer}, {inner}: {inner} is not inside {outer}", location=g.loc)
    if not isinstance(factor, int):
        raise ScheduleError(f"skew {outer}, {inner}: factor {factor!r} is not an int", location=g.loc)
    shift: Expr = f.var * factor
    skewed = Var(fresh(names(kernel), inner + "s"))
    new = replace(g, var=skewed, lo=g.lo + shift, hi=g.hi + shift, body=substituted(g.body, {inner: skewed - shift}))
    return replace_stmt(kernel, g, new), (skewed.name,)
