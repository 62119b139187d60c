"""peel: the first or last iterations of a loop get a loop of their own."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr, Var
from tilewright.ir.stmt import Kernel, names
from tilewright.schedule.nest import copied, fresh, get_loop, range_text, reads_in, replace_stmt, substituted, trip_count
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError


@primitive
def peel(kernel: Kernel, loop: str, count: int = 1, where: str = "last") -> tuple[Kernel, tuple[str, ...]]:
    """Separate the ``count`` first or last iterations of ``loop`` (all of them where it has fewer).

    Returns the two loops in program order; the main part keeps the name. The order of iterations
    stays. ScheduleError: count below 1, ``where`` neither "first" nor "last", a stepped loop
    with symbolic bounds, bounds that read memory.
    """
    f = get_loop(kernel, loop, "peel")
    if not isinstance(count, int) or count < 1:
        raise ScheduleError(f"peel {loop}: count {count!r} is not an int >= 1", location=f.loc)
    if where not in ("first", "last"):
        raise ScheduleError(f"peel {loop}: where={where!r}", hint='use "first" or "last"', location=f.loc)
    if reads_in(f.lo, f.hi):
        raise ScheduleError(f"peel {loop}: its bounds read memory: {range_text(f)}", location=f.loc)
    trips = trip_count(f)
    cut: Expr
    if trips is not None:
        cut = f.lo + (min(count, trips) if where == "first" else max(trips - count, 0)) * f.step
    elif f.step > 1:
        raise ScheduleError(
            f"peel {loop}: its step is {f.step} and its extent {f.extent} not a constant", hint="split it first", location=f.loc
        )
    else:
        # Clamped, so that a loop with fewer iterations (or crossed bounds) does not run more of them.
        cut = ex.binary("min", f.lo + count, f.hi) if where == "first" else ex.binary("max", f.lo, f.hi - count)
    taken = names(kernel)
    other = Var(fresh(taken, loop + ("f" if where == "first" else "l")))
    body = copied(substituted(f.body, {loop: other}), taken)
    if where == "first":
        parts = replace(f, var=other, hi=cut, body=body), replace(f, lo=cut)
    else:
        parts = replace(f, hi=cut), replace(f, var=other, lo=cut, body=body)
    return replace_stmt(kernel, f, *parts), (parts[0].name, parts[1].name)
