"""Analytical latency of a scheduled program on a machine with vector cores, for a whole population at once.

One walk over the symbolic program serves every schedule. A statement's innermost vector and
unrolled loops are one *step*; a step costs the largest of what a performance engineer would write
on paper: arithmetic issued, loads and stores issued, the latency of dependent additions. Steps
compete with the traffic of each cache level (:mod:`tilewright.cost.traffic`); streams overlap with
arithmetic, but never perfectly. Starting and draining loops, remainders, imbalance between threads
and waking them come on top.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from tilewright.cost import step as bounds
from tilewright.cost.core import VectorCore, vector_core
from tilewright.cost.footprint import reach, stride
from tilewright.cost.formula import Formula, Graph
from tilewright.cost.program import Loop, Statement, expressions, read
from tilewright.cost.tape import Tape
from tilewright.cost.traffic import Analysis, Use, line_bytes, registers
from tilewright.hw import Instruction, Machine
from tilewright.hw.memory import CACHE
from tilewright.ir import expr as ex
from tilewright.ir.stmt import Kernel, LoopKind

#: Candidates evaluated together: their values stay in the processor's second-level cache.
CHUNK = 4096
#: Parts of a cache that a working set may fill: it loses lines to conflicts before, and keeps some for longer than, it is full.
USABLE = (0.7, 1.2)
#: Streams that the hardware's prefetchers follow, and how many bytes apart their lines may be. Other lines are waited for,
#: a few at a time.
PREFETCHED, NEAR, OVERLAPPED = 12, 1024, 5.0
#: Lines at the beginning of a run of neighbours that come before the prefetcher has noticed it.
UNNOTICED = 12
#: Cycles to enter and leave an innermost loop (short ones are unrolled by code generators).
ENTRY = 1.0
#: Cycles until all threads run and are joined again.
FORK = 6000.0
#: Cycles to add up the lanes of a register, where other work goes on meanwhile.
HORIZONTAL = 5.0
#: Vector operations that stand for a division or a mathematical function.
DIVISION, FUNCTION = 10.0, 18.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Cycles of one statement: ``compute`` (steps and loop entries), ``streams`` into each cache, ``waits`` for lines."""

    compute: Formula
    streams: tuple[Formula, ...]
    waits: Formula
    total: Formula


class Estimator:
    """Seconds that one symbolic program takes, its formulas compiled once. Call it with the knobs' values, as :func:`estimate`."""

    def __init__(self, analysis: Analysis, machine: Machine, threads: int = 1):
        #: Computes cycles.
        self.tape = Tape([program_cycles(analysis, machine, threads)])
        self._clock = machine.clock_hz

    def __call__(self, env: Mapping[str, Any]) -> Any:
        """Seconds: a number, a float64 array for int arrays, or a tensor. IRTypeError when a knob has no value."""
        arrays = {k: v for k, v in env.items() if isinstance(v, np.ndarray)}
        if not arrays:
            return self.tape(env)[0] / self._clock
        cycles = np.empty(next(iter(arrays.values())).shape)
        for lo in range(0, len(cycles), CHUNK):
            (cycles[lo : lo + CHUNK],) = self.tape({**env, **{k: v[lo : lo + CHUNK] for k, v in arrays.items()}})
        return cycles / self._clock


def estimate(program: Kernel, machine: Machine, env: Mapping[str, Any] | None = None, threads: int = 1) -> Any:
    """Seconds one call takes, caches as the previous call left them.

    ``env`` binds the knobs of ``program`` to numbers, int arrays of one length (a population: float64 array), or
    tensors (differentiable). Programs that are asked for again are compiled once.
    """
    return _estimator(program, machine, threads)(env or {})


@lru_cache(maxsize=256)
def _estimator(program: Kernel, machine: Machine, threads: int) -> Estimator:
    return Estimator(analysis_of(program, machine), machine, threads)


@lru_cache(maxsize=128)
def analysis_of(program: Kernel, machine: Machine) -> Analysis:
    """The program's footprints in the machine's cache lines, kept for the next call."""
    return analysed(program, machine)


def analysed(
    program: Kernel, machine: Machine, graph: Graph | None = None, ranges: Mapping[str, tuple[int, int]] | None = None
) -> Analysis:
    """The program's footprints in the machine's cache lines; ``graph`` and ``ranges`` as for :func:`tilewright.cost.program.read`."""
    l1 = min((m.bytes for m in machine.memories if m.kind == CACHE and m.bytes), default=0)
    return Analysis(read(program, graph, ranges), line_bytes(machine), registers(machine), l1 // bounds.CACHE_WAYS)


def program_cycles(a: Analysis, machine: Machine, threads: int) -> Formula:
    """Cycles of the whole program: statements one after the other, parallel loops divided among ``threads``."""
    g = a.graph
    total = g.const(0)
    forks: dict[tuple[Loop, ...], Formula] = {}
    for s in a.program.statements:
        total = total + statement_costs(a, s, machine).total * _share(a, s, threads)
        if (n := next((n for n, x in enumerate(s.loops) if _divided(x)), None)) is not None and threads > 1:
            forks[s.loops[: n + 1]] = a.iterations(s.loops[:n]) * FORK
    return total + g.sum(forks.values())


def _divided(x: Loop) -> bool:
    return x.kind in (LoopKind.PARALLEL, LoopKind.BIND)


def _share(a: Analysis, s: Statement, threads: int) -> Formula:
    """Part of the work that the busiest thread does: the outermost parallel loop is divided evenly.

    A remainder of it is a nest of its own, divided by another of its loops.
    """
    g, x = a.graph, next((x for x in s.loops if _divided(x)), None)
    if x is None or threads == 1:
        return g.const(1)
    seen = _seen(a, s)[-1]
    for index, extent in zip(seen.target.logical, seen.target.shape, strict=True):
        if x in index.coefficients:
            own = g.product(y.trips for y in seen.loops if y in index.coefficients and y is not x)
            return _busiest(g, reach(g, index, frozenset(seen.loops), extent).many, own, threads)
    return _busiest(g, x.trips, g.const(1), threads)


def _busiest(g: Graph, extent: Formula, each: Formula, threads: int) -> Formula:
    """Part of the work of the busiest thread: chunks of ``each`` are divided evenly, and what is left of ``extent`` by itself."""
    each = g.min(each, extent)
    whole = g.floordiv(extent, each)
    return g.div(g.ceildiv(whole, threads) * each + (extent - whole * each) * (1 / threads), extent)


def _seen(a: Analysis, s: Statement) -> tuple[Statement, ...]:
    """The statements whose indices show how far ``s`` fills its tile: that which takes a tile out of the registers, and where
    it goes into a block of the result, that which takes blocks to where all of it is."""
    out = next(_readers(a, s), s) if s.target.buffer.memory in a.inner else s
    from_tile = any(x.reads and x.buffer.memory in a.inner for x in out.accesses)
    if out.store.op or not from_tile or not a.program.allocations.get(out.target.buffer.name):
        return (out,)
    beyond = next((t for t in _readers(a, out) if t.target.buffer.memory not in a.inner), out)
    return (out,) if beyond is out or beyond.store.op else (out, beyond)


def _readers(a: Analysis, s: Statement) -> Iterator[Statement]:
    """What reads the result of ``s`` to make another one."""
    name = s.target.buffer.name
    return (t for t in a.program.statements if t.target.buffer.name != name and any(x.buffer.name == name for x in t.accesses))


def statement_costs(a: Analysis, s: Statement, machine: Machine) -> Costs:
    """What statement ``s`` costs one core over all its iterations."""
    step = _step(a, s, machine)
    compute = (step.cycles() * step.steps + step.entries()) * step.filled()
    streams, waits = _streams(a, step, machine)
    return Costs(compute, streams, waits, bounds.overlapped(a.graph, compute, streams, waits))


def _streams(a: Analysis, step: _Step, machine: Machine) -> tuple[tuple[Formula, ...], Formula]:
    """Cycles to move the statement's lines into each cache, and cycles spent waiting for lines that no prefetcher foresees.

    Nothing moves into a cache in which the whole program stays.
    """
    g, streams, waits = a.graph, [], a.graph.const(0)
    moving = [(u, step.late(u)) for u in step.uses if u.access.buffer.memory not in a.inner]
    for m in machine.memories:
        if m.kind != CACHE or not m.bytes or m.parent is None:
            continue
        source = machine.memory(m.parent)
        streamed = a.line / ((machine.bandwidth(m.parent) or 8.0) * bounds.SUSTAINED)
        waited = max(source.latency / OVERLAPPED - streamed, 0.0)
        lines = g.const(0)
        for u, late in moving:
            moved = _moved(a, u, m.bytes, m.per != "chip") * ((1 if u.access.reads else 0) + (1 if u.access.writes else 0))
            lines = lines + moved
            waits = waits + moved * late * waited
        streams.append(lines * streamed)
    return tuple(streams), waits


def _moved(a: Analysis, u: Use, nbytes: int, own: bool) -> Formula:
    """Lines fetched into a cache; near its capacity part of a working set survives, so several capacities vote.

    In a core's ``own`` caches addresses choose the place (in further ones too, but pages lie anywhere, and hashing spreads them).
    """
    g, total = a.graph, a.graph.const(0)
    for part in USABLE:
        stays = g.le(a.working_set(None), nbytes * part)
        if not (stays.is_const and stays.value):
            total = total + g.where(stays, 0, a.fetched(u, nbytes * part, nbytes * part if own else math.inf))
    return total * (1 / len(USABLE))


class _Step:
    """One execution of a statement's innermost vector and unrolled loops."""

    def __init__(self, a: Analysis, s: Statement, core: VectorCore, machine: Machine):
        self.a, self.s, self.core, self.machine, self.g = a, s, core, machine, a.graph
        self.uses = a.of(s)
        n = len(s.loops)
        while n and s.loops[n - 1].kind in (LoopKind.VECTOR, LoopKind.UNROLL):
            n -= 1
        self.outside, inside = s.loops[:n], s.loops[n:]
        self.vector = next((x for x in reversed(inside) if x.kind is LoopKind.VECTOR), None)
        self.unrolled = tuple(x for x in inside if x is not self.vector)
        self.steps = a.iterations(self.outside)
        if core.parts > 1 and self.strided():
            core = self.core = replace(core, parts=1)  # fewer lanes are gathered, no cheaper than all of them
        lanes = core.lanes if self.vector else 1
        self.registers_wide = self.g.ceildiv(self.vector.trips, lanes) if self.vector else self.g.const(1)
        self.worked = _worked(self.g, core, self.vector.trips) * (1 / lanes) if self.vector else self.g.const(1)

    def cycles(self) -> Formula:
        """Cycles of one step."""
        g = self.g
        loads, stores = g.const(0), g.const(0)
        for u in self.uses:
            if u.access.buffer.memory not in self.a.inner:
                loads = loads + (self.loads(u) if u.access.reads else 0)
                stores = stores + (self.stores(u) if u.access.writes else 0)
        loads = loads + self.spills() * 2
        return bounds.compute_cycles(g, self.core, self.operations(), loads, stores, self.latency()) + self.horizontal()

    def many(self, u: Use) -> Formula:
        """Distinct elements (or vectors of them) of an access in one step."""
        moving = frozenset(x for x in self.unrolled if x in u.access.loops)
        return self.g.product(reach(self.g, i, moving, n).many for i, n in zip(u.access.logical, u.access.shape, strict=True))

    def loads(self, u: Use) -> Formula:
        """Cycles to load what one step reads: vectors, or elements to broadcast."""
        if self.vector is None or self.vector not in u.access.loops:
            return bounds.load_cycles(self.core, self.g.const(0), self.many(u))
        apart = stride(self.g, u.access, self.vector)
        slots = bounds.load_slots(self.g, self.core, apart, self.crossing(u), self.copied(u))
        return bounds.load_cycles(self.core, self.many(u) * self.registers_wide * slots, self.g.const(0))

    def strided(self) -> bool:
        """Whether lanes are known to lie apart in memory in something that is read."""
        moved = (u.access for u in self.uses if u.access.reads and self.vector in u.access.loops)
        found = (stride(self.g, x, self.vector) for x in moved if self.vector and x.buffer.memory not in self.a.inner)
        return any(apart.lo > 1 for apart in found)

    def copied(self, u: Use) -> Formula | float | None:
        """Issue slots of a vector of what is only copied, None of what is computed with.

        Code generators transpose squares of registers where memory is contiguous along another loop (copies are scheduled in
        squares there), and move elements one by one elsewhere.
        """
        g, value, lanes = self.g, self.s.store.value, self.core.lanes
        if not all(isinstance(e, (ex.Load, ex.Cast)) for e in expressions(value)):
            return None
        alone = bounds.copy_slots(self.core, False)
        same = isinstance(value, ex.Load) and value.dtype == self.s.target.buffer.dtype
        if not same or u.access.itemsize < bounds.TRANSPOSED or self.vector is None:
            return alone
        long = g.const(0)
        for x in self.s.loops:
            if x is not self.vector and x in u.access.loops and x.trips.hi >= lanes:
                along = g.both(g.le(stride(g, u.access, x), 1), g.le(lanes, x.trips))
                long = g.where(along, 1, long)
        return g.where(g.both(long, g.le(lanes, self.vector.trips)), bounds.copy_slots(self.core, True), alone)

    def crossing(self, u: Use) -> Formula:
        """Accesses that a vector of neighbours costs: two where it starts anywhere in a line."""
        g, aligned = self.g, self.g.const(1)
        per_line = max(self.a.line // u.access.itemsize, 1)
        for x in u.access.loops:
            if x is not self.vector:
                starts = g.mod(stride(g, u.access, x), min(per_line, self.core.lanes))
                aligned = g.both(aligned, g.le(starts, 0))
        return g.where(aligned, 1.0, bounds.UNALIGNED)

    def followed(self, u: Use) -> Formula:
        """Whether prefetchers foresee the lines of an access: few places at a time, each moving on by little."""
        g, places = self.g, self.g.const(1)
        for x in (*self.unrolled, *([self.vector] if self.vector else [])):
            if x in u.access.loops:
                far = g.le(self.a.line, stride(g, u.access, x) * u.access.itemsize)
                places = places * g.where(far, x.trips, 1)
        few = g.le(places, PREFETCHED)
        if self.outside and self.outside[-1] in u.access.loops:
            return g.both(few, g.le(stride(g, u.access, self.outside[-1]) * u.access.itemsize, NEAR))
        return few

    def late(self, u: Use) -> Formula:
        """Part of an access's lines that are not there in time: all that prefetchers do not foresee, and the first ones of a run."""
        first = self.g.min(self.g.div(UNNOTICED * self.a.line, self.run(u)), 1)
        return self.g.where(self.followed(u), first, 1)

    def run(self, u: Use) -> Formula:
        """Bytes of neighbours that an access walks through without a jump or a return; unrolled loops walk several runs side by side."""
        g, itemsize = self.g, u.access.itemsize
        span, walking = g.const(itemsize), g.const(1)
        for x in reversed(self.s.loops):
            if x in u.access.loops:
                apart = stride(g, u.access, x) * itemsize
                joins = g.le(apart, span)
                if x not in self.unrolled:
                    joins = walking = g.both(walking, joins)
                span = g.where(joins, apart * (x.trips - 1) + span, span)
            elif x in self.outside and (span.op != "const" or span.value > itemsize):
                walking = g.both(walking, g.le(x.trips, 1))
        return span

    def stores(self, u: Use) -> Formula:
        """Cycles to store what one step writes."""
        if self.vector is None or self.vector not in u.access.loops:
            return self.many(u)
        apart = stride(self.g, u.access, self.vector)
        vectors = self.registers_wide * self.crossing(u)
        return self.many(u) * bounds.store_cycles(self.g, self.core, apart, vectors, self.vector.trips)

    def operations(self) -> Formula:
        """Vector operations of a step; a product that is added counts once."""
        value = self.s.store.value
        nodes = list(expressions(value))
        count = sum(map(_weight, nodes))
        fused = self.s.store.op == "+" and any(isinstance(n, ex.Binary) and n.op == "*" for n in nodes)
        count += 0 if self.s.store.op is None or fused else 1
        if count == 0 and self.s.target.buffer.memory in self.a.inner:
            count = 1  # a register is set
        return self.worked * self.g.product(x.trips for x in self.unrolled) * count + self.widened()

    def widened(self) -> Formula:
        """Operations that widen what is loaded, one for each register or element to broadcast."""
        narrow = {
            e.a.buffer.name
            for e in expressions(self.s.store.value)
            if isinstance(e, ex.Cast) and isinstance(e.a, ex.Load) and e.a.dtype.bits < e.dtype.bits
        }
        uses = [u for u in self.uses if u.access.reads and u.access.buffer.name in narrow]
        return self.g.sum(self.many(u) * (self.registers_wide if self.vector in u.access.loops else 1) for u in uses)

    def latency(self) -> Formula:
        """Cycles until the step's sums are ready for the next step, when it needs them."""
        if not self.outside or self.outside[-1] not in self.s.reduction:
            return self.g.const(0)
        chain = self.g.product(x.trips for x in self.unrolled if x in self.s.reduction)
        return chain * self.core.fma_latency * self.waited()

    def horizontal(self) -> Formula:
        """Cycles to add up lanes, when the vector loop is itself summed."""
        summed = self.vector in self.s.reduction
        return self.many_targets() * (HORIZONTAL if summed else 0.0)

    def many_targets(self) -> Formula:
        return self.many(next(u for u in self.uses if u.access.writes))

    def spills(self) -> Formula:
        """Registers a step needs beyond those there are: sums, a row of vectors, one element."""
        target = self.s.target
        if target.buffer.memory not in self.a.inner or self.vector is None:
            return self.g.const(0)
        needed = self.many_targets() * self.registers_wide + self.registers_wide + 1
        return self.g.max(needed - self.core.registers, 0)

    def entries(self) -> Formula:
        """Cycles to start and finish the innermost serial loops, and to drain sums into what reads them."""
        entered = self.a.iterations(self.outside[:-1]) * ENTRY
        if not self.outside or self.outside[-1] not in self.s.reduction:
            return entered
        tiles = self.a.iterations([x for x in self.outside if x not in self.s.reduction])
        return entered + tiles * bounds.DRAIN * self.waited()

    def waited(self) -> Formula:
        """Part of the waits for sums that nothing hides: short tiles overlap with those that follow."""
        inside = self.a.iterations([x for x in self.outside if x in self.s.reduction]) * self.operations()
        return self.g.min(inside * (1 / bounds.WINDOW), 1)

    def filled(self) -> Formula:
        """Part of the iterations that is real work: tiles are rounded up in the program, remainders are smaller tiles."""
        seen, around = _seen(self.a, self.s), frozenset(self.s.loops)
        # Of what takes a block only the loops around the block count: its own begin anew.
        return self.g.product(_filled(self.g, s, self.core, around if n else frozenset(s.loops)) for n, s in enumerate(seen))


class _Issues(_Step):
    """A step whose innermost loops are those of an instruction: its operands are registers, or parts of one for all lanes."""

    def __init__(self, a: Analysis, s: Statement, core: VectorCore, machine: Machine, instruction: Instruction):
        super().__init__(a, s, replace(core, fma_per_cycle=instruction.per_cycle, fma_latency=instruction.latency), machine)
        self.own = frozenset(s.loops[len(s.loops) - len(instruction.axes) :])
        self.around = tuple(x for x in self.unrolled if x not in self.own)

    def loads(self, u: Use) -> Formula:
        """Cycles to load an operand's part in each issue: whole registers, or a few elements to broadcast."""
        g, core = self.g, self.core
        moving = frozenset(x for x in self.around if x in u.access.loops)
        many = g.product(reach(g, i, moving, n).many for i, n in zip(u.access.logical, u.access.shape, strict=True))
        nbytes = g.product(x.trips for x in self.own if x in u.access.loops) * u.access.itemsize
        registers = g.ceildiv(nbytes, core.register_bytes) * (core.register_bytes / core.load_bytes_per_cycle)
        return many * g.where(g.le(core.register_bytes, nbytes), registers, 1 / core.broadcasts_per_cycle)

    def operations(self) -> Formula:
        return self.g.product(x.trips for x in self.around)

    def latency(self) -> Formula:
        if not self.outside or self.outside[-1] not in self.s.reduction:
            return self.g.const(0)
        return self.g.product(x.trips for x in self.around if x in self.s.reduction) * self.core.fma_latency * self.waited()


def _step(a: Analysis, s: Statement, machine: Machine) -> _Step:
    core = vector_core(machine, s.target.buffer.dtype)
    found = next((i for i in machine.instructions if s.instruction is not None and i.kernel.instruction == s.instruction), None)
    return _Issues(a, s, core, machine, found) if found and machine.vector_bits else _Step(a, s, core, machine)


def _worked(g: Graph, core: VectorCore, n: Formula) -> Formula:
    """Lanes that work for ``n`` elements: whole registers, or parts of one where arithmetic takes a register in parts."""
    parts = g.ceildiv(n, core.lanes // core.parts)
    if core.parts > 1:
        alone = g.both(g.le(1, g.mod(parts, core.parts)), g.le(parts, 2 * core.parts))
        parts = parts + g.where(alone, bounds.UNPAIRED, 0)
    return parts * (core.lanes // core.parts)


def _filled(g: Graph, s: Statement, core: VectorCore, rounded_by: Set[Loop]) -> Formula:
    """Real elements over counted ones of what ``s`` stores, in the dimensions that loops of ``rounded_by`` walk.

    Along the lanes a remainder still takes whole registers (or parts).
    """
    part, active = g.const(1), frozenset(s.loops)
    vector = next((x for x in reversed(s.loops) if x.kind is LoopKind.VECTOR), None)
    for index, extent in zip(s.target.logical, s.target.shape, strict=True):
        if not index.loops & rounded_by:
            continue
        rounded = g.product(x.trips for x in s.loops if x in index.coefficients)
        real = reach(g, index, active, extent).many
        if vector is not None and vector in index.coefficients:
            rest = g.mod(real, vector.trips)
            real = g.min(real - rest + _worked(g, core, rest), rounded)
        part = part * g.div(real, rounded)
    return part


def _weight(e: ex.Expr) -> float:
    """Vector operations of one node of an expression."""
    match e:
        case ex.Binary(op="/" | "//" | "%"):
            return 1.0 if isinstance(e.b, ex.Const) else DIVISION
        case ex.Intrinsic():
            return 1.0 if e.name in ("abs", "fma", "floor", "ceil", "round", "trunc") else FUNCTION
        case ex.Binary() | ex.Compare() | ex.Where() | ex.Logical():
            return 1.0
    return 0.0
