"""Where values of a network should have their channels innermost in memory, all of them or as many as fill a vector.

Windowed operations (convolution, pooling) vectorise over channels, which then must lie side by
side; so they must for accelerators whose transfers fill the rows of an array with them. The choice is
made on the values between operations, before kernels exist: it starts at the values that windowed
operations touch and spreads through operations that work point by point. What the user sees (inputs,
outputs) and what is read under another shape keeps the plain layout: the operations at the border read one layout and
write another. For accelerators, which cannot pack on the way, a copy with the channels last is made of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, get_args

from tilewright.codegen.commands import has_words
from tilewright.graph.model import Graph, Operation
from tilewright.graph.patterns import Pattern, pattern
from tilewright.hw import Machine
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer, Layout
from tilewright.ir.expr import Const, Expr, Load, Var, loads
from tilewright.ir.stmt import Store
from tilewright.ir.types import DType
from tilewright.util.errors import TilewrightError

#: "plain": as declared; "channels-last"; "blocked": channels in blocks of one vector, the blocks where channels were;
#: "best": for every value between operations that of the three with the least estimated time, conversions included.
Layouts = Literal["plain", "channels-last", "blocked", "best"]

#: Stem of the names of copies with another layout.
_TURNED = "turned"


def choose_layouts(graph: Graph, machine: Machine, layouts: Layouts = "channels-last", *, threads: int = 1) -> Graph:
    """``graph`` with ``layouts`` on the values that profit; without SIMD or declared moves nothing changes.

    The transfers of an accelerator want channels last: there anything but "plain" means that. TilewrightError for unknown ``layouts``.
    """
    if layouts not in get_args(Layouts):
        raise TilewrightError(f"unknown layouts {layouts!r}", hint=f"there are: {', '.join(get_args(Layouts))}")
    if layouts == "plain":
        return graph
    moved = moved_types(machine)
    if moved:
        graph = _copied(graph, moved)
    chosen = sorted(_profiting(graph, machine, moved))
    if layouts == "best" and not moved:
        from tilewright.graph.layout_search import least_estimated

        return graph.with_layouts(least_estimated(graph, chosen, machine, threads))
    way: Way = "blocked" if layouts == "blocked" and not moved else "channels-last"
    return graph.with_layouts({n: arranged(graph.buffers[n], way, machine) for n in chosen})


#: How one value may lie.
Way = Literal["plain", "channels-last", "blocked"]


def arranged(b: Buffer, way: Way, machine: Machine) -> Buffer:
    """``b`` as it lies in ``way``: in blocks only where channels fill them."""
    lanes = machine.vector_bits // max(b.dtype.bits, 8)
    if way == "plain":
        return b
    if way == "blocked" and lanes > 1 and b.static_shape[1] % lanes == 0:
        return b.with_(layout=channel_blocks(b.rank, lanes))
    return b.with_(layout=channels_last(b.rank))


def _profiting(graph: Graph, machine: Machine, moved: frozenset[DType]) -> set[str]:
    """The values whose channels should lie side by side."""
    free = set(graph.free_layouts())

    def eligible(b: Buffer) -> bool:
        lanes = machine.vector_bits // max(b.dtype.bits, 8)
        profits = b.dtype in moved or (lanes > 1 and b.rank >= 3 and b.static_shape[1] * 2 >= lanes)
        return b.rank >= 3 and b.name in free and b.layout is None and profits

    chosen: set[str] = set()
    for op in graph.operations:
        if windowed(op):
            chosen.update(b.name for b in _values(graph, op) if eligible(b))
    changed = True
    while changed:
        changed = False
        for op in graph.operations:
            values = {b.name for b in _values(graph, op) if eligible(b)}
            if values & chosen and not values <= chosen and pointwise_in_space(op):
                chosen |= values
                changed = True
    return chosen


def channels_last(rank: int) -> Layout:
    """[N, C, spatial...] stored as [N, spatial..., C]."""
    return Layout(((0, 1), *((d, 1) for d in range(2, rank)), (1, 1)))


def channel_blocks(rank: int, block: int) -> Layout:
    """[N, C, spatial...] stored as [N, C / block, spatial..., block]."""
    return Layout(((0, 1), (1, block), *((d, 1) for d in range(2, rank)), (1, 1)))


def moved_types(machine: Machine) -> frozenset[DType]:
    """The element types that the transfers of an accelerator take from main memory or bring there."""
    if not has_words(machine):
        return frozenset()
    main = machine.main_memory.name
    arrays = (o for t in machine.transfers if t.instruction for o in t.instruction.operands if o.shape)
    return frozenset(o.dtype for o in arrays if o.memory == main)


def _copied(graph: Graph, moved: frozenset[DType]) -> Graph:
    """``graph`` in which convolutions, and what works point by point on their results, have copies of the values whose layout is not
    free: a copy may have any layout.
    """
    free = set(graph.free_layouts()) | set(graph.constants)
    buffers = dict(graph.buffers)
    operations: list[Operation] = []
    copies: dict[str, Buffer] = {}
    results: set[str] = set()
    for op in graph.operations:
        convolves = windowed(op) and pattern(op) is Pattern.CONTRACTION
        if not convolves and not (results & set(op.inputs) and pointwise_in_space(op)):
            operations.append(op)
            continue
        results |= set(op.outputs)
        values = [b for b in _values(graph, op) if convolves or b.name in op.outputs]
        fixed = [b for b in values if b.rank >= 3 and b.name not in free and b.dtype in moved]
        new = {}
        for b in fixed:
            new[b.name] = copies.get(b.name) or b.with_(name=f"{_TURNED}_{len(buffers)}")
            buffers[new[b.name].name] = new[b.name]
        outputs = tuple(new[n].name if n in new else n for n in op.outputs)
        nests = tuple(st.replace_buffers(n, new) for n in op.nests)
        for b in fixed:
            if b.name not in op.outputs and b.name not in copies:
                operations.append(_copy(b, new[b.name]))
                copies[b.name] = new[b.name]
        operations.append(replace(op, nests=nests, outputs=outputs))
        operations += [_copy(new[b.name], b) for b in fixed if b.name in op.outputs]
    return replace(graph, operations=tuple(operations), buffers=buffers)


def _copy(source: Buffer, target: Buffer) -> Operation:
    """The copy, of which one side is ours; loops have its number, as names are unique in a graph."""
    number = next(b.name for b in (source, target) if b.name.startswith(_TURNED)).rpartition("_")[2]
    indices = tuple(Var(f"turn{d}_{number}") for d in range(source.rank))
    nest: st.Stmt = st.store(target[indices], source[indices])
    for v, extent in zip(reversed(indices), reversed(source.static_shape), strict=True):
        nest = st.loop(v.name, 0, extent, nest)
    return Operation("Copy", target.name, (nest,), (target.name,))


def _values(graph: Graph, op: Operation) -> Iterable[Buffer]:
    return (graph.buffers[n] for n in (*op.inputs, *op.outputs) if n in graph.buffers)


def _accesses(op: Operation) -> Iterable[tuple[Store, list[Load]]]:
    for nest in op.nests:
        for s in st.walk(nest):
            if isinstance(s, Store):
                yield s, loads(s.value)


def windowed(op: Operation) -> bool:
    """Whether some value is read at a moving window of its spatial dimensions (``x[n, c, p*2 + r, q*2 + s]``)."""
    return any(_offset(i) for _, found in _accesses(op) for ld in found if ld.buffer.rank >= 3 for i in ld.indices[2:])


def _offset(index: Expr) -> bool:
    return not isinstance(index, (Var, Const)) and not loads(index)


def pointwise_in_space(op: Operation) -> bool:
    """Whether every value is read at the position that is written: any layout does, as long as it is the same."""
    return all(
        ld.indices[2:] == s.indices[2:]
        for s, found in _accesses(op)
        for ld in found
        if ld.buffer.rank == s.buffer.rank and ld.buffer.rank >= 3
    )
