"""The program after pointer analysis: stores over the elements of blocks, in the order and loops of the program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Var
from tilewright.ir.stmt import For, If, Stmt, Store
from tilewright.util.errors import Location


@dataclass(frozen=True, slots=True)
class Nest:
    """``for axes: if guard: target[indices] op= value``; axes are (loop, extent), guard None is always true."""

    target: Buffer
    indices: tuple[Expr, ...]
    value: Expr
    axes: tuple[tuple[str, int], ...]
    op: str | None = None
    guard: Expr | None = None
    loc: Location | None = None

    def exprs(self) -> tuple[Expr, ...]:
        """Its expressions: indices, value, guard."""
        return (*self.indices, self.value, *(() if self.guard is None else (self.guard,)))

    def mapped(self, f: Callable[[Expr], Expr]) -> Nest:
        guard = None if self.guard is None else f(self.guard)
        return replace(self, indices=tuple(map(f, self.indices)), value=f(self.value), guard=guard)

    def reads(self) -> set[str]:
        """Buffers whose contents it needs; a reduction's own target is not counted."""
        return {ld.buffer.name for e in self.exprs() for ld in ex.loads(e)}


@dataclass(frozen=True, slots=True)
class Loop:
    """``for var in range(trips)`` of the program, or ``while test``; ``carried`` buffers pass values from one iteration to the next."""

    var: str
    trips: Expr
    body: tuple[Item, ...]
    carried: frozenset[str] = frozenset()
    test: Expr | None = None

    def mapped(self, f: Callable[[Expr], Expr]) -> Loop:
        test = None if self.test is None else f(self.test)
        return replace(self, trips=f(self.trips), body=mapped(self.body, f), test=test)


Item = Nest | Loop


@dataclass(frozen=True, slots=True)
class Program:
    """All programs of a grid: ``grid`` are variables with their extents, ``arguments`` flat arrays and scalars.

    ``locals`` are the blocks that are stored, by name; they exist once for each program.
    """

    name: str
    grid: tuple[tuple[str, int], ...]
    arguments: tuple[Buffer, ...]
    items: tuple[Item, ...]
    locals: dict[str, Buffer] = field(default_factory=dict)
    loc: Location | None = None


def nests(items: Sequence[Item]) -> Iterator[Nest]:
    """All nests in program order."""
    for item in items:
        if isinstance(item, Nest):
            yield item
        else:
            yield from nests(item.body)


def mapped(items: Sequence[Item], f: Callable[[Expr], Expr]) -> tuple[Item, ...]:
    """``items`` with ``f`` applied to every expression."""
    return tuple(i.mapped(f) for i in items)


def statement(n: Nest, around: Sequence[tuple[str, Expr]] = ()) -> Stmt:
    """The loops of a nest, inside the loops ``around``."""
    body: Stmt = Store(n.target, n.indices, n.value, n.op, n.loc)
    if n.guard is not None:
        body = If(n.guard, st.block(body), None, n.loc)
    for name, hi in reversed([*around, *((a, ex.idx(e)) for a, e in n.axes)]):
        body = For(Var(name), ex.idx(0), hi, st.block(body), loc=n.loc)
    return body
