"""How many distinct elements and cache lines an access touches while some of its loops run.

An index is a sum of coefficient * loop. Taking coefficients in ascending order, the values form a
run: adding a loop whose coefficient is a multiple of the run's step and not beyond its end makes
the run longer (tiles, sliding windows); a coefficient beyond the end repeats the run. Dimensions
multiply. This is exact for loops that index one dimension each, with coefficients that nest or
slide; otherwise it is an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

from tilewright.cost.formula import Formula, Graph
from tilewright.cost.program import Access, Linear, Loop
from tilewright.cost.step import crowding


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """Values one dimension takes: how ``many``, in blocks of ``run`` neighbours each, over ``span`` elements from first to last."""

    many: Formula
    run: Formula
    span: Formula


@dataclass(frozen=True, slots=True, eq=False)
class Footprint:
    """What an access touches: distinct ``elements``, ``lines`` of memory, and the ``room`` they need where addresses choose
    the place, in lines: rows a power of two apart crowd into a part of a cache, and need a larger one."""

    elements: Formula
    lines: Formula
    room: Formula


def footprint(g: Graph, access: Access, active: Set[Loop], line: int, way: int = 0) -> Footprint:
    """Footprint of ``access`` while the ``active`` loops run, in lines of ``line`` bytes starting on a line boundary.

    Lines a multiple of ``way`` bytes apart compete for the same few places of a cache (0: of none).
    """
    walked = _walked(g, access.logical, access.shape, active)
    elements = g.product(r.many for r, _ in walked)
    if _shares_loops(access.logical):
        elements = g.min(elements, g.product(x.trips for x in active if x in access.loops))
    placed = walked if access.physical is access.logical else _walked(g, access.physical, access.extents, active)
    lines = g.min(_lines(g, placed, max(line // access.itemsize, 1)), elements)
    key = ("crowding", placed, access.itemsize, line, way)
    known: Formula | None = g.memo.get(key)
    if known is None:
        known = g.memo[key] = _crowding(g, placed, access.itemsize, line, way)
    return Footprint(elements, lines, lines * known)


def _walked(g: Graph, indices: Sequence[Linear], shape: Sequence[Formula], active: Set[Loop]) -> tuple[tuple[Reach, Formula], ...]:
    """Of each dimension, outer ones first, the values taken and the extent."""
    return tuple([(reach(g, i, active, n), n) for i, n in zip(indices, shape, strict=True)])


def _shares_loops(dims: tuple[Linear, ...]) -> bool:
    return sum(len(d.loops) for d in dims) > len(frozenset(x for d in dims for x in d.loops))


def reach(g: Graph, index: Linear, active: Set[Loop], extent: Formula) -> Reach:
    """The values of ``index``, at most ``extent`` of them."""
    terms = [(c, x.trips) for x, c in index.coefficients.items() if x in active]
    for c, inner, divisor in index.floors:
        terms.append((c, g.floordiv(_span(g, inner, active) - 1, divisor) + 1))
    moved = g.product(x.trips for x in index.irregular if x in active)
    span = _span(g, index, active) if index.floors else None
    key = ("reach", tuple(terms), moved, span, extent)
    known: Reach | None = g.memo.get(key)
    if known is None:
        known = g.memo[key] = _reach(g, terms, moved, span, extent)
    return known


def _reach(g: Graph, terms: list[tuple[Formula, Formula]], moved: Formula, span: Formula | None, extent: Formula) -> Reach:
    """The values of a sum of coefficient * iterations ``terms``, over ``span`` (default: the one of the terms)."""
    one = g.const(1)
    if moved is not one:
        return Reach(g.min(moved * g.product(n for _, n in terms), extent), one, extent)
    if span is None:
        span = g.sum(_magnitude(g, c) * (n - 1) for c, n in terms) + 1
    block, step, many = one, one, one
    first = one
    for n, (c, trips) in enumerate(_ascending(g, [(_magnitude(g, c), t) for c, t in terms])):
        if n == 0:
            step, many = c, trips
        else:
            joins = g.both(_divides(g, step, c), g.le(c, many * step))
            block = g.where(joins, block, block * many)
            many, step = g.where(joins, many + g.div(c, step) * (trips - 1), trips), g.where(joins, step, c)
        first = g.where(g.both(g.le(step, 1), g.le(block, 1)), many, first)
    span = g.min(span, extent)
    total = g.min(g.min(block * many, span), extent)
    return Reach(total, g.min(first, total), span)


def _magnitude(g: Graph, c: Formula) -> Formula:
    return c if c.lo >= 0 else g.max(c, c * -1)


def _divides(g: Graph, step: Formula, c: Formula) -> Formula:
    return g.const(1) if g.quotient(c, step) is not None else g.le(g.mod(c, step), 0)


def _span(g: Graph, index: Linear, active: Set[Loop]) -> Formula:
    """Elements from the smallest to the largest value, both included."""
    span = g.sum(_magnitude(g, c) * (x.trips - 1) for x, c in index.coefficients.items() if x in active)
    for c, inner, divisor in index.floors:
        span = span + _magnitude(g, c) * g.floordiv(_span(g, inner, active) - 1, divisor)
    return span + 1


def _ascending(g: Graph, terms: list[tuple[Formula, Formula]]) -> list[tuple[Formula, Formula]]:
    """Terms by coefficient. Where the order depends on knobs, a network of exchanges sorts each candidate's own."""
    out = sorted(terms, key=lambda t: (len(t[0].factors[1]), t[0].lo, t[0].number))
    for last in range(len(out) - 1, 0, -1):
        for i in range(last):
            (a, m), (b, n) = out[i], out[i + 1]
            if g.quotient(b, a) is not None:
                continue
            ordered = g.le(a, b)
            out[i] = (g.where(ordered, a, b), g.where(ordered, m, n))
            out[i + 1] = (g.where(ordered, b, a), g.where(ordered, n, m))
    return out


def _lines(g: Graph, walked: tuple[tuple[Reach, Formula], ...], per_line: int) -> Formula:
    """Lines of memory: runs of neighbours grow over inner dimensions that are covered completely."""
    key = ("lines", walked, per_line)
    known: Formula | None = g.memo.get(key)
    if known is None:
        known = g.memo[key] = _lines_of(g, walked, per_line)
    return known


def _lines_of(g: Graph, walked: Sequence[tuple[Reach, Formula]], per_line: int) -> Formula:
    lines, run, runs, span, pitch = (g.const(1) for _ in range(5))
    for r, extent in reversed(walked):
        whole = g.le(pitch, run)
        span = span + (r.span - 1) * pitch
        runs = runs * g.where(whole, g.ceildiv(r.many, r.run), r.many)
        run = g.where(whole, r.run * pitch, run)
        lines = g.min(g.where(whole, runs * g.ceildiv(run, per_line), lines * r.many), g.ceildiv(span, per_line))
        pitch = pitch * extent
    return lines


def _crowding(g: Graph, walked: Sequence[tuple[Reach, Formula]], itemsize: int, line: int, way: int) -> Formula:
    """Of how many places of a cache the runs of an access can take one only.

    Known where the distances of the runs do not depend on knobs; otherwise, and for arbitrary distances, 1.
    """
    run, pitch, apart = g.const(1), g.const(1), 0
    for r, extent in reversed(walked):
        whole = g.le(pitch, run)
        single = r.many.is_const and r.many.value == 1
        if not single and not (whole.is_const and whole.value):
            if not pitch.is_const:
                return g.const(1)
            apart = math.gcd(apart, int(pitch.value) * itemsize)
        run = g.where(whole, r.run * pitch, run)
        pitch = pitch * extent
    apart = math.gcd(apart, way) if apart and way else 0
    if apart <= line:
        return g.const(1)
    return crowding(g, apart, g.ceildiv(run * itemsize, line) * line)


def stride(g: Graph, access: Access, loop: Loop) -> Formula:
    """Elements by which one iteration of ``loop`` moves the access in memory (irregular: the whole buffer)."""
    total, pitch = g.const(0), g.const(1)
    for index, extent in zip(reversed(access.physical), reversed(access.extents), strict=True):
        if loop in index.irregular:
            return g.product(access.extents)
        if loop in index.coefficients:
            total = total + index.coefficients[loop] * pitch
        for c, inner, divisor in index.floors:
            if loop in inner.coefficients:
                total = total + g.floordiv(inner.coefficients[loop], divisor) * c * pitch
        pitch = pitch * extent
    return _magnitude(g, total)
