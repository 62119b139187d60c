"""What a register tile of a contraction costs at least, for a whole population of tilings at once.

A tiling holds an output tile of ``rows`` x ``vectors`` SIMD registers while the reduction runs. Before its symbolic
program exists, only its steps are known: multiply-adds and loads, bounded by :mod:`tilewright.cost.step` as in the
estimate of programs, and operands too large for the first cache. Everything else (further streams, copies, filling and
draining tiles) comes on top there. So what is said here is no second model, but a lower bound of the only one: it
orders what is looked at, and ends the search when nothing left can win.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from tilewright.cost import step as bounds
from tilewright.cost.core import VectorCore
from tilewright.cost.step import ARRAYS

#: Stands for "no constant stride" in arithmetic: farther than anything real.
IRREGULAR = 1 << 30


@dataclass(frozen=True, slots=True)
class Operand:
    """One input of the contraction: element size, elements, and stride along each loop (None: irregular).

    ``free`` says its layout may be chosen ahead of time (a constant), so packing it costs nothing at run time;
    ``packable`` that panels exist for it: otherwise strided vectors are gathered in every step.
    """

    name: str
    itemsize: int
    elements: int
    strides: Mapping[str, int | None]
    free: bool = False
    packable: bool = True

    def stride(self, loop: str) -> int | None:
        return self.strides.get(loop, 0)


@dataclass(frozen=True, slots=True)
class Contraction:
    """A sum of products: loop extents, which loops address the result, the operands, the result's strides."""

    loops: Mapping[str, int]
    spatial: tuple[str, ...]
    inputs: tuple[Operand, ...]
    output: Operand

    @property
    def reduction(self) -> tuple[str, ...]:
        return tuple(n for n in self.loops if n not in self.spatial)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Candidate tilings, column-wise: indices into ``spatial`` (row -1: no row loop) and tile sizes."""

    vector: np.ndarray
    row: np.ndarray
    vectors: np.ndarray
    rows: np.ndarray
    cycles: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.vector)

    def where(self, chosen: np.ndarray) -> Tiles:
        """The candidates for which ``chosen`` (bool [len]) holds."""
        cycles = self.cycles[chosen] if len(self.cycles) else self.cycles
        return Tiles(self.vector[chosen], self.row[chosen], self.vectors[chosen], self.rows[chosen], cycles)


def candidates(problem: Contraction, core: VectorCore) -> Tiles:
    """Every (vector loop, row loop, vectors, rows) whose tile and operands fit the registers."""
    columns: list[tuple[int, int, int, int]] = []
    for v, name in enumerate(problem.spatial):
        most_vectors = -(-problem.loops[name] // core.lanes)
        for r in range(-1, len(problem.spatial)):
            if r == v or (r >= 0 and problem.loops[problem.spatial[r]] == 1):
                continue
            most_rows = 1 if r < 0 else min(problem.loops[problem.spatial[r]], core.registers)
            for u in range(1, min(8 if most_rows > 1 else core.registers, most_vectors) + 1):
                for m in range(1, most_rows + 1):
                    if m * u + (u if m > 1 else 1) + 1 <= core.registers:
                        columns.append((v, r, u, m))
    table = np.array(columns, dtype=np.int64).reshape(-1, 4)
    return Tiles(table[:, 0], table[:, 1], table[:, 2], table[:, 3])


def least_cycles(
    problem: Contraction, core: VectorCore, vector: str, size: Mapping[str, Any], packed: Set[str], latency: bool = True
) -> Any:
    """Cycles of one core below which no estimate of such tiles lies: numbers or arrays, as the extents of the tile.

    ``size`` has the extent in the tile of ``vector``, which rides on the lanes, and of the loops of its rows. The operands
    ``packed`` are in vector order when the tile reads them. Without ``latency``, sums do not wait for one another.
    """
    rows = {n: m for n, m in size.items() if n != vector}
    part = core.lanes // core.parts
    operations = -(-size[vector] // part) / core.parts * _product(rows.values())
    loads = load_work(problem, core, vector, size, packed)
    inside = operations * math.prod(problem.loops[n] for n in problem.reduction) / bounds.WINDOW
    waiting = np.minimum(inside, 1.0) * core.fma_latency if latency and problem.reduction else 0.0
    compute = bounds.compute_cycles(ARRAYS, core, operations, loads, 0.0, waiting) - bounds.CONTROL
    cycles = bounds.overlapped(ARRAYS, compute, [_streamed(problem, core, vector, size)])
    for n, extent in problem.loops.items():
        if n == vector:  # a remainder takes whole registers, or parts
            cycles = cycles * np.minimum(-(-extent // part) * part, -(-extent // size[n]) * size[n]) / size[n]
        else:
            cycles = cycles * (extent / rows.get(n, 1))
    return cycles


def _streamed(problem: Contraction, core: VectorCore, vector: str, size: Mapping[str, Any]) -> Any:
    """Cycles in which one step's vectors come from the second cache: those of operands of which a tile reads more than the first holds."""
    total: Any = 0.0
    for x in problem.inputs:
        if x.packable and x.stride(vector) != 0:
            nbytes = _product(m for n, m in size.items() if x.stride(n) != 0) * x.itemsize
            steps = math.prod(problem.loops[n] for n in problem.reduction if x.stride(n) != 0)
            rate = core.l2_bytes_per_cycle * bounds.SUSTAINED
            total = total + np.where(nbytes * steps > 2 * core.l1_bytes, nbytes / rate, 0.0)
    return total


def load_work(problem: Contraction, core: VectorCore, vector: str, size: Mapping[str, Any], packed: Set[str]) -> Any:
    """Cycles of the loads of one step of a tile, as in :func:`least_cycles`."""
    vectors, loads, broadcasts = -(-size[vector] // core.lanes), 0.0, 0.0
    for x in problem.inputs:
        count = _product(m for n, m in size.items() if n != vector and x.stride(n) != 0)
        if x.stride(vector) == 0:
            broadcasts = broadcasts + count
        else:
            slots = bounds.load_slots(ARRAYS, core, _apart(x, vector))
            loads = loads + count * vectors * (1.0 if x.name in packed else slots)
    return bounds.load_cycles(core, loads, broadcasts)


def moving_cycles(problem: Contraction, core: VectorCore, vector: str, copied: Set[str]) -> float:
    """Cycles at least to write the result once, and to bring the operands ``copied`` into vector order."""
    results = math.prod(problem.loops[n] for n in problem.spatial)
    total = float(bounds.store_cycles(ARRAYS, core, _apart(problem.output, vector), results / core.lanes, results))
    for x in problem.inputs:
        if x.name in copied:
            squares = any(_apart(x, n) == 1 and extent >= core.lanes for n, extent in problem.loops.items())
            apart = bounds.copy_slots(core, squares and x.itemsize >= bounds.TRANSPOSED)
            slots = bounds.load_slots(ARRAYS, core, _apart(x, vector), gathered=apart)
            total += x.elements / core.lanes * max(float(bounds.load_cycles(core, slots, 0.0)), 1.0)
    return total


def least(problem: Contraction, core: VectorCore, vector: str, rows: Sequence[str], packed: Set[str], latency: bool = True) -> float:
    """The least cycles of all tiles with these loops that fit the registers, arguments as of :func:`least_cycles`."""
    vectors = np.arange(1, core.registers)
    vectors = vectors[vectors <= -(-problem.loops[vector] // core.lanes)]
    count = np.arange(1, min(math.prod(problem.loops[n] for n in rows), core.registers) + 1)
    u, m = (x.reshape(-1) for x in np.meshgrid(vectors, count))
    fits = m * u + np.where(m > 1, np.minimum(u, (m - 1) * u + 1), 1) + 1 <= core.registers
    # Rows of two loops are as good as those of one that moves what both of them move.
    size = {vector: u[fits] * core.lanes, **{n: m[fits] if n == rows[-1] else 1 for n in rows}}
    return float(least_cycles(problem, core, vector, size, packed, latency).min())


def best(problem: Contraction, core: VectorCore) -> Tiles:
    """The candidates with the least cycles each can take, cheapest first.

    Packed is what can be. Of nearly equal ones those that load least come first, then those whose rows lie close
    together in the result.
    """
    pop = candidates(problem, core)
    packed = frozenset(x.name for x in problem.inputs if x.packable)
    cycles, loads, distance = (np.zeros(len(pop)) for _ in range(3))
    for v, r in {*zip(pop.vector.tolist(), pop.row.tolist(), strict=True)}:
        own = (pop.vector == v) & (pop.row == r)
        vector = problem.spatial[v]
        size = {vector: pop.vectors[own] * core.lanes} | ({problem.spatial[r]: pop.rows[own]} if r >= 0 else {})
        across = frozenset(x.name for x in problem.inputs if x.packable and not x.free and _apart(x, vector) > bounds.SHUFFLED_STRIDE)
        cycles[own] = least_cycles(problem, core, vector, size, packed) + moving_cycles(problem, core, vector, across)
        loads[own] = load_work(problem, core, vector, size, packed) / _product(size.values())
        distance[own] = _apart(problem.output, problem.spatial[r]) if r >= 0 else 0
    order = np.lexsort((distance, loads, np.round(np.log(cycles) * 50)))
    return Tiles(pop.vector[order], pop.row[order], pop.vectors[order], pop.rows[order], cycles[order])


def _apart(x: Operand, loop: str) -> int:
    """Elements between two iterations of ``loop``."""
    return IRREGULAR if (s := x.stride(loop)) is None else abs(s)


def _product(values: Iterable[Any]) -> Any:
    return reduce(operator.mul, values, 1)
