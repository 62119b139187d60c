"""Analytical latency on machines of units inside units (multiprocessors and their warps) whose memories the program fills.

A program runs in blocks, one for each iteration of the loops bound to the outermost unit. What a block allocates in the memories of a
unit decides how many blocks are there at a time (occupancy). The busiest unit takes as long as its busiest resource:
arithmetic, or a memory's port, for all its blocks together; or as its rounds of blocks take that wait for transfers and
for sums of their own, one after the other. Main memory and caches that all units share serve everybody's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tilewright.cost.clocked import Clocked
from tilewright.cost.formula import Formula, Graph
from tilewright.cost.issue import issued
from tilewright.hw import Instruction, Machine, Memory, Unit
from tilewright.hw.memory import CACHE, CHIP, MAIN
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Expr
from tilewright.ir.stmt import Alloc, Block, For, Kernel, LoopKind, Stmt, Store

#: Part of the work of other resources that the busiest one does not hide.
LEAK = 0.1
#: Bytes a cycle of memories for which nothing is declared.
SLOW = 8.0


def applies(program: Kernel) -> bool:
    """Whether loops of ``program`` are bound to units."""
    return any(f.kind is LoopKind.BIND for f in st.loops(program))


class UnitsEstimator(Clocked):
    """Seconds that one symbolic program takes; call it with the values of its knobs: numbers, int arrays or tensors."""

    def __init__(self, program: Kernel, machine: Machine, graph: Graph | None = None, ranges: Mapping[str, tuple[int, int]] | None = None):
        g = graph or Graph()
        knobs = {v.name: g.var(v.name, *(ranges or {}).get(v.name, ())) for v in program.sizes}
        nests = (_nest(g, machine, knobs, s) for s in program.body.stmts if not isinstance(s, Alloc))
        super().__init__(g.sum(nests), machine.clock_hz)


def _nest(g: Graph, machine: Machine, knobs: Mapping[str, Formula], s: Stmt) -> Formula:
    """Cycles of one nest of the program."""
    bound = [machine.unit(f.unit) for f in st.loops(s) if f.kind is LoopKind.BIND and f.unit]
    one = g.const(1)
    walker = _Walker(g, machine, knobs, bound[0] if bound else None, one, one)
    walker.visit(s, _Place(one, one, one, one))
    return walker.cycles()


@dataclass(frozen=True, slots=True)
class _Place:
    """Iterations around a statement: ``blocks``, ``inside`` them on inner units, ``times`` on one of those.

    ``steps`` counts iterations of loops that do not move the result: its sums wait for one another.
    """

    blocks: Formula
    inside: Formula
    times: Formula
    steps: Formula


@dataclass(slots=True)
class _Walker:
    """One nest: everything is counted for one block, but for what is moved by the whole chip."""

    g: Graph
    machine: Machine
    knobs: Mapping[str, Formula]
    outer: Unit | None
    blocks: Formula
    inside: Formula
    #: Cycles of a unit's resources for one block, by name; room in its memories; what its transfers and sums wait for.
    work: dict[str, list[Formula]] = field(default_factory=dict)
    room: dict[str, list[Formula]] = field(default_factory=dict)
    waits: list[Formula] = field(default_factory=list)
    #: Bytes by memory and array that pass through what all units share.
    shared: dict[str, list[Formula]] = field(default_factory=dict)

    def cycles(self) -> Formula:
        g = self.g
        chip = [g.sum(parts) / (self.machine.bandwidth(name) or SLOW) for name, parts in self.shared.items()]
        if self.outer is None:
            return g.largest(chip or [g.const(0)]) + g.sum(self.waits)
        each = g.ceildiv(self.blocks, self.outer.count)
        own = [g.sum(parts) for parts in self.work.values()]
        rounds = g.ceildiv(each, g.min(self._occupancy(self.outer), each))
        waiting = rounds * (g.sum(self.waits) + g.sum(own))
        parts = [*(w * each for w in own), *chip]
        most = g.largest(parts)
        return g.max(most, waiting) + (g.sum(parts) - most) * LEAK

    def _occupancy(self, outer: Unit) -> Formula:
        """Blocks that one ``outer`` unit holds: by the room in its memories, and by its inner units."""
        g = self.g
        limits = [(self.machine.memory(n).bytes, g.sum(parts)) for n, parts in self.room.items()]
        limits += [(u.count, self.inside) for u in self.machine.units if u.parent == outer.name]
        found = [g.floordiv(g.const(most), g.max(used, 1)) for most, used in limits if most]
        least = found[0] if found else g.const(1)
        for limit in found[1:]:
            least = g.min(least, limit)
        return g.max(least, 1)

    # --- walking ----------------------------------------------------------------------------

    def visit(self, s: Stmt, at: _Place) -> None:
        match s:
            case Block():
                waited: list[Formula] = []
                for t in s.stmts:
                    if (move := _move(t)) is not None:
                        waited.append(self.moved(*move, at))
                    else:
                        self.visit(t, at)
                self.waits += [self.g.largest(waited) * at.times] if waited else []
            case For() if (move := _move(s)) is not None:
                self.waits.append(self.moved(*move, at) * at.times)
            case For() if (instruction := _instruction(self.machine, s)) is not None:
                self.issued(instruction, at)
            case For():
                self.visit(s.body, self._entered(s, at))
            case Store():
                self.elsewhere(s, at)
            case Alloc():
                memory = self.machine.memory(s.buffer.memory)
                if memory.per != CHIP:
                    nbytes = self.g.product(self._of(e) for e in s.buffer.physical_shape()) * s.buffer.dtype.nbytes
                    self.room.setdefault(memory.name, []).append(nbytes * at.inside)

    def _entered(self, f: For, at: _Place) -> _Place:
        """The place inside loop ``f``."""
        trips = self._of(f.extent)
        if f.kind is LoopKind.BIND and self.outer is not None and f.unit == self.outer.name:
            self.blocks = at.blocks * trips
            return _Place(self.blocks, at.inside, at.times, at.steps)
        if f.kind is LoopKind.BIND:
            self.inside = at.inside * trips
            return _Place(at.blocks, self.inside, at.times, at.steps)
        moves = any(f.name in ex.free_vars(i) for s in _updates(f) for i in s.indices)
        return _Place(at.blocks, at.inside, at.times * trips, at.steps if moves else at.steps * trips)

    def issued(self, i: Instruction, at: _Place) -> None:
        """An instruction: throughput of its unit, and the latency of sums that wait for each other."""
        self.work.setdefault("arithmetic", []).append(at.times * at.inside / i.per_cycle)
        self.waits.append(at.steps * i.latency)

    def elsewhere(self, s: Store, at: _Place) -> None:
        """What is neither moved nor done by an instruction: its bytes in memories that all units share."""
        for b in (s.buffer, *(ld.buffer for ld in ex.loads(s.value))):
            if self.machine.memory(b.memory).per == CHIP:
                self.shared.setdefault(b.memory, []).append(at.times * at.inside * at.blocks * b.dtype.nbytes)

    def moved(self, box: tuple[For, ...], s: Store, at: _Place) -> Formula:
        """Count what the nest ``box`` around ``s`` moves; cycles until one box has come."""
        loads = ex.loads(s.value)
        if not loads:
            return self.g.const(0)  # sums that start at a constant
        nbytes = self.g.product(self._of(f.extent) for f in box) * max(s.buffer.dtype.nbytes, loads[0].dtype.nbytes)
        source, target = self.machine.memory(loads[0].buffer.memory), self.machine.memory(s.buffer.memory)
        for m in self._way(source, target):
            if m.per == CHIP:
                everybody = nbytes * at.times * at.inside * at.blocks
                self.shared.setdefault(m.name, []).append(self._distinct(m, loads[0], s, everybody))
            else:
                rate = self.machine.bandwidth(m.name)
                self.work.setdefault(m.name, []).append(nbytes * at.times * at.inside / rate if rate else self.g.const(0))
        found = [t.latency for t in self.machine.transfers_between(source.name, target.name)]
        return self.g.const(min(found, default=max(source.latency, target.latency)))

    def _way(self, a: Memory, b: Memory) -> list[Memory]:
        """The memories that bytes between ``a`` and ``b`` are taken from or pass: the outer end, and caches in between."""
        inner, outer = sorted((a, b), key=lambda m: m.level)
        between = [m for m in self.machine.path(inner.name) if inner.level < m.level < outer.level and m.kind == CACHE]
        return [outer, *between] if a is not b else [a]

    def _distinct(self, m: Memory, load: ex.Load, s: Store, total: Formula) -> Formula:
        """Of ``total`` bytes those that reach main memory: each once where a cache holds the array, else all."""
        main = load.buffer if self.machine.memory(load.buffer.memory).kind == MAIN else s.buffer
        largest = max((c.bytes or 0 for c in self.machine.memories if c.kind == CACHE and c.per == CHIP), default=0)
        whole = [self._of(e) for e in main.physical_shape()]
        once = self.g.product(whole) * main.dtype.nbytes
        return self.g.where(self.g.le(once, largest), self.g.min(total, once), total) if m.kind == MAIN else total

    def _of(self, e: Expr) -> Formula:
        return self.g.expr(e, self.knobs)


def _move(s: Stmt) -> tuple[tuple[For, ...], Store] | None:
    """A perfect nest that copies elements, or sets them: its loops and its store."""
    loops: list[For] = []
    while isinstance(s, For) and s.kind is not LoopKind.BIND and s.kind is not LoopKind.UNROLL and len(s.body.stmts) == 1:
        loops.append(s)
        s = s.body.stmts[0]
    plain = isinstance(s, Store) and s.op is None and len(ex.loads(s.value)) <= 1
    return (tuple(loops), s) if plain and isinstance(s, Store) else None


def _updates(f: For) -> list[Store]:
    return [s for s in st.walk(f) if isinstance(s, Store) and s.op is not None]


def _instruction(machine: Machine, f: For) -> Instruction | None:
    """The instruction whose loops ``f`` and those inside it are; None: they are loops of the program."""
    updates = _updates(f)
    extents = [int(x.extent.value) for x in st.loops(f) if isinstance(x.extent, ex.Const)]
    return issued(machine, updates[0], extents) if f.kind is LoopKind.UNROLL and len(updates) == 1 else None
