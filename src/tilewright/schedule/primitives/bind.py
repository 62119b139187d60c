"""bind: the iterations of a loop run on the instances of a machine unit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tilewright.ir.stmt import Kernel, LoopKind
from tilewright.schedule.legality import check_independent, region_of
from tilewright.schedule.nest import get_loop, replace_stmt
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError


@primitive
def bind(kernel: Kernel, loop: str, unit: str, machine: Any = None) -> tuple[Kernel, tuple[str, ...]]:
    """Run the iterations of ``loop`` on the machine's ``unit`` (a core, a thread block, a lane, ...).

    Same precondition as ``parallel``: units run concurrently. When the schedule has a machine, the
    unit must be one of it. Returns (loop,). ScheduleError: unknown loop or unit, dependent iterations.
    """
    f = get_loop(kernel, loop, "bind")
    if machine is not None and unit not in (known := [u.name for u in machine.units]):
        raise ScheduleError(f"bind {loop}: machine {machine.name} has no unit {unit!r}", hint=f"units: {', '.join(known) or 'none'}")
    check_independent(region_of(kernel, f), loop, f"bind {loop} to {unit}")
    return replace_stmt(kernel, f, replace(f, kind=LoopKind.BIND, unit=unit)), (loop,)
