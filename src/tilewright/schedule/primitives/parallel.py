"""parallel: the iterations of a loop run on several threads."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir.stmt import Kernel, LoopKind
from tilewright.schedule.legality import check_independent, region_of
from tilewright.schedule.nest import get_loop, replace_stmt
from tilewright.schedule.primitive import primitive


@primitive
def parallel(kernel: Kernel, loop: str) -> tuple[Kernel, tuple[str, ...]]:
    """Run the iterations of ``loop`` concurrently.

    No iteration may touch an element that another one writes; buffers allocated inside the loop
    are private to the iteration. Reductions over the loop are refused: their updates would race.
    Returns (loop,). ScheduleError names the two iterations that conflict.
    """
    f = get_loop(kernel, loop, "parallel")
    check_independent(region_of(kernel, f), loop, f"parallel {loop}")
    return replace_stmt(kernel, f, replace(f, kind=LoopKind.PARALLEL, unit=None)), (loop,)
