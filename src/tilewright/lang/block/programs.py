"""Program ids as plain loops: the order in which a grid numbers its work is taken apart by counting.

Programs are independent, so only the set of points they work on matters. ``pid`` is often decoded into rows and
columns in groups, for the sake of caches; the decoded numbers are tabulated over the grid, and where they fill a
box exactly once, the box replaces the grid. Loops over work items of a persistent program join the grid likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Binary, Expr, Var
from tilewright.lang.block.nests import Item, Loop, Nest, Program, mapped, nests
from tilewright.lang.block.settled import decided
from tilewright.lang.block.source import BlockError

#: Points of a grid that are tabulated; larger grids stay as they are.
_POINTS = 1 << 22


def components(p: Program) -> list[Program]:
    """``p`` in parts that share no stored block: each may number its work in its own way."""
    groups: list[tuple[set[str], list[Item]]] = []
    for item in p.items:
        names = _touched(item) & set(p.locals)
        same = [g for g in groups if g[0] & names]
        merged: tuple[set[str], list[Item]] = (names.union(*(g[0] for g in same)), [i for g in same for i in g[1]] + [item])
        groups = [g for g in groups if not any(g is s for s in same)] + [merged]
    return [replace(p, items=tuple(items), locals={n: b for n, b in p.locals.items() if n in names}) for names, items in groups]


def renumbered(p: Program, prefix: str) -> Program:
    """``p`` with the variables of its grid, and of a loop over work items, replaced by ``prefix`` 0, 1, ... over a box."""
    ones: dict[str, Expr] = {v: ex.idx(0) for v, n in p.grid if n == 1}
    p = replace(p, grid=tuple((v, n) for v, n in p.grid if n != 1), items=mapped(p.items, lambda e: ex.substitute(e, ones)))
    match p.items:
        case (Loop(carried=carried, body=body, test=None) as loop,) if not carried and _local_only(body, p) and _shared_work(loop, p):
            points = _points([*p.grid], loop)
            if points is not None and _stored_once(body, points, p):
                found = _boxed(replace(p, items=body), points, prefix)
                if found is not None:
                    return found
    points = _points(list(p.grid), None)
    found = _boxed(p, points, prefix) if points is not None else None
    return found or p


def _touched(item: Item) -> set[str]:
    return {n for nest in nests((item,)) for n in (*nest.reads(), nest.target.name)}


def _shared_work(loop: Loop, p: Program) -> bool:
    """Whether the loop's variable and the grid's number something together; what a single program decodes, it numbers alone."""
    grid = {v for v, _ in p.grid}
    wanted: dict[Expr, None] = {}
    for e in _every_expr(loop.body):
        _frontier(e, grid | {loop.var}, wanted)
    mine = [(e, ex.free_vars(e)) for e in wanted if loop.var in ex.free_vars(e)]
    return any(free & grid for _, free in mine) if grid else any(_decodes(e) for e, _ in mine)


def _decodes(e: Expr) -> bool:
    return any(isinstance(n, Binary) and n.op in ("//", "%") for n in ex.walk(e))


def _stored_once(body: Sequence[Item], points: dict[str, np.ndarray], p: Program) -> bool:
    """Whether no element of an argument is stored at two points: then their order does not matter."""
    count = len(next(iter(points.values())))
    for n in nests(body):
        if n.target.name in p.locals or n.op is not None:
            continue
        rank = len(n.axes)
        where = (*n.indices, *(() if n.guard is None else (n.guard,)))
        if count * int(np.prod([1, *(e for _, e in n.axes)])) > _POINTS or any(ex.loads(e) for e in where):
            return False
        env = {v: t.reshape(-1, *[1] * rank) for v, t in points.items()}
        env |= {a: np.arange(e).reshape(-1, *[1] * (rank - 1 - d)) for d, (a, e) in enumerate(n.axes)}
        if any(ex.free_vars(e) - set(env) for e in where):
            return False
        shape = (count, *(e for _, e in n.axes))
        at = np.broadcast_to(ex.evaluate(n.indices[0], env), shape)
        at = at[np.broadcast_to(np.asarray(ex.evaluate(n.guard, env), bool), shape)] if n.guard is not None else at.reshape(-1)
        if len(np.unique(at)) != len(at):
            return False
    return True


def _local_only(body: Sequence[Item], p: Program) -> bool:
    """Whether iterations are as independent as programs: none reads an argument that another writes."""
    written = {n.target.name for n in nests(body)} - set(p.locals)
    return not written & {b for n in nests(body) for b in n.reads()}


def _points(grid: list[tuple[str, int]], loop: Loop | None) -> dict[str, np.ndarray] | None:
    """Values of the grid's variables (and the loop's) at every point, each int64 [points]."""
    names, extents = [v for v, _ in grid], [n for _, n in grid]
    if loop is not None and (ex.free_vars(loop.trips) - set(names) or ex.loads(loop.trips)):
        return None
    if int(np.prod([1, *extents])) > _POINTS:
        return None
    table = {v: t.reshape(-1) for v, t in zip(names, np.indices(extents, dtype=np.int64), strict=True)} if names else {}
    if loop is None:
        return table
    trips = np.broadcast_to(np.asarray(ex.evaluate(loop.trips, table), np.int64), (int(np.prod([1, *extents])),))
    if int(trips.sum()) > _POINTS or not trips.sum():
        return None
    first = np.repeat(np.cumsum(trips) - trips, trips)
    return {v: np.repeat(t, trips) for v, t in table.items()} | {loop.var: np.arange(int(trips.sum())) - first}


def _boxed(p: Program, points: dict[str, np.ndarray], prefix: str) -> Program | None:
    """``p`` over new variables that fill a box, in which all that depends on the old ones is affine; None if there is no such box."""
    if not points:
        return None
    variables = set(points)
    p = replace(p, items=mapped(p.items, lambda e: decided(e, points)))
    wanted: dict[Expr, None] = {}
    for e in _every_expr(p.items):
        _frontier(e, variables, wanted)
    count = len(next(iter(points.values())))
    basis: list[tuple[Expr, np.ndarray]] = []
    table: dict[Expr, Expr] = {}
    for e in sorted(wanted, key=lambda e: sum(1 for _ in ex.walk(e))):  # the numbers themselves before what is made of them
        values = np.broadcast_to(_tabulated(e, points, p), (count,))
        affine = _affine(values, basis)
        if affine is None:
            distinct = np.unique(values)
            step = int(distinct[1] - distinct[0])
            if (np.diff(distinct) != step).any():
                return None
            var = Var(f"{prefix}{len(basis)}")
            basis.append((var, (values - distinct[0]) // step))
            affine = var * step + int(distinct[0])
        table[e] = affine
    extents = [int(v.max()) + 1 for _, v in basis]
    box = int(np.prod([1, *extents]))
    number = np.zeros(count, np.int64)
    for (_, v), n in zip(basis, extents, strict=True):
        number = number * n + v
    once = box == count or all(n.op is None for n in nests(p.items) if n.target.name not in p.locals)
    if len(np.unique(number)) != box or not once:
        return None
    grid = tuple((v.name, n) for (v, _), n in zip(basis, extents, strict=True) if isinstance(v, Var))
    return replace(p, grid=grid, items=mapped(p.items, lambda e: _replaced(e, table)))


def _tabulated(e: Expr, points: dict[str, np.ndarray], p: Program) -> np.ndarray:
    try:
        with np.errstate(divide="raise"):
            return np.asarray(ex.evaluate(e, points), np.int64)
    except (FloatingPointError, ZeroDivisionError):
        hint = "launch as many programs as there is work for"
        raise BlockError(f"{p.name} divides by zero in some programs of the grid", hint=hint, location=p.loc) from None


def _every_expr(items: Sequence[Item]) -> list[Expr]:
    out: list[Expr] = []
    for item in items:
        if isinstance(item, Nest):
            out += item.exprs()
        else:
            out += [e for e in (item.trips, item.test) if e is not None] + _every_expr(item.body)
    return out


def _frontier(e: Expr, variables: set[str], found: dict[Expr, None]) -> None:
    """The largest parts of ``e`` that are integers computed from ``variables`` alone."""
    free = ex.free_vars(e)
    if not free & variables:
        return
    if e.dtype.kind == ty.INDEX and free <= variables and not ex.loads(e):
        found[e] = None
        return
    for c in ex.children(e):
        _frontier(c, variables, found)


def _affine(values: np.ndarray, basis: list[tuple[Expr, np.ndarray]]) -> Expr | None:
    """``values`` as an exact affine function of the basis."""
    columns = np.stack([np.ones(len(values)), *(v.astype(float) for _, v in basis)], axis=1)
    sample = slice(None) if len(values) <= 4096 else np.random.default_rng(0).choice(len(values), 4096, replace=False)
    solution = np.rint(np.linalg.lstsq(columns[sample], values[sample].astype(float), rcond=None)[0]).astype(np.int64)
    total = np.full(len(values), solution[0])
    out: Expr = ex.idx(0)
    for (v, known), c in zip(basis, solution[1:], strict=True):
        total = total + known * c
        out = out + v * int(c)
    return out + int(solution[0]) if (total == values).all() else None


def _replaced(e: Expr, table: dict[Expr, Expr]) -> Expr:
    if e in table:
        return table[e]
    kids = ex.children(e)
    new = tuple(_replaced(c, table) for c in kids)
    return e if all(n is o for n, o in zip(new, kids, strict=True)) else ex.rebuild(e, new)
