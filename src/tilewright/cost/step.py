"""What bounds one step of an innermost loop, written once for every evaluator.

``on`` says what the bounds are computed with: a :class:`~tilewright.cost.formula.Graph` (symbolic programs) or
:data:`ARRAYS` (populations of register tiles whose programs do not exist yet). Quantities are
formulas, numbers or arrays accordingly. A step costs the largest of what a performance engineer would write on paper;
streams of the caches overlap with it, but never perfectly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from tilewright.cost.core import VectorCore

#: Ways of a typical innermost cache.
CACHE_WAYS = 8
#: Part of a memory's declared bandwidth that loops reach.
SUSTAINED = 0.65
#: Part of a stream's time that arithmetic does not hide, and of a wait for lines that no prefetcher foresees.
EXPOSED, WAITED = 0.15, 0.3
#: Accesses of a vector that straddles two lines.
UNALIGNED = 2.0
#: Widest stride of lanes for which code generators load whole vectors and shuffle instead of gathering, and the issue slots
#: for each element of it: a load, and a shuffle (on fewer ports than loads).
SHUFFLED_STRIDE, SHUFFLE = 8, 3.0
#: Bytes of the smallest elements whose squares code generators transpose in registers.
TRANSPOSED = 2
#: Vector loads that one lane of a gather costs.
GATHERED = 2.0
#: Where arithmetic takes registers in parts: what an odd part costs beside fewer than two whole registers, for which the units
#: do not find a partner in time.
UNPAIRED = 0.3
#: Cycles until a finished sum can be used.
DRAIN = 12.0
#: Operations that a core looks ahead: a short tile's sums are waited for while the next tiles have begun.
WINDOW = 256.0
#: Cycles of loop control of a step.
CONTROL = 0.5
#: Operations that a core decodes a cycle.
ISSUE_WIDTH = 6.0


class Algebra(Protocol):
    """The operations that bounds need beyond + * /."""

    def le(self, a: Any, b: Any) -> Any: ...

    def max(self, a: Any, b: Any) -> Any: ...

    def where(self, cond: Any, a: Any, b: Any) -> Any: ...


class Arrays:
    """:class:`Algebra` on numbers and NumPy arrays."""

    def le(self, a: Any, b: Any) -> Any:
        return np.less_equal(a, b)

    def max(self, a: Any, b: Any) -> Any:
        return np.maximum(a, b)

    def where(self, cond: Any, a: Any, b: Any) -> Any:
        return np.where(cond, a, b)


ARRAYS = Arrays()


def load_slots(on: Algebra, core: VectorCore, apart: Any, neighbours: Any = 1.0, gathered: Any = None) -> Any:
    """Issue slots, in plain vector loads, of one vector whose lanes are ``apart`` elements apart.

    ``neighbours`` are those of a vector of neighbours, ``gathered`` those of one whose lanes are far apart (None: of a gather).
    """
    gathered = GATHERED * core.lanes if gathered is None else gathered
    return on.where(on.le(apart, 1), neighbours, on.where(on.le(apart, SHUFFLED_STRIDE), apart * SHUFFLE, gathered))


def copy_slots(core: VectorCore, squares: bool) -> float:
    """Issue slots of a vector whose lanes are far apart and are only copied: a row of a square of registers that is
    transposed by shuffles, in steps of twice as many lanes each, or elements one by one."""
    cycles = math.log2(core.lanes) / core.shuffles_per_cycle if squares else core.lanes / core.scalar_moves_per_cycle
    return max(cycles * core.load_bytes_per_cycle / core.register_bytes, 1.0)


def load_cycles(core: VectorCore, vectors: Any, broadcasts: Any) -> Any:
    """Cycles to load so many vectors (in slots) and elements to broadcast."""
    return vectors * (core.register_bytes / core.load_bytes_per_cycle) + broadcasts * (1 / core.broadcasts_per_cycle)


def store_cycles(on: Algebra, core: VectorCore, apart: Any, vectors: Any, elements: Any) -> Any:
    """Cycles to store ``vectors`` (in slots) of neighbours; lanes ``apart`` from each other are stored one by one."""
    return on.where(on.le(apart, 1), vectors, elements * (1 / core.scalar_moves_per_cycle))


def compute_cycles(on: Algebra, core: VectorCore, operations: Any, loads: Any, stores: Any, latency: Any) -> Any:
    """Cycles of one step: ``operations`` issued, cycles of loads and stores, and the latency of dependent sums."""
    issued = (operations + loads + stores) * (1 / ISSUE_WIDTH)
    return largest(on, [operations * (1 / core.fma_per_cycle), loads, stores, latency, issued]) + CONTROL


def overlapped(on: Algebra, compute: Any, streams: Iterable[Any], waits: Any = 0.0) -> Any:
    """Cycles of arithmetic together with the ``streams`` into each cache and the ``waits`` for lines no prefetcher foresees."""
    streams = list(streams)
    return largest(on, [compute, *streams]) + sum(streams[1:], streams[0]) * EXPOSED + waits * WAITED if streams else compute


def largest(on: Algebra, bounds: Iterable[Any]) -> Any:
    """The largest of non-negative bounds."""
    total: Any = 0
    for b in bounds:
        total = on.max(total, b)
    return total


def crowding(on: Algebra, apart: Any, run: Any) -> Any:
    """Of how many places of a cache runs of ``run`` bytes can take one only: they start at multiples of ``apart`` bytes."""
    return on.max(apart / run, 1)
