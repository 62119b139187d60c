"""Performance counters, read from the cycle model: which controllers are busy at once, and how many commands the station holds.

There are eight. One counts the cycles of an event since it was configured or all were reset; or it shows a number that the hardware
has elsewhere ("external"). A snapshot keeps what all of them show until it is given up. Events are those of the public
numbering that the model knows: 1 to 7, and the external ones 1 to 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.sim.gemmini.isa import Counter
from tilewright.util.errors import ExecutionError

#: Cycles in which exactly these controllers are busy, by the number of the event.
BUSY = {
    1: frozenset({"load"}),
    2: frozenset({"store"}),
    3: frozenset({"execute"}),
    4: frozenset({"load", "store"}),
    5: frozenset({"load", "execute"}),
    6: frozenset({"store", "execute"}),
    7: frozenset({"load", "store", "execute"}),
}
#: Commands in the reservation station for a controller, by the number of the external event.
WAITING = {1: "load", 2: "store", 3: "execute"}
_COUNTERS = 8

#: (controller, first cycle, cycle after the last) of a command.
Interval = tuple[str, int, int]


@dataclass(slots=True)
class Counters:
    """What the counters are set to: event (0: none) and whether it is external, and the cycle they count from."""

    events: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)] * _COUNTERS)
    since: list[int] = field(default_factory=lambda: [0] * _COUNTERS)
    kept: tuple[int, ...] | None = None

    def operate(self, x: Counter, now: int, intervals: Sequence[Interval], waiting: Mapping[str, int]) -> int:
        """Does what a command asks for in cycle ``now``, and returns what its counter shows before it is configured."""
        if x.configure and x.event and x.event not in (WAITING if x.external else BUSY):
            raise ExecutionError(
                f"{x}: event {x.event} is none that the model has", hint="1 to 7: controllers busy; external 1 to 3: commands waiting"
            )
        if x.reset:
            self.since, self.kept = [now] * _COUNTERS, None
        if x.snapshot_reset:
            self.kept = None
        elif x.snapshot:
            self.kept = tuple(self._shown(n, now, intervals, waiting) for n in range(_COUNTERS))
        shown = self.kept[x.index] if self.kept is not None else self._shown(x.index, now, intervals, waiting)
        if x.configure:
            self.events[x.index], self.since[x.index] = (x.event, x.external), now
        return shown

    def _shown(self, index: int, now: int, intervals: Sequence[Interval], waiting: Mapping[str, int]) -> int:
        event, external = self.events[index]
        if not event:
            return 0
        return waiting[WAITING[event]] if external else busy(intervals, BUSY[event], self.since[index], now)


def busy(intervals: Iterable[Interval], units: frozenset[str], since: int, until: int) -> int:
    """Cycles from ``since`` to ``until`` in which exactly the controllers ``units`` work."""
    steps: dict[int, dict[str, int]] = {}
    for unit, start, end in intervals:
        if start < until and end > since:
            for at, by in ((max(start, since), 1), (min(end, until), -1)):
                steps.setdefault(at, {}).setdefault(unit, 0)
                steps[at][unit] += by
    at_work: dict[str, int] = {}
    total, last = 0, since
    for at in sorted(steps):
        if {u for u, n in at_work.items() if n} == units:
            total += at - last
        for unit, by in steps[at].items():
            at_work[unit] = at_work.get(unit, 0) + by
        last = at
    return total
