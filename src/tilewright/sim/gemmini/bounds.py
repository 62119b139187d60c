"""What no program of whole blocks can be faster than on the cycle model: the cycles that its requests to main memory take.

A block is ``dim`` rows of up to ``dim`` columns; a move takes as many blocks side by side as a request has bytes. Each of its rows becomes
requests, which end where an aligned piece of memory does, and only so many of them are under way at once. How a row of blocks is
cut into moves is free: the cheapest cut counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.memory_timing import Timing, requests

#: Shares of the bound by the bus; the rest is that by the requests under way. Any mixture of two bounds is one, and the best mixture is
#: what the best mixture of moves takes.
SHARES = tuple(n / 64 for n in range(65))


@dataclass(frozen=True, slots=True)
class Stored:
    """An array of inputs in main memory, row after row from an aligned address on; its moves take ``together`` rows at once."""

    rows: int
    cols: int
    together: int


def read_cycles(c: Configuration, timing: Timing, arrays: Sequence[Stored]) -> int:
    """Cycles from the first request to the last byte when all ``arrays`` are read once, less the way of a single request."""
    alone = timing.memory + timing.request + c.max_bytes // c.bus_bytes
    return max(int(sum(_cycles(c, timing, a, share, False) for a in arrays) - (1 - share) * alone) for share in SHARES)


def write_cycles(c: Configuration, timing: Timing, arrays: Sequence[Stored]) -> int:
    """The same for arrays that are written once; a row of several blocks is gathered from the accumulator first."""
    alone = timing.memory + timing.write + c.max_bytes // (c.dim * c.input_bytes) + timing.gather
    return max(int(sum(_cycles(c, timing, a, share, True) for a in arrays) - (1 - share) * alone) for share in SHARES)


def _cycles(c: Configuration, timing: Timing, a: Stored, share: float, out: bool) -> float:
    """Of the moves of an array: ``share`` of the bus's cycles, and the rest of those that requests are under way."""
    total = 0.0
    for first in range(0, a.rows, a.together):
        rows = min(a.together, a.rows - first)
        row = a.cols * c.input_bytes
        offsets = tuple((first + r) * row % c.max_bytes for r in range(rows))
        total += _cheapest(c, timing, offsets, a.cols, share, out)
    return total


@lru_cache(maxsize=1 << 12)
def _cheapest(c: Configuration, timing: Timing, offsets: tuple[int, ...], cols: int, share: float, out: bool) -> float:
    """Rows of ``cols`` elements at byte ``offsets``, cut alike into moves in the cheapest way."""
    wide = c.blocks(c.input_bytes)
    starts = [*range(0, cols, c.dim), cols]
    best = [0.0]
    for end in range(1, len(starts)):
        ways = range(max(0, end - wide), end)
        best.append(min(best[b] + _move(c, timing, offsets, starts[b], starts[end] - starts[b], share, out) for b in ways))
    return best[-1]


def _move(c: Configuration, timing: Timing, offsets: tuple[int, ...], start: int, width: int, share: float, out: bool) -> float:
    latency, size = timing.memory + (timing.write if out else timing.request), c.input_bytes
    total = 0.0
    for offset in offsets:
        cycles = list(requests((offset + start * size) % c.max_bytes, width * size, c.bus_bytes, c.max_bytes))
        blocks = -(-width // c.dim)
        if out:
            cycles[0] = max(cycles[0], blocks + (timing.gather if blocks > 1 else 0))
        total += sum(share * n + (1 - share) * (latency + n) / timing.in_flight for n in cycles)
    return total
