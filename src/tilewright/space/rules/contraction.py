"""Reductions with a register tile: contractions, convolutions, pooling, sums over outer dimensions.

The output tile stays in registers while the reduction runs inside it; initialisation and the
element-wise epilogue run on the tile before and after. Tails are peeled, so that every copy of
the inner loops has constant extents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from tilewright.cost.contraction import Contraction, Operand, Population, best, needs_panel, transposes
from tilewright.cost.core import VectorCore
from tilewright.ir import expr as ex
from tilewright.ir.buffer import Layout
from tilewright.space.stages import Stage
from tilewright.space.strides import Access

#: Cycles of work below which waking other cores costs more than it saves.
PARALLEL_CYCLES = 8000
#: Rows of memory that a stream reads side by side, about: each sum is then loaded and stored once for that many rows,
#: and prefetchers still follow all of them.
SIDE_BY_SIDE = 8
#: Tiles up to this much slower on one core are looked at for how their loops divide among threads, and how many of them.
NEARLY_BEST, MOST_BALANCED = 1.25, 32
#: Vectors of sums beside one another in a stream: enough to hide the latency of additions.
STREAMED_VECTORS = 4


@dataclass(frozen=True, slots=True)
class Stream:
    """The reduction outside, in groups of ``steps`` iterations of ``loop``; the sums are kept in a cache, in ``blocks`` parts."""

    loop: str
    steps: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Tiling:
    """The chosen register tile of a stage: loops by the stage's names, extents in elements.

    ``outer`` are the loops around the tile, outermost first: ``vector`` and ``row`` stand there for
    the loops over tiles. ``parallel`` is the loop divided among cores (None: too little work). ``stream`` says how
    an operand is read row by row whose rows are longer than a tile.
    """

    vector: str
    row: str | None
    width: int
    rows: int
    outer: tuple[str, ...]
    parallel: str | None
    cycles: float
    stream: Stream | None = None

    def __str__(self) -> str:
        row = f"{self.row}:{self.rows} x " if self.row else ""
        return f"{row}{self.vector}:{self.width}"


def problem_of(stage: Stage, free: frozenset[str], dividing: frozenset[str] = frozenset()) -> Contraction:
    """The stage as the estimate sees it; layouts of the buffers in ``free`` may be chosen ahead of time.

    Loops of ``dividing`` are outside of it: it is the problem of one part of the work.
    """
    operands = tuple(_operand(a, stage, free) for a in stage.reads())
    loops = {n: extent for n, extent in stage.loops.items() if n not in dividing}
    spatial = tuple(n for n in stage.spatial if n not in dividing)
    return Contraction(loops, spatial, operands, _operand(stage.target(), stage, free))


def _operand(a: Access, stage: Stage, free: frozenset[str]) -> Operand:
    elements = int(np.prod(a.buffer.static_shape)) if a.buffer.shape else 1
    packable = dimension_loops(a, stage) is not None
    return Operand(a.buffer.name, a.buffer.dtype.nbytes, elements, a.strides, a.buffer.name in free, packable)


def dimension_loops(a: Access, stage: Stage) -> list[dict[str, int]] | None:
    """For each dimension the loops that index it, with their coefficients; None for windows and irregular indices.

    A dimension may be indexed by several spatial loops (``g * 32 + m``: every element once), but not by a sum that
    reads elements repeatedly.
    """
    out: list[dict[str, int]] = []
    seen: set[str] = set()
    for i in a.indices:
        names = sorted(ex.free_vars(i))
        if ex.loads(i) or seen & set(names) or (len(names) > 1 and set(names) & set(stage.reduction)):
            return None
        seen |= set(names)
        zero = dict.fromkeys(names, 0)
        base = ex.evaluate(i, zero)
        found = {n: int(ex.evaluate(i, {**zero, n: 1}) - base) for n in names}
        ordered = sorted(found, key=lambda n: found[n])
        reach = 1
        for n in ordered:
            if found[n] != reach or n not in stage.loops:
                return None
            reach *= stage.loops[n]
        out.append(found)
    return out


def choose(
    stage: Stage, core: VectorCore, threads: int, free: frozenset[str] = frozenset(), dividing: frozenset[str] = frozenset()
) -> Tiling | None:
    """The cheapest tiling by estimate over all candidates; None when no spatial loop can be a vector, or a
    dimension of the result is not walked by one loop. Loops of ``dividing`` divide the work among threads."""
    problem = problem_of(stage, free, dividing)
    dims = dimension_loops(stage.target(), stage)
    if not problem.spatial or dims is None or any(len(loops) > 1 for loops in dims):
        return None
    apart = [n for n in stage.spatial if n in dividing]
    found = tiling_of(problem, core, 1 if apart else threads)
    if found is None or not apart:
        return found
    cycles = found.cycles * prod(stage.loops[n] for n in apart)
    return replace(found, outer=(*apart, *found.outer), parallel=apart[0], cycles=cycles)


def tiling_of(problem: Contraction, core: VectorCore, threads: int, lanes: str | None = None) -> Tiling | None:
    """The cheapest tiling of ``problem`` by estimate, with loop ``lanes`` as the vector if one is named."""
    pop: Population = best(problem, core)
    if lanes is not None:
        pop = pop.where(pop.vector == problem.spatial.index(lanes))
    if not len(pop):
        return None
    streamed = _streamed_vector(problem, core) if lanes is None else None
    if streamed is not None:
        return _stream(problem, core, threads, *streamed, float(pop.cycles[0]))
    if threads == 1:
        return _tiling(problem, core, threads, pop, 0)
    near = np.flatnonzero(pop.cycles <= pop.cycles[0] * NEARLY_BEST)[:MOST_BALANCED]
    ordered = [_tiling(problem, core, threads, pop, int(n)) for n in near]
    # Nearly equal ones stay in the order of their cycles on one core.
    return min(ordered, key=lambda t: round(50 * np.log(t.cycles * _busiest(problem, t, threads))))


def _tiling(problem: Contraction, core: VectorCore, threads: int, pop: Population, n: int) -> Tiling:
    """Candidate ``n`` with the loops around it."""
    vector = problem.spatial[int(pop.vector[n])]
    row = problem.spatial[int(pop.row[n])] if pop.row[n] >= 0 else None
    width = min(int(pop.vectors[n]) * core.lanes, problem.loops[vector])
    rows = int(pop.rows[n])
    outer, parallel = _loop_order(problem, core, threads, vector, row, width, rows)
    return Tiling(vector, row, width, rows, outer, parallel, float(pop.cycles[n]))


def _busiest(problem: Contraction, tiling: Tiling, threads: int) -> float:
    """Part of the work that the busiest thread does. A remainder of a tile is a nest of its own, divided by another loop."""
    if tiling.parallel is None:
        return 1.0
    each = {tiling.vector: tiling.width, tiling.row: tiling.rows}.get(tiling.parallel, 1)
    extent = problem.loops[tiling.parallel]
    whole = max(extent // each, 1)
    divided = min(whole * each / extent, 1.0)
    return _imbalance(whole, threads) * divided + (1.0 - divided) / threads


def chunks(stage: Stage, tiling: Tiling) -> int:
    """Iterations of the loop that ``tiling`` divides among threads (1: none)."""
    if tiling.parallel is None:
        return 1
    if tiling.stream and tiling.parallel == tiling.vector:
        return tiling.stream.blocks
    each = {tiling.vector: tiling.width, tiling.row: tiling.rows}.get(tiling.parallel, 1)
    return -(-stage.loops[tiling.parallel] // each)


def _streamed_vector(problem: Contraction, core: VectorCore) -> tuple[str, str, int] | None:
    """The vector loop, the reduction loop and the steps of a stream, where the reduction is best outside.

    That is where the largest operand is used once, and its rows are longer than a tile: running down all rows, a tile
    would begin in another page at every step.
    """
    x = max(problem.inputs, key=lambda o: o.elements * o.itemsize)
    vector = next((n for n in problem.spatial if x.stride(n) == 1 and problem.output.stride(n) == 1), None)
    steps = [n for n in problem.reduction if problem.loops[n] > 1]
    if vector is None or x.free or any(x.stride(n) == 0 for n in problem.spatial if problem.loops[n] > 1):
        return None
    widest = (core.registers - 2) * core.lanes
    if not steps or any(abs(x.stride(n) or 0) <= widest for n in steps):
        return None
    outermost = max(steps, key=lambda n: abs(x.stride(n) or 0))
    inside = prod(problem.loops[n] for n in steps if n != outermost)
    together = max(SIDE_BY_SIDE // inside, 1)
    if inside > SIDE_BY_SIDE or problem.loops[outermost] < 2 * together:
        return None
    return vector, outermost, together


def _stream(problem: Contraction, core: VectorCore, threads: int, vector: str, loop: str, steps: int, cycles: float) -> Tiling:
    """The tile of a stream, its loops, and blocks of the vector loop: enough for all threads, and each one's sums stay in L2."""
    width = min(STREAMED_VECTORS * core.lanes, problem.loops[vector])
    others = tuple(n for n in problem.spatial if n != vector and problem.loops[n] > 1)
    tiles = -(-problem.loops[vector] // width)
    room = max(core.l2_bytes // 4 // (width * problem.output.itemsize), 1)
    least = -(-tiles // room)
    busy = threads > 1 and _arithmetic(problem, core) > PARALLEL_CYCLES
    lead = next((n for n in others if problem.loops[n] >= threads), None) if busy else None
    if busy and lead is None and tiles >= 2 * threads:
        lead = vector

    def slowest(blocks: int) -> tuple[int, int]:
        """Tiles one after the other: whole blocks are divided among threads, a smaller last one runs alone."""
        each = -(-tiles // blocks)
        whole = problem.loops[vector] // (each * width)
        return -(-whole // threads) * each + tiles - whole * each, blocks

    blocks = min(range(max(least, threads), max(least, threads) + 3 * threads), key=slowest) if lead == vector else least
    outer = (*([lead] if lead else []), *(n for n in (*others, vector) if n != lead))
    return Tiling(vector, None, width, 1, outer, lead, cycles, Stream(loop, steps, blocks))


def _loop_order(
    problem: Contraction, core: VectorCore, threads: int, vector: str, row: str | None, width: int, rows: int
) -> tuple[tuple[str, ...], str | None]:
    """Loops around the tile. Loops that all operands share come first; then either the panels of the
    vector operand or the remaining rows, whichever order streams fewer bytes from beyond the L2 cache."""
    panel = [x for x in problem.inputs if x.stride(vector) != 0]
    others = [n for n in problem.spatial if n not in (vector, row) and problem.loops[n] > 1]
    shared = [n for n in others if all(x.stride(n) != 0 for x in problem.inputs)]
    rest = [n for n in others if n not in shared]
    trips = {n: problem.loops[n] for n in others}
    trips[vector] = -(-problem.loops[vector] // width)
    if row:
        trips[row] = -(-problem.loops[row] // rows)
    inner_row = [row] if row else []
    panel_bytes = sum(x.elements * x.itemsize for x in panel)
    row_bytes = sum(x.elements * x.itemsize for x in problem.inputs if x not in panel)
    rounds = int(np.prod([trips[n] for n in rest])) if rest else 1
    panels_outside = row_bytes * (trips[vector] if row_bytes > core.l2_bytes // 2 else 1)
    rows_outside = panel_bytes * (rounds if panel_bytes > core.l2_bytes // 2 else 1)
    orders = [[*shared, vector, *rest, *inner_row], [*shared, *rest, vector, *inner_row], [*shared, *rest, *inner_row, vector]]
    costs = [panels_outside, rows_outside, panel_bytes * (rounds * trips.get(row or "", 1) if panel_bytes > core.l2_bytes // 2 else 1)]
    if threads == 1:
        order = orders[int(np.argmin(costs))]
        return tuple(n for n in order if trips[n] > 1), None
    leads = [[n, *(m for m in order if m != n)] for order in orders for n in order if trips[n] > 1]
    if not leads:
        return (), None
    work = [_streamed_bytes(problem, core, order, trips) / core.outer_bytes_per_cycle for order in leads]
    # A remainder of a tile is peeled: it is a nest of its own, divided by another of its loops.
    whole = {**trips, vector: max(problem.loops[vector] // width, 1)}
    if row:
        whole[row] = max(problem.loops[row] // rows, 1)
    work = [w + _imbalance(whole[order[0]], threads) * _arithmetic(problem, core) for w, order in zip(work, leads, strict=True)]
    order = [n for n in leads[int(np.argmin(work))] if trips[n] > 1]
    return tuple(order), (order[0] if _arithmetic(problem, core) > PARALLEL_CYCLES else None)


def _streamed_bytes(problem: Contraction, core: VectorCore, order: list[str], trips: Mapping[str, int]) -> float:
    """Bytes from beyond the L2 cache when the loops run in ``order``: a loop that does not move an operand reads it
    again in every iteration, unless what the loops inside touch of it stays."""
    total = 0.0
    for x in problem.inputs:
        inside = total_bytes = float(x.elements * x.itemsize)
        for n in order:
            if x.stride(n) != 0:
                inside /= trips[n]
            elif inside > core.l2_bytes // 2:
                total_bytes *= trips[n]
        total += total_bytes
    return total


def _imbalance(trips: int, threads: int) -> float:
    """Longest share of a thread when ``trips`` iterations are divided, relative to all."""
    return -(-trips // threads) / trips


def _arithmetic(problem: Contraction, core: VectorCore) -> float:
    return float(np.prod(list(problem.loops.values()))) / core.lanes / core.fma_per_cycle


def panel_layout(access: Access, stage: Stage, tiling: Tiling) -> Layout | None:
    """The layout that makes the tile's reads of ``access`` contiguous, in the order the tile reads them.

    Physically: dimensions of the loops around the tile, then panels of ``width``, then the reduction loops in
    their order, then the ``width`` elements of a panel row. None when no such layout exists.
    """
    dims = dimension_loops(access, stage)
    if dims is None:
        return None
    v = next((d for d, loops in enumerate(dims) if tiling.vector in loops), None)
    if v is None:
        return None
    order = reduction_order(stage, access.buffer.name)
    inside = sorted((d for d, loops in enumerate(dims) if set(loops) & set(order)), key=lambda d: order.index(next(iter(dims[d]))))
    around = [d for d in range(len(dims)) if d != v and d not in inside]
    block = tiling.width
    if any(c % block for n, c in dims[v].items() if n != tiling.vector):
        block = stage.loops[tiling.vector]
    whole = block >= int(access.buffer.static_shape[v])
    head = [(d, 1) for d in around] + ([] if whole else [(v, block)])
    return Layout((*head, *((d, 1) for d in inside), (v, 1)))


def wants_packing(access: Access, stage: Stage, tiling: Tiling) -> bool:
    """Whether to copy an operand of the vector loop into panels before the reduction (its contents are not constant)."""
    operand = _operand(access, stage, frozenset())
    problem = Contraction(stage.loops, stage.spatial, (operand,), operand)
    stride = access.stride(tiling.vector)
    if stride not in (1, -1):
        return stride is None or bool(transposes(problem, operand, abs(stride)))
    return bool(needs_panel(problem, operand, tiling.width))


def reduction_order(stage: Stage, packed: str) -> list[str]:
    """Reduction loops, outermost first: by how far they move the operands that are not ``packed``."""
    moving = [a for a in stage.reads() if a.buffer.name != packed] or stage.reads()

    def distance(n: str) -> int:
        strides = [a.stride(n) for a in moving]
        return max(abs(s) if s is not None else 1 << 40 for s in strides)

    return sorted(stage.reduction, key=lambda n: -distance(n))
