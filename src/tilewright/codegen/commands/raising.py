"""What a tile of explicit instructions computes, as one plain nest over the arrays that its operands were loaded from.

The way back from a schedule: calls become their semantics, buffers that only hold a copy become what they are a copy of, and loops over
blocks become one with the loops inside a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Binary, Const, Expr, Load, Var
from tilewright.ir.simplify import Simplifier
from tilewright.schedule.unify import Chain, chain_of


@dataclass(frozen=True, slots=True)
class Copy:
    """A buffer of which the element at ``variables`` is a copy of ``source``; None where there is but one index.

    Along the dimensions ``around`` of the source the buffer goes on: with zeros.
    """

    variables: tuple[str | None, ...]
    source: Load
    around: frozenset[int] = frozenset()

    def at(self, indices: Sequence[Expr]) -> Load:
        """What the element at ``indices`` is a copy of."""
        env = {v: i for v, i in zip(self.variables, indices, strict=True) if v is not None}
        return Load(self.source.buffer, tuple(ex.substitute(e, env) for e in self.source.indices))


def copy_of(scope: Simplifier, s: st.Stmt, zeroed: Mapping[str, Sequence[Expr]] = MappingProxyType({})) -> tuple[str, Copy] | None:
    """The buffer that ``s`` fills with parts of another one, element by element; None where ``s`` does anything else.

    What is left out of a part of a buffer that was ``zeroed`` before (so many elements along each dimension) must be what lies outside
    the source.
    """
    nest = chain_of(s)
    if nest is None or nest.store.op is not None or not isinstance(nest.store.value, Load) or any(f.step != 1 for f in nest.loops):
        return None
    own = {f.name: f for f in nest.loops}
    target, source = nest.store.buffer, nest.store.value
    names: list[str | None] = []
    around: set[int] = set()
    for i, extent in zip(nest.store.indices, zeroed.get(target.name, target.shape), strict=True):
        if not (isinstance(i, Var) and i.name in own.keys() - set(names)):
            if extent != ex.idx(1):
                return None
            names.append(None)
            continue
        names.append(i.name)
        whole = (own[i.name].lo, own[i.name].hi) == (ex.idx(0), extent)
        if target.name in zeroed and not whole:
            beside = _beside(scope, own[i.name], extent, source)
            if beside is None:
                return None
            around.add(beside)
    return (target.name, Copy(tuple(names), source, frozenset(around))) if own.keys() <= set(names) else None


def _beside(scope: Simplifier, f: st.For, extent: Expr, source: Load) -> int | None:
    """The dimension of ``source`` which ``f`` runs along, as far as indices from 0 to ``extent`` are inside; None if it does not."""
    moving = [d for d, e in enumerate(source.indices) if f.name in ex.free_vars(e)]
    if len(moving) != 1:
        return None
    d = moving[0]
    offset = scope.expr(source.indices[d] - f.var)
    first, last = ex.binary("max", offset * -1, 0), ex.binary("min", source.buffer.shape[d] - offset, extent)
    same = f.name not in ex.free_vars(offset) and _equal(scope, f.lo, first) and _equal(scope, f.hi, last)
    return d if same else None


def _equal(scope: Simplifier, a: Expr, b: Expr) -> bool:
    """Whether ``a`` and ``b`` are provably the same number, however their minima are written.

    The end of a block with clipped columns is the least of three: those of the image, of the zeros beside it and of the block.
    """
    return scope.nonneg(scope.linear(a - b)) and scope.nonneg(scope.linear(b - a))


def zeroed_by(s: st.Stmt) -> tuple[str, tuple[Expr, ...]] | None:
    """The buffer that ``s`` fills with zeros, from its first element on, and how many along each dimension."""
    nest = chain_of(s)
    if nest is None or nest.store.op is not None or not isinstance(nest.store.value, Const) or nest.store.value.value != 0:
        return None
    own = {f.name: f.hi for f in nest.loops if f.lo == ex.idx(0) and f.step == 1}
    extents = [own.pop(i.name, None) if isinstance(i, Var) else ex.idx(1) if i == ex.idx(0) else None for i in nest.store.indices]
    found = [e for e in extents if e is not None]
    return (nest.store.buffer.name, tuple(found)) if len(found) == len(extents) else None


def raised(scope: Simplifier, loops: Sequence[st.For], call: st.Call, copies: Mapping[str, Copy]) -> Chain | None:
    """``loops`` around ``call`` as a nest of as few loops as possible over what the operands are ``copies`` of.

    None where the semantics is no single nest, or loops start elsewhere than at 0.
    """
    body = chain_of(call.kernel.body)
    if body is None or any(f.lo != ex.idx(0) or f.step != 1 for f in (*loops, *body.loops)):
        return None
    taken = {f.name for f in loops} | scope.ranges.keys()
    env: dict[str, Expr] = dict(zip((v.name for v in call.kernel.sizes), call.sizes, strict=True))
    extents: dict[str, Expr] = {f.name: f.hi for f in loops}
    for f in body.loops:
        name = f.name
        while name in taken:
            name += "_"
        taken.add(name)
        extents[name] = scope.expr(ex.substitute(f.hi, env))
        env[f.name] = Var(name)
    windows = {b.name: w for b, w in zip(call.kernel.args, call.args, strict=True)}

    def resolved(e: Expr) -> Expr | None:
        if not isinstance(e, Load):
            return None
        w = windows[e.buffer.name]
        element = w.element(tuple(ex.substitute(i, env) for i in e.indices))
        copy = copies.get(w.buffer.name)
        return copy.at(element) if copy is not None else Load(w.buffer, element)

    # The target stays what it is: it is no copy.
    target = windows[body.store.buffer.name]
    indices = target.element(tuple(ex.substitute(i, env) for i in body.store.indices))
    store = st.Store(target.buffer, indices, ex.transform(body.store.value, resolved), body.store.op)
    return _merged(scope, extents, store)


def _merged(scope: Simplifier, extents: dict[str, Expr], store: st.Store) -> Chain:
    """The nest with every loop over blocks and the loop inside a block as one, and without loops of one iteration."""
    single: dict[str, Expr] = {n: ex.idx(0) for n, e in extents.items() if e == ex.idx(1)}
    extents = {n: ex.substitute(e, single) for n, e in extents.items() if n not in single}
    store = _replaced(scope, store, single)
    while (pair := _pair(scope, extents, store)) is not None:
        outer, inner, whole, store = pair
        extents = {n: whole if n == inner else e for n, e in extents.items() if n != outer}
    return Chain(tuple(st.For(Var(n), ex.idx(0), e, st.Block(())) for n, e in extents.items()), store)


def _pair(scope: Simplifier, extents: Mapping[str, Expr], store: st.Store) -> tuple[str, str, Expr, st.Store] | None:
    """A loop over blocks, the loop in a block, the extent of both as one, and ``store`` with the latter's variable for both."""
    for inner, e in extents.items():
        size, rest = _clipped(e)
        if size is None:
            continue
        for outer, count in extents.items():
            if outer == inner or any(outer in ex.free_vars(x) for n, x in extents.items() if n not in (inner, outer)):
                continue
            start = Var(outer) * size
            whole = scope.expr(count * size) if rest is None else scope.expr(rest + start)
            if outer in ex.free_vars(whole) or scope.expr((whole + (size - 1)) // size) != scope.expr(count):
                continue
            together = _replaced(scope, store, {inner: Var(inner) - start})
            if outer not in _variables(together):
                return outer, inner, whole, together
    return None


def _clipped(extent: Expr) -> tuple[int | None, Expr | None]:
    """``n, None`` for the constant n, ``n, rest`` for ``min(rest, n)``."""
    match extent:
        case Const():
            return int(extent.value), None
        case Binary(op="min", a=rest, b=Const() as n) | Binary(op="min", a=Const() as n, b=rest):
            return int(n.value), rest
    return None, None


def _variables(s: st.Store) -> set[str]:
    return {v for e in (*s.indices, s.value) for v in ex.free_vars(e)}


def _replaced(scope: Simplifier, s: st.Store, env: Mapping[str, Expr]) -> st.Store:
    def load(e: Expr) -> Expr | None:
        return Load(e.buffer, tuple(map(scope.expr, e.indices))) if isinstance(e, Load) else None

    indices = tuple(scope.expr(ex.substitute(i, env)) for i in s.indices)
    return st.Store(s.buffer, indices, ex.transform(ex.substitute(s.value, env), load), s.op)
