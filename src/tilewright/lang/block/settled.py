"""Index expressions of program ids in a plain form, found and proved by counting over the grid.

Where a loop stops depends on where the program started: ``first``, ``first + 84``, ... until the tiles of a problem are
used up. What a program begins its next loop with is made of that, and so on. Over all programs such numbers are often
plain: the first one not below a bound is ``bound + (pid - bound) % 84``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import FALSE, TRUE, Binary, Compare, Const, Expr, Logical, Var, Where

#: Programs of a grid that are counted.
_PROGRAMS = 1 << 16
#: Expressions of so few nodes are plain enough.
_SMALL = 8


def settled(e: Expr, grid: Mapping[str, int]) -> Expr:
    """``e`` in a form that is equal in all programs of ``grid``, and plainer where one is found; at most one id may occur."""
    free = ex.free_vars(e)
    ids = [v for v in grid if v in free]
    if len(ids) > 1 or free - set(ids) or ex.loads(e) or e.dtype.kind != ty.INDEX or sum(1 for _ in ex.walk(e)) <= _SMALL:
        return e
    count = grid[ids[0]] if ids else 1
    if count > _PROGRAMS:
        return e
    env = {v: np.arange(count) for v in ids}
    try:
        with np.errstate(divide="raise"):
            values = np.broadcast_to(np.asarray(ex.evaluate(e, env), np.int64), (count,))
            plain = _plain(values, Var(ids[0]) if ids else None)
            return plain if plain is not None else decided(e, env)
    except (FloatingPointError, ZeroDivisionError):
        return e  # reported where it matters


def _plain(values: np.ndarray, pid: Var | None) -> Expr | None:
    """``a * pid + b``, or ``b + (pid + c) % m``."""
    first, n = int(values[0]), len(values)
    if (values == first).all():
        return ex.idx(first)
    assert pid is not None  # else there is one value
    steps = np.diff(values)
    if (steps == steps[0]).all():
        return pid * int(steps[0]) + first
    falls = np.flatnonzero(steps != 1)
    base, period = int(values[falls[0] + 1]), 1 - int(steps[falls[0]])
    if period < 1:
        return None
    shift = (first - base) % period
    return base + (pid + shift) % period if (base + (np.arange(n) + shift) % period == values).all() else None


def decided(e: Expr, points: Mapping[str, np.ndarray]) -> Expr:
    """``e`` without the conditions and choices that are the same at every point; what divides by zero somewhere stays."""

    def node(x: Expr) -> Expr | None:
        match x:
            case Compare():
                return _same(x, points)
            case Logical(op=op, a=a, b=b) if Const in (type(a), type(b)):
                known, other = (a, b) if isinstance(a, Const) else (b, a)
                return other if known == (TRUE if op == "and" else FALSE) else known
            case Where(cond=cond):
                holds = cond if isinstance(cond, Const) else _same(cond, points)
                return None if holds is None else x.a if holds.value else x.b
            case Binary(op="min" | "max" as op, a=a, b=b):
                lower = [k for k in (_same(Compare(c, a, b), points) for c in ("<=", "<")) if k is not None]
                return None if not lower else a if bool(lower[0].value) == (op == "min") else b
        return None

    return ex.transform(e, node)


def _same(condition: Expr, points: Mapping[str, np.ndarray]) -> Const | None:
    """TRUE or FALSE where ``condition`` is that at every point."""
    free = ex.free_vars(condition)
    if not free or not free <= set(points) or ex.loads(condition):
        return None
    try:
        with np.errstate(divide="raise"):
            holds = np.asarray(ex.evaluate(condition, points), bool)
    except (FloatingPointError, ZeroDivisionError):
        return None
    return TRUE if holds.all() else FALSE if not holds.any() else None
