"""Where values of a network should have their channels innermost in memory.

Windowed operations (convolution, pooling) vectorise over channels, which then must lie side by
side. The choice is made on the values between operations, before kernels exist: it starts at
the values that windowed operations touch and spreads through operations that work point by point.
What the user sees (inputs, outputs) and what is read under another shape keeps the plain layout.
"""

from __future__ import annotations

from collections.abc import Iterable

from tilewright.graph.model import Graph, Operation
from tilewright.hw import Machine
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer, Layout
from tilewright.ir.expr import Const, Expr, Load, Var, loads
from tilewright.ir.stmt import Store


def choose_layouts(graph: Graph, machine: Machine) -> Graph:
    """``graph`` with channels-last layouts on the values that profit; without SIMD nothing changes."""
    free = set(graph.free_layouts())

    def eligible(b: Buffer) -> bool:
        lanes = machine.vector_bits // max(b.dtype.bits, 8)
        return b.rank >= 3 and b.name in free and b.layout is None and lanes > 1 and b.static_shape[1] * 2 >= lanes

    chosen: set[str] = set()
    for op in graph.operations:
        if _windowed(op):
            chosen.update(b.name for b in _values(graph, op) if eligible(b))
    changed = True
    while changed:
        changed = False
        for op in graph.operations:
            values = {b.name for b in _values(graph, op) if eligible(b)}
            if values & chosen and not values <= chosen and _pointwise_in_space(op):
                chosen |= values
                changed = True
    return graph.with_layouts({n: graph.buffers[n].with_(layout=channels_last(graph.buffers[n].rank)) for n in chosen})


def channels_last(rank: int) -> Layout:
    """[N, C, spatial...] stored as [N, spatial..., C]."""
    return Layout(((0, 1), *((d, 1) for d in range(2, rank)), (1, 1)))


def _values(graph: Graph, op: Operation) -> Iterable[Buffer]:
    return (graph.buffers[n] for n in (*op.inputs, *op.outputs) if n in graph.buffers)


def _accesses(op: Operation) -> Iterable[tuple[Store, list[Load]]]:
    for nest in op.nests:
        for s in st.walk(nest):
            if isinstance(s, Store):
                yield s, loads(s.value)


def _windowed(op: Operation) -> bool:
    """Whether some value is read at a moving window of its spatial dimensions (``x[n, c, p*2 + r, q*2 + s]``)."""
    return any(_offset(i) for _, found in _accesses(op) for ld in found if ld.buffer.rank >= 3 for i in ld.indices[2:])


def _offset(index: Expr) -> bool:
    return not isinstance(index, (Var, Const)) and not loads(index)


def _pointwise_in_space(op: Operation) -> bool:
    """Whether every value is read at the position that is written: any layout does, as long as it is the same."""
    return all(
        ld.indices[2:] == s.indices[2:]
        for s, found in _accesses(op)
        for ld in found
        if ld.buffer.rank == s.buffer.rank and ld.buffer.rank >= 3
    )
