"""Convolutions whose window is one pixel, and products with several leading dimensions, as products of matrices: the same memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Alloc, For, Kernel, Stmt
from tilewright.space.stages import Stage, stages


def joined(kernel: Kernel) -> Kernel:
    """``kernel`` with neighbouring dimensions that all nests walk together as one, and without dimensions of one element before others.

    The memory of its arrays stays as it is. ``kernel`` itself unless that makes products of matrices of all its contractions, some of
    which are none; and where an array has a layout, or a nest is no plain one.
    """
    nests = stages(kernel)
    plain = all(s.store is not None and s.loops for s in nests) and all(b.layout is None for b in st.all_buffers(kernel))
    if not plain or not any(s.is_reduction for s in nests) or _products(nests):
        return kernel
    new = _without_single(kernel)
    while (pairs := _together(stages(new))) is not None:
        new = _merged(new, pairs)
    return new if _products(stages(new)) else kernel


def _products(nests: Sequence[Stage]) -> bool:
    """Whether all reductions are sums of products of vectors or matrices."""
    sums = [s for s in nests if s.is_reduction]
    return all(s.factors() is not None and all(b.rank <= 2 for b, _ in s.accesses()) for s in sums)


def _rebuilt(kernel: Kernel, dims: Mapping[str, Sequence[Sequence[int]]], env: Mapping[str, Expr]) -> Kernel:
    """``kernel`` on arrays whose dimensions are groups of the old ones, each indexed by the last index of its group.

    Loops in ``env`` are gone; where a group of two is, the loop over the last runs over both.
    """
    new = {b.name: _grouped(b, dims[b.name]) for b in st.all_buffers(kernel)}

    def at(b: Buffer, indices: Sequence[Expr]) -> tuple[Expr, ...]:
        return tuple(ex.substitute(indices[group[-1]], env) for group in dims[b.name])

    def moved(e: Expr) -> Expr | None:
        return Load(new[e.buffer.name], at(e.buffer, e.indices)) if isinstance(e, Load) and e.buffer.rank else None

    def nest(s: Stage) -> Stmt:
        assert s.store is not None  # the caller has looked
        sizes = {n: e for b, i in s.accesses() for n, e in _extents(b, i, dims[b.name])}
        value = ex.substitute(ex.transform(s.store.value, moved), env)
        out: Stmt = replace(s.store, buffer=new[s.store.buffer.name], indices=at(s.store.buffer, s.store.indices), value=value)
        for f in reversed([f for f in st.loops(s.root) if f.name not in env]):
            out = For(f.var, f.lo, ex.idx(sizes.get(f.name, s.loops[f.name])), st.block(out), f.kind)
        return out

    made = iter([nest(s) for s in stages(kernel)])
    body = [Alloc(new[s.buffer.name]) if isinstance(s, Alloc) else next(made) for s in kernel.body.stmts]
    return kernel.with_(args=tuple(new[b.name] for b in kernel.args), body=st.block(*body))


def _grouped(b: Buffer, groups: Sequence[Sequence[int]]) -> Buffer:
    return b.with_(shape=tuple(ex.idx(_size(b, group)) for group in groups)) if b.rank else b


def _size(b: Buffer, group: Sequence[int]) -> int:
    size = 1
    for d in group:
        size *= b.static_shape[d]
    return size


def _extents(b: Buffer, indices: Sequence[Expr], groups: Sequence[Sequence[int]]) -> Iterator[tuple[str, int]]:
    """The loops over several dimensions, and how many iterations each has."""
    for group in groups:
        last = indices[group[-1]]
        if len(group) > 1 and isinstance(last, Var):
            yield last.name, _size(b, group)


def _without_single(kernel: Kernel) -> Kernel:
    """Without dimensions of one element, but for the last, and the loops of one iteration that walk no other."""
    dims = {b.name: [[d] for d, n in enumerate(b.static_shape) if n > 1 or d == b.rank - 1] for b in st.all_buffers(kernel)}
    nests = stages(kernel)
    last = {n for s in nests for _, indices in s.accesses() for n in ex.free_vars(indices[-1])}
    return _rebuilt(kernel, dims, {n: ex.idx(0) for s in nests for n, extent in s.loops.items() if extent == 1 and n not in last})


#: Dimension d and the next of arrays, and the loops over both (the inner one by the outer).
Pairs = tuple[frozenset[tuple[str, int]], Mapping[str, str]]


def _together(nests: Sequence[Stage]) -> Pairs | None:
    """Pairs of dimensions that have to be joined together, if any can be."""
    for b in dict.fromkeys(b for s in nests for b, _ in s.accesses()):
        for d in range(b.rank - 1):
            if (found := _closed(nests, b.name, d)) is not None:
                return found
    return None


def _closed(nests: Sequence[Stage], name: str, d: int) -> Pairs | None:
    """Dimension ``d`` of an array and the next with all others that the same loops walk; None where some nest walks one of a pair alone."""
    pairs, loops, left = {(name, d)}, dict[str, str](), [(name, d)]
    while left:
        array, at = left.pop()
        for s in nests:
            for b, indices in s.accesses():
                if b.name != array:
                    continue
                outer, inner = indices[at : at + 2]
                if not (isinstance(outer, Var) and isinstance(inner, Var) and outer != inner and _full(s, b, at, outer, inner)):
                    return None
                others = _walked(s, outer.name, inner.name)
                if others is None or loops.get(inner.name, outer.name) != outer.name:
                    return None
                loops[inner.name] = outer.name
                left += [p for p in others if p not in pairs]
                pairs |= set(others)
    return frozenset(pairs), loops


def _full(s: Stage, b: Buffer, d: int, outer: Var, inner: Var) -> bool:
    """Whether the loops walk all of two dimensions."""
    return (s.loops[outer.name], s.loops[inner.name]) == b.static_shape[d : d + 2]


def _walked(s: Stage, outer: str, inner: str) -> list[tuple[str, int]] | None:
    """The arrays that two loops of a nest walk, with the first dimension; None where one is used without the other or for anything else."""
    assert s.store is not None  # the caller has looked
    found = []
    for b, indices in s.accesses():
        at = [d for d, i in enumerate(indices) if ex.free_vars(i) & {outer, inner}]
        if not at:
            continue
        if len(at) != 2 or at[1] != at[0] + 1 or [indices[d] for d in at] != [Var(outer), Var(inner)]:
            return None
        found.append((b.name, at[0]))
    plain = ex.transform(s.store.value, lambda e: ex.const(0, e.dtype) if isinstance(e, Load) else None)
    return None if ex.free_vars(plain) & {outer, inner} else found


def _merged(kernel: Kernel, pairs: Pairs) -> Kernel:
    """The pairs as one dimension each, walked by the inner loop."""
    dims: dict[str, list[list[int]]] = {}
    for b in st.all_buffers(kernel):
        groups = [[d] for d in range(b.rank)]
        for d in sorted((d for n, d in pairs[0] if n == b.name), reverse=True):
            groups[d : d + 2] = [[*groups[d], *groups[d + 1]]]
        dims[b.name] = groups
    return _rebuilt(kernel, dims, {outer: ex.idx(0) for outer in pairs[1].values()})
