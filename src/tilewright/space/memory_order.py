"""Kernels on arrays with layouts as kernels on plain arrays in the order of memory: what forms of hardware loops are declared on.

Networks write images with channels first whatever lies where. A declared loop over images says which dimension comes first, and
meets no array whose dimensions are listed in another order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer, Layout
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Alloc, Kernel, Stmt, Store
from tilewright.space.stages import Stage, stages

#: The dimensions of an array, outermost in memory first.
Order = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ordered:
    """A kernel on plain arrays, and for each argument whose dimensions are now listed in another order how they lie in memory."""

    kernel: Kernel
    layouts: Mapping[str, Layout]


def memory_order(kernel: Kernel, constants: Collection[str] = ()) -> Ordered:
    """``kernel`` with its arrays' dimensions in the order of memory, and loops in the order of the dimensions that they walk.

    Its own arrays take the order of those that they are computed from or into; ``constants``, which are laid out ahead of time, that of
    the loops of the reduction that reads them: what is summed over, then what is not. ``kernel`` itself where all arrays lie as
    they are written, where a layout divides a dimension, or a nest is no plain one.
    """
    nests = stages(kernel)
    layouts = [b.layout for b in st.all_buffers(kernel) if b.layout is not None]
    plain = all(s.store is not None and s.output.rank for s in nests) and all(block == 1 for layout in layouts for _, block in layout.dims)
    if not plain or all(_order(layout) == tuple(range(len(layout.dims))) for layout in layouts):
        return Ordered(kernel, {})
    orders = _orders(kernel, nests, frozenset(constants))
    new = {b.name: _turned(b, orders[b.name]) for b in st.all_buffers(kernel)}
    plain_nests = iter([_nest(s, orders, new) for s in nests])
    body = [Alloc(new[s.buffer.name]) if isinstance(s, Alloc) else next(plain_nests) for s in kernel.body.stmts]
    turned = kernel.with_(args=tuple(new[b.name] for b in kernel.args), body=st.block(*body))
    found = {b.name: Layout(tuple((d, 1) for d in orders[b.name])) for b in kernel.args}
    return Ordered(turned, {n: layout for n, layout in found.items() if _order(layout) != tuple(range(len(layout.dims)))})


def _order(layout: Layout) -> Order:
    return tuple(d for d, _ in layout.dims)


def _turned(b: Buffer, order: Order) -> Buffer:
    return b.with_(shape=tuple(b.shape[d] for d in order), layout=None)


def _orders(kernel: Kernel, nests: Sequence[Stage], constants: frozenset[str]) -> dict[str, Order]:
    """The order of every array: given ones first, then what follows from those, as long as anything does."""
    buffers = {b.name: b for b in st.all_buffers(kernel)}
    arriving = {b.name for b in kernel.args} - constants
    known = {n: _order(b.layout) for n, b in buffers.items() if b.layout is not None}
    known |= {n: tuple(range(buffers[n].rank)) for n in arriving - known.keys()}
    while True:
        found = dict(f for s in nests for f in _following(s, known))
        if not found:
            return {n: known.get(n, tuple(range(b.rank))) for n, b in buffers.items()}
        known |= found


def _following(s: Stage, known: Mapping[str, Order]) -> Iterator[tuple[str, Order]]:
    """Orders of arrays of a nest that those of the others tell."""
    walks = list(_walks(s, known))
    for b, indices in s.accesses():
        order = next((o for w in walks if (o := _along(indices, w)) is not None), None)
        if b.name not in known and order is not None:
            yield b.name, order


def _walks(s: Stage, known: Mapping[str, Order]) -> Iterator[list[str]]:
    """Loops in the orders in which arrays have them; those of a reduction in that of a factor before those of the result."""
    (target, at), *read = s.accesses()
    yield from (_loops(indices, known[b.name]) for b, indices in s.accesses() if b.name in known)
    if s.is_reduction and target.name in known:
        free = [n for n in _loops(at, known[target.name]) if n not in s.reduction]
        for f in (_loops(indices, known[b.name]) for b, indices in read if b.name in known):
            yield [*(n for n in f if n in s.reduction), *free]


def _loops(indices: Sequence[Expr], order: Order) -> list[str]:
    """The loops that walk an array, outermost dimension first."""
    return list(dict.fromkeys(n for d in order for n in sorted(ex.free_vars(indices[d]))))


def _along(indices: Sequence[Expr], walked: Sequence[str]) -> Order | None:
    """The dimensions of an array in the order of the loops in ``walked``; None where others walk it, too."""
    loops = [ex.free_vars(i) for i in indices]
    if not all(mine <= set(walked) for mine in loops):
        return None
    return tuple(sorted(range(len(indices)), key=lambda d: min(map(walked.index, loops[d]), default=-1)))


def _nest(s: Stage, orders: Mapping[str, Order], new: Mapping[str, Buffer]) -> Stmt:
    """The nest on the turned arrays; its loops, if they may, in the order of the result, then of what is read."""

    def turned(e: Expr) -> Expr | None:
        if not isinstance(e, Load) or not e.buffer.rank:
            return None
        return Load(new[e.buffer.name], tuple(e.indices[d] for d in orders[e.buffer.name]))

    assert s.store is not None  # the caller has looked
    at = orders[s.store.buffer.name]
    store = Store(new[s.store.buffer.name], tuple(s.store.indices[d] for d in at), ex.transform(s.store.value, turned), s.store.op)
    walked = [n for b, indices in s.accesses() for n in _loops(indices, orders[b.name])] if _in_any_order(s) else []
    nest: Stmt = store
    roots = {f.name: f for f in st.loops(s.root)}
    for n in reversed(list(dict.fromkeys([*(n for n in walked if n not in s.reduction), *walked, *s.loops]))):
        nest = replace(roots[n], body=st.block(nest))
    return nest


def _in_any_order(s: Stage) -> bool:
    """Whether the loops of a nest mean the same in any order.

    What it reads of its target is what the same iteration replaces, and the last that stores to an element is the last of each loop.
    """
    (target, at), *read = s.accesses()
    own = [indices for b, indices in read if b.name == target.name]
    if own:
        alone = {i.name for i in at if isinstance(i, Var)}
        return all(indices == at for indices in own) and all(n in alone for n, extent in s.loops.items() if extent > 1)
    return (s.store is not None and s.store.op is not None) or all(len(ex.free_vars(i)) <= 1 for i in at)
