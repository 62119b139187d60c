"""unroll: the iterations of a loop are written out one after the other."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir.stmt import Kernel, LoopKind
from tilewright.schedule.nest import get_loop, replace_stmt, trip_count
from tilewright.schedule.primitive import primitive
from tilewright.schedule.primitives.split import split
from tilewright.util.errors import ScheduleError


@primitive
def unroll(kernel: Kernel, loop: str, factor: int | None = None) -> tuple[Kernel, tuple[str, ...]]:
    """Unroll ``loop`` entirely, or by ``factor`` (the remaining iterations in a loop after it).

    The order of iterations stays. Returns (loop,), or what splitting by ``factor`` returned:
    (outer, unrolled[, tail]). ScheduleError: an extent that is not a constant and no factor.
    """
    f = get_loop(kernel, loop, "unroll")
    results: tuple[str, ...] = (loop,)
    if factor is not None and trip_count(f) != factor:
        kernel, results = split(kernel, loop, factor, tail="peel")
        f = get_loop(kernel, results[1], "unroll")
    elif trip_count(f) is None:
        raise ScheduleError(
            f"unroll {loop}: its extent {f.extent} is not a constant", hint="give a factor: unroll(loop, 4)", location=f.loc
        )
    return replace_stmt(kernel, f, replace(f, kind=LoopKind.UNROLL, unit=None)), results
