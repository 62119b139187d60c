"""Levels of tiling: one description read twice, symbolically for costs and concretely for primitives.

A nest is cut by a list of levels, outermost first. Each level takes one loop and walks it in chunks;
what remains of a loop after its last level is its part of the register tile. The same list gives
the loops of the symbolic program (chunks are expressions of knobs, trip counts are rounded up) and
the splits and reorders of the schedule (chunks are numbers, remainders are peeled).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Expr, Var
from tilewright.ir.stmt import Block, For, LoopKind, Stmt
from tilewright.schedule.nest import trip_count
from tilewright.schedule.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Level:
    """Walk ``loop`` in ``trips`` chunks of ``chunk`` iterations (expressions of knobs); ``name`` is the symbolic loop."""

    loop: str
    trips: Expr
    chunk: Expr
    name: str


def ceil_div(a: Expr, b: Expr) -> Expr:
    """``a / b`` rounded up."""
    return (a + (b - 1)) // b


def starts(levels: Sequence[Level]) -> dict[str, Expr]:
    """For each loop that the levels walk, the first iteration of the innermost chunk."""
    start: dict[str, Expr] = {}
    for level in levels:
        start[level.loop] = start.get(level.loop, ex.idx(0)) + Var(level.name) * level.chunk
    return start


def wrap(loops: Sequence[tuple[str, Expr, LoopKind]], *body: Stmt) -> Stmt:
    """``body`` inside ``loops``, the first outermost."""
    inner: Block = st.block(*body)
    for name, trips, kind in reversed(loops):
        inner = Block((For(Var(name), ex.idx(0), trips, inner, kind),))
    return inner.stmts[0] if len(inner.stmts) == 1 else inner


@dataclass(slots=True)
class Cut:
    """The outcome of :func:`cut`: loops of each level and the innermost loops around the tiles, in program order."""

    around: list[str] = field(default_factory=list)
    at_level: dict[int, list[str]] = field(default_factory=dict)


def cut(sch: Schedule, loops: Mapping[str, str], levels: Sequence[tuple[str, int]], inside: Sequence[str], keep: frozenset[int]) -> Cut:
    """Split and order the perfect nest of ``loops`` (levels' names to the nest's) by ``levels`` of (loop, chunk).

    Loops of ``inside`` stay innermost. Remainders are peeled, each copy tiled in turn. A level with a single
    chunk gets no loop, unless it is the last, or its number is in ``keep``: something is computed there.
    """
    result = Cut()
    order = _by_next_use(loops, levels)
    _arrange(sch, [loops[n] for n in order], inside)
    _cut(sch, dict(loops), list(levels), 0, list(inside), keep, result)
    return result


def _by_next_use(loops: Mapping[str, str], levels: Sequence[tuple[str, int]]) -> list[str]:
    """Loops in the order in which the levels use them; loops without a level last."""
    used = list(dict.fromkeys(n for n, _ in levels))
    return [*used, *(n for n in loops if n not in used)]


def _arrange(sch: Schedule, order: Sequence[str], inside: Sequence[str]) -> None:
    if len(order) + len(inside) > 1:
        present = [f.name for f in st.loops(st.find_loop(sch.kernel, _outermost(sch, [*order, *inside])))]
        wanted = [*order, *inside]
        if [n for n in present if n in wanted] != wanted:
            sch.reorder(*wanted)


def _outermost(sch: Schedule, names: Sequence[str]) -> str:
    return next(f.name for f in st.loops(sch.kernel) if f.name in names)


def _cut(
    sch: Schedule, loops: dict[str, str], levels: list[tuple[str, int]], depth: int, inside: list[str], keep: frozenset[int], out: Cut
) -> None:
    loop, chunk = levels[depth]
    extent = trips(st.find_loop(sch.kernel, loops[loop]))
    last = depth == len(levels) - 1
    if chunk >= extent and not last and depth not in keep:
        _arrange(sch, [loops[n] for n in _by_next_use(loops, levels[depth + 1 :])], inside)
        _cut(sch, loops, levels, depth + 1, inside, keep, out)
        return
    if chunk == 1 and all(n != loop for n, _ in levels[depth + 1 :]):
        _descend(sch, loops[loop], {n: own for n, own in loops.items() if n != loop}, levels, depth, inside, keep, out)
        return
    chunk = min(chunk, extent)
    below = [n for n in _by_next_use(loops, levels[depth:]) if n != loop]
    outer, inner, *tail = sch.apply("split", loops[loop], chunk, "peel") if extent % chunk else sch.apply("split", loops[loop], chunk)
    variants = [(outer, {**loops, loop: inner}, inside)]
    if tail:
        copies = [f.name for f in st.loops(st.find_loop(sch.kernel, tail[0]).body)]
        tail_outer, tail_inner = sch.apply("split", tail[0], extent % chunk)
        renamed = dict(zip(below, copies[: len(below)], strict=True))
        variants.append((tail_outer, {**renamed, loop: tail_inner}, copies[len(below) :]))
    for around, names, kept in variants:
        _descend(sch, around, names, levels, depth, kept, keep, out)


def _descend(
    sch: Schedule,
    around: str,
    loops: dict[str, str],
    levels: list[tuple[str, int]],
    depth: int,
    inside: list[str],
    keep: frozenset[int],
    out: Cut,
) -> None:
    """Go on inside the loop ``around`` that level ``depth`` became."""
    out.at_level.setdefault(depth, []).append(around)
    _arrange(sch, [loops[n] for n in _by_next_use(loops, levels[depth + 1 :])], inside)
    if depth == len(levels) - 1:
        out.around.append(around)
    else:
        _cut(sch, loops, levels, depth + 1, inside, keep, out)


def trips(f: For) -> int:
    """Iterations of a loop with constant bounds."""
    count = trip_count(f)
    if count is None:
        raise ValueError(f"loop {f.name} has no constant extent")
    return count
