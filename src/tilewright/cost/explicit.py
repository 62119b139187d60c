"""Analytical latency on machines whose memories the program fills itself: transfers against arithmetic.

The symbolic program is walked once. Nests that move data between memories cost the bytes they move at the bandwidth of
the declared transfer and an issue for each of its requests; nests of an instruction cost their issues. A memory that has
room for the next block while this one is worked on lets its transfers overlap with arithmetic; otherwise they wait for
each other. The first block's way in and the last one's way out overlap with nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.cost.clocked import Clocked
from tilewright.cost.formula import Formula, Graph
from tilewright.cost.issue import issued
from tilewright.hw import Machine, Transfer
from tilewright.hw.memory import CACHE, MAIN, SCRATCHPAD
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Binary, Const, Expr, Var
from tilewright.ir.stmt import Alloc, Block, For, Kernel, LoopKind, Stmt, Store

#: Cycles to issue one command.
ISSUE = 1.0
#: Cycles in which the host computes or copies one element.
HOST = 8.0
#: Part of the transfers that arithmetic does not hide (and the other way round): commands are issued in order, and queues are short.
LEAK = 0.2
#: Main memory moves at this many bytes a cycle where nothing is declared.
SLOW = 8.0


def applies(program: Kernel, machine: Machine) -> bool:
    """Whether every local array of ``program`` that is not in main memory is in a memory that transfers fill from there."""
    kinds = {machine.memory(b.memory).kind for b in st.allocated(program)}
    plain = all(f.kind in (LoopKind.SERIAL, LoopKind.UNROLL) for f in st.loops(program))
    return SCRATCHPAD in kinds and kinds <= {SCRATCHPAD, MAIN} and plain and not any(m.kind == CACHE for m in machine.memories)


class ExplicitEstimator(Clocked):
    """Seconds that one symbolic program takes; call it with the values of its knobs: numbers, int arrays or tensors."""

    def __init__(self, program: Kernel, machine: Machine, graph: Graph | None = None, ranges: Mapping[str, tuple[int, int]] | None = None):
        self.counts = counted(program, machine, graph, ranges)
        super().__init__(self.counts.cycles, machine.clock_hz)


@dataclass(frozen=True, slots=True)
class Counts:
    """Issues of instructions, bytes read from and written to main memory; cycles of the parts and of the whole."""

    issues: Formula
    read: Formula
    written: Formula
    load: Formula
    compute: Formula
    store: Formula
    host: Formula
    cycles: Formula


def counted(program: Kernel, machine: Machine, graph: Graph | None = None, ranges: Mapping[str, tuple[int, int]] | None = None) -> Counts:
    """What ``program`` costs on ``machine``; ``ranges`` bound its knobs."""
    g = graph or Graph()
    knobs = {v.name: g.var(v.name, *(ranges or {}).get(v.name, ())) for v in program.sizes}
    walker = _Walker(g, machine, knobs)
    walker.visit(program.body, ())
    return walker.counts()


@dataclass(slots=True)
class _Walker:
    g: Graph
    machine: Machine
    knobs: Mapping[str, Formula]
    loops: dict[str, For] = field(default_factory=dict)
    load: list[Formula] = field(default_factory=list)
    store: list[Formula] = field(default_factory=list)
    compute: list[Formula] = field(default_factory=list)
    host: list[Formula] = field(default_factory=list)
    issues: list[Formula] = field(default_factory=list)
    read: list[Formula] = field(default_factory=list)
    written: list[Formula] = field(default_factory=list)
    held: dict[str, list[Formula]] = field(default_factory=dict)
    #: Cycles of the first block's loads and the last one's stores.
    first: list[Formula] = field(default_factory=list)
    last: list[Formula] = field(default_factory=list)
    fills: dict[str, list[Formula]] = field(default_factory=dict)
    drains: dict[str, list[Formula]] = field(default_factory=dict)

    def counts(self) -> Counts:
        g = self.g
        load, store, compute, host = (g.sum(x) for x in (self.load, self.store, self.compute, self.host))
        waits = g.const(0)
        for name, parts in self.held.items():
            memory = self.machine.memory(name)
            if memory.bytes is None:
                continue
            alone = g.sum([*self.fills.get(name, []), *self.drains.get(name, [])])
            waits = waits + g.where(g.le(g.sum(parts) * 2, memory.bytes), 0, alone)
        parts = [load, store, compute + waits]
        longest = g.largest(parts)
        overlapped = longest + (g.sum(parts) - longest) * LEAK
        moved = g.sum(self.issues), g.sum(self.read), g.sum(self.written)
        return Counts(*moved, load, compute, store, host, overlapped + g.sum(self.first) + g.sum(self.last) + host)

    # --- walking ----------------------------------------------------------------------------

    def visit(self, s: Stmt, around: tuple[For, ...]) -> None:
        match s:
            case Block():
                for t in s.stmts:
                    self.visit(t, around)
            case For():
                self.loops[s.name] = s
                self.visit(s.body, (*around, s))
            case Alloc():
                if self.machine.memory(s.buffer.memory).kind == SCRATCHPAD:
                    nbytes = self.g.product(self._mean(e) for e in s.buffer.physical_shape()) * s.buffer.dtype.nbytes
                    self.held.setdefault(s.buffer.memory, []).append(nbytes)
            case Store():
                self.statement(s, around)

    def statement(self, s: Store, around: tuple[For, ...]) -> None:
        times = self.g.product(self._mean(f.extent) for f in around if f.kind is not LoopKind.UNROLL)
        own = self.machine.memory(s.buffer.memory)
        sources = [self.machine.memory(ld.buffer.memory) for ld in ex.loads(s.value)]
        if any(f.kind is LoopKind.UNROLL for f in around):
            instruction = issued(self.machine, s)
            assert instruction is not None  # the rule that made the program mapped it onto one
            self.issues.append(times)
            self.compute.append(times / instruction.per_cycle)
        elif own.kind == SCRATCHPAD and all(m.kind == MAIN for m in sources):
            cycles, one = self.moves(s, around, s.buffer.memory, inwards=True)
            self.load.append(cycles)
            self.read += [times * ld.dtype.nbytes for ld in ex.loads(s.value)]
            self.fills.setdefault(own.name, []).append(cycles)
            self.first.append(one)
        elif own.kind == MAIN and any(m.kind == SCRATCHPAD for m in sources):
            name = next(m.name for m in sources if m.kind == SCRATCHPAD)
            cycles, one = self.moves(s, around, name, inwards=False)
            self.store.append(cycles)
            self.written.append(times * s.buffer.dtype.nbytes)
            self.drains.setdefault(name, []).append(cycles)
            self.last.append(one)
        else:
            self.host.append(times * (0.0 if own.kind == SCRATCHPAD else HOST))

    def moves(self, s: Store, around: tuple[For, ...], local: str, inwards: bool) -> tuple[Formula, Formula]:
        """Cycles of a nest that moves data between main memory and ``local``: in all, and of its first (or last) box."""
        g = self.g
        loads = ex.loads(s.value)
        results = {o.memory for i in self.machine.instructions for o in i.operands if o.role == "inout"}
        if not loads and local in results:  # sums that start at a constant: the first issue overwrites them
            return g.const(0), g.const(0)
        if not loads:  # constants around an array: a line a cycle, and a request for each tile
            line = max(self.machine.memory(local).line // s.buffer.dtype.nbytes, 1)
            rows = g.product(self._mean(f.extent) for f in around[:-1]) * self._tiles(around[-1].extent, line)
            return rows, g.const(0)
        main = loads[0] if inwards else ex.Load(s.buffer, s.indices)
        inside = [f for f in around if any(f.name in ex.free_vars(i) for i in s.indices) and not _walks_blocks(f, around)]
        transfer = _transfer(self.machine, local, inwards, main.dtype.nbytes)
        outside = g.product(self._mean(f.extent) for f in around if f not in inside)
        tile = _tile(transfer, len(inside))
        requests = g.product(self._tiles(f.extent, n) for f, n in zip(inside, tile, strict=True))
        row = self._mean(inside[-1].extent) if inside else g.const(1)
        rows = g.div(g.product(self._mean(f.extent) for f in inside), row)
        runs = self._tiles(inside[-1].extent, tile[-1]) if inside else g.const(1)
        one = rows * self._row(transfer, row, runs, main.dtype.nbytes) + requests * ISSUE
        latency = transfer.latency if transfer else 0.0
        return (one + latency) * outside, one + latency

    def _row(self, transfer: Transfer | None, row: Formula, runs: Formula, itemsize: int) -> Formula:
        """Cycles to move neighbours in main memory in so many runs: whole lines of the bus, few requests at a time."""
        bandwidth = transfer.bandwidth if transfer and transfer.bandwidth else SLOW
        line = max(int(bandwidth) // itemsize, 1)
        beats = self.g.max(row * (itemsize / bandwidth), runs * (line * itemsize / bandwidth))
        waiting = transfer.latency / transfer.in_flight if transfer and transfer.in_flight else 0.0
        return self.g.max(beats, runs * waiting)

    # --- extents ----------------------------------------------------------------------------

    def _mean(self, e: Expr) -> Formula:
        """The average of ``e`` over the loops around: a clipped block ``min(c, n - v * c)`` is ``n`` over the trips of ``v``."""
        g = self.g
        match e:
            case Const():
                return g.const(int(e.value))
            case Var():
                return self.knobs[e.name]
            case Binary(op="min"):
                if (clip := self._clip(e)) is not None:
                    whole, trips, _ = clip
                    return g.div(whole, trips)
                return g.min(self._mean(e.a), self._mean(e.b))
            case Binary(op="//"):
                if (up := self._rounded_up(e)) is not None:
                    return self._tiles(*up)
                return g.floordiv(self._mean(e.a), self._mean(e.b))
        assert isinstance(e, Binary)  # extents are arithmetic of knobs and clipped blocks
        return g.binary(e.op, self._mean(e.a), self._mean(e.b))

    def _tiles(self, e: Expr, tile: int) -> Formula:
        """How many tiles cover ``e`` on average."""
        g = self.g
        if isinstance(e, Binary) and e.op == "min" and (clip := self._clip(e)) is not None:
            whole, trips, size = clip
            full, before = self._mean(size), trips - 1  # every block but the last
            return g.div(before * g.ceildiv(full, tile) + g.ceildiv(whole - before * full, tile), trips)
        return g.ceildiv(self._mean(e), tile) if self._integral(e) else g.max(self._mean(e) / tile, 1)

    def _integral(self, e: Expr) -> bool:
        return not any(self._clip(x) for x in ex.walk(e) if isinstance(x, Binary) and x.op == "min")

    def _clip(self, e: Binary) -> tuple[Formula, Formula, Expr] | None:
        """``min(c, n - v * c)``: n, the trips of loop v, and c."""
        rest = e.b
        if not isinstance(rest, Binary) or rest.op != "-":
            return None
        walked = rest.b if e.a == ex.idx(1) else rest.b.a if isinstance(rest.b, Binary) and rest.b.op == "*" and rest.b.b == e.a else None
        loop = self.loops.get(walked.name) if isinstance(walked, Var) else None
        return (self._mean(rest.a), self._mean(loop.extent), e.a) if loop is not None else None

    def _rounded_up(self, e: Binary) -> tuple[Expr, int] | None:
        a = e.a
        if isinstance(e.b, Const) and isinstance(a, Binary) and a.op == "+" and a.b == ex.idx(int(e.b.value) - 1):
            return a.a, int(e.b.value)
        return None


def _walks_blocks(f: For, around: Sequence[For]) -> bool:
    """Whether an extent further in depends on ``f``: then it walks blocks, not elements of one."""
    return any(f.name in ex.free_vars(g.hi) for g in around) or f.name.endswith("_block")


def _tile(transfer: Transfer | None, rank: int) -> list[int]:
    """Elements along each of the innermost loops that one request moves."""
    axes = [a.extent for a in transfer.instruction.axes] if transfer and transfer.instruction else []
    return [1] * max(rank - len(axes), 0) + axes[max(len(axes) - rank, 0) :]


def _transfer(machine: Machine, local: str, inwards: bool, itemsize: int) -> Transfer | None:
    """The transfer between main memory and ``local`` that moves elements of ``itemsize`` bytes; the way out may have a stop."""
    main = machine.main_memory.name
    ends = machine.transfers_between(main, local) if inwards else machine.transfers_between(local, main)
    ends = ends or tuple(t for t in machine.transfers if (t.src == main if inwards else t.dst == main))

    def fits(t: Transfer) -> bool:
        return t.instruction is not None and all(o.dtype.nbytes == itemsize for o in t.instruction.operands if o.memory == main)

    return next((t for t in ends if fits(t)), ends[0] if ends else None)
