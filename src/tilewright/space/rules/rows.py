"""Reductions along contiguous memory: softmax, normalisation, matrix-vector products.

Nests that walk the same rows are merged row by row, so that a row is finished while it is in
cache; inside a row the reduction runs in several registers of partial results.
"""

from __future__ import annotations

from math import prod

from tilewright.cost import step
from tilewright.cost.core import VectorCore
from tilewright.cost.step import ARRAYS
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Var
from tilewright.ir.stmt import Block, For, Kernel, LoopKind, Stmt
from tilewright.schedule.nest import trip_count
from tilewright.schedule.schedule import Schedule
from tilewright.space.rules import tile
from tilewright.space.stages import Stage, stage_of
from tilewright.util.errors import ScheduleError

#: Registers of partial results: covers the latency of a dependent operation.
PARTIALS = 4
#: Cycles to combine the partial results of one row.
COMBINE_CYCLES = 12.0
#: Elements of a row below which lanes do not pay.
SHORTEST = 8
#: Iterations for each thread from which on it does not matter that they do not divide.
ENOUGH = 4


def horizontal_loops(stage: Stage) -> tuple[str, ...]:
    """The reduction loops that together walk memory contiguously in some input and jump in none, outermost first.

    A window of an image that it covers whole is such a row, although two loops walk it. Empty when no row is worth a vector.
    """
    reads = stage.reads()
    for name in reversed(stage.reduction):
        strides = [r.stride(name) for r in reads]
        if 1 not in strides or any(s not in (0, 1) for s in strides):
            continue
        found: tuple[str, ...] = (name,)
        length = stage.loops[name]
        while (outer := _continues(stage, found[0])) is not None:
            found, length = (outer, *found), length * stage.loops[outer]
        if length >= SHORTEST:
            return found
    return ()


def _continues(stage: Stage, inner: str) -> str | None:
    """The reduction loop whose next iteration begins, in every input, where ``inner`` ends."""

    def follows(outer: str) -> bool:
        pairs = [(a.stride(outer), a.stride(inner)) for a in stage.reads() if not {outer, inner} & a.runs.keys()]
        return len(pairs) == len(stage.reads()) and all(i is not None and o == i * stage.loops[inner] for o, i in pairs)

    return next((n for n in stage.reduction if n != inner and stage.loops[inner] > 1 and follows(n)), None)


def horizontal_loop(stage: Stage) -> str | None:
    """The innermost of :func:`horizontal_loops`; None when there are none."""
    return next(reversed(horizontal_loops(stage)), None)


def row_length(stage: Stage) -> int:
    """Elements of one row of a stage that has :func:`horizontal_loops`."""
    return prod(stage.loops[n] for n in horizontal_loops(stage))


def cycles(stage: Stage, core: VectorCore) -> float:
    """Estimated cycles of the stage done row by row (infinite when no loop qualifies)."""
    if horizontal_loop(stage) is None:
        return float("inf")
    steps = stage.volume / core.lanes
    loads = step.load_cycles(core, len(stage.reads()), 0.0)
    return steps * float(step.largest(ARRAYS, (1.0 / core.fma_per_cycle, loads))) + COMBINE_CYCLES * stage.volume / prod(
        stage.loops[n] for n in stage.reduction
    )


def merge_rows(sch: Schedule, within: str | None = None) -> None:
    """Merge adjacent nests of the kernel, or of the body of ``within``, over their common outer loops, as far as dependences allow."""
    _merge_block(sch, within)


def _block(kernel: Kernel, loop: str | None) -> Block:
    return kernel.body if loop is None else st.find_loop(kernel, loop).body


def _merge_block(sch: Schedule, loop: str | None) -> None:
    position = 0
    while True:
        fors = [s for s in _block(sch.kernel, loop).stmts if isinstance(s, For)]
        if position + 1 >= len(fors):
            break
        first, second = fors[position], fors[position + 1]
        if not (is_row(first) and is_row(second) and _merged(sch, first, second)):
            position += 1
    for s in _block(sch.kernel, loop).stmts:
        if isinstance(s, For) and len([t for t in s.body.stmts if isinstance(t, For)]) > 1:
            _merge_block(sch, s.name)


def is_row(f: For) -> bool:
    """Whether the loop addresses everything written below it (but buffers of its own): it is spatial for each of its nests."""
    own = {s.buffer.name for s in st.walk(f) if isinstance(s, st.Alloc)}
    return all(f.name in _index_names(s) for s in st.walk(f) if isinstance(s, st.Store) and s.buffer.name not in own)


def _index_names(s: st.Store) -> set[str]:
    return {n for i in s.indices for n in ex.free_vars(i)}


def _merged(sch: Schedule, first: For, second: For) -> bool:
    # A row of at least two loops: merging innermost loops would break perfect nests for nothing.
    if not any(isinstance(s, For) for s in first.body.stmts) and not any(isinstance(s, For) for s in second.body.stmts):
        return False
    try:
        sch.merge(first.name, second.name)
    except ScheduleError:
        return False  # not the same range, or the second needs rows the first has not finished: they stay apart
    return True


def nests_of(root: For) -> list[Stage]:
    """The nests whose loops may become lanes: those below the rows, or all of ``root`` where it sums everything into one number."""
    whole = stage_of(root)
    return [whole] if whole.is_reduction and not whole.spatial else list(tile.nests(root))


def share_rows(root: For) -> bool:
    """Whether several nests, or a reduction, that are not scheduled yet run below ``root``."""
    inner = [n for n in nests_of(root) if not n.is_scheduled]
    return len(inner) > 1 or any(n.is_reduction for n in inner)


def localize_rows(sch: Schedule) -> None:
    """Shrink local buffers that only one row uses to that row."""
    for b in st.allocated(sch.kernel):
        for f in reversed(_loops_that_use(sch.kernel, b.name)):
            if any(isinstance(s, For) for s in f.body.stmts):
                try:
                    sch.localize(b.name, f.name)
                    break
                except ScheduleError:
                    continue  # used outside this loop, or shared between its iterations: try one further out


def work(s: Stmt) -> int:
    """How often the statements below ``s`` run, together."""
    inside = sum(map(work, st.substmts(s))) + isinstance(s, (st.Store, st.Call))
    return inside * (trip_count(s) or 1) if isinstance(s, For) else inside


def joins(outer: For, threads: int) -> For | None:
    """The loop of rows that ``outer`` should become one with, because its own few iterations do not divide among ``threads``."""
    rows = trip_count(outer)
    inner = outer.body.stmts[0] if len(outer.body.stmts) == 1 else None
    if rows is None or rows >= ENOUGH * threads or rows % threads == 0 or not isinstance(inner, For) or trip_count(inner) is None:
        return None
    return inner if inner.kind is LoopKind.SERIAL and is_row(inner) else None


def divided_rows(sch: Schedule, root: str, threads: int) -> str:
    """The loop over rows to divide among ``threads``: ``root``, fused with loops inside while its iterations are few."""
    while (inner := joins(st.find_loop(sch.kernel, root), threads)) is not None:
        (root,) = sch.apply("fuse", root, inner.name)
    return root


def _loops_that_use(kernel: Kernel, buffer: str) -> list[For]:
    """The loops in the scope of a local buffer's declaration that use it."""
    homes = (
        s
        for s in st.walk(kernel.body)
        if isinstance(s, Block) and any(isinstance(t, st.Alloc) and t.buffer.name == buffer for t in s.stmts)
    )
    home = next(homes)
    return [f for f in st.loops(home) if buffer in st.read_buffers(f) | st.written_buffers(f)]


def reduce_row(sch: Schedule, stage: Stage, core: VectorCore, partials: int = PARTIALS) -> None:
    """Vectorise the reduction of one row: partial results in ``partials`` registers, combined once at the end."""
    row = horizontal_loops(stage)
    if not row:
        return
    if len(row) > 1:
        stage = _one_loop(sch, stage, row)
    name = stage.reduction[-1] if len(row) > 1 else row[0]
    width = min(partials * core.lanes, stage.loops[name] // core.lanes * core.lanes)
    if width == 0 or stage.loops[name] <= core.lanes:
        sch.vectorize(name)
        return
    parts = sch.apply("split", name, width, "peel")
    if len(parts) == 3:
        parent = _parent(sch.kernel, parts[0])
        if parent is not None and len(parent.body.stmts) == 2 and parent.name in stage.loops:
            _separate(sch, parent, stage)
        sch.vectorize(parts[2])
    partial, *roots = sch.rfactor(parts[1])
    sch.set_memory(partial, "reg")
    for root in roots:
        nest = stage_of(st.find_loop(sch.kernel, root))
        lanes = [f.name for f in st.loops(nest.root) if _walks_lanes(f, partial)]
        for lane in lanes:
            sch.vectorize(lane)


def _one_loop(sch: Schedule, stage: Stage, row: tuple[str, ...]) -> Stage:
    """The stage with the loops of a row innermost and fused into one."""
    around = [n for n in stage.loops if n not in row]
    if list(stage.loops) != [*around, *row]:
        sch.reorder(*around, *row)
    fused = row[0]
    for inner in row[1:]:
        (fused,) = sch.apply("fuse", fused, inner)
    return stage_of(st.find_loop(sch.kernel, around[0] if around else fused))


def _walks_lanes(f: For, partial: str) -> bool:
    for s in st.walk(f):
        if isinstance(s, st.Store):
            accesses = [s.indices] if s.buffer.name == partial else []
            accesses += [ld.indices for ld in ex.loads(s.value) if ld.buffer.name == partial]
            if any(isinstance(a[-1], Var) and a[-1].name == f.name for a in accesses):
                return True
    return False


def _separate(sch: Schedule, parent: For, stage: Stage) -> None:
    """Pull the tail out of the reduction loops around it, so that both parts are perfect nests."""
    loop: For | None = parent
    while loop is not None and loop.name in stage.loops and len(loop.body.stmts) == 2:
        outer = _parent(sch.kernel, loop.name)
        sch.fission(loop.name)
        loop = outer


def _parent(kernel: Kernel, loop: str) -> For | None:
    return next((f for f in st.loops(kernel) if any(isinstance(s, For) and s.name == loop for s in f.body.stmts)), None)
