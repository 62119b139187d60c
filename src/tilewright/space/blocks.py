"""Contractions in blocks of memories that a program fills itself (scratchpads, accumulators).

The result and both operands are held as boxes of the program's own arrays, read and written where they lie in main
memory: nothing is packed before. A loop is walked in blocks of whole instruction tiles, the last block and the last
tile cut to what is left. Everything here is read off the mapping and the declared memories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from tilewright.hw import Machine, Memory
from tilewright.hw.instruction import Instruction
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer, Layout
from tilewright.ir.expr import Expr, Load
from tilewright.ir.linear import Linear
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Store
from tilewright.mapping import Mapping as Placed
from tilewright.space.knob import Knob
from tilewright.space.levels import ceil_div
from tilewright.space.tiling import value_of
from tilewright.util.errors import MappingError

#: A last tile of this part of the others, or less, is short: an instruction takes some time however little it does.
SHORT = 4


@dataclass(frozen=True, slots=True)
class Walk:
    """One loop of the contraction in blocks of ``knob`` tiles of ``tile`` iterations.

    ``axis`` is the instruction's axis it rides on (None: a loop around the instruction). ``windows`` of what the loop computes are
    reduced on its way out, so many, so far apart, of so many iterations: neighbouring blocks compute what windows of both need.
    """

    loop: str
    extent: int
    tile: int
    axis: str | None
    reduction: bool
    knob: Knob
    windows: tuple[int, int, int] | None = None

    @property
    def tiles(self) -> int:
        """Tiles in all."""
        return -(-self.extent // self.tile)

    @property
    def even(self) -> int:
        """The smallest tile that gives as many tiles: then they are as even as they can be."""
        return -(-self.extent // self.tiles)

    @property
    def short(self) -> bool:
        """Whether the last tile is much shorter than the others."""
        return 0 < self.extent % self.tile <= self.tile // SHORT and self.tiles > 1

    @property
    def held(self) -> Expr:
        """Iterations of a whole block."""
        return ex.binary("min", value_of(self.knob) * self.tile, ex.idx(self.extent))

    @property
    def blocks(self) -> Expr:
        """Blocks in all."""
        if self.windows is None:
            return ceil_div(ex.idx(self.tiles), value_of(self.knob))
        return ceil_div(ex.idx(self.windows[0]), self.within)

    @property
    def within(self) -> Expr:
        """Windows that a block computes all of; those at the ends of the loop may reach beyond it."""
        assert self.windows is not None  # the caller has looked
        count, step, span = self.windows
        every = self.held // self.extent * count
        return ex.binary("min", (self.held - span) // step + 1 + every, ex.idx(count))


@dataclass(frozen=True, slots=True)
class Held:
    """An operand of the contraction, and how a box of it lies in the memory that the instruction addresses.

    ``index`` is its place in the program's array, one linear form of the loops a dimension. ``layout`` puts the elements of a
    line of the memory side by side. ``order`` is the order of dimensions in which the instruction sees the array. Loops of
    ``outside`` would make lines start anywhere: boxes are loaded inside them. ``packed`` is the physical order that the array
    must have in main memory before transfers can fetch boxes of it (None: the one it has). ``margin`` is what a
    local array has beyond the elements that are read: held whole, it takes that too.
    """

    buffer: Buffer
    index: tuple[Linear, ...]
    memory: Memory
    layout: Layout | None
    hardware: str
    order: tuple[int, ...]
    outside: frozenset[str] = frozenset()
    packed: Layout | None = None
    margin: tuple[int, ...] = ()

    def moved_by(self, loop: str) -> bool:
        """Whether another part is used in the next iteration of ``loop``."""
        return any(ex.Var(loop) in i.terms for i in self.index)

    def shape(self, extents: Mapping[str, Expr]) -> tuple[Expr, ...]:
        """The box that ``extents`` iterations of each loop touch."""
        out = []
        for i in self.index:
            # The last of a sum of loops is the sum of their last values; one more is counted.
            size: Expr = ex.idx(1 - sum(i.terms.values()))
            for v, c in i.terms.items():
                assert isinstance(v, ex.Var)  # checked where the operand was read
                size = extents[v.name] * c + size
            out.append(size)
        return tuple(out)

    def bytes(self, extents: Mapping[str, Expr]) -> Expr:
        """Bytes of that box, whole lines."""
        shape = tuple(e + n for e, n in zip(self.shape(extents), self.margin or (0,) * len(self.index), strict=True))
        physical = self.layout.physical_shape(shape) if self.layout else shape
        total: Expr = ex.idx(self.buffer.dtype.nbytes)
        for e in physical:
            total = total * e
        return total


@dataclass(frozen=True)
class Blocks:
    """A contraction on an instruction: loops, operands, and the loop of the program around which each source is loaded.

    ``order`` are the spatial loops outermost first. ``loaded`` says for each source in how many of the loops around a block
    (spatial ones in order, then reductions) its box is loaded anew: fewer loops, fewer loads, larger boxes. ``fused`` is
    whether the nest that reads the result runs on its way out of the memory, block by block, or afterwards by itself; ``windowed``
    whether a nest that reduces windows of it does so too. Tiles of the loops ``even`` are as even as they can be.
    """

    instruction: Instruction
    mapping: Placed
    walks: Mapping[str, Walk]
    result: Held
    sources: tuple[Held, ...]
    order: tuple[str, ...]
    loaded: tuple[int, ...]
    fused: bool = True
    windowed: bool = False
    even: tuple[str, ...] = ()

    @cached_property
    def reductions(self) -> tuple[str, ...]:
        return tuple(n for n, w in self.walks.items() if w.reduction)

    @property
    def around(self) -> tuple[str, ...]:
        """Loops over blocks, outermost first."""
        return (*self.order, *self.reductions)

    def extents(self, depth: int) -> dict[str, Expr]:
        """Iterations of each loop inside the first ``depth`` loops over blocks."""
        outside = self.around[:depth]
        return {n: w.held if n in outside else ex.idx(w.extent) for n, w in self.walks.items()}

    @property
    def within(self) -> tuple[str, ...]:
        """Loops inside a block: those that move the last source outside, so that its tile may stay in the units while the others pass."""
        kept = self.sources[-1]
        return tuple(sorted(self.walks, key=lambda n: (not kept.moved_by(n), not self.walks[n].reduction)))

    @property
    def knobs(self) -> tuple[Knob, ...]:
        return tuple(w.knob for w in self.walks.values() if len(w.knob.values) > 1)

    def footprints(self) -> dict[str, Expr]:
        """Bytes held at once in each memory."""
        out = {self.result.memory.name: self.result.bytes(self.extents(len(self.order)))}
        for source, depth in zip(self.sources, self.loaded, strict=True):
            name, mine = source.memory.name, source.bytes(self.extents(depth))
            out[name] = out[name] + mine if name in out else mine
        return out

    def evened(self) -> Blocks | None:
        """The same with even tiles where the last would be short, along loops whose iterations are not side by side in a line of a memory:
        17 rows are 9 and 8 then, not 16 and 1. None where there are no such loops.
        """
        divided = {v for o in (self.result, *self.sources) if o.layout for d, n in o.layout.dims if n > 1 for v in o.index[d].terms}
        short = {n: w for n, w in self.walks.items() if w.axis is not None and w.short and ex.Var(n) not in divided}
        even = {n: replace(w, tile=w.even) for n, w in short.items()}
        return replace(self, walks={**self.walks, **even}, even=tuple(even)) if even else None

    @property
    def name(self) -> str:
        """The structure, for people and records."""
        kept = [
            f"{s.hardware} at {self.around[d - 1] if d else 'the start'}"
            for s, d in zip(self.sources, self.loaded, strict=True)
            if d < len(self.around)
        ]
        text = f"{self.instruction.name}: {str(self.mapping).split('[')[0].strip()}; blocks {' '.join(self.order)}"
        return "; ".join([text, *kept, *(f"{n} evenly" for n in self.even)])


def counts(tiles: int, whole: bool) -> tuple[int, ...]:
    """How many tiles a block may hold; ``whole``: blocks that divide the loop only (the hardware takes no smaller tile).

    Of all sizes that give the same number of blocks it is the smallest: then blocks are as even as they can be.
    """
    even = {-(-tiles // n) for n in range(1, tiles + 1)}
    return tuple(sorted(n for n in even if not whole or tiles % n == 0))


def walks_of(instruction: Instruction, mapping: Placed, single: frozenset[str] = frozenset()) -> dict[str, Walk]:
    """The loops of the contraction on the instruction; blocks hold one iteration of those of ``single``.

    MappingError where an axis would take several loops, or tiles need padding.
    """
    op = mapping.op
    if mapping.target.axes != tuple(a.name for a in instruction.axes):
        raise MappingError(f"{mapping}: axes of {instruction.name} would move together", hint="map onto its own axes")
    riding: dict[str, str] = {}
    for taken, group in zip(mapping.target.axes, mapping.groups, strict=True):
        if len(group) > 1:
            raise MappingError(f"{mapping}: axis {taken} takes {len(group)} loops", hint="fuse them first")
        riding |= {op.names[u]: taken for u in group}
    out: dict[str, Walk] = {}
    for i in op.iterations:
        axis = riding.get(i.name)
        rule = instruction.axis(axis).rule if axis else None
        tile = min(rule.extent, i.extent) if rule and rule.accepts(min(rule.extent, i.extent)) else rule.extent if rule else 1
        whole = rule is not None and not rule.accepts_all(1, rule.extent)
        if whole and i.extent % tile:
            raise MappingError(
                f"{mapping}: {i.extent} iterations of {i.name} are no multiple of {tile}, which axis {axis} of {instruction.name} takes"
            )
        knob = Knob(f"{i.name}_tiles", (1,) if i.name in single else counts(-(-i.extent // tile), whole))
        out[i.name] = Walk(i.name, i.extent, tile, axis, i.kind == "reduction", knob)
    return out


def operands_of(machine: Machine, instruction: Instruction, mapping: Placed) -> tuple[Held, ...]:
    """The result and the sources in the order of the instruction. MappingError when a box of one cannot lie in its memory."""
    riding = {axis: mapping.op.names[g[0]] for axis, g in zip(mapping.target.axes, mapping.groups, strict=True) if g}
    found = []
    for o in mapping.physical().operands:
        load = o.software.expr
        memory = machine.memory(o.memory)
        if not isinstance(load, Load):
            raise MappingError(f"{mapping}: operand {o.hardware.name} is {load}, not an element of an array")
        index = tuple(_linear(e, mapping) for e in load.indices)
        dims = _dimensions(instruction, o.hardware.name, load.buffer, index, riding)
        layout = _layout(instruction, o.hardware.name, load.buffer, dims, memory)
        # Dimensions that the instruction does not see keep their places.
        seen = iter(dims)
        order = tuple(next(seen) if d in dims else d for d in range(load.buffer.rank))
        outside = _unaligned(instruction, o.hardware.name, load.buffer, index, layout, riding)
        packed = None
        if _in_rows(machine, memory, o.hardware.name == mapping.target.view.output.name) and _innermost(
            load.buffer.layout, load.buffer
        ) != _innermost(layout, load.buffer):
            packed = Layout(tuple((d, 1) for d in [*_others(load.buffer, dims), *dims]))
        margin = _margin(mapping, load.buffer, index) if o.hardware.name != mapping.target.view.output.name else ()
        found.append(Held(load.buffer, index, memory, layout, o.hardware.name, order, outside, packed, margin))
    return tuple(found)


def _margin(mapping: Placed, buffer: Buffer, index: Sequence[Linear]) -> tuple[int, ...]:
    """Elements of each dimension of a local array that the contraction does not read; none for arguments, of which boxes are copied."""
    if buffer.name not in {b.name for b in st.allocated(mapping.op.kernel)}:
        return ()
    last = {i.name: i.extent - 1 for i in mapping.op.iterations}
    read = [1 + sum(last[v.name] * c for v, c in i.terms.items() if isinstance(v, ex.Var)) for i in index]
    return tuple(max(n - r, 0) for n, r in zip(buffer.static_shape, read, strict=True))


def _linear(e: Expr, mapping: Placed) -> Linear:
    scope = Simplifier({i.name: (0, i.extent - 1) for i in mapping.op.iterations})
    out = scope.linear(e)
    if not all(isinstance(v, ex.Var) and v.name in scope.ranges and c > 0 for v, c in out.terms.items()):
        raise MappingError(f"{mapping}: index {e} is not a sum of loops", hint="split or fuse loops so that it is")
    return out


def _layout(instruction: Instruction, name: str, buffer: Buffer, dims: Sequence[int], memory: Memory) -> Layout:
    """How a box lies in ``memory``: what the instruction sees as one line side by side, its lines one after the other."""
    operand = instruction.operand(name)
    fine: list[tuple[int, int]] = []
    for d in reversed(range(len(operand.shape))):
        if prod(n for _, n in fine) * operand.dtype.nbytes >= memory.line:
            break
        fine.insert(0, (dims[d], operand.shape[d]))
    if prod(n for _, n in fine) * operand.dtype.nbytes != memory.line:
        return Layout(tuple((d, 1) for d in [*_others(buffer, dims), *dims]))
    blocked = [d for d, _ in fine]
    rest = [*_others(buffer, dims), *(d for d in dims if d not in blocked), *blocked]
    return Layout((*((d, n) for d, n in fine if n > 1), *((d, 1) for d in rest)))


def _unaligned(
    instruction: Instruction, name: str, buffer: Buffer, index: Sequence[Linear], layout: Layout, riding: Mapping[str, str]
) -> frozenset[str]:
    """Loops besides the axis's own that move along a dimension that lines divide. MappingError when the axis takes steps along it."""
    out: set[str] = set()
    for d, block in layout.dims:
        if block == 1:
            continue
        for v, c in index[d].terms.items():
            assert isinstance(v, ex.Var)  # loops only
            if v.name not in riding.values():
                out.add(v.name)
            elif c != 1:
                raise MappingError(f"{instruction.name}: lines of {name} would hold every {c}th element of dimension {d} of {buffer.name}")
    return frozenset(out)


def _in_rows(machine: Machine, memory: Memory, out: bool) -> bool:
    """Whether every declared transfer between main memory and ``memory`` demands neighbours in main memory along its last dimension."""
    main = machine.main_memory.name
    between = machine.transfers_between(memory.name, main) if out else machine.transfers_between(main, memory.name)
    ends = [t.instruction for t in between if t.instruction]
    return bool(ends) and all(_demands_neighbours(i, main) for i in ends)


def _demands_neighbours(i: Instruction, main: str) -> bool:
    operand = next(o for o in i.operands if o.memory == main and o.shape)
    apart = f"{operand.name}.stride[{len(operand.shape) - 1}]"
    return any(r.variables == {apart} and r.holds({apart: 1}) and not r.holds({apart: 2}) for r in i.requirements)


def _innermost(layout: Layout | None, buffer: Buffer) -> int:
    """The dimension whose neighbours are next to each other."""
    return layout.dims[-1][0] if layout else buffer.rank - 1


def _others(buffer: Buffer, dims: Sequence[int]) -> list[int]:
    return [d for d in range(buffer.rank) if d not in dims]


def _dimensions(instruction: Instruction, name: str, buffer: Buffer, index: Sequence[Linear], riding: Mapping[str, str]) -> list[int]:
    """The dimension of the program's array that each dimension of the instruction's operand walks."""
    loads = [(ld.buffer.name, ld.indices) for s in _stores(instruction) for ld in ex.loads(s.value)]
    loads += [(s.buffer.name, s.indices) for s in _stores(instruction)]
    indices = next(i for n, i in loads if n == name)
    found: list[int | None] = []
    for e in indices:
        axes = sorted(ex.free_vars(e))
        if len(axes) > 1:
            raise MappingError(f"{instruction.name}: {name} is indexed by {e}", hint="several axes in one index need packed operands")
        loop = riding.get(axes[0]) if axes else None
        found.append(next((d for d, i in enumerate(index) if loop and ex.Var(loop) in i.terms), None))
    if len({d for d in found if d is not None}) != sum(d is not None for d in found):
        raise MappingError(f"{instruction.name}: two dimensions of {name} would walk one of {buffer.name}")
    free = [d for d in range(buffer.rank) if d not in found]
    out: list[int] = []
    for d in reversed(found):
        if d is None and not free:
            raise MappingError(f"{instruction.name}: {name} has more dimensions than {buffer.name}")
        out.insert(0, d if d is not None else free.pop())
    return out


def _stores(instruction: Instruction) -> list[Store]:
    return [s for s in st.walk(instruction.kernel.body) if isinstance(s, Store)]
