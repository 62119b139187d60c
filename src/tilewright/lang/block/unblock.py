"""From blocks to whole arrays: every nest runs over all programs, and block positions join program numbers.

A block program computes tiles because its machine does; here tiles are the scheduler's business. Each stored block
becomes an array with one dimension for each program variable it depends on, each nest a nest of its own over them
(programs are independent, so all of them may do one step before any does the next), and where an index is
``pid * BLOCK + position`` the two loops become one over the array's own index. What only masked lanes would see is
left out. Loops that carry a value which is more than a reduction cannot be taken apart: such programs stay programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Const, Expr, Load, Logical, Var
from tilewright.ir.index_scope import IndexScope
from tilewright.ir.linear import Linear
from tilewright.lang.block.nests import Item, Loop, Nest, Program, nests
from tilewright.lang.block.source import BlockError


@dataclass(frozen=True, slots=True)
class Flat:
    """A nest with all its loops (name -> extent), those of programs and of the program's own loops first."""

    loops: dict[str, int]
    nest: Nest


@dataclass(frozen=True, slots=True)
class Whole:
    """A program as nests over whole arrays, and the arrays that pass values between them."""

    nests: tuple[Flat, ...]
    locals: dict[str, Buffer]


def unblocked(p: Program) -> Whole | None:
    """``p`` over whole arrays; None when a loop carries more than reductions. BlockError when programs race."""
    if not _separable(p.items, p):
        return None
    ranges: dict[str, tuple[int | None, int | None]] = {v: (0, n - 1) for v, n in p.grid}
    placed = _placed(p.items, dict(p.grid), frozenset(), ranges)
    if placed is None:
        return None
    deps = _dependences(placed, p)
    flat = reduced_at_once([_flat(x, deps, p) for x in placed], set(deps))
    flat = _started_late(flat)
    return _merged(flat, deps, p, {n: e for x in placed for n, e in x.around.items()})


# --- taking loops apart -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Placed:
    """A nest with the loops around it; ``carried`` are (loop, block it carries) of those that are loops of the program."""

    nest: Nest
    around: dict[str, int]
    carried: frozenset[tuple[str, str]]


def _separable(items: Sequence[Item], p: Program) -> bool:
    """Whether each nest may run over all iterations of the loops around it before the next one starts."""
    for loop in (i for i in items if isinstance(i, Loop)):
        if loop.test is not None:
            return False
        inside = list(nests(loop.body))
        for n in inside:
            if n.target.name in loop.carried:
                ops = {m.op for m in inside if m.target.name == n.target.name}
                if n.op is None or len(ops) > 1:
                    return False
            elif n.target.name not in p.locals and not _moves(n, loop.var):
                return False
            if n.reads() & loop.carried:
                return False
        written = {n.target.name for n in inside} - set(p.locals)
        if written & {b for n in inside for b in n.reads()} or not _separable(loop.body, p):
            return False
    return True


def _moves(n: Nest, var: str) -> bool:
    """A store in a loop must go elsewhere in each iteration (or be the same in each)."""
    return n.op is not None or any(var in ex.free_vars(i) for i in n.indices) or not any(var in ex.free_vars(e) for e in n.exprs())


def _placed(
    items: Sequence[Item], around: dict[str, int], carried: frozenset[tuple[str, str]], ranges: dict[str, tuple[int | None, int | None]]
) -> list[_Placed] | None:
    out: list[_Placed] = []
    for item in items:
        if isinstance(item, Nest):
            out.append(_Placed(item, around, carried))
            continue
        scope = IndexScope(dict(ranges))
        trips = scope.expr(item.trips)
        most = scope.bounds(scope.linear(trips))[1]
        if most is None or ex.loads(trips):
            return None
        if most <= 0:
            continue
        more = carried | {(item.var, name) for name in item.carried}
        inner = _placed(item.body, {**around, item.var: most}, more, {**ranges, item.var: (0, most - 1)})
        if inner is None:
            return None
        if not isinstance(trips, Const):
            inside = ex.compare("<", Var(item.var), trips)
            inner = [replace(x, nest=replace(x.nest, guard=_both(inside, x.nest.guard))) for x in inner]
        out += inner
    return out


def _both(a: Expr, b: Expr | None) -> Expr:
    return a if b is None else Logical("and", a, b)


def _dependences(placed: Sequence[_Placed], p: Program) -> dict[str, tuple[str, ...]]:
    """The outer loops that each stored block varies with, outermost first."""
    order = list(dict.fromkeys(n for x in placed for n in x.around))
    deps: dict[str, set[str]] = {n: set() for n in p.locals}
    accumulated: dict[str, set[str]] = {}
    for x in placed:
        accumulated.setdefault(x.nest.target.name, set()).update(_reduction_loops(x))
    for _ in range(len(placed) + 1):
        before = {n: len(d) for n, d in deps.items()}
        for x in placed:
            if x.nest.target.name in p.locals:
                deps[x.nest.target.name] |= _free(x, deps) - accumulated.get(x.nest.target.name, set())
        if before == {n: len(d) for n, d in deps.items()}:
            break
    return {n: tuple(v for v in order if v in d) for n, d in deps.items()}


def _free(x: _Placed, deps: Mapping[str, set[str] | tuple[str, ...]]) -> set[str]:
    """The loops around a nest that what it does depends on."""
    used = {v for e in x.nest.exprs() for v in ex.free_vars(e)}
    for b in x.nest.reads():
        used |= set(deps.get(b, ()))
    return used & set(x.around)


def _reduction_loops(x: _Placed) -> set[str]:
    """Loops of the program around an update of what they carry."""
    return {loop for loop, name in x.carried if name == x.nest.target.name}


def _flat(x: _Placed, deps: Mapping[str, tuple[str, ...]], p: Program) -> Flat:
    """``x`` with the loops it needs, its stored blocks indexed by them."""
    n = x.nest
    if n.target.name in p.locals:
        needed = set(deps[n.target.name]) | (_reduction_loops(x) if n.op is not None else set())
    else:
        needed = _free(x, deps) if n.op is None else set(x.around)
        for v, extent in p.grid:
            if v in needed and n.op is None and extent > 1 and not any(v in ex.free_vars(i) for i in n.indices):
                raise _race(n)
    loops = {v: e for v, e in x.around.items() if v in needed} | dict(n.axes)

    def expanded(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.buffer.name in deps:
            return Load(e.buffer, (*map(Var, deps[e.buffer.name]), *e.indices))
        return None

    out = n.mapped(lambda e: ex.transform(e, expanded))
    if n.target.name in deps:
        out = replace(out, indices=(*map(Var, deps[n.target.name]), *out.indices))
    return Flat(loops, out)


def _race(n: Nest) -> BlockError:
    return BlockError(
        f"several programs store different values to the same elements of {n.target.name}",
        hint="make the address depend on tl.program_id, or add up with tl.atomic_add",
        location=n.loc,
    )


def _started_late(flat: Sequence[Flat]) -> list[Flat]:
    """``flat`` with each constant start of a block right before what uses it first."""
    waiting: dict[str, Flat] = {}
    out: list[Flat] = []
    for f in flat:
        for name in [n for n in waiting if n == f.nest.target.name or n in f.nest.reads()]:
            out.append(waiting.pop(name))
        if isinstance(f.nest.value, Const) and f.nest.op is None and f.nest.guard is None and f.nest.target.name not in waiting:
            waiting[f.nest.target.name] = f
        else:
            out.append(f)
    return [*out, *waiting.values()]


def reduced_at_once(flat: list[Flat], local: set[str]) -> list[Flat]:
    """``flat`` where a block of partial results that is only reduced further is not made: ``sum(sum(x) by lanes)`` is one sum."""
    for n, f in enumerate(flat):
        load = f.nest.value
        if f.nest.op is None or f.nest.guard is not None or not isinstance(load, Load) or load.buffer.name not in local:
            continue
        name = load.buffer.name
        if any(name in g.nest.reads() for m, g in enumerate(flat) if m != n) or not all(isinstance(i, Var) for i in load.indices):
            continue
        writers = [g for g in flat if g.nest.target.name == name]
        start = ex.const(load.buffer.dtype.neutral(f.nest.op), load.buffer.dtype)
        first, updates = writers[0], writers[1:]
        if first.nest.op is not None or first.nest.value != start or first.nest.guard or any(g.nest.op != f.nest.op for g in updates):
            continue
        new = [_composed(f, g, load) for g in updates]
        return reduced_at_once([x for m, g in enumerate(flat) if g not in writers for x in (new if m == n else [g])], local)
    return flat


def _composed(outer: Flat, inner: Flat, load: Load) -> Flat:
    """``outer`` with the terms of ``inner`` in place of the block ``load`` reads."""
    env: dict[str, Expr] = {}
    for mine, theirs in zip(load.indices, inner.nest.indices, strict=True):
        assert isinstance(mine, Var)  # checked by the caller
        if isinstance(theirs, Var):
            env[theirs.name] = mine
    value = inner.nest.mapped(lambda e: ex.substitute(e, env))
    own = {n: e for n, e in inner.loops.items() if n not in env}
    axes = (*outer.nest.axes, *((n, e) for n, e in inner.nest.axes if n in own))
    nest = replace(outer.nest, value=value.value, guard=value.guard, axes=axes, loc=inner.nest.loc)
    return Flat({**outer.loops, **own}, nest)


# --- joining loops ------------------------------------------------------------------------------


class _Classes:
    """Union-find over loops of nests and dimensions of stored blocks that run together."""

    def __init__(self) -> None:
        self.parent: dict[object, object] = {}

    def find(self, x: object) -> object:
        while self.parent.setdefault(x, x) != x:
            x = self.parent[x]
        return x

    def join(self, a: object, b: object) -> None:
        self.parent[self.find(a)] = self.find(b)


def _merged(flat: Sequence[Flat], deps: Mapping[str, tuple[str, ...]], p: Program, extents: Mapping[str, int]) -> Whole:
    classes = _Classes()
    for n, f in enumerate(flat):
        for name, indices in _local_accesses(f.nest, deps):
            for d, i in enumerate(indices[len(deps[name]) :]):
                if isinstance(i, Var):
                    classes.join((n, i.name), (name, d))
    partner = _partners(flat, classes, extents)
    merged_dims: dict[str, dict[int, int]] = {}
    shapes: dict[str, Buffer] = {}
    for name, outer in deps.items():
        block = p.locals[name].static_shape
        pairs = {}
        for d in range(len(block)):
            v = partner.get(classes.find((name, d)))
            if v in outer and outer.index(v) not in pairs:
                pairs[outer.index(v)] = d
        merged_dims[name] = pairs
        own = [e if (e := block[d]) and d not in pairs.values() else block[d] * extents[outer[_key(pairs, d)]] for d in range(len(block))]
        shape = [extents[v] for k, v in enumerate(outer) if k not in pairs] + own
        shapes[name] = p.locals[name].with_(shape=tuple(map(ex.idx, shape)))
    out = [_joined(n, f, classes, partner, deps, merged_dims, shapes, p) for n, f in enumerate(flat)]
    return Whole(tuple(out), shapes)


def _key(pairs: Mapping[int, int], d: int) -> int:
    return next(k for k, v in pairs.items() if v == d)


def _local_accesses(n: Nest, deps: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, tuple[Expr, ...]]]:
    if n.target.name in deps:
        yield n.target.name, n.indices
    for e in n.exprs():
        for ld in ex.loads(e):
            if ld.buffer.name in deps:
                yield ld.buffer.name, ld.indices


def _partners(flat: Sequence[Flat], classes: _Classes, extents: Mapping[str, int]) -> dict[object, str]:
    """For each class of positions the outer loop it continues: ``outer * block + position`` stands in an index."""
    votes: dict[tuple[object, str], int] = {}
    members: dict[object, set[int]] = {}
    for n, f in enumerate(flat):
        axes = dict(f.nest.axes)
        for r in axes:
            members.setdefault(classes.find((n, r)), set()).add(n)
        for e in f.nest.exprs():
            for form in linear_forms(e):
                for r, block in axes.items():
                    c = form.terms.get(Var(r), 0)
                    for v in f.loops:
                        if c and v in extents and form.terms.get(Var(v), 0) == c * block:
                            key = (classes.find((n, r)), v)
                            votes[key] = votes.get(key, 0) + 1
    out: dict[object, str] = {}
    for (run, v), _ in sorted(votes.items(), key=lambda x: -x[1]):
        taken = {n for other, w in out.items() if w == v for n in members[other]}
        if run not in out and not taken & members[run]:
            out[run] = v
    return out


def linear_forms(e: Expr) -> Iterator[Linear]:
    """The linear forms of all indices in ``e``, and of what is divided or compared inside them."""
    if e.dtype.kind == ty.INDEX and isinstance(e, Binary):
        form = IndexScope().linear(e)
        yield form
        for atom in form.terms:
            if not isinstance(atom, Var):
                for c in ex.children(atom):
                    yield from linear_forms(c)
        return
    for c in ex.children(e):
        yield from linear_forms(c)


def _joined(
    n: int,
    f: Flat,
    classes: _Classes,
    partner: Mapping[object, str],
    deps: Mapping[str, tuple[str, ...]],
    merged: Mapping[str, Mapping[int, int]],
    shapes: Mapping[str, Buffer],
    p: Program,
) -> Flat:
    """``f`` with positions joined to their outer loops, accesses to stored blocks likewise."""

    def access(name: str, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        rank, block = len(deps[name]), p.locals[name].static_shape
        own = list(indices[rank:])
        for k, d in merged[name].items():
            own[d] = indices[k] * block[d] + own[d]
        return (*(i for k, i in enumerate(indices[:rank]) if k not in merged[name]), *own)

    def node(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.buffer.name in deps:
            return Load(shapes[e.buffer.name], access(e.buffer.name, e.indices))
        return None

    nest = f.nest.mapped(lambda e: ex.transform(e, node))
    if f.nest.target.name in deps:
        nest = replace(nest, target=shapes[f.nest.target.name], indices=access(f.nest.target.name, nest.indices))
    loops = dict(f.loops)
    env: dict[str, Expr] = {}
    for r, block in f.nest.axes:
        v = partner.get(classes.find((n, r)))
        if v is not None and v in loops:
            env[v], env[r] = Var(r) // block, Var(r) % block
            loops[r] = loops.pop(v) * block
    return Flat(loops, nest.mapped(lambda e: ex.substitute(e, env)))
