"""A simulated run to look at: a Chrome trace for chrome://tracing or Perfetto, and where the array's cycles went."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tilewright.sim.gemmini.cycles import Event, Run

#: What each entry of ``Run.stalls`` means.
MEANINGS = {
    "load": "waiting for operands from main memory",
    "store": "waiting for results to leave the accumulator",
    "issue": "waiting for the host, the loop machines or the station",
    "bank": "sharing a scratchpad bank with arriving data",
    "drain": "after the last product",
}


def chrome_trace(run: Run) -> dict[str, Any]:
    """Trace events (one cycle is one microsecond there), a row for each controller; commands that overlap get rows of their own."""
    events: list[dict[str, Any]] = []
    units = tuple(dict.fromkeys(e.unit for e in run.events))
    for unit in units:
        for lane, event in _lanes(e for e in run.events if e.unit == unit):
            events.append(
                {
                    "name": type(event.command).__name__,
                    "cat": unit,
                    "ph": "X",
                    "ts": event.start,
                    "dur": event.end - event.start,
                    "pid": units.index(unit),
                    "tid": lane,
                    "args": {"command": str(event.command), "issued": event.issued, "waited for": event.cause},
                }
            )
    names = [{"name": "process_name", "ph": "M", "pid": n, "args": {"name": unit}} for n, unit in enumerate(units)]
    return {"traceEvents": [*names, *events], "displayTimeUnit": "ms"}


def _lanes(events: Iterable[Event]) -> list[tuple[int, Event]]:
    """Each event with the first row that is free at its start."""
    free: list[int] = []
    out = []
    for event in sorted(events, key=lambda e: e.start):
        lane = next((n for n, end in enumerate(free) if end <= event.start), len(free))
        if lane == len(free):
            free.append(0)
        free[lane] = event.end
        out.append((lane, event))
    return out


def trace_text(run: Run) -> str:
    """:func:`chrome_trace` as the JSON text of a file."""
    return json.dumps(chrome_trace(run))


def breakdown(run: Run) -> str:
    """The cycles of a run by what the array did: fed with rows, or standing still and why. They add up."""
    rows = [("fed", run.fed, "rows of operands entered the array"), *((n, run.stalls[n], m) for n, m in MEANINGS.items())]
    total = f"{'total':8}{run.cycles:>10}"
    return "\n".join([*(f"{n:8}{v:>10}{v / max(run.cycles, 1):>8.1%}  {m}" for n, v, m in rows if v), total])
