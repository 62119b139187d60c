"""What a kernel of several nests should cost, before anything is scheduled.

A kernel is read as regions: nests that the schedule rules run together, so that what they hand to one
another stays in registers or the innermost caches (a contraction with its epilogue, rows of a softmax or
a normalisation, element-wise chains). Each region pays for its arithmetic, for bringing operands into vector
order, for every value that enters or leaves it, and for being started; so two regions cost the same in one
kernel as in two, and a group is worth making only when its nests really join.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from math import prod

from tilewright.cost.core import VectorCore, vector_core
from tilewright.hw import Machine
from tilewright.hw.memory import CHIP
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Expr, Intrinsic, Var
from tilewright.ir.stmt import Kernel, allocated
from tilewright.space.chains import FEWEST_ROWS, SHARE, chain_of
from tilewright.space.stages import Stage, stages
from tilewright.space.strides import Access
from tilewright.util.errors import ScheduleError

#: Cycles of one vector operation: divisions and roots occupy their unit, functions are polynomials.
_SLOW = {"/": 8.0, "//": 8.0, "%": 8.0, "sqrt": 8.0, "rsqrt": 4.0, "exp": 12.0, "pow": 40.0}
_FUNCTION = 16.0
#: Elements of a row that is worth reducing in lanes; shorter ones (windows) are tiled over their results.
_ROW = 8
#: Share of the peak that contractions reach.
_EFFICIENCY = 0.9
#: Seconds to start a region, and to divide it among threads and wait for all.
_START, _FORK = 0.2e-6, 4e-6
#: How much slower tiles are in a kernel with other tiles: the rules choose one order of loops and memory for all (measured: 1.3 to 1.5).
_CROWDED = 1.4
#: Seconds that keep equal divisions apart: a kernel of several regions compiles longer and gains nothing.
_TIE = 1e-9


class Shape(Enum):
    """How a region runs."""

    TILE = "tile"  # a reduction held in registers, with what is computed from its result
    ROWS = "rows"  # reductions along memory, row by row
    CHAIN = "chain"  # contractions and what is between them, in blocks of rows
    POINTS = "points"


class Nest:
    """A stage with what is asked of it again and again."""

    def __init__(self, stage: Stage):
        if stage.opaque or stage.store is None:
            raise ScheduleError("a nest is no rectangle around one store", hint="such nests run as written")
        self.stage, self.store = stage, stage.store
        self.name = stage.output.name
        self.reads, self.target = stage.reads(), stage.target()
        self.inputs = {a.buffer.name for a in self.reads}
        self.shape = _shape(stage, self.reads)


@dataclass(slots=True)
class Region:
    """Nests that run together; ``written`` are the buffers they compute.

    ``rows`` is the loop that the nests of a chain share (by the last nest's name); ``again`` are the operands that each
    of its blocks reads anew, ``row_bytes`` what one row keeps inside.
    """

    shape: Shape
    nests: list[Nest] = field(default_factory=list)
    written: set[str] = field(default_factory=set)
    rows: str = ""
    again: frozenset[str] = frozenset()
    row_bytes: int = 0

    def add(self, *found: Nest) -> None:
        self.nests += found
        self.written |= {s.name for s in found}


def estimate(kernel: Kernel, machine: Machine, threads: int, constants: frozenset[str] = frozenset()) -> float:
    """Seconds of ``kernel``; ``constants`` are arguments that can be brought into any order ahead of time.

    ScheduleError when a nest is not rectangular.
    """
    found = regions(kernel, machine)
    seconds = _TIE * (len(found) - 1)
    private = {b.name for b in allocated(kernel)}
    tiles = sum(r.shape is Shape.TILE for r in found)
    for n, region in enumerate(found):
        later = {b for other in found[n + 1 :] for s in other.nests for b in s.inputs}
        kept = region.written & private - later
        crowded = region.shape is Shape.TILE and tiles > 1
        seconds += _seconds(region, kept, machine, threads, constants) * (_CROWDED if crowded else 1.0)
    return seconds


def regions(kernel: Kernel, machine: Machine | None = None) -> list[Region]:
    """The regions of ``kernel``, in order of their first nest; chains where a block of rows fits a core of ``machine``."""
    out: list[Region] = []
    private = {b.name for b in allocated(kernel)}
    every = [Nest(s) for s in stages(kernel)]
    readers = Counter(name for s in every for name in s.inputs)
    starts: dict[str, Nest] = {}
    chain, members = _chain([s.stage for s in every], private, machine)
    for n, s in enumerate(every):
        if chain is not None and n in members:
            chain.add(s)
            continue
        if s.stage.is_init:
            starts[s.name] = s
            continue
        nests = [start] if (start := starts.pop(s.name, None)) else []
        home = _home(out, s, {n for n in private if readers[n] == 1})
        if home is None:
            home = Region(s.shape)
            out.append(home)
        elif home.shape is Shape.POINTS:
            home.shape = s.shape
        home.add(*nests, s)
    return out + [Region(Shape.POINTS, [s], {s.name}) for s in starts.values()] + ([chain] if chain is not None else [])


def _chain(every: list[Stage], private: set[str], machine: Machine | None) -> tuple[Region | None, tuple[int, ...]]:
    """An empty region for the chain that ends with the last nest, and its nests; None where a block would not fit a core."""
    found = chain_of(every, private)
    if found is None:
        return None, ()
    row_bytes = found.row_bytes(every)
    if machine is not None and (not machine.vector_bits or row_bytes * FEWEST_ROWS > on_chip_bytes(machine)):
        return None, ()
    again = {a.buffer.name for n in found.links for a in every[n].reads() if not a.moved_by(found.row.own[n])}
    return Region(Shape.CHAIN, rows=found.row.loop, again=frozenset(again), row_bytes=row_bytes), found.members


def _shape(s: Stage, reads: list[Access]) -> Shape:
    if not s.is_reduction:
        return Shape.POINTS
    long = [n for n in s.reduction if s.loops[n] >= _ROW]
    along_memory = any({0, 1} >= (moves := {r.stride(n) for r in reads}) and 1 in moves for n in long)
    return Shape.ROWS if s.factors() is None and along_memory else Shape.TILE


def _home(found: list[Region], s: Nest, handed_on: set[str]) -> Region | None:
    """The region that nest ``s`` runs together with: the last one it reads, if the rules can follow the way it does.

    ``handed_on`` are local values that one nest reads.
    """
    region = next((r for r in reversed(found) if s.inputs & r.written), None)
    if region is None or s.shape is Shape.TILE:
        return None  # operands of a tile are brought into vector order first: a value produced there is complete before it starts
    writers = [w for w in region.nests if w.name in s.inputs]
    if region.shape is Shape.TILE:
        fits = s.shape is Shape.POINTS and all(_permutes(w, s) and w.name in handed_on for w in writers)
    elif s.shape is Shape.POINTS and region.shape is Shape.POINTS:
        fits = all(_permutes(w, s) for w in writers)
    else:
        fits = all(_same_rows(w, s) for w in writers)
    return region if fits else None


def _pairs(writer: Nest, reader: Nest) -> list[list[tuple[Expr, Expr, int]]]:
    """For each load of what ``writer`` stores: (index stored at, index loaded from, extent) of every dimension."""
    shape = writer.stage.output.static_shape
    found = [ld.indices for ld in ex.loads(reader.store.value) if ld.buffer.name == writer.name]
    return [list(zip(writer.store.indices, r, shape, strict=True)) for r in found]


def _permutes(writer: Nest, reader: Nest) -> bool:
    """Whether ``reader`` walks the values of ``writer`` element by element, in whatever order of dimensions."""
    for pairs in _pairs(writer, reader):
        used = [r.name for _, r, _ in pairs if isinstance(r, Var)]
        if not all(isinstance(r, Var) or s == 1 for _, r, s in pairs) or len(used) != len(set(used)):
            return False
        if reader.stage.volume != prod(writer.stage.output.static_shape):
            return False
    return True


def _same_rows(writer: Nest, reader: Nest) -> bool:
    """Whether each row that ``reader`` works on needs one row of ``writer`` only (and there are several rows)."""
    for pairs in _pairs(writer, reader):
        rows = 1
        for w, r, s in pairs:
            if isinstance(w, Var) and isinstance(r, Var) and r.name in reader.stage.spatial:
                rows *= s
        if rows == 1:
            return False
    return True


# --- price of a region ------------------------------------------------------------------------


def _seconds(region: Region, kept: set[str], machine: Machine, threads: int, constants: frozenset[str]) -> float:
    """Seconds of a region; ``kept`` are values that no one outside reads."""
    types = [s.stage.output.dtype for s in region.nests if s.stage.output.dtype.is_float]
    core = vector_core(machine, max(types, key=lambda d: d.bits, default=ty.f32))
    cycles = sum(_arithmetic(s, core) + _ordering(s, core, constants) for s in region.nests)
    moved: dict[str, float] = {}
    blocks = _blocks(region, core)
    for s in region.nests:
        for b in (s.stage.output, *(a.buffer for a in s.reads)):
            if b.name not in kept:
                rate = core.l2_bytes_per_cycle if b.nbytes <= core.l2_bytes / 2 else core.outer_bytes_per_cycle
                times = blocks if b.name in region.again else 1
                moved[b.name] = max(moved.get(b.name, 0.0), min(b.nbytes, s.stage.volume * b.dtype.nbytes) * times / rate)
    alone = machine.seconds(cycles + sum(moved.values())) + _START
    return alone if threads == 1 else min(alone, (alone - _START) / threads + _START + _FORK)


def _blocks(region: Region, core: VectorCore) -> int:
    """How many blocks of rows a chain has, by the size that the rule prefers."""
    if region.shape is not Shape.CHAIN:
        return 1
    fitting = max(core.l2_bytes // SHARE // region.row_bytes, 1)
    return -(-region.nests[-1].stage.loops[region.rows] // fitting)


def _arithmetic(s: Nest, core: VectorCore) -> float:
    if s.stage.is_reduction and s.stage.factors() is not None:
        return s.stage.volume / (core.lanes * core.fma_per_cycle * _EFFICIENCY)
    weight = sum(_weight(e) for e in ex.walk(s.store.value)) + (1.0 if s.store.op else 0.0)
    return s.stage.volume / core.lanes * max(weight, 1.0)


def _weight(e: Expr) -> float:
    match e:
        case Binary() if e.dtype.kind != ty.INDEX:
            return _SLOW.get(e.op, 0.5)
        case Intrinsic():
            return _SLOW.get(e.name, _FUNCTION if e.name not in ("abs", "fma") else 1.0)
    return 0.0


def _ordering(s: Nest, core: VectorCore, constants: frozenset[str]) -> float:
    """Cycles for elements that no vector loop reaches side by side, for the best loop to vectorise."""
    loops = s.stage.loops
    candidates = s.stage.spatial if s.shape is not Shape.ROWS else tuple(loops)
    return min((_moves(s, n, constants) for n in candidates if loops[n] > 1), default=0.0) / core.scalar_moves_per_cycle


def _moves(s: Nest, loop: str, constants: frozenset[str]) -> float:
    """Elements that have to be moved one by one when ``loop`` runs in lanes."""
    elements = 0.0
    for a in s.reads:
        if a.stride(loop) not in (0, 1) and a.buffer.name not in constants:
            elements += min(prod(a.buffer.static_shape), s.stage.volume)
    if loop not in s.stage.reduction and s.target.stride(loop) != 1:
        elements += prod(s.stage.output.static_shape)
    return elements


def row_bytes(buffers: Iterable[Buffer]) -> int:
    """Bytes of one row (the last dimension) of each of ``buffers``."""
    return sum(b.dtype.nbytes * (b.static_shape[-1] if b.rank else 1) for b in buffers)


def on_chip_bytes(machine: Machine) -> float:
    """Bytes that one core holds without going to main memory (infinite when nothing is declared)."""
    sizes = [m.bytes for m in machine.memories if m.kind in ("cache", "scratchpad") and m.per != CHIP and m.bytes]
    return float(max(sizes)) if sizes else float("inf")
