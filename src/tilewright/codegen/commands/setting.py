"""Configuration state: where its setters go.

A command says which values of which fields it needs. A setter goes in front of the outermost loop in which everything agrees on
them, and only where they differ from what is set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.codegen.commands.program import Branch, Command, Item, Let, Loop
from tilewright.hw import Machine
from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr

Values = Mapping[str, Expr]


@dataclass(frozen=True, slots=True, repr=False)
class Needed(Item):
    """A demand inside an unfinished program: what comes next works only with these fields of ``state``."""

    state: str
    values: tuple[tuple[str, Expr], ...]


@dataclass(frozen=True, slots=True)
class _Mixed:
    """Demands that no single setting meets."""


MIXED = _Mixed()


def merged(a: Values, b: Values) -> dict[str, Expr] | None:
    """Both demands at once; None when they differ in a field."""
    if any(n in a and a[n] != v for n, v in b.items()):
        return None
    return {**a, **b}


def configure(items: tuple[Item, ...], machine: Machine) -> tuple[Item, ...]:
    """The program with setters in place of demands."""
    for state in machine.states:
        items = _Setting(machine, state.name).block(items, {})[0]
    return items


class _Setting:
    def __init__(self, machine: Machine, state: str):
        self.name = state
        self.state = machine.state(state)

    def demand(self, items: Sequence[Item]) -> Values | _Mixed | None:
        """What everything in ``items`` needs, as seen from before them; None when nothing does."""
        total: dict[str, Expr] | None = None
        made: set[str] = set()
        for i in items:
            match i:
                case Let():
                    made.add(i.var)
                    continue
                case Needed() if i.state == self.name:
                    mine: Values | _Mixed | None = dict(i.values)
                case Loop():
                    mine = self.demand(i.body)
                    if isinstance(mine, Mapping) and any(i.var in ex.free_vars(v) for v in mine.values()):
                        return MIXED
                case Branch():
                    mine = self.demand((*i.then, *i.orelse))
                    if isinstance(mine, Mapping) and any(ex.free_vars(v) for v in mine.values()):
                        return MIXED  # what is asked for where the condition holds may be no value elsewhere
                case _:
                    continue
            if mine is None:
                continue
            if isinstance(mine, _Mixed) or any(ex.free_vars(v) & made for v in mine.values()):
                return MIXED
            total = merged(total or {}, mine)
            if total is None:
                return MIXED
        return total

    def block(self, items: Sequence[Item], now: Values | None) -> tuple[tuple[Item, ...], Values | None]:
        """``items`` with setters, given the fields that are set before (None: unknown); also those that are set after."""
        out: list[Item] = []
        for at, i in enumerate(items):
            if isinstance(i, Let) and now is not None and any(i.var in ex.free_vars(v) for v in now.values()):
                now = None
            demand = self.demand((i,))
            if demand is None:
                out.append(i)
            elif isinstance(demand, Mapping):
                if now is None or any(now.get(n) != v for n, v in demand.items()):
                    now = self._ahead(items[at:], demand)
                    out.append(self.setter(now))
                out += self.stripped(i)
            else:
                new, now = self.inside(i, now)
                out.append(new)
        return tuple(out), now

    def _ahead(self, items: Sequence[Item], demand: Values) -> Values:
        """``demand`` and what the following items add to it without contradiction: one setter for all."""
        for n in range(len(items), 1, -1):
            if isinstance(more := self.demand(items[:n]), Mapping):
                return more
        return demand

    def inside(self, i: Item, now: Values | None) -> tuple[Item, Values | None]:
        match i:
            case Loop():
                # What is set at the start of an iteration is what the one before left.
                body, _ = self.block(i.body, None)
                return Loop(i.var, i.lo, i.hi, body, i.step), None
            case Branch():
                then, _ = self.block(i.then, now)
                orelse, _ = self.block(i.orelse, now)
                return Branch(i.cond, then, orelse), None
        return i, now

    def stripped(self, i: Item) -> tuple[Item, ...]:
        match i:
            case Needed() if i.state == self.name:
                return ()
            case Loop():
                return (Loop(i.var, i.lo, i.hi, self._strip(i.body), i.step),)
            case Branch():
                return (Branch(i.cond, self._strip(i.then), self._strip(i.orelse)),)
        return (i,)

    def _strip(self, items: Sequence[Item]) -> tuple[Item, ...]:
        return tuple(new for i in items for new in self.stripped(i))

    def setter(self, values: Values) -> Command:
        """Sets every field."""
        idle = dict(self.state.idle)
        return Command(self.state.setter, tuple((n, values.get(n, ex.idx(idle.get(n, 0)))) for n, _ in self.state.fields))
