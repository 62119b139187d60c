"""Online softmax taken apart: sums that are rescaled whenever a running maximum grows become plain sums.

A loop that carries ``m = max(m, x)`` and, for any number of sums, ``s = s * exp(m_old - m) + sum(exp(y - m) * w)``
leaves in s what ``sum(exp(y - m) * w)`` over all iterations gives with the final m. So one loop may find m, and a
second one add up. That is what the schedule space starts from (it makes the sums online again where that pays).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Cast, Const, Expr, Intrinsic, Load, Var, Where
from tilewright.ir.index_scope import IndexScope
from tilewright.lang.block.nests import Item, Loop, Nest, Program, nests
from tilewright.lang.block.passes import counted, longest

_POWERS = ("exp", "exp2")


def two_passes(p: Program) -> Program:
    """``p`` with its online loops split in two, where they are understood. Blocks then outlive their iteration:
    the result only has a meaning over whole arrays."""
    items: list[Item] = []
    for item in p.items:
        split = _split(item, items, p) if isinstance(item, Loop) else None
        items = [*split] if split is not None else [*items, item]
    return replace(p, items=tuple(items))


@dataclass(frozen=True, slots=True)
class Maximum:
    """The running maximum of a loop: its buffer, the nest that updates it, and a name for its final value."""

    update: Nest
    final: Buffer

    @property
    def buffer(self) -> Buffer:
        return self.update.target

    def candidate(self, at: Sequence[Expr]) -> Expr:
        """What the update compares with, at index ``at``."""
        env = {i.name: a for i, a in zip(self.update.indices, at, strict=True) if isinstance(i, Var)}
        return ex.substitute(self.update.value, env)


def _split(loop: Loop, before: Sequence[Item], p: Program) -> list[Item] | None:
    """What replaces ``before`` and ``loop``, or None."""
    trips = IndexScope({v: (0, n - 1) for v, n in p.grid})
    least = trips.bounds(trips.linear(loop.trips))[0]
    if loop.test is not None or any(isinstance(i, Loop) for i in loop.body) or least is None or least < 1:
        return None
    body = [i for i in loop.body if isinstance(i, Nest)]
    maximum = maximum_of(body, loop)
    if maximum is None or not _starts_at(before, maximum.buffer.name, -math.inf):
        return None
    sums = loop.carried - {maximum.buffer.name}
    kept = _without_rescaling(in_final(body, maximum), sums, maximum)
    if kept is None:
        return None
    needed = _needed(kept, maximum.update)
    if any(maximum.final.name in n.reads() or n.reads() & sums for n in needed):
        return None
    first = Loop(loop.var, loop.trips, (*needed, maximum.update), frozenset({maximum.buffer.name}))
    rest = tuple(n.mapped(lambda e: _renamed(e, maximum.final.name, maximum.buffer)) for n in kept if n not in needed)
    both = [first, Loop(loop.var, loop.trips, rest, sums)]
    passes = longest(loop, [*kept, maximum.update], p)
    return [*(_restarted(i, sums) for i in before), *(both if passes is None else [counted(x, passes) for x in both])]


def maximum_of(body: Sequence[Nest], loop: Loop) -> Maximum | None:
    for n in body:
        writers = [m for m in body if m.target.name == n.target.name]
        if n.target.name in loop.carried and n.op == "max" and len(writers) == 1 and not n.reads() & loop.carried and n.guard is None:
            return Maximum(n, n.target.with_(name=f"{n.target.name} final"))
    return None


def _starts_at(before: Sequence[Item], name: str, value: float) -> bool:
    """Whether the last thing that happens to a block before the loop is that it is filled with ``value``."""
    writers = [n for n in nests(before) if n.target.name == name]
    return bool(writers) and isinstance(writers[-1].value, Const) and writers[-1].value.value == value and writers[-1].op is None


def in_final(body: Sequence[Nest], m: Maximum) -> list[Nest]:
    """``body`` with ``max(m, x)`` written as the final maximum; copies of it, and of the factors, are put in place."""
    out: list[Nest] = []
    inlined: dict[str, Nest] = {}

    def node(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.buffer.name in inlined:
            made = inlined[e.buffer.name]
            env = {i.name: a for i, a in zip(made.indices, e.indices, strict=True) if isinstance(i, Var)}
            return ex.substitute(made.value, env)
        if isinstance(e, Binary) and e.op == "max":
            for mine, other in ((e.a, e.b), (e.b, e.a)):
                if isinstance(mine, Load) and mine.buffer == m.buffer and other == m.candidate(mine.indices):
                    return Load(m.final, mine.indices)
        return None

    for n in body:
        if n is m.update:
            continue
        new = n.mapped(lambda e: ex.transform(e, node))
        plain = new.op is None and new.guard is None and all(isinstance(i, (Var, Const)) for i in new.indices)
        if plain and ((isinstance(new.value, Load) and new.value.buffer == m.final) or _is_factor(new.value, m)):
            inlined[new.target.name] = new
        else:
            out.append(new)
    return out


def _is_factor(e: Expr, m: Maximum) -> bool:
    """``exp(m - final m)`` at one place."""
    match e:
        case Intrinsic(name=name, args=(Binary(op="-", a=Load() as a, b=Load() as b),)):
            return name in _POWERS and a.buffer == m.buffer and b.buffer == m.final and a.indices == b.indices
    return False


def _without_rescaling(body: Sequence[Nest], sums: frozenset[str], m: Maximum) -> list[Nest] | None:
    """``body`` without the rescaling of each of ``sums``, if everything added to them scales with exp(-m)."""
    out: list[Nest] = []
    rescaled: set[str] = set()
    degree: dict[str, int] = {}
    power: set[str] = set()
    for n in body:
        name = n.target.name
        if name in sums and n.op is None:
            factor = _other_factor(n)
            if factor is None or not _is_factor(factor, m) or name in rescaled or n.guard is not None:
                return None
            rescaled.add(name)
            power.add(factor.name)  # type: ignore[attr-defined]
            continue
        if m.buffer.name in n.reads() or n.reads() & sums:
            return None
        d = _degree(n.value, degree, m, power)
        if d is None or (name in sums and (d != 1 or n.op != "+" or name not in rescaled)):
            return None
        if not _is_zero(n.value):
            if degree.setdefault(name, d) != d:
                return None
        out.append(n)
    return out if rescaled == sums and len(power) == 1 else None


def _other_factor(n: Nest) -> Expr | None:
    """``f`` of ``s = s * f``."""
    own = Load(n.target, n.indices)
    if isinstance(n.value, Binary) and n.value.op == "*":
        return n.value.b if n.value.a == own else n.value.a if n.value.b == own else None
    return None


def _is_zero(e: Expr) -> bool:
    return isinstance(e, Const) and e.value == 0


def _degree(e: Expr, known: dict[str, int], m: Maximum, power: set[str]) -> int | None:
    """1 if ``e`` is proportional to exp(-final m), 0 if it does not depend on it, None otherwise (zero counts as 1)."""
    match e:
        case Load():
            return None if e.buffer in (m.final, m.buffer) else known.get(e.buffer.name, 0)
        case Intrinsic(name=name, args=(Binary(op="-", a=a, b=Load() as b),)) if name in _POWERS and b.buffer == m.final:
            power.add(name)
            return 1 if _degree(a, known, m, power) == 0 else None
        case Cast():
            return _degree(e.a, known, m, power)
        case Binary(op="*" | "/"):
            x, y = _degree(e.a, known, m, power), _degree(e.b, known, m, power)
            return None if x is None or y is None or x + y > 1 or (e.op == "/" and y) else x + y
        case Binary(op="+" | "-") | Where():
            sides = [x for x in (e.a, e.b) if not _is_zero(x)]
            degrees = {_degree(x, known, m, power) for x in sides}
            plain = not isinstance(e, Where) or _degree(e.cond, known, m, power) == 0
            return degrees.pop() if len(degrees) == 1 and plain else None
    inside = [_degree(c, known, m, power) for c in ex.children(e)]
    return 0 if all(d == 0 for d in inside) else None


def _needed(body: Sequence[Nest], update: Nest) -> list[Nest]:
    """The nests that ``update`` needs, in order."""
    wanted = update.reads()
    for n in reversed(body):
        if n.target.name in wanted:
            wanted |= n.reads()
    return [n for n in body if n.target.name in wanted]


def _renamed(e: Expr, old: str, new: Buffer) -> Expr:
    return ex.transform(e, lambda n: Load(new, n.indices) if isinstance(n, Load) and n.buffer.name == old else None)


def _restarted(item: Item, sums: frozenset[str]) -> Item:
    """Sums start at zero: what they held before the first maximum was scaled by exp(-inf)."""
    if isinstance(item, Nest) and item.target.name in sums:
        return replace(item, value=ex.const(0, item.target.dtype), op=None)
    return item
