"""Stages without reduction (element-wise, padding, copies, packing): vectorise along memory, split over cores."""

from __future__ import annotations

from tilewright.cost.core import VectorCore
from tilewright.ir.stmt import find_loop, loops
from tilewright.schedule.nest import trip_count
from tilewright.schedule.schedule import Schedule
from tilewright.space.stages import Stage

#: Elements below which waking other cores costs more than it saves (a few microseconds of work).
PARALLEL_ELEMENTS = 1 << 14
#: Vectors in one inner loop: enough to hide latency, small enough not to spill.
UNROLLED_VECTORS = 4


def apply(sch: Schedule, stage: Stage, core: VectorCore, threads: int, parallel: bool = True, vectors: int = UNROLLED_VECTORS) -> None:
    """Schedule ``stage``: the loop that walks memory becomes a loop of ``vectors`` registers, innermost; the outermost loop parallel."""
    order = loop_order(stage)
    if not order:
        return
    if order != list(stage.loops):
        sch.reorder(*order)
    across = transposed(stage, order[-1], core)
    if across is not None:
        order = block_transposition(sch, order, across, core)
        if parallel and threads > 1 and stage.volume >= PARALLEL_ELEMENTS:
            split_over_cores(sch, order)
        return
    run = min((a.runs[order[-1]] for a in (stage.target(), *stage.reads()) if order[-1] in a.runs), default=None)
    chunks = vectorize_inner(sch, order[-1], stage.loops[order[-1]], core.lanes * vectors, run)
    if chunks and run is not None and order[-1] in stage.target().runs and len(order) > 1:
        # The result is blocked along the vector loop: whole blocks outside, so that they are written in order.
        sch.reorder(chunks, *order[:-1])
        order = [chunks, *order]
    if parallel and threads > 1 and stage.volume >= PARALLEL_ELEMENTS:
        split_over_cores(sch, order[:-1])


def transposed(stage: Stage, vector: str, core: VectorCore) -> str | None:
    """The loop along which a read is contiguous that jumps along the vector loop, when both are long."""
    if stage.loops[vector] < 2 * core.lanes:
        return None
    for r in stage.reads():
        if abs(r.stride(vector) or 0) >= core.lanes:
            for name, extent in stage.loops.items():
                if abs(r.stride(name) or 0) == 1 and extent >= core.lanes:
                    return name
    return None


def block_transposition(sch: Schedule, order: list[str], across: str, core: VectorCore) -> list[str]:
    """Copy in square blocks, so that each line gathered from is used whole while it is in cache. Returns the outer loops."""
    vector = order[-1]
    extent = trip_count(find_loop(sch.kernel, vector)) or 1
    around = [n for n in order if n not in (across, vector)]
    sch.reorder(*around, across, vector)
    outer, inner, *rest = sch.apply("split", across, core.lanes, "peel")
    chunks, lanes, *tail = sch.apply("split", vector, core.lanes, "peel")
    if tail:
        sch.fission(inner)
        sch.vectorize(tail[0])
    sch.reorder(chunks, inner)
    sch.vectorize(lanes)
    for name in rest:
        last = [f.name for f in loops(find_loop(sch.kernel, name).body)][-1]
        vectorize_inner(sch, last, extent, core.lanes * UNROLLED_VECTORS)
    return [*around, outer, chunks]


def split_over_cores(sch: Schedule, loops: list[str]) -> None:
    """Make the first of ``loops`` with more than one iteration parallel."""
    for name in loops:
        if trip_count(find_loop(sch.kernel, name)) != 1:
            sch.parallel(name)
            return


def vectorize_inner(sch: Schedule, loop: str, extent: int, width: int, run: int | None = None) -> str | None:
    """Make ``loop`` a vector loop; a long one is split into chunks of ``width``, its tail peeled.

    ``run`` is the number of iterations after which some access jumps: chunks do not cross it.
    Returns the loop over chunks when the split left no tail.
    """
    if run is not None:
        # A whole block where registers allow: then the address within it is plainly contiguous.
        width = run if run <= 2 * width else max(w for w in range(1, width + 1) if run % w == 0)
    if extent <= 1:
        return None
    if extent <= width:
        sch.vectorize(loop)
        return None
    outer, *inner = sch.split(loop, width, "peel")
    for name in inner:
        sch.vectorize(name)
    return outer if len(inner) == 1 else None


def loop_order(stage: Stage) -> list[str]:
    """Loops by how far they move the stored element, farthest first; the best vector loop last."""
    target, reads = stage.target(), stage.reads()
    names = list(stage.loops)
    if not names:
        return []

    def contiguous(name: str) -> float:
        score = 4.0 * (abs(target.stride(name) or 0) == 1)
        score += sum({0: 0.5, 1: 1.0}.get(abs(s), 0.0) if (s := r.stride(name)) is not None else -0.5 for r in reads)
        return score if stage.loops[name] > 1 else -1.0

    vector = max(names, key=lambda n: (contiguous(n), names.index(n)))
    rest = [n for n in names if n != vector]
    rest.sort(key=lambda n: -abs(target.stride(n) or 0))
    return [*rest, vector]
