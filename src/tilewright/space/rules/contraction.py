"""Reductions with a register tile: contractions, convolutions, pooling, sums over outer dimensions.

The output tile stays in registers while the reduction runs inside it; initialisation and the
element-wise epilogue run on the tile before and after. Tails are peeled, so that every copy of
the inner loops has constant extents.
"""

from __future__ import annotations

from math import prod

from tilewright.cost.contraction import Contraction, Operand
from tilewright.ir import expr as ex
from tilewright.ir.buffer import Layout
from tilewright.space.stages import Stage
from tilewright.space.strides import Access

#: Cycles of work below which waking other cores costs more than it saves.
PARALLEL_CYCLES = 8000
#: Rows of memory that a stream reads side by side, about: each sum is then loaded and stored once for that many rows,
#: and prefetchers still follow all of them.
SIDE_BY_SIDE = 8


def problem_of(stage: Stage, free: frozenset[str], dividing: frozenset[str] = frozenset()) -> Contraction:
    """The stage as the estimate sees it; layouts of the buffers in ``free`` may be chosen ahead of time.

    Loops of ``dividing`` are outside of it: it is the problem of one part of the work.
    """
    operands = tuple(_operand(a, stage, free) for a in stage.reads())
    loops = {n: extent for n, extent in stage.loops.items() if n not in dividing}
    spatial = tuple(n for n in stage.spatial if n not in dividing)
    return Contraction(loops, spatial, operands, _operand(stage.target(), stage, free))


def _operand(a: Access, stage: Stage, free: frozenset[str]) -> Operand:
    elements = prod(a.buffer.static_shape)
    packable = dimension_loops(a, stage) is not None
    return Operand(a.buffer.name, a.buffer.dtype.nbytes, elements, a.strides, a.buffer.name in free, packable)


def dimension_loops(a: Access, stage: Stage) -> list[dict[str, int]] | None:
    """For each dimension the loops that index it, with their coefficients; None for windows and irregular indices.

    A dimension may be indexed by several spatial loops (``g * 32 + m``: every element once), but not by a sum that
    reads elements repeatedly.
    """
    out: list[dict[str, int]] = []
    seen: set[str] = set()
    for i in a.indices:
        names = sorted(ex.free_vars(i))
        if ex.loads(i) or seen & set(names) or (len(names) > 1 and set(names) & set(stage.reduction)):
            return None
        seen |= set(names)
        zero = dict.fromkeys(names, 0)
        base = ex.evaluate(i, zero)
        found = {n: int(ex.evaluate(i, {**zero, n: 1}) - base) for n in names}
        ordered = sorted(found, key=lambda n: found[n])
        reach = 1
        for n in ordered:
            if found[n] != reach or n not in stage.loops:
                return None
            reach *= stage.loops[n]
        out.append(found)
    return out


def panel_layout(access: Access, stage: Stage, vector: str, width: int) -> Layout | None:
    """The layout that makes a tile's reads of ``access`` contiguous, in the order the tile reads them.

    Physically: dimensions of the loops around the tile, then panels of ``width``, then the reduction loops in
    their order, then the ``width`` elements of a panel row. None when no such layout exists.
    """
    dims = dimension_loops(access, stage)
    if dims is None:
        return None
    v = next((d for d, loops in enumerate(dims) if vector in loops), None)
    if v is None:
        return None
    order = reduction_order(stage, access.buffer.name)
    inside = sorted((d for d, loops in enumerate(dims) if set(loops) & set(order)), key=lambda d: order.index(next(iter(dims[d]))))
    around = [d for d in range(len(dims)) if d != v and d not in inside]
    block = width
    if any(c % block for n, c in dims[v].items() if n != vector):
        block = stage.loops[vector]
    whole = block >= int(access.buffer.static_shape[v])
    head = [(d, 1) for d in around] + ([] if whole else [(v, block)])
    return Layout((*head, *((d, 1) for d in inside), (v, 1)))


def reduction_order(stage: Stage, packed: str) -> list[str]:
    """Reduction loops, outermost first: by how far they move the operands that are not ``packed``."""
    moving = [a for a in stage.reads() if a.buffer.name != packed] or stage.reads()

    def distance(n: str) -> int:
        strides = [a.stride(n) for a in moving]
        return max((abs(s) if s is not None else 1 << 40 for s in strides), default=0)

    return sorted(stage.reduction, key=lambda n: -distance(n))
