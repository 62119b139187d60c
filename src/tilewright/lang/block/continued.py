"""Loops that continue one another as one loop: attention in stages.

Causal attention is often two loops: over the keys that every row of a block sees, and over those of the diagonal's block
under a mask. Both carry the same online softmax, and in the first one's passes the second one's mask holds throughout:
then the second body, with its mask, does for all passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import TRUE, Binary, Const, Expr, Load, Var
from tilewright.ir.interval import Range
from tilewright.ir.simplify import Simplifier
from tilewright.lang.block.masks import folded
from tilewright.lang.block.nests import Item, Loop, Nest, Program, mapped, nests
from tilewright.lang.block.recurrences import Maximum, in_final, maximum_of


def continued(p: Program) -> Program:
    """``p`` with loops joined to the ones before them that they continue."""
    items = list(p.items)
    at = 0
    while at < len(items):
        joined = _joined(items, at, p)
        if joined is None:
            at += 1
        else:
            items = joined
    return replace(p, items=tuple(items))


def _joined(items: list[Item], at: int, p: Program) -> list[Item] | None:
    """``items`` with the loop at ``at`` and the next one in one, or None."""
    first = items[at]
    after = next((n for n in range(at + 1, len(items)) if isinstance(items[n], Loop)), None)
    if not isinstance(first, Loop) or after is None:
        return None
    second = items[after]
    assert isinstance(second, Loop)
    if first.test is not None or second.test is not None:
        return None
    old = _copies(items[at + 1 : after])
    if old is None or set(old) != second.carried or {b.name for b in old.values()} != first.carried:
        return None
    if any(n.reads() & first.carried or n.target.name in first.carried for n in nests(items[after:])):
        return None
    one = _one(first, second, old, p)
    if one is None:
        return None
    new = {b.name: p.locals[n] for n, b in old.items()}
    before = [_renamed(i, new) for i in items[:at]]
    return [*before, _renamed(one, new), *items[after + 1 :]]


def _copies(items: Sequence[Item]) -> dict[str, Buffer] | None:
    """What each of the blocks that ``items`` set is a copy of; None where they do anything else."""
    out: dict[str, Buffer] = {}
    for n in items:
        if (
            not isinstance(n, Nest)
            or n.op is not None
            or n.guard is not None
            or not isinstance(n.value, Load)
            or n.value.indices != n.indices
        ):
            return None
        out[n.target.name] = n.value.buffer
    return out if len({b.name for b in out.values()}) == len(out) else None


def _renamed(item: Item, new: Mapping[str, Buffer]) -> Item:
    """``item`` on other buffers."""

    def node(e: Expr) -> Expr | None:
        return Load(new[e.buffer.name], e.indices) if isinstance(e, Load) and e.buffer.name in new else None

    if isinstance(item, Nest):
        return replace(item.mapped(lambda e: ex.transform(e, node)), target=new.get(item.target.name, item.target))
    body = tuple(_renamed(i, new) for i in item.body)
    carried = frozenset(new[n].name if n in new else n for n in item.carried)
    return replace(item, trips=ex.transform(item.trips, node), body=body, carried=carried)


def _one(first: Loop, second: Loop, old: Mapping[str, Buffer], p: Program) -> Loop | None:
    """``first`` with the body of ``second``, over the passes of both; None where its own body is not the same there."""
    ranges: dict[str, Range] = {v: (0, n - 1) for v, n in p.grid}
    outer = Simplifier(dict(ranges))
    passes, more = outer.expr(first.trips), outer.expr(second.trips)
    most = outer.bounds(outer.linear(passes))[1]
    if ex.loads(passes) or ex.loads(more) or most is None:
        return None
    if most < 1:
        return None
    shifted = mapped(second.body, lambda e: ex.substitute(e, {second.var: Var(first.var) - passes}))
    body = _renamed(replace(second, body=shifted), old)
    assert isinstance(body, Loop)
    one = Loop(first.var, passes + more, body.body, first.carried)
    ranges |= {first.var: (0, most - 1)} | {a: (0, e - 1) for n in nests(first.body) for a, e in n.axes}
    scope = Simplifier(ranges)
    with scope.assuming(scope.expr(ex.compare("<", Var(first.var), passes))):
        return one if _only_carries(first, p) and _only_carries(one, p) and _same(first, one, scope) else None


def _only_carries(loop: Loop, p: Program) -> bool:
    """Whether all that a pass does is to make what the loop carries: :func:`_same` compares nothing else."""
    body = [n for n in loop.body if isinstance(n, Nest)]
    return len(_behind(body, loop.carried)) == len(loop.body) and all(n.target.name in p.locals for n in body)


def _same(a: Loop, b: Loop, scope: Simplifier) -> bool:
    """Whether the bodies of two loops over an online softmax do the same in ``scope``: their sums are equal, given the maximum.

    What the maximum is compared with may be ``max(x) * s`` in one and ``max(x * s)`` in the other: it only keeps powers small.
    """
    if any(isinstance(i, Loop) for i in (*a.body, *b.body)):
        return False
    left, right = ([i for i in loop.body if isinstance(i, Nest)] for loop in (a, b))
    m, w = maximum_of(left, a), maximum_of(right, b)
    if m is None or w is None or m.buffer != w.buffer:
        return False
    sums = a.carried - {m.buffer.name}
    mine, theirs = _behind(in_final(left, m), sums), _behind(in_final(right, w), sums)
    if len(mine) != len(theirs):
        return False
    peaks = _peak(left, m), _peak(right, w)
    if None in peaks:
        return False
    names: dict[str, Buffer] = {w.final.name: m.final} | {n.target.name: n.target for n in mine if n.target.name in sums}
    for x, y in [*zip(mine, theirs, strict=True), peaks]:
        assert x is not None and y is not None
        if not _equal(x, y, names, scope) or names.setdefault(y.target.name, x.target) != x.target:
            return False
    return len({b.name for b in names.values()}) == len(names)


def _behind(body: Sequence[Nest], results: frozenset[str]) -> list[Nest]:
    """The nests that ``results`` depend on, those that make them included."""
    wanted = set(results)
    out: list[Nest] = []
    for n in reversed(body):
        if n.target.name in wanted:
            wanted |= n.reads()
            out.insert(0, n)
    return out


def _peak(body: Sequence[Nest], m: Maximum) -> Nest | None:
    """The nest that reduces what the maximum of a pass is compared with, its factor taken inside."""
    value, factor = m.update.value, None
    if isinstance(value, Binary) and value.op == "*":
        value, factor = (value.a, value.b) if isinstance(value.a, Load) and _reduces(value.a, body) else (value.b, value.a)
    found = _reduces(value, body) if isinstance(value, Load) else None
    if found is None:
        return None
    return found if factor is None else replace(found, value=ex.binary("*", found.value, factor))


def _reduces(load: Load, body: Sequence[Nest]) -> Nest | None:
    updates = [n for n in body if n.target == load.buffer and n.op is not None]
    return updates[0] if len(updates) == 1 and updates[0].op == "max" else None


def _equal(x: Nest, y: Nest, names: Mapping[str, Buffer], scope: Simplifier) -> bool:
    """Whether two nests store the same, ``names`` being what the blocks of the second are called in the first."""
    same = x.target.shape == y.target.shape and x.target.dtype == y.target.dtype and x.op == y.op
    if not same or [e for _, e in x.axes] != [e for _, e in y.axes]:
        return False
    env: dict[str, Expr] = {b: Var(a) for (a, _), (b, _) in zip(x.axes, y.axes, strict=True)}
    other = _renamed(y.mapped(lambda e: ex.substitute(e, env)), names)
    assert isinstance(other, Nest)
    parts = [(*n.indices, n.value, TRUE if n.guard is None else n.guard) for n in (x, other)]
    return all(_plain(scope.expr(a)) == _plain(scope.expr(b)) for a, b in zip(*parts, strict=True))


def _plain(e: Expr) -> Expr:
    """``e`` without additions of zero."""

    def node(n: Expr) -> Expr | None:
        if isinstance(n, Binary) and n.op in ("+", "-") and isinstance(n.b, Const) and n.b.value == 0 and n.dtype.is_float:
            return n.a
        return None

    return ex.transform(folded(e), node)
