"""Register tiles whose multiply-adds are instructions that sum several steps of the reduction in each lane.

The tile is cut, initialised and written back like any other. Only its operands lie in groups of steps, and the
innermost loops become the instruction; what is left of a row or of the reduction is a nest of plain multiply-adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Layout
from tilewright.ir.types import INT, UINT
from tilewright.schedule.schedule import Schedule
from tilewright.space.attempts import Attempts
from tilewright.space.context import Context
from tilewright.space.dot import Dot, dots, walked_by
from tilewright.space.prepare import inline_pointwise
from tilewright.space.rules.contraction import reduction_order
from tilewright.space.stages import Stage, stage_of, stages
from tilewright.space.strides import Access


def packed_layout(access: Access, dot: Dot, panels: Layout | None) -> Layout | None:
    """Groups of steps together; of the operand with lanes also the lanes of a register, in ``panels``."""
    steps, lanes = walked_by(access, dot.loop), walked_by(access, dot.vector)
    if steps is None:
        return panels
    if access.buffer.name == dot.narrow or lanes is None:
        return dot.layout(access.buffer.layout, access.buffer.rank, steps)
    return None if panels is None else dot.panels(panels, lanes, steps)


def recentred(context: Context) -> Iterator[tuple[str, Context]]:
    """The kernel with an operand of a product in the other signedness, where only then an instruction takes the product.

    With what that is called.
    """
    for stage in context.stages:
        loads = stage.factors() if stage.is_reduction else None
        if loads is None or any(ld.dtype.kind not in (INT, UINT) for ld in loads) or any(dots(context.base.kernel, context.machine, stage)):
            continue
        for name in dict.fromkeys(ld.buffer.name for ld in loads):
            tries = Attempts(context.base.copy())
            if not tries.attempt(f"recentring {name}", partial(tries.sch.apply, "recenter", stage.reduction[-1], name)):
                continue
            every = [s for s in stages(tries.sch.kernel) if s.is_reduction]
            if any(any(dots(tries.sch.kernel, context.machine, s)) for s in every):
                tries.attempt("inlining", partial(inline_pointwise, tries.sch))
                yield f"{name} recentred", replace(context, base=tries.sch, stages=tuple(stages(tries.sch.kernel)))


@dataclass(frozen=True, slots=True)
class Update:
    """The update of one tile: a nest over the tile and the reduction.

    ``rows`` are its loops over the rows of the tile, ``vector`` the one along a row; ``steps`` and ``lanes`` the
    dimensions of the operand with lanes that the reduction and the row walk.
    """

    dot: Dot
    nest: Stage
    rows: tuple[str, ...]
    vector: str
    steps: int
    lanes: int

    @staticmethod
    def of(dot: Dot, stage: Stage, nest: Stage, loops: list[str]) -> Update | None:
        """``nest`` as an update of a tile of ``stage`` with ``loops`` (the vector loop last); None if it has no such vector loop."""
        wide = next(a for a in stage.reads() if a.buffer.name == dot.wide)
        steps, lanes = walked_by(wide, dot.loop), walked_by(wide, dot.vector)
        if not loops or steps is None or lanes is None:
            return None
        found = Update(dot, nest, tuple(loops[:-1]), loops[-1], steps, lanes)
        return found if found.loop is not None else None

    @property
    def wide(self) -> Access:
        """The operand with lanes, perhaps a copy of it."""
        return next(a for a in self.nest.reads() if a.moved_by(self.vector))

    @property
    def loop(self) -> str | None:
        """The reduction loop whose steps are grouped."""
        if not any(a.moved_by(self.vector) for a in self.nest.reads()):
            return None
        names = ex.free_vars(self.wide.indices[self.steps]) & set(self.nest.reduction)
        return max(names, key=lambda n: self.nest.loops[n], default=None)

    @property
    def whole(self) -> bool:
        """Whether it is whole registers and whole groups of steps."""
        loop = self.loop
        return loop is not None and self.nest.loops[self.vector] % self.dot.lanes == 0 and self.nest.loops[loop] % self.dot.steps == 0


def separate_rest(sch: Schedule, update: Update) -> None:
    """Cut off what is left of a row beyond whole registers, and of the reduction beyond whole groups."""
    halves = [(update.nest.name, update.vector)]
    if update.nest.loops[update.vector] > update.dot.lanes and update.nest.loops[update.vector] % update.dot.lanes:
        outer, inner, tail = _split(sch, update.nest, update.vector, update.dot.lanes)
        halves = [(outer, inner), (tail, tail)]
    for root, vector in halves:
        half = Update(update.dot, stage_of(st.find_loop(sch.kernel, root)), (), vector, update.steps, update.lanes)
        loop = half.loop
        if loop is not None and half.nest.loops[vector] >= update.dot.lanes and half.nest.loops[loop] > update.dot.steps:
            if half.nest.loops[loop] % update.dot.steps:
                _split(sch, half.nest, loop, update.dot.steps)


def _split(sch: Schedule, nest: Stage, loop: str, size: int) -> tuple[str, ...]:
    """Two nests: the largest multiple of ``size`` iterations of ``loop``, and the rest."""
    if nest.name != loop:
        sch.reorder(loop, *(n for n in nest.loops if n != loop))
    return sch.apply("split", loop, nest.loops[loop] // size * size, "peel")


def issue(sch: Schedule, update: Update, packed: str, unroll: int) -> None:
    """Registers of a row and groups of steps become the instruction; ``unroll`` steps around it run in one go."""
    dot, nest, loop = update.dot, update.nest, update.loop
    assert loop is not None  # Update.of checks it
    names = {slot: a.buffer.name for slot, a in zip(dot.slots[1:], (update.wide, _narrow(update)), strict=True)}
    order = reduction_order(nest, packed)
    register, lane = sch.apply("split", update.vector, dot.lanes)
    groups, step = sch.apply("split", loop, dot.steps)
    reductions = [groups if n == loop else n for n in order]
    others = [n for n in nest.loops if n not in (*update.rows, update.vector, *order)]
    sch.reorder(*others, *reductions, *update.rows, register, lane, step)
    innermost = reductions[-1]
    if unroll > 1:
        _, innermost = sch.apply("split", innermost, unroll)
        sch.unroll(innermost)
    for slot, name in names.items():
        memory = dot.instruction.operand(slot).memory
        if sch.machine is not None and sch.machine.memory(memory).kind == "register":
            _load(sch, update, name, innermost, memory, slot == dot.slots[1])
    sch.tensorize(lane, dot.instruction.name)
    for name in (*update.rows, register):
        sch.unroll(name)


def _narrow(update: Update) -> Access:
    return next(a for a in update.nest.reads() if not a.moved_by(update.vector) and a.buffer.name != update.nest.output.name)


def _load(sch: Schedule, update: Update, name: str, loop: str, memory: str, wide: bool) -> None:
    """Copy what one iteration of ``loop`` reads of an operand into ``memory``, its dimensions in the instruction's order."""
    local, *copy = sch.apply("cache_read", name, loop, memory)
    if wide and (update.lanes < update.steps) == update.dot.steps_first:
        dims = list(range(update.wide.buffer.rank))
        dims[update.lanes], dims[update.steps] = update.steps, update.lanes
        sch.permute(local, dims)
    nest = stage_of(st.find_loop(sch.kernel, copy[0])) if copy else None
    if nest is not None and nest.store is not None:
        order = [n for i in nest.store.indices for n in ex.free_vars(i)]
        if order != list(nest.loops) and len(order) == len(nest.loops):
            sch.reorder(*order)
