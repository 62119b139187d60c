"""Unification of a loop nest of a program with the body of an instruction.

Both are chains of loops around one store. A match assigns each loop of the instruction a loop of
the program such that every operand access of the instruction, taken with a base and a stride in
each dimension, is the program's access at every iteration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Binary, Cast, Const, Expr, Intrinsic, Load, Var, Where
from tilewright.ir.linear import Linear
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Block, For, Span, Stmt, Store, Window
from tilewright.schedule.nest import trip_count
from tilewright.schedule.region import largest_extent

_COMMUTATIVE = ("+", "*", "min", "max", "&", "|", "^")


@dataclass(frozen=True, slots=True)
class Chain:
    """Perfectly nested loops, outer first, around one store.

    A ``fresh`` reduction starts from nothing: what its elements held before is lost.
    """

    loops: tuple[For, ...]
    store: Store
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """Extents of the instruction's loops in this use, and the part of a program buffer each operand is.

    An extent that is not constant (the loop of a clipped tile) is an expression at the place of the nest.
    """

    extents: dict[str, Expr]
    windows: dict[str, Window]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why there is no match. ``depth`` counts what had agreed: the deepest reason is the one worth reporting."""

    reason: str
    depth: int = 0


def chain_of(s: Stmt) -> Chain | None:
    """``s`` as a chain, None when it is no perfect nest around one store."""
    loops: list[For] = []
    while True:
        match s:
            case Block() if len(s.stmts) == 1:
                s = s.stmts[0]
            case For():
                loops.append(s)
                s = s.body
            case Store():
                return Chain(tuple(loops), s)
            case _:
                return None


def unify(scope: Simplifier, program: Chain, body: Chain, accepts: Mapping[str, object]) -> Match | Mismatch:
    """The match of ``body`` (an instruction) with ``program``, or the reason why there is none.

    ``accepts`` maps each loop of the instruction to its :class:`~tilewright.hw.axis.AxisRule`;
    a loop that accepts one iteration may stay without partner.
    """
    best = Mismatch("")
    trips = {f.name: _trips(scope, f) for f in program.loops}
    inside = {f.name for f in program.loops}
    unknown = next((f for f in program.loops if f.step != 1 and not isinstance(trips[f.name], Const)), None)
    unknown = unknown or next((f for f in program.loops if ex.free_vars(trips[f.name]) & inside), None)
    if unknown is not None:
        return Mismatch(f"loop {unknown.name} runs {unknown.extent} iterations, which is not known before the nest (peel its tail)")
    if len(program.loops) > len(body.loops):
        return Mismatch(f"the nest has {len(program.loops)} loops, the instruction {len(body.loops)}")
    ranges = {f.name: _range(scope, trips[f.name]) for f in program.loops}
    for chosen in _partners(program, body, trips):
        partner = dict(zip((t.name for t in chosen), program.loops, strict=True))
        extents = {t.name: trips[partner[t.name].name] if t.name in partner else ex.idx(1) for t in body.loops}
        runs = {t.name: ranges[partner[t.name].name] if t.name in partner else (1, 1) for t in body.loops}
        wrong = next((t for t in body.loops if not accepts[t.name].accepts_all(*runs[t.name])), None)  # type: ignore[attr-defined]
        if wrong is not None:
            got = f"loop {partner[wrong.name].name} runs {extents[wrong.name]}" if wrong.name in partner else "no loop is left for it"
            result: Match | Mismatch = Mismatch(f"axis {wrong.name} takes {accepts[wrong.name]} iterations, {got}", 1)
        else:
            result = _Unifier(scope, program, body, partner, extents, {t: most for t, (_, most) in runs.items()}).match()
        if isinstance(result, Match):
            return result
        if result.depth > best.depth:
            best = result
    return best


def _partners(program: Chain, body: Chain, trips: Mapping[str, Expr]) -> Iterator[tuple[For, ...]]:
    """For each loop of ``program`` one of ``body``, in all ways in which loops that move the target meet such loops."""
    theirs = {v for e in body.store.indices for v in ex.free_vars(e)}
    mine = {v for e in program.store.indices for v in ex.free_vars(e)}

    def chosen(n: int, left: tuple[For, ...]) -> Iterator[tuple[For, ...]]:
        if n == len(program.loops):
            yield ()
            return
        f = program.loops[n]
        for t in left:
            if trips[f.name] == ex.idx(1) or (f.name in mine) == (t.name in theirs):
                for rest in chosen(n + 1, tuple(x for x in left if x is not t)):
                    yield (t, *rest)

    return chosen(0, body.loops)


def _trips(scope: Simplifier, f: For) -> Expr:
    """Iterations of ``f``: a constant where they are known."""
    count = trip_count(f)
    return scope.expr(f.extent) if count is None else ex.idx(count)


def _range(scope: Simplifier, extent: Expr) -> tuple[int | None, int | None]:
    """The least and the largest value of ``extent``, as far as they can be proven."""
    if isinstance(extent, Const):
        return int(extent.value), int(extent.value)
    runs = scope.nonneg(scope.linear(extent).plus(Linear({}, 1), -1))
    return 1 if runs else None, largest_extent(scope, ex.idx(0), extent)


Pairs = tuple[tuple[Load, Load], ...]


class _Unifier:
    """One assignment of loops: instruction accesses are compared with program accesses in common variables."""

    def __init__(
        self,
        scope: Simplifier,
        program: Chain,
        body: Chain,
        partner: Mapping[str, For],
        extents: dict[str, Expr],
        most: Mapping[str, int | None],
    ):
        self.program, self.body, self.extents = program, body, extents
        self.axes = {t.name: Var(f"axis {t.name}") for t in body.loops}
        # An axis of one iteration moves nothing: it must not make accesses look different.
        self.place: dict[str, Expr] = {t: ex.idx(0) if extents[t] == ex.idx(1) else v for t, v in self.axes.items()}
        self.env = {f.name: f.lo + self.place[t] * f.step for t, f in partner.items()}
        ranges = {**scope.ranges, **{v.name: (0, None if (n := most[t]) is None else n - 1) for t, v in self.axes.items()}}
        self.scope = Simplifier(ranges, list(scope.facts))
        self.mismatch = Mismatch("")

    def match(self) -> Match | Mismatch:
        mine, theirs = self.program.store, self.body.store
        if mine.op != theirs.op:
            return Mismatch(f"the nest stores with '{mine.op or ''}=', the instruction with '{theirs.op or ''}='", 2)
        target = (Load(theirs.buffer, theirs.indices), Load(mine.buffer, mine.indices))
        for pairs in self._trees(theirs.value, mine.value, (target,)):
            windows = self._windows(pairs)
            if isinstance(windows, Mismatch):
                self._note(windows)
                continue
            if (problem := self._problem(windows)) is not None:
                self._note(problem)
                continue
            return Match(self.extents, windows)
        return self.mismatch

    def _note(self, m: Mismatch) -> None:
        if m.depth > self.mismatch.depth:
            self.mismatch = m

    def _trees(self, t: Expr, p: Expr, pairs: Pairs) -> Iterator[Pairs]:
        """All ways in which tree ``t`` of the instruction is tree ``p`` of the program, as pairs of loads."""
        t, p = _without_widening(t), _without_widening(p)
        if isinstance(t, Load) and isinstance(p, Load):
            if t.dtype == p.dtype:
                yield (*pairs, (t, p))
            else:
                self._note(Mismatch(f"{p.buffer.name} holds {p.dtype}, operand {t.buffer.name} {t.dtype}", 4))
            return
        if t.dtype.kind == ty.INDEX and p.dtype.kind == ty.INDEX:
            if not self._difference(t, p).terms and self._difference(t, p).const == 0:
                yield pairs
            return
        if not _same_node(t, p):
            self._note(Mismatch(f"the nest computes {p} ({p.dtype}) where the instruction computes {t} ({t.dtype})", 3))
            return
        a, b = ex.children(t), ex.children(p)
        yield from self._all(a, b, pairs)
        if isinstance(t, Binary) and t.op in _COMMUTATIVE:
            yield from self._all(a, b[::-1], pairs)

    def _all(self, a: tuple[Expr, ...], b: tuple[Expr, ...], pairs: Pairs) -> Iterator[Pairs]:
        if not a:
            yield pairs
            return
        for first in self._trees(a[0], b[0], pairs):
            yield from self._all(a[1:], b[1:], first)

    def _mine(self, e: Expr) -> Linear:
        return self.scope.linear(ex.substitute(e, self.env))

    def _theirs(self, e: Expr) -> Linear:
        return self.scope.linear(ex.substitute(e, self.place))

    def _difference(self, t: Expr, p: Expr) -> Linear:
        return self._mine(p).plus(self._theirs(t), -1)

    # --- operands -----------------------------------------------------------------------------

    def _windows(self, pairs: Pairs) -> dict[str, Window] | Mismatch:
        out: dict[str, Window] = {}
        for t, p in pairs:
            w = self._window(t, p)
            if w is None:
                mine, theirs = (", ".join(map(str, x.indices)) for x in (p, t))
                return Mismatch(f"{p.buffer.name}[{mine}] does not move like operand {t.buffer.name}[{theirs}]", 5)
            if out.setdefault(t.buffer.name, w) != w:
                return Mismatch(f"operand {t.buffer.name} would be both {out[t.buffer.name]} and {w}", 6)
        return out

    def _window(self, t: Load, p: Load) -> Window | None:
        """The window of the program's buffer that is the operand: spans in the order of its dimensions."""
        mine = [self._split(self._mine(e)) for e in p.indices]
        theirs = [self._split(self._theirs(e)) for e in t.indices]
        if any(x is None for x in (*mine, *theirs)):
            return None
        found = self._assign([x for x in mine if x], [x for x in theirs if x], t.indices)
        return None if found is None else Window(p.buffer, found)

    def _extent(self, e: Expr) -> Expr:
        """Elements of the operand's dimension that the body reaches (from 0): its indices do not fall along an axis."""
        last = ex.substitute(e, {t: n - 1 for t, n in self.extents.items()})
        return self.scope.expr(last + 1)

    def _split(self, a: Linear) -> tuple[dict[Expr, int], Linear] | None:
        """The part that moves with the axes, and the rest; None if an axis is inside a quotient or the like."""
        names = {v.name for v in self.axes.values()}
        moving: dict[Expr, int] = {x: c for x, c in a.terms.items() if isinstance(x, Var) and x.name in names}
        rest = {x: c for x, c in a.terms.items() if x not in moving}
        if any(ex.free_vars(x) & names for x in rest):
            return None
        return moving, Linear(rest, a.const)

    def _assign(
        self, mine: list[tuple[dict[Expr, int], Linear]], theirs: list[tuple[dict[Expr, int], Linear]], indices: Sequence[Expr]
    ) -> tuple[Expr | Span, ...] | None:
        """Spans and places for the dimensions ``mine``; ``indices`` are those of the instruction that the dimensions ``theirs`` have."""
        if not mine:
            return () if not theirs else None
        (moving, base), rest = mine[0], mine[1:]
        if theirs and (step := _ratio(moving, theirs[0][0])) is not None:
            below = self._assign(rest, theirs[1:], indices[1:])
            if below is not None:
                lo = self.scope.render(base.plus(theirs[0][1], -step))
                return (Span(lo, self._extent(indices[0]), step), *below)
        if not moving and (below := self._assign(rest, theirs, indices)) is not None:
            return (self.scope.render(base), *below)
        return None

    def _problem(self, windows: dict[str, Window]) -> Mismatch | None:
        """The instruction does its iterations at once: that must be what the nest does one after the other."""
        mine, theirs = self.program.store, self.body.store
        shared = [n for n, w in windows.items() if n != theirs.buffer.name and w.buffer.name == mine.buffer.name]
        if shared:
            return Mismatch(f"{mine.buffer.name} is written and is also operand {shared[0]}", 7)
        if mine.op is None:
            used = {x for e in mine.indices for x in self._mine(e).terms}
            lost = [t for t, v in self.axes.items() if v not in used and self.extents[t] != ex.idx(1)]
            if lost:
                return Mismatch(f"axis {lost[0]} stores to one element several times", 7)
        return None


def _ratio(mine: dict[Expr, int], theirs: dict[Expr, int]) -> int | None:
    """s >= 1 with ``mine == s * theirs``."""
    if mine.keys() != theirs.keys():
        return None
    if not mine:
        return 1
    steps = {(c // theirs[x]) if c % theirs[x] == 0 else 0 for x, c in mine.items()}
    step = steps.pop()
    return step if not steps and step >= 1 else None


def alike(t: Expr, p: Expr) -> bool:
    """Whether tree ``t`` of an instruction may be tree ``p`` of a program, which a guard may be around: all but what they read agrees."""
    t, p = _without_widening(t), _without_widening(p)
    if isinstance(p, Where) and not isinstance(t, Where):
        return alike(t, p.a)
    if isinstance(t, Load) and isinstance(p, Load):
        return t.dtype == p.dtype
    if t.dtype.kind == ty.INDEX and p.dtype.kind == ty.INDEX:
        return True
    if not _same_node(t, p):
        return False
    a, b = ex.children(t), ex.children(p)
    ways = (b, b[::-1]) if isinstance(t, Binary) and t.op in _COMMUTATIVE else (b,)
    return any(all(alike(x, y) for x, y in zip(a, way, strict=True)) for way in ways)


def _without_widening(e: Expr) -> Expr:
    """Integer arithmetic is exact at any width, so casts that keep every value mean nothing."""
    while isinstance(e, Cast) and _plain_int(e.a) and _plain_int(e):
        (lo, hi), (low, high) = e.a.dtype.range, e.dtype.range
        if not (low <= lo and hi <= high):
            break
        e = e.a
    return e


def _plain_int(e: Expr) -> bool:
    return e.dtype.is_int and e.dtype.kind != ty.INDEX


def _same_node(t: Expr, p: Expr) -> bool:
    if type(t) is not type(p):
        return False
    match t:
        case Const():
            return t == p or (_plain_int(t) and _plain_int(p) and t.value == p.value)  # type: ignore[attr-defined]
        case Binary():
            exact = _plain_int(t) and _plain_int(p) and t.op in ("+", "-", "*", "min", "max")
            return t.op == p.op and (t.dtype == p.dtype or exact)  # type: ignore[attr-defined]
        case Intrinsic():
            return t.name == p.name and t.dtype == p.dtype  # type: ignore[attr-defined]
        case Load() | Var():
            return False
    return t.dtype == p.dtype and getattr(t, "op", None) == getattr(p, "op", None)
