"""map_onto: a contraction in the shape of an instruction: operands packed, iterations in tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.ir.stmt import Kernel, loops
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import MappingError, ScheduleError

if TYPE_CHECKING:
    from tilewright.hw import Machine


@primitive
def map_onto(kernel: Kernel, buffer: str, instruction: str, mapping: str, machine: Machine | None = None) -> tuple[Kernel, tuple[str, ...]]:
    """Rewrite the contraction that computes ``buffer`` so that its inner loops are the axes of ``instruction``.

    ``mapping`` says which iterations ride on which axis, as ``"i<-n*p*q  j<-k  k<-c*r*s"``. Operands are packed into
    tiles before the nest and the result is unpacked after it; ``tensorize`` then makes the tile a call. Returns the
    new loops. ScheduleError: no machine, no such contraction, or a mapping that would not compute it.
    """
    from tilewright.mapping import operator_of, parse_mapping

    subject = f"map_onto {buffer}, {instruction}"
    if machine is None:
        raise ScheduleError(f"{subject}: the schedule has no machine", hint="Schedule(kernel, machine)")
    try:
        m = parse_mapping(operator_of(kernel, at=buffer), machine.instruction(instruction), mapping)
        if problems := m.problems():
            raise ScheduleError(f"{subject}: {mapping} does not compute it: {problems[0]}", hint="tilewright map lists the valid mappings")
        out = m.lower(kernel, calls=False)
    except MappingError as error:
        raise ScheduleError(f"{subject}: {error.message}", hint=error.hint) from error
    before = {f.name for f in loops(kernel)}
    return out, tuple(f.name for f in loops(out) if f.name not in before)
