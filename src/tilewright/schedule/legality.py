"""Exact dependence checks: does a new execution order keep every dependence of the old one?

Two statement instances depend on each other when they touch the same element and at least one
writes it (RAW, WAR and WAW alike). Updates by the same reduction operator commute, so they may
be reordered among themselves; running them at the same time is another matter.

Checks answer in two stages. First, interval arithmetic on the difference of two index expressions
finds the loops in which dependent instances must agree: an index ``16*io + ii`` with ``ii < 16``
fixes both. That settles nearly every check of dense code in microseconds. What stays open is
given to isl as one integer set of violating pairs: exact, and a member of it is the counterexample
in the error message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf

from tilewright.ir import expr as ex
from tilewright.ir.affine import Access, Dim, IslText, Region, Statement, Time, reads_memory, region
from tilewright.ir.expr import Expr, Var
from tilewright.ir.simplify import Linear, Simplifier
from tilewright.ir.stmt import For, Kernel, LoopKind
from tilewright.schedule.nest import place_of
from tilewright.util.errors import ScheduleError, TilewrightError

__all__ = ["check_concurrency", "check_independent", "check_order", "region_of"]


def region_of(kernel: Kernel, loop: For) -> Region:
    """The statements under ``loop`` (this very node), in the context of its enclosing loops and guards."""
    place = place_of(kernel, lambda s: s is loop)
    return region(loop, place.ancestors if place else ())


def check_order(part: Region, new_time: Callable[[Statement], Time], subject: str) -> None:
    """Raise ScheduleError unless running ``part`` in the order ``new_time`` keeps all its dependences.

    The loops around the part stay as they are: only instances with equal values of them are
    compared. Times are compared lexicographically; the time of a statement may use its loop
    variables and sizes. ``subject`` opens the error message ("reorder i, j").
    """
    pairs = _Pairs(part)
    for pair in pairs.dependent(commuting=False):
        old = _reduced(pair, pair.source.time, pair.target.time)
        if not old or old[0] is _AFTER:
            continue
        new = _reduced(pair, new_time(pair.source), new_time(pair.target))
        if new == old or (new and new[0] is _BEFORE):
            continue
        query = _Query(pair)
        if (example := query.sample([query.less(old), query.not_less(new)])) is not None:
            raise _refusal(subject, pair, example)


def check_independent(part: Region, loop: str, subject: str, *, lanes: bool = False) -> None:
    """Raise ScheduleError unless different iterations of ``loop`` never depend on each other.

    ``part`` is the region of that loop. With ``lanes`` the iterations run in lockstep rather than
    concurrently: a reduction into one element is then allowed (its partial results are combined),
    and so are updates that no two lanes make to the same element at once.
    """
    pairs = _Pairs(part)
    for pair in pairs.dependent(commuting=True):
        commutes = pair.commutes
        if commutes and lanes:
            if pair.source is not pair.target or not any(loop in ex.free_vars(i) for i in pair.a.indices):
                continue
            pair = pairs.same_iteration_but(pair, loop)
        if loop not in pair.free:
            continue
        query = _Query(pair)
        if (example := query.sample([query.increases(loop)])) is not None:
            raise _race(subject, loop, pair, example) if commutes else _refusal(subject, pair, example)


def check_concurrency(kernel: Kernel, loop: For, subject: str) -> None:
    """Raise ScheduleError unless ``loop`` may run the way its kind says (serial loops always may)."""
    if loop.kind in (LoopKind.PARALLEL, LoopKind.BIND, LoopKind.VECTOR):
        what = f"{subject} ({loop.name} is {loop.kind.value})"
        check_independent(region_of(kernel, loop), loop.name, what, lanes=loop.kind is LoopKind.VECTOR)


# --- pairs of accesses that may depend on each other ------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pair:
    """Access ``a`` of ``source`` and ``b`` of ``target``; ``common`` loops enclose both, and only the ``free`` ones may differ."""

    source: Statement
    a: Access
    target: Statement
    b: Access
    common: tuple[Dim, ...]
    free: frozenset[str]

    @property
    def commutes(self) -> bool:
        return self.a.updates and self.a.op == self.b.op


@dataclass(slots=True)
class _Pairs:
    """All pairs of accesses of a region, with what interval arithmetic knows about them."""

    part: Region
    scope: Simplifier = field(init=False)
    _linear: dict[int, Linear] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scope = Simplifier({})
        for s in self.part.statements:
            for d in s.dims:
                self._learn(d)
            for a in s.accesses:
                for d in a.inner:
                    self._learn(d)
        self.scope = Simplifier(self.scope.ranges)  # nothing derived from ranges that have grown since

    def _learn(self, d: Dim) -> None:
        ranges = self.scope.ranges
        if d.name in ranges and not d.name.startswith("@"):
            return
        lo = self.scope.bounds(self.scope.linear(d.lo))[0]
        hi = None if d.hi is None else self.scope.bounds(self.scope.linear(d.hi))[1]
        top = None if hi is None else hi - 1
        if d.name in ranges:  # callee loops are named by depth: calls of different shape share a name
            old = ranges[d.name]
            lo = None if lo is None or old[0] is None else min(lo, old[0])
            top = None if top is None or old[1] is None else max(top, old[1])
        ranges[d.name] = (lo, top)

    def dependent(self, commuting: bool) -> Iterator[_Pair]:
        """Ordered pairs with a common element and a write; ``commuting`` includes updates that commute."""
        by_buffer: dict[str, list[tuple[Statement, Access]]] = {}
        for s in self.part.statements:
            for a in s.accesses:
                by_buffer.setdefault(a.buffer.name, []).append((s, a))
        for uses in by_buffer.values():
            if all(a.op == "read" for _, a in uses):
                continue
            for s, a in uses:
                for t, b in uses:
                    if a.op == "read" == b.op or (not commuting and a.updates and a.op == b.op):
                        continue
                    if (pair := self._pair(s, a, t, b)) is not None:
                        yield pair

    def _pair(self, s: Statement, a: Access, t: Statement, b: Access) -> _Pair | None:
        common = _common(s, t)
        equal = self.part.around | self.part.private.get(a.buffer.name, frozenset())
        free = {d.name for d in common if d.name not in equal}
        if not self._narrow(a, b, {d.name for d in common}, free):
            return None
        return _Pair(s, a, t, b, common, frozenset(free))

    def same_iteration_but(self, pair: _Pair, loop: str) -> _Pair:
        """``pair`` restricted to instances that differ in ``loop`` only."""
        free = pair.free & {loop}
        return _Pair(pair.source, pair.a, pair.target, pair.b, pair.common, free)

    def _form(self, e: Expr) -> Linear:
        # Keyed by identity: the expressions live as long as the region does.
        known = self._linear.get(id(e))
        if known is None:
            known = self._linear[id(e)] = self.scope.linear(e)
        return known

    def _narrow(self, a: Access, b: Access, common: set[str], free: set[str]) -> bool:
        """Remove from ``free`` the loops in which equal elements force equal iterations; False: never equal."""
        forms = [(self._form(x), self._form(y)) for x, y in zip(a.indices, b.indices, strict=True)]
        changed = True
        while changed:
            changed = False
            for x, y in forms:
                settled = self._settle(x, y, common, free)
                if settled is None:
                    return False
                if settled:
                    free -= settled
                    changed = bool(free)
        return True

    def _settle(self, x: Linear, y: Linear, common: set[str], free: set[str]) -> set[str] | None:
        """Loops that ``x(source) == y(target)`` forces to be equal; None when it cannot hold.

        The difference is a sum of coefficient * (difference in one loop) and a rest known as an
        interval. A term larger than all the others together must be zero.
        """
        lo: float = x.const - y.const
        hi = lo
        deltas: list[tuple[int, float, str]] = []
        for atom in {**x.terms, **y.terms}:
            cx, cy = x.terms.get(atom, 0), y.terms.get(atom, 0)
            low, high = self.scope.bounds(Linear({atom: 1}))
            bottom, top = -inf if low is None else low, inf if high is None else high
            if self._agrees(atom, common, free):
                cx, cy = cx - cy, 0
                if not cx:
                    continue
            elif cx == cy and isinstance(atom, Var) and atom.name in free:
                deltas.append((abs(cx), top - bottom, atom.name))
                continue
            for c in (cx, -cy):
                if c:
                    lo, hi = lo + min(c * bottom, c * top), hi + max(c * bottom, c * top)
        return _dominant(deltas, lo, hi)

    def _agrees(self, atom: Expr, common: set[str], free: set[str]) -> bool:
        """Whether ``atom`` has one value in source and target: it uses sizes and agreeing loops only."""
        if isinstance(atom, Var):
            return atom.name not in free and (atom.name in common or atom.name not in self.scope.ranges)
        return not reads_memory(atom) and all(self._agrees(Var(v), common, free) for v in ex.free_vars(atom))


def _dominant(deltas: list[tuple[int, float, str]], lo: float, hi: float) -> set[str] | None:
    """Names whose delta must be 0 in ``sum(c * delta) + rest == 0``, |delta| <= size, rest in [lo, hi]; None: unsolvable."""
    zero: set[str] = set()
    deltas.sort(reverse=True)
    while True:
        total = sum(c * size if size else 0 for c, size, _ in deltas)
        if lo - total > 0 or hi + total < 0:
            return None
        if not deltas:
            return zero
        c, size, name = deltas[0]
        others = sum(k * n if n else 0 for k, n, _ in deltas[1:])
        if size and c <= others + max(abs(lo), abs(hi)):
            return zero
        zero.add(name)
        deltas = deltas[1:]


def _common(s: Statement, t: Statement) -> tuple[Dim, ...]:
    """The loops around both statements: they share a prefix of their times."""
    if s is t:
        return s.dims
    n = sum(isinstance(x, Expr) for x in s.time)
    above = len(s.dims) - n  # loops around the whole region
    shared = 0
    for x, y in zip(s.time, t.time, strict=False):
        if x != y:
            break
        shared += isinstance(x, Expr)
    return s.dims[: above + shared]


# --- order ------------------------------------------------------------------------------------

_BEFORE, _AFTER = "before", "after"
#: One level of a lexicographic comparison: source and target expressions, or a decided outcome.
_Level = tuple[Expr, Expr] | str


def _reduced(pair: _Pair, source: Time, target: Time) -> list[_Level]:
    """The levels at which the two times can differ, up to the first that is decided."""
    agreeing = {d.name for d in pair.common} - pair.free
    out: list[_Level] = []
    for x, y in zip(source, target, strict=False):
        if isinstance(x, int) and isinstance(y, int):
            if x != y:
                out.append(_BEFORE if x < y else _AFTER)
                break
            continue
        ex_, ey = ex.idx(x), ex.idx(y)
        if isinstance(ex_, Var) and ex_ == ey and ex_.name in agreeing:
            continue
        out.append((ex_, ey))
    return out


@dataclass(frozen=True, slots=True)
class _Example:
    """A pair of iterations (values by loop, callee loops included) and the sizes it occurs with."""

    source: dict[str, int]
    target: dict[str, int]
    sizes: dict[str, int]


class _Query:
    """isl sets over pairs of instances of one :class:`_Pair` that touch the same element."""

    def __init__(self, pair: _Pair):
        self.pair = pair
        shared = {d.name: f"c{n}" for n, d in enumerate(pair.common) if d.name not in pair.free}
        sizes: dict[str, str] = {}
        self.source = IslText(self._names(pair.source, pair.a, shared, "s"), sizes)
        self.target = IslText(self._names(pair.target, pair.b, shared, "t"), sizes)
        self.sizes = sizes  # grows while expressions are translated

    @staticmethod
    def _names(s: Statement, a: Access, shared: dict[str, str], prefix: str) -> dict[str, str]:
        own = {d.name: f"{prefix}{n}" for n, d in enumerate(s.dims)}
        return {**own, **{d.name: f"{prefix}_{n}" for n, d in enumerate(a.inner)}, **shared}

    def less(self, levels: list[_Level]) -> str:
        """Source strictly before target."""
        return self._lexicographic(levels, "<", strict=True)

    def not_less(self, levels: list[_Level]) -> str:
        """Source at the time of the target or after it."""
        return self._lexicographic(levels, ">", strict=False)

    def increases(self, loop: str) -> str:
        """The iteration of ``loop`` is smaller in the source."""
        return f"{self.source.env[loop]} < {self.target.env[loop]}"

    def _lexicographic(self, levels: list[_Level], op: str, strict: bool) -> str:
        wanted = _BEFORE if op == "<" else _AFTER
        cases: list[str] = []
        equal: list[str] = []
        for level in levels:
            if isinstance(level, str):
                if level is wanted:
                    cases.append(" and ".join(equal) or "true")
                break
            x, y = self.source.expr(level[0]), self.target.expr(level[1])
            if x is None or y is None:
                raise TilewrightError(f"time {level[0]} or {level[1]} is not affine")
            cases.append(" and ".join([*equal, f"{x} {op} {y}"]))
            equal.append(f"{x} = {y}")
        else:
            if not strict:
                cases.append(" and ".join(equal) or "true")
        return "(" + " or ".join(f"({c})" for c in cases) + ")" if cases else "false"

    def sample(self, conditions: list[str]) -> _Example | None:
        """The first pair of instances with a common element under ``conditions``, or None."""
        import islpy as isl

        p = self.pair
        body = [
            *self.source.domain((*p.source.dims, *p.a.inner), (*p.source.guards, *p.a.guards)),
            *self.target.domain((*p.target.dims, *p.b.inner), (*p.target.guards, *p.b.guards)),
            *conditions,
        ]
        for i, j in zip(p.a.indices, p.b.indices, strict=True):
            x, y = self.source.expr(i), self.target.expr(j)
            if x is not None and y is not None:
                body.append(f"{x} = {y}")
        body += [f"{n} >= 0" for n in self.sizes.values()]
        names = list(dict.fromkeys([*self.sizes.values(), *self.source.env.values(), *self.target.env.values()]))
        pairs = isl.Set(f"{{ [{', '.join(names)}] : {' and '.join(dict.fromkeys(body))} }}")
        if pairs.is_empty():
            return None
        bounded = all(pairs.dim_has_lower_bound(isl.dim_type.set, n) for n in range(len(names)))
        point = pairs.lexmin().sample_point() if bounded else pairs.sample_point()
        if point.is_void():  # isl's lexmin can lose nested divisions; the plain sample does not
            point = pairs.sample_point()
        at = {name: point.get_coordinate_val(isl.dim_type.set, n).to_python() for n, name in enumerate(names)}
        views = (self.source.env, self.target.env, self.sizes)
        return _Example(*({name: at[safe] for name, safe in view.items()} for view in views))


# --- messages -----------------------------------------------------------------------------------

_VERBS = {"read": "reads", "write": "writes"}


def _iteration(s: Statement, values: dict[str, int]) -> str:
    return "(" + ", ".join(f"{d.name}={values[d.name]}" for d in s.dims if d.hi is not None) + ")"


def _element(a: Access, example: _Example) -> str:
    """The element the source touches; indices that are not affine stay as written."""
    values = {**example.sizes, **example.source}
    text = IslText(dict.fromkeys(values, "v"))
    known = all(text.expr(e) is not None for e in a.indices) and not text.parameters
    at = ", ".join(str(ex.evaluate(e, values)) if known else str(e) for e in a.indices)
    return f"{a.buffer.name}[{at}]" if a.indices else a.buffer.name


def _sizes(example: _Example) -> str:
    return f" (when {', '.join(f'{n}={v}' for n, v in example.sizes.items())})" if example.sizes else ""


def _refusal(subject: str, pair: _Pair, example: _Example) -> ScheduleError:
    first, second = _VERBS.get(pair.a.op, "updates"), _VERBS.get(pair.b.op, "updates")
    source, target = _iteration(pair.source, example.source), _iteration(pair.target, example.target)
    return ScheduleError(
        f"{subject}: iteration {source} must run before {target} because of {pair.a.buffer.name}: "
        f"the first {first} {_element(pair.a, example)}, the second {second} it{_sizes(example)}",
        location=getattr(pair.target.node, "loc", None),
    )


def _race(subject: str, loop: str, pair: _Pair, example: _Example) -> ScheduleError:
    source, target = _iteration(pair.source, example.source), _iteration(pair.target, example.target)
    return ScheduleError(
        f"{subject}: iterations {source} and {target} both update {_element(pair.a, example)}{_sizes(example)}: "
        f"{loop} is a reduction of {pair.a.buffer.name}, and its updates would race",
        hint=f'make partial results first, rfactor("{loop}"), or choose another loop',
        location=getattr(pair.target.node, "loc", None),
    )
