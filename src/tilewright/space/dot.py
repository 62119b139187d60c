"""Instructions that sum several steps of a reduction in each lane, as a register tile sees them.

A dot product of groups (``c[j] += a[k] * b[j, k]``, 16 lanes of 4 bytes) is a multiply-add on wider
elements: one group of steps, broadcast, times a register of such groups. So tiles of it are chosen and
looped like those of plain multiply-adds, on operands in which a group lies together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tilewright.cost.contraction import Contraction, Operand
from tilewright.cost.core import VectorCore
from tilewright.hw import Instruction, Machine
from tilewright.hw.axis import FIXED, VECTOR
from tilewright.ir import expr as ex
from tilewright.ir.buffer import Layout
from tilewright.ir.expr import Load
from tilewright.ir.stmt import Kernel
from tilewright.mapping import Mapping as Placed
from tilewright.mapping import operator_of
from tilewright.mapping.operator import plain
from tilewright.space.rules.instructions import mappings_of
from tilewright.space.stages import Stage
from tilewright.space.strides import Access
from tilewright.util.errors import MappingError


@dataclass(frozen=True, slots=True)
class Dot:
    """One way to compute a reduction with such an instruction.

    ``vector`` rides on its ``lanes`` and ``loop``, a reduction, ``steps`` at once inside each. Buffer ``wide`` is the
    operand with an element for each lane and step, its steps the outer dimension if ``steps_first``; ``narrow`` the
    one whose group goes to all lanes. ``slots`` are the instruction's names of the result and of these two;
    ``mapping`` is for people.
    """

    instruction: Instruction
    vector: str
    loop: str
    lanes: int
    steps: int
    wide: str
    narrow: str
    slots: tuple[str, str, str]
    steps_first: bool
    mapping: str

    def __str__(self) -> str:
        return f"{self.instruction.name} of {self.loop}"

    def core(self, core: VectorCore) -> VectorCore:
        """``core`` at the rate of the instruction."""
        return replace(core, lanes=self.lanes, fma_per_cycle=self.instruction.per_cycle, fma_latency=self.instruction.latency)

    def layout(self, layout: Layout | None, rank: int, steps: int) -> Layout:
        """``layout`` (None: row major) with groups of dimension ``steps``, which the loop walks, together."""
        dims = layout.dims if layout else tuple((d, 1) for d in range(rank))
        return Layout((*((d, self.steps) if (d, b) == (steps, 1) else (d, b) for d, b in dims), (steps, 1)))

    def panels(self, layout: Layout, lanes: int, steps: int) -> Layout:
        """``layout``, panels whose last dimension is ``lanes``, with the groups of a register's lanes together."""
        *head, last, group = self.layout(layout, 0, steps).dims
        if not self.steps_first:
            return Layout((*head, last, group))
        register = [] if (lanes, self.lanes) in head else [(lanes, self.lanes)]
        return Layout((*head, *register, group, last))


def dots(kernel: Kernel, machine: Machine, stage: Stage) -> Iterator[Dot]:
    """Every mapping of a reduction onto an instruction with a reduction inside its lanes, one loop on each axis."""
    try:
        op = operator_of(kernel, at=stage.output.name)
    except MappingError:
        return
    for instruction in machine.instructions:
        if not instruction.sets and not instruction.needs and _has_groups(instruction):
            for m in mappings_of(op, instruction, orders="all"):
                if (found := _dot(stage, instruction, m)) is not None:
                    yield found


def _has_groups(instruction: Instruction) -> bool:
    """Whether it has lanes, and a reduction of more than one step inside each."""
    kinds = sorted((a.kind, a.rule.rule in (FIXED, VECTOR) and a.extent > 1) for a in instruction.axes)
    return kinds == [("reduction", True), ("spatial", True)]


def _dot(stage: Stage, instruction: Instruction, m: Placed) -> Dot | None:
    axes = {axis.kind: (axis, [m.op.names[u] for u in group]) for axis, group in zip(m.target.view.iterations, m.groups, strict=True)}
    (lane, on_lanes), (step, on_steps) = axes["spatial"], axes["reduction"]
    if len(on_lanes) != 1 or len(on_steps) != 1:
        return None  # fused loops need packing by hand: map_onto
    if stage.loops.get(on_lanes[0], 0) < lane.extent or stage.loops.get(on_steps[0], 0) < step.extent:
        return None
    if m.op.output.dtype != m.target.view.output.dtype:
        return None  # the tile is in the type of the result
    found: dict[bool, tuple[str, str]] = {}
    steps_first = False
    for b, slot in zip(m.binding, m.target.view.sources, strict=True):
        value, tile = plain(m.op.sources[b].expr), plain(slot.expr)
        if not isinstance(value, Load) or not isinstance(tile, Load) or step.name not in ex.free_vars(tile):
            return None
        if value.dtype != tile.dtype:
            return None  # would be converted while packing
        has_lanes = lane.name in ex.free_vars(tile)
        found[has_lanes] = value.buffer.name, tile.buffer.name
        steps_first = steps_first or (has_lanes and step.name in ex.free_vars(tile.indices[0]))
    if len(found) != 2 or found[True][0] == found[False][0]:
        return None
    reads = {a.buffer.name: a for a in stage.reads()}
    if (
        any(walked_by(reads[name], on_steps[0]) is None for name, _ in found.values())
        or walked_by(reads[found[True][0]], on_lanes[0]) is None
    ):
        return None
    text = f"{instruction.name}: {str(m).split('[')[0].strip()}"
    slots = (m.target.view.output.name, found[True][1], found[False][1])
    return Dot(instruction, on_lanes[0], on_steps[0], lane.extent, step.extent, found[True][0], found[False][0], slots, steps_first, text)


def walked_by(a: Access, loop: str) -> int | None:
    """The dimension of an access that ``loop`` alone walks, element by element; None if there is none."""
    found = [d for d, i in enumerate(a.indices) if loop in ex.free_vars(i)]
    return found[0] if len(found) == 1 and isinstance(a.indices[found[0]], ex.Var) else None


def grouped(a: Access, dot: Dot) -> bool:
    """Whether groups of steps lie together in an operand as it is."""
    return a.stride(dot.loop) == 1 and a.runs.get(dot.loop, dot.steps) % dot.steps == 0


def widened(problem: Contraction, dot: Dot) -> Contraction:
    """``problem`` with a group of steps as one element: what remains is a contraction of plain multiply-adds.

    Remainders of lanes and groups are left out.
    """
    loops = {**problem.loops, dot.loop: problem.loops[dot.loop] // dot.steps}
    loops[dot.vector] -= loops[dot.vector] % dot.lanes
    return Contraction(loops, problem.spatial, tuple(_widened(x, dot) for x in problem.inputs), problem.output)


def _widened(x: Operand, dot: Dot) -> Operand:
    together = x.stride(dot.loop) == 1
    strides: Mapping[str, int | None] = {
        n: s if s is None or not together or n == dot.loop else -(-s // dot.steps) for n, s in x.strides.items()
    }
    return replace(x, itemsize=x.itemsize * dot.steps, elements=-(-x.elements // dot.steps), strides=strides)
