"""A chain in blocks of rows, made with primitives: the last nest is cut into blocks, and everything before it is computed there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from tilewright.cost.core import vector_core
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Expr, Var
from tilewright.ir.stmt import Block, For
from tilewright.schedule.schedule import Schedule
from tilewright.space.apply import Application, ByRows, Choice, Tiled
from tilewright.space.chains import Chain, computed_along
from tilewright.space.context import Context
from tilewright.space.idle import skip
from tilewright.space.knob import Knob
from tilewright.space.levels import Level, ceil_div, cut
from tilewright.space.rules import tile
from tilewright.space.stages import Stage, stages
from tilewright.space.tiling import Structure, TilingSpace, value_of


@dataclass(frozen=True, slots=True)
class Link:
    """A contraction of the chain with its register tile of ``rows`` x ``width``; loops by the stage's names.

    ``packing`` are operands brought into vector order: before the chain ("copy"), or ahead of time ("ahead"). ``likely``
    are the tiles among which a default is looked for, by knobs.
    """

    position: int
    stage: Stage
    row: str
    vector: str
    batch: tuple[str, ...]
    width: Knob
    rows: Knob
    packing: tuple[tuple[str, str], ...]
    likely: Mapping[str, np.ndarray]

    @property
    def structure(self) -> Structure:
        return Structure(self.vector, (self.row,), self.packing)

    def space(self, stage: Stage, vector: str, row: str | None, around: tuple[Level, ...], block: Expr) -> TilingSpace:
        """The tiles of ``stage``, which is this contraction or a copy of it, inside the loops ``around``.

        Panels outside, rows inside: a panel stays in the innermost cache while the rows of a block pass.
        """
        structure = Structure(vector, (row,) if row else (), self.packing)
        tiles = {vector: ceil_div(ex.idx(stage.loops[vector]), self.width.var)}
        levels = [*around, Level(vector, ex.idx(1), tiles[vector] * self.width.var, f"{vector}_block")]
        levels.append(Level(vector, tiles[vector], self.width.var, f"{vector}_tile"))
        size = {vector: self.width}
        if row:
            size[row] = self.rows
            tiles[row] = ceil_div(block, self.rows.var)
            levels.append(Level(row, tiles[row], self.rows.var, f"{row}_tile"))
        return TilingSpace(stage, structure, (self.width, self.rows), (), size, {}, tiles, tiles, None, tuple(levels))


@dataclass(frozen=True, slots=True)
class Blocks:
    """A chain to be run in blocks: ``start`` is the schedule before, ``every`` its stages.

    ``lead`` is the loop of the last stage that is divided among threads (None: none), ``wanted`` the block
    that a default is looked for from, ``keys`` the elements of a row that
    a softmax inside sees at a time (None: all).
    """

    context: Context
    start: Schedule
    every: tuple[Stage, ...]
    chain: Chain
    links: tuple[Link, ...]
    block: Knob
    partials: Knob
    lead: str | None
    wanted: int
    keys: int | None = None

    @property
    def peak(self) -> int:
        """The position of the first maximum."""
        return next(n for n, s in enumerate(self.every) if s.is_reduction and s.store is not None and s.store.op == "max")

    @property
    def order(self) -> list[str]:
        """The loops around a block, by the last stage's names, outermost first."""
        names = [s.loop for s in self.chain.shared]
        return sorted(names, key=lambda n: n != self.lead)


def applied(blocks: Blocks, values: Mapping[str, int]) -> Application:
    """The chain with ``values`` for its knobs. What a primitive refuses inside a block is left out, and said."""
    context, block = blocks.context, values[blocks.block.name]
    whole = Application(blocks.start.copy(), machine=context.machine, threads=context.threads, choices={})
    for x in blocks.links:
        around = (Level(x.row, ceil_div(ex.idx(x.stage.loops[x.row]), ex.idx(block)), ex.idx(block), f"{x.row}_block"),)
        whole.store_packed(x.stage, Tiled(x.space(x.stage, x.vector, x.row, around, ex.idx(block)), values))
    kept = in_blocks(whole.sch, blocks, block)
    whole.sch.simplify(keep_loops=kept)
    inner = {loop: in_key_blocks(whole.sch, blocks, loop) for loop in kept}
    every = [*kept, *(n for found in inner.values() for n in found)]
    whole.sch.simplify(keep_loops=every)
    registers = int(ex.evaluate(value_of(blocks.partials), values))
    for loop in (n for outer in kept for n in (*inner[outer], outer)):
        choices = _choices(blocks, stages(st.find_loop(whole.sch.kernel, loop).body), values, registers)
        part = Application(whole.sch, whole.refused, machine=context.machine, threads=1, choices=choices, within=loop, kept=tuple(every))
        part.run()
        whole.sch = part.sch
    # Found before loops over blocks of a single trip go.
    roots = [s.name for s in whole.sch.kernel.body.stmts if isinstance(s, For) and any(f.name in kept for f in st.loops(s))]
    whole.sch.simplify(keep_loops=False)
    for s in [s for s in tile.nests(whole.sch.kernel.body) if s.loops and not s.is_reduction and not s.is_scheduled]:
        if all(s.root is not t for t in whole.body.stmts):
            whole.attempt(f"vectors of {s.output.name}", partial(whole.elementwise, s, 1))  # what is left of a copy for each batch
    for root in roots if blocks.lead is not None else []:
        whole.sch.parallel(root)
    whole.run()
    _pad_rows(whole)
    skip(whole, blocks.every)
    return whole


def _pad_rows(whole: Application) -> None:
    """Rows of buffers inside become whole vectors long, so that none begins in the middle of a vector."""
    for b in st.allocated(whole.sch.kernel):
        lanes, last = vector_core(whole.machine, b.dtype).lanes, b.rank - 1
        if b.rank > 1 and b.memory != "reg" and b.layout is None and b.static_shape[-1] > lanes and b.static_shape[-1] % lanes:
            whole.sch.layout(b.name, " ".join([*map(str, range(last)), f"{last}/{lanes}", str(last)]))


def in_blocks(sch: Schedule, blocks: Blocks, block: int) -> list[str]:
    """Run the stages block by block; returns the loops over full blocks and over the rows that are left."""
    last, order = blocks.every[-1], blocks.order
    walked = dict(zip(order, _together(sch, blocks), strict=True))
    levels = [(n, block if n == blocks.chain.row.loop else 1) for n in order]
    around = cut(sch, walked, levels, [n for n in last.loops if n not in order], frozenset(range(len(levels)))).around
    for loop in around if blocks.chain.beside else []:
        _apart(sch, loop)
    for buffer in reversed(blocks.chain.local):
        sch.compute_at(buffer, around)
    return around


def _together(sch: Schedule, blocks: Blocks) -> list[str]:
    """Put the nests of the last stages in one around their rows; the loops it shares, outermost first."""
    if not blocks.chain.beside:
        return blocks.order
    names: list[list[str]] = []
    for n in (*blocks.chain.beside, len(blocks.every) - 1):
        shared = {s.loop: s.own[n] for s in blocks.chain.shared}
        own = [shared[loop] for loop in blocks.order]
        inside = [loop for loop in blocks.every[n].loops if loop not in own]
        if [*own, *inside] != list(blocks.every[n].loops):
            sch.reorder(*own, *inside)
        names.append(own)
    for mine in reversed(names[:-1]):
        for theirs, loop in zip(names[-1], mine, strict=True):
            sch.merge(loop, theirs)
        names[-1] = mine
    return names[-1]


def _apart(sch: Schedule, block: str) -> None:
    """The statements of the rows of ``block`` in a loop for each."""
    (rows,) = st.find_loop(sch.kernel, block).body.stmts
    assert isinstance(rows, For)  # cut() made it
    left = rows.name
    for _ in rows.body.stmts[1:]:
        _, left = sch.apply("fission", left)


def in_key_blocks(sch: Schedule, blocks: Blocks, loop: str) -> list[str]:
    """Run the softmax inside ``loop`` over blocks of its row, and what computes that row with it; returns the loops over them."""
    return over_keys(sch, st.find_loop(sch.kernel, loop).body, blocks) if blocks.keys is not None else []


def over_keys(sch: Schedule, body: Block, blocks: Blocks) -> list[str]:
    """The softmax of ``body`` over blocks of its row, with the nests that compute that row; returns the loops over blocks."""
    every = stages(body)
    peak = next(s for s in every if s.is_reduction and s.store is not None and s.store.op == "max")
    made = computed_along(every, peak, peak.reduction[-1])
    around = list(sch.apply("online", peak.reduction[-1], blocks.keys))
    for buffer in reversed(made):
        sch.compute_at(buffer, around)
    return around


def _choices(blocks: Blocks, inside: list[Stage], values: Mapping[str, int], partials: int) -> dict[str, Choice]:
    """What is done with each reduction of a block: contractions in the order of the links, others by rows."""
    choices: dict[str, Choice] = {}
    links = iter(blocks.links)
    for s in (s for s in inside if s.is_reduction):
        if s.factors(masked=True) is None:
            choices[s.name] = ByRows(partials)
            continue
        x = next(links)
        vector, row = _same_dimension(s, x, x.vector), _same_dimension(s, x, x.row)
        if vector is not None:
            own = Link(x.position, s, row or "", vector, (), x.width, x.rows, (), x.likely)
            choices[s.name] = Tiled(own.space(s, vector, row, (), ex.idx(s.loops[row] if row else 1)), values)
    return choices


def _same_dimension(s: Stage, x: Link, loop: str) -> str | None:
    """The loop of ``s`` that walks the dimension of the result that ``loop`` walks in the link's own stage."""
    assert s.store is not None and x.stage.store is not None  # contractions
    found = next(mine for mine, theirs in zip(s.store.indices, x.stage.store.indices, strict=True) if theirs == Var(loop))
    return found.name if isinstance(found, Var) else None
