"""Repeating a trace on a kernel."""

from __future__ import annotations

from typing import Any

from tilewright.ir.stmt import Kernel
from tilewright.schedule.primitive import discover, signature
from tilewright.schedule.schedule import Schedule
from tilewright.schedule.trace import Step, Trace
from tilewright.util.errors import ScheduleError


def replay(kernel: Kernel, trace: Trace, machine: Any = None) -> Schedule:
    """Apply the steps of ``trace`` to ``kernel``: the identical program, or a ScheduleError.

    Raises ScheduleError when a step refuses, or when it returns other names than were recorded
    (later steps would then mean other loops).
    """
    schedule = Schedule(kernel, machine)
    for number, step in enumerate(trace.steps, 1):
        args, kwargs = _call(step)
        try:
            results = schedule.apply(step.primitive, *args, **kwargs)
        except ScheduleError as e:
            raise ScheduleError(f"step {number} of the trace, {step}: {e.message}", hint=e.hint, location=e.location) from e
        if results != step.results:
            raise ScheduleError(
                f"step {number} of the trace, {step}: returned {', '.join(results) or 'nothing'}, the trace says {', '.join(step.results)}",
                hint=f"the trace was recorded on another kernel or by another engine (trace: {trace.version})",
            )
    return schedule


def _call(step: Step) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a recorded step (only a ``*names`` parameter needs positions)."""
    function = discover().get(step.primitive)
    if function is None:
        raise ScheduleError(f"the trace uses an unknown primitive {step.primitive!r}", hint=f"known: {', '.join(sorted(discover()))}")
    kinds = {p.name: p.kind for p in signature(function).parameters.values()}
    positional: list[Any] = []
    keyword: dict[str, Any] = {}
    starred = any(kind.name == "VAR_POSITIONAL" for kind in kinds.values())
    for name, value in step.arguments:
        kind = kinds[name].name if name in kinds else "KEYWORD_ONLY"
        if kind == "VAR_POSITIONAL":
            positional.extend(value)
        elif kind == "VAR_KEYWORD":
            keyword.update(value)
        elif starred and kind == "POSITIONAL_OR_KEYWORD":
            positional.append(value)
        else:
            keyword[name] = value
    return tuple(positional), keyword
