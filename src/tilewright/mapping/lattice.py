"""Exact integer algebra on boxes: does knowing some affine forms fix others?

Every validity question of a mapping has this one shape. Over iteration points s in a box,
``known @ s == known @ s'`` must imply ``wanted @ s == wanted @ s'``; with d = s - s' that is

    no integer d, |d_u| < extents[u], has  known @ d = 0  and  wanted @ d != 0.

Propagation over mixed-radix rows and rational elimination decide all ordinary cases in
microseconds; integer programming (isl) is the exact last resort.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm

Row = tuple[int, ...]


@lru_cache(maxsize=4096)
def counterexample(known: tuple[Row, ...], wanted: tuple[Row, ...], extents: tuple[int, ...]) -> tuple[int, ...] | None:
    """A difference d in the box with ``known @ d = 0`` and ``wanted @ d != 0``; None if there is none.

    ``known`` and ``wanted`` have one column for each of ``extents``. Exact.
    """
    free = _undetermined(known, extents)
    target = [r for r in wanted if any(r[u] for u in free)]
    if not target:
        return None
    for u in free:  # one iteration alone: the usual failure, and the witness easiest to read
        if all(r[u] == 0 for r in known) and any(r[u] for r in target):
            return _unit(u, len(extents))
    basis = _kernel([[r[u] for u in free] for r in known], len(free))
    moving = [v for v in basis if any(sum(r[u] * x for u, x in zip(free, v, strict=True)) for r in target)]
    if not moving:
        return None
    for v in moving:
        if all(abs(x) < extents[u] for u, x in zip(free, v, strict=True)):
            return _spread(v, free, len(extents))
    return _integer_search(known, target, extents, free)


def _undetermined(known: Sequence[Row], extents: Sequence[int]) -> list[int]:
    """Columns whose difference is not already forced to zero by rows that count like mixed radix."""
    free = {u for u, e in enumerate(extents) if e > 1}
    changed = True
    while changed:
        changed = False
        for row in known:
            live = sorted((abs(row[u]), extents[u], u) for u in free if row[u])
            reach = 0  # the largest |sum| that the smaller coefficients can form
            injective = bool(live)
            for coefficient, extent, _ in live:
                injective = injective and coefficient > reach
                reach += coefficient * (extent - 1)
            if injective:
                free -= {u for _, _, u in live}
                changed = True
    return sorted(free)


def _kernel(matrix: list[list[int]], columns: int) -> list[list[int]]:
    """Primitive integer vectors that span the rational kernel of ``matrix``."""
    rows = [[Fraction(x) for x in r] for r in matrix]
    pivots: list[int] = []
    for c in range(columns):
        at = next((i for i in range(len(pivots), len(rows)) if rows[i][c]), None)
        if at is None:
            continue
        top = len(pivots)
        rows[top], rows[at] = rows[at], rows[top]
        scale = rows[top][c]
        rows[top] = [x / scale for x in rows[top]]
        for i, r in enumerate(rows):
            if i != top and r[c]:
                factor = r[c]
                rows[i] = [x - factor * y for x, y in zip(r, rows[top], strict=True)]
        pivots.append(c)
    return [_primitive(rows, pivots, c, columns) for c in range(columns) if c not in pivots]


def _primitive(rows: list[list[Fraction]], pivots: list[int], column: int, columns: int) -> list[int]:
    v = [Fraction(0)] * columns
    v[column] = Fraction(1)
    for i, p in enumerate(pivots):
        v[p] = -rows[i][column]
    scale = lcm(*(x.denominator for x in v))
    ints = [int(x * scale) for x in v]
    return [x // gcd(*ints) for x in ints]


def _integer_search(known: Sequence[Row], wanted: Sequence[Row], extents: Sequence[int], free: list[int]) -> tuple[int, ...] | None:
    import islpy as isl

    def constraint(make: object, row: Row, constant: int) -> isl.Constraint:
        terms: dict[str | int, int] = {f"d{u}": row[u] for u in free}
        return make(space, {**terms, 1: constant})  # type: ignore[operator]

    space = isl.Space.create_from_names(isl.DEFAULT_CONTEXT, set=[f"d{u}" for u in free])
    equal, at_least = isl.Constraint.eq_from_names, isl.Constraint.ineq_from_names
    box = [constraint(equal, r, 0) for r in known]
    for u in free:
        box += [constraint(at_least, tuple(s * x for x in _unit(u, len(extents))), extents[u] - 1) for s in (1, -1)]
    for r in wanted:  # the box is symmetric, so "moves up" stands for "moves"
        found = isl.BasicSet.universe(space).add_constraints([*box, constraint(at_least, r, -1)]).sample_point()
        if not found.is_void():
            values = [found.get_coordinate_val(isl.dim_type.set, n).to_python() for n in range(len(free))]
            return _spread(values, free, len(extents))
    return None


def _unit(u: int, n: int) -> tuple[int, ...]:
    return tuple(int(v == u) for v in range(n))


def _spread(values: Sequence[int], columns: Sequence[int], n: int) -> tuple[int, ...]:
    out = [0] * n
    for c, v in zip(columns, values, strict=True):
        out[c] = v
    return tuple(out)
