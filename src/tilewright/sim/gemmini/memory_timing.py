"""When data arrives and leaves: main memory requests, and the single ports of the scratchpad's banks."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Timing:
    """Cycles that the machine's declaration does not say.

    The surroundings: ``memory`` cycles from a request to its first beat, ``gap`` idle cycles of the host between commands.
    Limits: ``in_flight`` requests, ``moves`` loads and as many stores outstanding. The others are latencies, calibrated on RTL
    runs of the default machine (benchmarks/gemmini_cycles.py): ``request`` and ``arrival`` of a read besides the memory's,
    ``write`` of a store besides it, ``gather`` of a row stored from several blocks, ``station`` of the reservation station,
    ``feed`` before a product's first row, ``drain`` from its last row to the result, ``loop`` before a loop's first command.
    """

    memory: int = 40
    gap: int = 0
    in_flight: int = 16
    moves: int = 3
    request: int = 7
    arrival: int = 27
    write: int = 8
    gather: int = 2
    station: int = 9
    feed: int = 8
    drain: int = 58
    loop: int = 4


@lru_cache(maxsize=1 << 16)
def requests(offset: int, count: int, bus: int, most: int) -> tuple[int, ...]:
    """Beats of the requests for ``count`` bytes at ``offset`` (modulo ``most``): aligned powers of two, each as useful as can be."""
    beats = []
    while count > 0:
        useful, size = 0, bus
        candidate = bus
        while candidate <= most:
            covered = min(candidate - offset % candidate, count)
            if covered > useful:
                useful, size = covered, candidate
            candidate *= 2
        beats.append(size // bus)
        offset, count = offset + useful, count - useful
    return tuple(beats)


class Channel:
    """One direction of main memory: requests in order, a limited number of them outstanding."""

    def __init__(self, timing: Timing, latency: int):
        self.latency = timing.memory + latency
        self.outstanding: deque[int] = deque([0] * timing.in_flight, timing.in_flight)
        self.issue = 0
        self.bus = 0

    def read(self, start: int, beats: tuple[int, ...]) -> int:
        """Issues requests from ``start`` on, one a cycle; returns when the first beat arrives. ``bus`` is the last beat's cycle."""
        first = 0
        for count in beats:
            self.issue = max(self.issue + 1, start, self.outstanding[0])
            arrives = max(self.issue + self.latency, self.bus + 1)
            first = first or arrives
            self.bus = arrives + count - 1
            self.outstanding.append(self.bus + 1)
        return first

    def write(self, start: int, cycles: list[int]) -> int:
        """Sends requests that take so many cycles each; returns when the last is acknowledged."""
        for count in cycles:
            self.issue = max(self.issue, start, self.outstanding[0]) + count
            self.outstanding.append(self.issue + self.latency)
        return self.issue + self.latency


class Port:
    """A single port: whoever books a cycle first has it. Bookings may come out of order of time."""

    def __init__(self) -> None:
        #: Booked intervals [start, end), disjoint and in order.
        self.starts: list[int] = []
        self.ends: list[int] = []

    def use(self, start: int, cycles: int) -> int:
        """Books the first ``cycles`` free ones from ``start`` on; returns the end."""
        if cycles <= 0:
            return start
        first = last = bisect_right(self.ends, start)
        now, need = start, cycles
        while last < len(self.starts) and self.starts[last] < now + need:
            need -= max(0, self.starts[last] - now)
            now = self.ends[last]
            last += 1
        begin = min(start, self.starts[first]) if first < last else start
        self.starts[first:last], self.ends[first:last] = [begin], [now + need]
        return now + need
