"""Cycles of a register-tiled contraction, for a whole population of tilings at once.

A tiling holds an output tile of ``rows`` x ``vectors`` SIMD registers while the reduction runs.
Every quantity below is an arithmetic expression over NumPy arrays with one entry a candidate, so
thousands of candidates cost one pass (DESIGN rule 4); plain ints work as well.

What a step costs is said by the bounds of :mod:`tilewright.cost.step`, which the estimate of symbolic
programs uses too. Here they get what a tile would do if it existed: multiply-adds (tails count as full
registers), loads, and bytes streamed from the cache that holds an operand between two tiles; filling and
draining the tile, and packing, come on top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilewright.cost import step as bounds
from tilewright.cost.core import VectorCore
from tilewright.cost.step import ARRAYS
from tilewright.cost.step import SHUFFLED_STRIDE as SHUFFLED_STRIDE

#: Bytes of a page, and cycles to begin reading a new one in a stream without reuse.
PAGE, NEW_PAGE = 4096, 8.0
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
class Population:
    """Candidate tilings, column-wise: indices into ``spatial`` (row -1: no row loop) and tile sizes."""

    vector: np.ndarray
    row: np.ndarray
    vectors: np.ndarray
    rows: np.ndarray
    cycles: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.vector)

    def where(self, chosen: np.ndarray) -> Population:
        """The candidates for which ``chosen`` (bool [len]) holds."""
        cycles = self.cycles[chosen] if len(self.cycles) else self.cycles
        return Population(self.vector[chosen], self.row[chosen], self.vectors[chosen], self.rows[chosen], cycles)


def candidates(problem: Contraction, core: VectorCore) -> Population:
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
    return Population(table[:, 0], table[:, 1], table[:, 2], table[:, 3])


def estimate(problem: Contraction, core: VectorCore, pop: Population) -> np.ndarray:
    """Cycles of one core for each candidate: float array [len(pop)]."""
    extents = np.array([problem.loops[n] for n in problem.spatial] + [1], dtype=np.float64)
    reduction = float(np.prod([problem.loops[n] for n in problem.reduction])) if problem.reduction else 1.0
    outer = np.prod(extents) / (extents[pop.vector] * extents[pop.row])
    full_rows, tail_rows = np.divmod(extents[pop.row], pop.rows)
    width = pop.vectors * core.lanes
    full_wide, tail_wide = np.divmod(extents[pop.vector], width)
    tail_vectors = np.ceil(tail_wide / core.lanes)
    cycles = np.zeros(len(pop))
    for tiles_m, m in ((full_rows, pop.rows), ((tail_rows > 0) * 1.0, tail_rows)):
        for tiles_u, u in ((full_wide, pop.vectors), ((tail_wide > 0) * 1.0, tail_vectors)):
            step = _step_cycles(problem, core, pop, m, u)
            edge = _edge_cycles(problem, core, pop, m, u)
            cycles += tiles_m * tiles_u * (reduction * step + edge)
    return outer * cycles + _packing_cycles(problem, core, pop)


def _step_cycles(problem: Contraction, core: VectorCore, pop: Population, m: Any, u: Any) -> np.ndarray:
    """Cycles of one reduction step of an m x u tile.

    Operands narrower than the result are widened by an instruction for each register or broadcast. Elements of rows
    that evict one another come with their lines from the next cache.
    """
    operations = m * u
    vectors, broadcasts, traffic, jumps = (np.zeros(len(pop)) for _ in range(4))
    for x in problem.inputs:
        along_row = _stride(x, problem.spatial, pop.row) != 0
        along_vector = _stride(x, problem.spatial, pop.vector) != 0
        count = np.where(along_row, m, 1.0)
        stride = np.abs(_stride(x, problem.spatial, pop.vector))
        per_vector = np.where(x.packable & transposes(problem, x, stride), 1.0, bounds.load_slots(ARRAYS, core, stride))
        vectors += np.where(along_vector, count * u * per_vector, 0.0)
        jumps += np.where(along_vector & (m == 1) & (_nearest(problem, x) * x.itemsize >= PAGE), NEW_PAGE, 0.0)
        bytes_moved = count * np.where(along_vector, u * core.lanes, 1.0) * x.itemsize
        traffic += bytes_moved / _source_rate(problem, core, x, bytes_moved)
        if x.itemsize < problem.output.itemsize:
            operations = operations + np.where(along_vector, count * u, count)
        broadcasts += np.where(along_vector, 0.0, count)
        evicted = ~along_vector & along_row & (m * _row_bytes(core, _stride(x, problem.spatial, pop.row) * x.itemsize) >= core.l1_bytes)
        traffic += np.where(evicted, count * bounds.CACHE_LINE / (core.l2_bytes_per_cycle * bounds.SUSTAINED), 0.0)
    compute = bounds.compute_cycles(ARRAYS, core, operations, bounds.load_cycles(core, vectors, broadcasts), 0.0, core.fma_latency)
    return bounds.overlapped(ARRAYS, compute, [traffic]) + jumps  # type: ignore[no-any-return]


def _row_bytes(core: VectorCore, apart: np.ndarray) -> np.ndarray:
    """Room that an element of each row needs in the innermost cache, rows ``apart`` bytes from each other."""
    shared = np.gcd(np.maximum(np.abs(apart), 1), core.l1_bytes // bounds.CACHE_WAYS)
    return bounds.CACHE_LINE * bounds.crowding(ARRAYS, shared, bounds.CACHE_LINE)  # type: ignore[no-any-return]


def _source_rate(problem: Contraction, core: VectorCore, x: Operand, step_bytes: np.ndarray) -> np.ndarray:
    """Bytes per cycle at which a tile reads ``x``: from the innermost cache that keeps it between two tiles."""
    steps = np.prod([float(problem.loops[n]) for n in problem.reduction if x.stride(n) != 0] or [1.0])
    tile_bytes = step_bytes * steps
    whole = x.elements * x.itemsize
    far = np.where(np.minimum(tile_bytes, whole) <= core.l2_bytes / 2, core.l2_bytes_per_cycle, core.outer_bytes_per_cycle)
    return np.where(tile_bytes <= core.l1_bytes / 2, core.load_bytes_per_cycle * 4, far)


def _edge_cycles(problem: Contraction, core: VectorCore, pop: Population, m: Any, u: Any) -> np.ndarray:
    """Cycles to start and drain an m x u tile: zeroing, storing (element by element if the result is strided)."""
    apart = np.abs(_stride(problem.output, problem.spatial, pop.vector))
    stored = bounds.store_cycles(ARRAYS, core, apart, m * u * bounds.UNALIGNED, m * u * core.lanes)
    return stored + m * u + bounds.DRAIN  # type: ignore[no-any-return]


def _packing_cycles(problem: Contraction, core: VectorCore, pop: Population) -> np.ndarray:
    """Cycles to bring operands into vector order: copies for panels, scalar moves for transposition."""
    total = np.zeros(len(pop))
    for x in problem.inputs:
        if x.free or not x.packable:
            continue
        along_vector = np.abs(_stride(x, problem.spatial, pop.vector))
        transposed = (along_vector > 1) & transposes(problem, x, along_vector)
        panel = (along_vector == 1) & needs_panel(problem, x, pop.vectors * core.lanes)
        per_element = np.where(
            transposed, 1.0 / core.scalar_moves_per_cycle, np.where(panel, 2.0 * x.itemsize / core.load_bytes_per_cycle, 0.0)
        )
        total += x.elements * per_element
    return total


def needs_panel(problem: Contraction, x: Operand, width: Any) -> Any:
    """Whether a vector operand is worth copying into panels of ``width`` elements: it is reused often,
    and its reduction steps are so far apart that each one touches other cache lines and pages."""
    return (_nearest(problem, x) > 2 * width) & (_reuse(problem, x) >= 8)


def transposes(problem: Contraction, x: Operand, stride: Any) -> Any:
    """Whether a vector operand whose lanes are ``stride`` elements apart is worth laying out anew: a wide stride, or
    many uses of each element, would cost more in shuffles than moving every element once. (A constant is moved ahead of time.)"""
    return x.free | (stride * _reuse(problem, x) > SHUFFLED_STRIDE)


def _reuse(problem: Contraction, x: Operand) -> float:
    """How often each element of ``x`` is used."""
    return float(np.prod([float(problem.loops[n]) for n in problem.spatial if x.stride(n) == 0] or [1.0]))


def _nearest(problem: Contraction, x: Operand) -> int:
    """The smallest distance between two reduction steps of ``x``, in elements (0: it does not move)."""
    strides = [abs(s) if (s := x.stride(n)) is not None else IRREGULAR for n in problem.reduction if problem.loops[n] > 1]
    return min((s for s in strides if s), default=0)


def best(problem: Contraction, core: VectorCore) -> Population:
    """The candidates with their cycles, cheapest first."""
    pop = candidates(problem, core)
    cycles = estimate(problem, core, pop)
    # Among nearly equal candidates: wide tiles, then rows that lie close together in the result.
    distance = np.abs(_stride(problem.output, problem.spatial, pop.row))
    order = np.lexsort((distance, -pop.vectors, np.round(np.log(cycles) * 50)))
    return Population(pop.vector[order], pop.row[order], pop.vectors[order], pop.rows[order], cycles[order])


def _stride(x: Operand, spatial: Sequence[str], which: np.ndarray) -> np.ndarray:
    """Stride of ``x`` along the spatial loop each candidate chose (irregular counts as very large)."""
    table = [IRREGULAR if (s := x.stride(n)) is None else s for n in spatial]
    return np.array([*table, 0])[which]
