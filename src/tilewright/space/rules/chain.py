"""Chains of contractions, finished in blocks of rows: what passes from one to the next stays in a cache.

``softmax(Q K^T) V`` is such a chain, and so are two layers of a perceptron. A sketch divides the rows that all
stages share into blocks and runs the stages one after the other for each block, every contraction in register tiles
of its own. What a contraction reads again in every block may be copied into vector order first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, product

import numpy as np

from tilewright.cost import contraction as cost
from tilewright.cost.core import VectorCore
from tilewright.cost.step import SHUFFLED_STRIDE
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Expr, compare
from tilewright.schedule.schedule import Schedule
from tilewright.space.chains import FEWEST_ROWS, SHARE, Chain, chain_of
from tilewright.space.context import Context
from tilewright.space.idle import masked, priced
from tilewright.space.knob import Knob
from tilewright.space.levels import ceil_div
from tilewright.space.likely import MOST_TILES, NEARLY_BEST
from tilewright.space.plan import Decision, Plan
from tilewright.space.rule import rule
from tilewright.space.rules import chain_program, chain_steps, contraction, rows
from tilewright.space.rules.chain_steps import Blocks, Link
from tilewright.space.sketch import Sketch
from tilewright.space.stages import Stage, stages
from tilewright.space.tiling import MOST_VECTORS, SLACK
from tilewright.util.errors import ScheduleError

#: Combinations of copied operands that become sketches, at most.
MOST_COPIES = 4
#: Blocks of rows at least where each block reads what its rows see only: half of a triangle and half a block are computed.
FEWEST_BLOCKS = 8
#: Vectors of a row that a softmax sees at a time, where it does not see all.
KEY_VECTORS = (16, 32)


@rule
def chains(context: Context) -> Iterator[Sketch]:
    """One sketch for each choice of the operands that are copied into vector order."""
    if context.machine.vector_bits == 0:
        return
    start, every = _without_scaled_maxima(*_without_row_factors(*_with_last_nest(context)))
    chain = chain_of(every, {b.name for b in st.allocated(start.kernel)})
    if chain is None:
        return
    found = [_link(context, every[n], chain, n) for n in chain.links]
    links = [x for x in found if x is not None]
    if len(links) < len(found):
        return
    for packings in islice(product(*(p for _, p in links)), MOST_COPIES):
        chosen = tuple(replace(x, packing=p) for (x, _), p in zip(links, packings, strict=True))
        for keys in (None, *_key_blocks(every, chain, context.core(every[chain.links[0]]))):
            blocks = _blocks(context, start, every, chain, chosen, keys)
            if blocks is not None:
                yield _sketch(blocks)


def _with_last_nest(context: Context) -> tuple[Schedule, tuple[Stage, ...]]:
    """The prepared kernel, ended by an element-wise nest: sums of the last contraction are written back by one."""
    if not context.stages or not context.stages[-1].is_reduction:
        return context.base, context.stages
    result = context.stages[-1].output
    start = context.base.copy()
    try:
        start.cache_write(result.name, None, result.memory, later_reads=False)
    except ScheduleError:
        return context.base, context.stages
    start.simplify(keep_loops=False)
    return start, tuple(stages(start.kernel))


def _without_row_factors(start: Schedule, every: tuple[Stage, ...]) -> tuple[Schedule, tuple[Stage, ...]]:
    """Sums whose terms are weighed by row beforehand (a softmax divided by its sum) are weighed themselves instead.

    The terms are then ready before the weights are, and each row is weighed once for each result.
    """
    sums = [s for s in every if s.is_reduction and s.factors(masked=True) is not None]
    weighed = {s.output.name for s in every if s.store is not None and s.store.op is None and _is_product(s.store.value)}
    local = {b.name for b in st.allocated(start.kernel)}
    if len(sums) < 2:
        return start, every  # no chain anyway
    for s in sums:
        for read in sorted(s.inputs() & weighed & local):
            trial = start.copy()
            try:
                trial.inline(read)
                trial.factor_out(s.output.name)
            except ScheduleError:
                continue  # not computed element by element, or not weighed by row
            start = trial
    return start, tuple(stages(start.kernel))


def _without_scaled_maxima(start: Schedule, every: tuple[Stage, ...]) -> tuple[Schedule, tuple[Stage, ...]]:
    """What is scaled by a positive constant before its maximum is found (the scores of a softmax) is scaled afterwards.

    No pass is left to do it, and an exponent takes the factor at no cost.
    """
    local = {b.name for b in st.allocated(start.kernel)}
    scaled = {s.output.name for s in every if s.store is not None and s.store.op is None and _is_product(s.store.value)}
    for peak in [s for s in every if s.is_reduction and s.store is not None and s.store.op == "max"]:
        for read in sorted(peak.inputs() & scaled & local):
            trial = start.copy()
            try:
                trial.inline(read)
                trial.factor_out(peak.output.name)
            except ScheduleError:
                continue  # not computed element by element, or by a factor that may be negative
            start = trial
    return start, tuple(stages(start.kernel))


def _is_product(e: Expr) -> bool:
    return isinstance(e, ex.Binary) and e.op in ("*", "/")


# --- contractions -------------------------------------------------------------------------


def _link(context: Context, stage: Stage, chain: Chain, position: int) -> tuple[Link, list[tuple[tuple[str, str], ...]]] | None:
    """The contraction as a link, and what of its operands may be copied; None when it has no tile along the rows."""
    core, row = context.core(stage), chain.row.own[position]
    batch = {s.own[position] for s in chain.batch}
    alone = replace(stage, loops={n: 1 if n in batch else extent for n, extent in stage.loops.items()})
    problem = contraction.problem_of(alone, context.constants)
    tiles = _tiles(problem, core, row, batch)
    if tiles is None or any(len(d) > 1 for d in contraction.dimension_loops(stage.target(), stage) or [{"": 0, " ": 0}]):
        return None
    vector = problem.spatial[int(tiles.vector[0])]
    prefix = f"{stage.output.name}_"
    lanes = sorted({min(u * core.lanes, stage.loops[vector]) for u in range(1, MOST_VECTORS + 1)})
    width = Knob(f"{prefix}width", tuple(lanes))
    rows_ = Knob(f"{prefix}rows", tuple(range(1, min(stage.loops[row], core.registers - 2) + 1)))
    likely = {width.name: np.minimum(tiles.vectors * core.lanes, stage.loops[vector]), rows_.name: tiles.rows}
    link = Link(position, stage, row, vector, tuple(s.own[position] for s in chain.batch), width, rows_, (), likely)
    local = set(chain.local)
    moved = {a.buffer.name: a for a in stage.reads() if a.moved_by(vector) and a.buffer.name not in local}
    options = [_placements(context, stage, name, vector, int(likely[width.name][0])) for name in moved]
    return link, [tuple(p for p in chosen if p[1] != "as it is") for chosen in product(*options)]


def _tiles(problem: cost.Contraction, core: VectorCore, row: str, batch: set[str]) -> cost.Tiles | None:
    """Tiles along the rows, on the lanes the loop of the one that takes the least cycles: it and those nearly as good, best first."""
    ranked = cost.best(problem, core)
    lanes = np.array([n not in batch for n in problem.spatial])
    ranked = ranked.where((ranked.row == problem.spatial.index(row)) & lanes[ranked.vector])
    if not len(ranked):
        return None
    near = (ranked.vector == ranked.vector[0]) & (ranked.cycles <= NEARLY_BEST * ranked.cycles[0])
    return ranked.where(near & (np.cumsum(near) <= MOST_TILES))


def _placements(context: Context, stage: Stage, name: str, vector: str, width: int) -> list[tuple[str, str]]:
    """How an operand may come into vector order, the likelier first."""
    a = next(a for a in stage.reads() if a.buffer.name == name)
    if contraction.panel_layout(a, stage, vector, width) is None:
        return [(name, "as it is")]
    if name in context.constants:
        return [(name, "ahead")]
    apart = abs(a.stride(vector) or cost.IRREGULAR)
    if apart == 1:
        return [(name, "as it is"), (name, "copy")]
    return [(name, "copy"), (name, "as it is")] if apart <= SHUFFLED_STRIDE else [(name, "copy")]


# --- sketches -----------------------------------------------------------------------------


def _key_blocks(every: Sequence[Stage], chain: Chain, core: VectorCore) -> list[int]:
    """Lengths of the part of a row that a softmax between the contractions may see at a time: long rows only."""
    peaks = [every[n] for n in _maxima(every, chain)]
    longest = peaks[0].loops[peaks[0].reduction[-1]] // core.lanes if len(peaks) == 1 else 0
    return [n * core.lanes for n in KEY_VECTORS if 2 * n <= longest]


def _blocks(
    context: Context, start: Schedule, every: tuple[Stage, ...], chain: Chain, links: tuple[Link, ...], keys: int | None
) -> Blocks | None:
    """The chain with its knobs; None when too few rows fit the core, or a primitive refuses to run the stages block by block."""
    core = context.core(every[chain.links[0]])
    extent = every[-1].loops[chain.row.loop]
    row_bytes = chain.row_bytes(every)
    if keys is not None:
        (peak,) = (every[n] for n in _maxima(every, chain))
        row_bytes = max(row_bytes * keys // peak.loops[peak.reduction[-1]], 1)
    fewest = FEWEST_BLOCKS if masked(every) else 2
    most = min(-(-extent // fewest), core.l2_bytes // row_bytes)
    if most < FEWEST_ROWS:
        return None
    tile = max(int(x.likely[x.rows.name][0]) for x in links)
    balanced = {-(-extent // n) for n in range(2, 17)}
    likely = {*balanced, *(tile << n for n in range(12)), *(1 << n for n in range(2, 16))}
    # The last block is not much smaller than the others.
    values = {b for b in likely if FEWEST_ROWS <= b <= most and -(-extent // b) * b * SLACK <= extent * (SLACK + 1)}
    if not values:
        return None
    longest = max((s.loops[s.reduction[-1]] // core.lanes for n in chain.members if _along_memory(s := every[n])), default=0)
    partials = Knob("partials", tuple(v for v in (1, 2, 4, 8) if v <= max(longest, 1)))
    block = Knob("block", tuple(sorted(values)))
    wanted = min(most, max(core.l2_bytes // SHARE // row_bytes, tile))
    lead = _lead(context, every[-1], chain, max(block.values))
    blocks = Blocks(context, start, every, chain, links, block, partials, lead, wanted, keys)
    try:
        chain_steps.in_blocks(start.copy(), blocks, block.values[0])
        if keys is not None:
            chain_program.in_keys(blocks)
    except ScheduleError:
        return None
    return blocks


def _sketch(blocks: Blocks) -> Sketch:
    every, links, block, partials = blocks.every, blocks.links, blocks.block, blocks.partials
    row, core = blocks.chain.row, blocks.context.core(every[links[0].position])
    constraints = [c for x in links for c in _fits(x, core, block)]
    knobs = (*(k for x in links for k in (x.width, x.rows)), block, *([partials] if len(partials.values) > 1 else []))
    parts = [f"blocks of {row.own[links[0].position]}", *(f"{x.stage.output.name}: {x.structure}" for x in links)]
    parts += [f"softmax of {blocks.keys} at a time"] if blocks.keys is not None else []
    return Sketch(
        "; ".join(parts),
        knobs,
        tuple(constraints),
        partial(priced, every, partial(chain_program.program, blocks, knobs)),
        partial(_schedule, blocks),
        partial(_plan, blocks),
        likely=partial(_likely, blocks),
    )


def _likely(blocks: Blocks) -> list[Mapping[str, np.ndarray]]:
    """Where a default is looked for: the tiles of each contraction, then blocks, those first that fit a share of the cache."""
    wanted = max((b for b in blocks.block.values if b <= blocks.wanted), default=blocks.block.values[0])
    sizes = np.array(sorted(blocks.block.values, key=lambda b: (b != wanted, -b)))
    fixed = {blocks.partials.name: np.array([rows.PARTIALS])} if rows.PARTIALS in blocks.partials.values else {}
    return [*([fixed] if fixed else []), *(x.likely for x in blocks.links), {blocks.block.name: sizes}]


def _maxima(every: Sequence[Stage], chain: Chain) -> list[int]:
    """Positions of the reductions of the chain that find a maximum."""
    return [n for n in chain.members if (s := every[n]).is_reduction and s.store is not None and s.store.op == "max"]


def _along_memory(s: Stage) -> bool:
    return s.is_reduction and s.factors(masked=True) is None


def _lead(context: Context, last: Stage, chain: Chain, block: int) -> str | None:
    """The loop divided among threads: the first that has an iteration for each of them."""
    if context.threads == 1:
        return None
    trips = {**{s.loop: last.loops[s.loop] for s in chain.batch}, chain.row.loop: last.loops[chain.row.loop] // block}
    return next((n for n, count in trips.items() if count >= context.threads), None)


def _fits(x: Link, core: VectorCore, block: Knob) -> tuple[Expr, ...]:
    """The tile and a row of vectors beside it fit the registers, and the tile a block."""
    vectors = ceil_div(x.width.var, ex.idx(core.lanes))
    beside = ex.binary("min", vectors, (x.rows.var - 1) * vectors + 1)
    return compare("<=", vectors * x.rows.var + beside + 1, ex.idx(core.registers)), compare("<=", x.rows.var, block.var)


def _schedule(blocks: Blocks, values: Mapping[str, int]) -> Schedule:
    return chain_steps.applied(blocks, values).sch


def _plan(blocks: Blocks, values: Mapping[str, int]) -> Plan:
    done = chain_steps.applied(blocks, values)
    at = f"in blocks of {values['block']} {blocks.chain.row.loop}"
    decisions = []
    for x in blocks.links:
        size = f"{x.row}:{values[x.rows.name]} x {x.vector}:{values[x.width.name]} {at}"
        decisions.append(Decision(x.stage.output.name, "", size))
    return Plan(done.sch, tuple(decisions), (*blocks.context.refused, *done.refused))
