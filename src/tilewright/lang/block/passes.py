"""Passes that only some programs make: all programs compute them, and they count where they are made.

How often a loop runs may depend on the program: in causal attention the blocks of keys up to the diagonal. Over whole arrays
that would be a condition around everything in it. Instead what adds nothing is put in the place of what a further pass
would add: ``where(pass < passes, p, 0) * where(pass < passes, v, 0)``. Both factors, for 0 times NaN is no zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tilewright.ir import expr as ex
from tilewright.ir.expr import TRUE, Binary, Cast, Const, Expr, Load, Var, Where
from tilewright.ir.interval import Range
from tilewright.ir.linear import Linear
from tilewright.ir.simplify import Simplifier
from tilewright.lang.block.nests import Loop, Nest, Program

_POINTS = 1 << 20


def longest(loop: Loop, body: Sequence[Nest], p: Program) -> Expr | None:
    """The passes of ``loop`` in the program that makes most of them; None where all make the same, and where it is not known
    that ``body`` may run as often in each."""
    grid = dict(p.grid)
    ends = [v for v in grid if v in ex.free_vars(loop.trips)]
    if not ends or ex.loads(loop.trips) or ex.free_vars(loop.trips) - set(ends) or math.prod(grid[v] for v in ends) > _POINTS:
        return None
    env = dict(zip(ends, np.indices([grid[v] for v in ends]), strict=True))
    most = int(np.max(ex.evaluate(loop.trips, env)))
    ranges: dict[str, Range] = {v: (0, n - 1) for v, n in (*p.grid, *(axis for n in body for axis in n.axes), (loop.var, most))}
    scope = Simplifier(ranges)
    stores = any(n.target.name not in p.locals for n in body)
    return None if stores or not all(_reads_inside(n, loop.var, set(ends), p, scope) for n in body) else ex.idx(most)


def _reads_inside(n: Nest, var: str, ends: set[str], p: Program, scope: Simplifier) -> bool:
    """Whether more passes of the loop over ``var`` read nothing outside the arrays: what some program reads, or surely in them."""
    conditions = [e.cond for x in n.exprs() for e in ex.walk(x) if isinstance(e, Where)] + ([] if n.guard is None else [n.guard])
    alike = not any(ex.free_vars(c) & ends or ex.loads(c) for c in conditions)  # what one program reads, all may read

    def inside(e: Expr) -> bool:
        if isinstance(e, Where):
            with scope.assuming(scope.expr(e.cond)):
                chosen = inside(e.a)
            return chosen and inside(e.cond) and inside(e.b)
        if isinstance(e, Load) and e.buffer.name not in p.locals:
            for i, extent in zip(e.indices, e.buffer.static_shape, strict=True):
                at = scope.linear(scope.expr(i))
                varies = var in ex.free_vars(i) and not (alike and not ex.free_vars(i) & ends)
                if varies and not (scope.nonneg(at) and scope.nonneg(Linear({}, extent - 1).plus(at, -1))):
                    return False
        return all(map(inside, ex.children(e)))

    with scope.assuming(TRUE if n.guard is None else scope.expr(n.guard)):
        return all(map(inside, n.exprs()))


def counted(loop: Loop, passes: Expr) -> Loop:
    """``loop`` with as many ``passes`` in each program, of which those that it makes itself add to what it carries.

    Blocks of a pass hold the identity of the reduction they end up in elsewhere, if what makes them can say so.
    """
    body = [n for n in loop.body if isinstance(n, Nest)]
    counts = ex.compare("<", Var(loop.var), loop.trips)
    idle = {
        n.target.name: ex.const(n.target.dtype.neutral(n.op), n.target.dtype)
        for n in body
        if n.target.name in loop.carried and n.op is not None
    }
    out: list[Nest] = []
    for n in reversed(body):
        if n.target.name in idle:
            n = replace(n, value=_elsewhere(n.value, idle[n.target.name], counts, body, idle))
        out.insert(0, n)
    return replace(loop, trips=passes, body=tuple(out))


def _elsewhere(e: Expr, idle: Const, counts: Expr, body: Sequence[Nest], blocks: dict[str, Const]) -> Expr:
    """``e`` where ``counts`` holds, the value of ``idle`` elsewhere; blocks that are to hold it there are added to ``blocks``."""
    match e:
        case Const() if e.value == idle.value:
            return e
        case Load() if e.buffer.name in blocks or _may_idle(e.buffer.name, idle, body):
            if blocks.setdefault(e.buffer.name, idle).value == idle.value:
                return e
        case Cast() if e.dtype.is_float and e.a.dtype.is_float:
            return ex.cast(_elsewhere(e.a, ex.const(idle.value, e.a.dtype), counts, body, blocks), e.dtype)
        case Binary(op="*") if idle.value == 0:
            return ex.binary("*", *(_elsewhere(x, ex.const(0, x.dtype), counts, body, blocks) for x in (e.a, e.b)))
    return ex.where(counts, e, idle)


def _may_idle(name: str, idle: Const, body: Sequence[Nest]) -> bool:
    """Whether ``body`` makes a block whose elements are all ``idle`` where nothing but ``idle`` is stored or reduced."""
    writers = [n for n in body if n.target.name == name]
    return bool(writers) and all(n.op is None or idle.dtype.neutral(n.op) == idle.value for n in writers)
