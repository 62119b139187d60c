"""reorder: the loops of a nest in another order."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.ir import expr as ex
from tilewright.ir.affine import Statement, Time, reads_memory
from tilewright.ir.expr import Expr, Var
from tilewright.ir.simplify import Simplifier, scope_of
from tilewright.ir.stmt import Block, For, If, Kernel, LoopKind, Stmt, written_buffers
from tilewright.schedule.bounds import NotConvex, permuted_bounds
from tilewright.schedule.legality import check_concurrency, check_order, region_of
from tilewright.schedule.nest import Place, get_loop, loop_place, range_text, replace_stmt
from tilewright.schedule.primitive import primitive
from tilewright.schedule.primitives.vectorize import check_lanes
from tilewright.util.errors import ScheduleError


@primitive
def reorder(kernel: Kernel, *loops: str) -> tuple[Kernel, tuple[str, ...]]:
    """Put the named ``loops`` of one perfect nest in the given order, outermost first.

    Loops of the nest that are not named stay at their depth. Conditions between the loops move
    inwards as far as they must; bounds of triangular nests are recomputed. Returns the loops in their new
    order. ScheduleError: loops not perfectly nested, bounds that cannot be turned inside out,
    a dependence that would be reversed (with the two iterations).
    """
    subject = f"reorder {', '.join(loops)}"
    if len(set(loops)) != len(loops) or not loops:
        raise ScheduleError(f"{subject}: name each loop once")
    nest = _nest(kernel, loops, subject)
    wanted = iter(loops)
    by_name = {f.name: f for f in nest.loops}
    order = [by_name[next(wanted)] if f.name in by_name and f.name in loops else f for f in nest.loops]
    if order == list(nest.loops):
        return kernel, tuple(loops)
    _check_memory_bounds(nest, subject)
    bounds = _bounds(kernel, nest, order, subject)
    place = {f.var: g.var for f, g in zip(nest.loops, order, strict=True)}

    def new_time(s: Statement) -> Time:
        return tuple(place.get(t, t) if isinstance(t, Var) else t for t in s.time)

    check_order(region_of(kernel, nest.loops[0]), new_time, subject)
    new = replace_stmt(kernel, nest.loops[0], _rebuilt(nest, order, bounds))
    _check_concurrent(new, nest, order, subject)
    return new, tuple(loops)


@dataclass(frozen=True, slots=True)
class _Nest:
    """A perfect nest: its loops outermost first, the conditions between them, and the innermost body."""

    place: Place
    loops: tuple[For, ...]
    guards: tuple[If, ...]
    body: tuple[Stmt, ...]


def _nest(kernel: Kernel, names: tuple[str, ...], subject: str) -> _Nest:
    places = {n: loop_place(kernel, n, "reorder") for n in names}
    outer = min(places.values(), key=lambda p: len(p.loops))
    s: Stmt = outer.node
    found: list[For] = []
    guards: list[If] = []
    missing = set(names)
    while missing or _movable(s):
        if isinstance(s, For):
            found.append(s)
            missing.discard(s.name)
            body = s.body
        elif isinstance(s, If) and _movable(s):
            guards.append(s)
            body = s.then
        else:
            what = str(s).splitlines()[0]
            raise ScheduleError(f"{subject}: '{what}' stands where {_list(missing)} should be nested in {found[-1].name}")
        if len(body.stmts) != 1:
            if not missing:
                return _Nest(outer, tuple(found), tuple(guards), body.stmts)
            raise ScheduleError(
                f"{subject}: {found[-1].name} is not perfectly nested around {_list(missing)}: its body has {len(body.stmts)} statements",
                hint=f"fission {found[-1].name} first, or move the other statements away",
                location=found[-1].loc,
            )
        s = body.stmts[0]
    return _Nest(outer, tuple(found), tuple(guards), (s,))


def _movable(s: Stmt) -> bool:
    """A condition that may be evaluated elsewhere: it depends on loops only."""
    return isinstance(s, If) and s.orelse is None and not reads_memory(s.cond)


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _check_memory_bounds(nest: _Nest, subject: str) -> None:
    written = written_buffers(nest.loops[0])
    for f in nest.loops:
        for ld in [*ex.loads(f.lo), *ex.loads(f.hi)]:
            if ld.buffer.name in written:
                raise ScheduleError(f"{subject}: the bounds of {f.name} read {ld.buffer.name}, which the nest writes", location=f.loc)


def _bounds(kernel: Kernel, nest: _Nest, order: list[For], subject: str) -> list[tuple[Expr, Expr]]:
    """Bounds of the loops in their new ``order``; recomputed only when one mentions a loop now inside it."""
    inner: set[str] = set()
    crossing = False
    for f in reversed(order):
        inner.add(f.name)
        crossing = crossing or bool(inner & (ex.free_vars(f.lo) | ex.free_vars(f.hi)))
    if not crossing:
        return [(f.lo, f.hi) for f in order]
    try:
        return permuted_bounds(order, _scope(kernel, (*nest.place.loops, *nest.loops)))
    except NotConvex as e:
        raise ScheduleError(f"{subject}: {e.loop.name} in {range_text(e.loop)} cannot move outside: {e.reason}", location=e.loop.loc) from e


def _scope(kernel: Kernel, around: tuple[For, ...]) -> Simplifier:
    scope = scope_of(kernel)
    ranges = dict(scope.ranges)
    for f in around:
        s = Simplifier(ranges)
        lo, hi = s.bounds(s.linear(f.lo))[0], s.bounds(s.linear(f.hi))[1]
        ranges = {**ranges, f.name: (lo, None if hi is None else hi - 1)}
    return Simplifier(ranges)


def _rebuilt(nest: _Nest, order: list[For], bounds: list[tuple[Expr, Expr]]) -> Stmt:
    """The nest in its new order; each condition right inside the last loop it mentions."""
    body = nest.body
    waiting = list(nest.guards)
    for n in range(len(order) - 1, -1, -1):
        f = order[n]
        outside = {g.name for g in order[:n]}
        here = [g for g in waiting if f.name in ex.free_vars(g.cond) or not outside]
        waiting = [g for g in waiting if g not in here]
        for g in reversed(here):
            body = (replace(g, then=Block(body)),)
        body = (replace(f, lo=bounds[n][0], hi=bounds[n][1], body=Block(body)),)
    return body[0]


def _check_concurrent(new: Kernel, nest: _Nest, order: list[For], subject: str) -> None:
    """Loops that run concurrently must still be independent where they moved outwards."""
    for n, f in enumerate(order):
        before = {g.name for g in nest.loops[: nest.loops.index(f)]}
        if f.kind not in (LoopKind.SERIAL, LoopKind.UNROLL) and not before <= {g.name for g in order[:n]}:
            moved = get_loop(new, f.name, "reorder")
            if f.kind is LoopKind.VECTOR:
                check_lanes(moved, f"{subject} ({f.name} is vector)")
            check_concurrency(new, moved, subject)
