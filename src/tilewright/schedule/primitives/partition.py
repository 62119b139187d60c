"""partition: a loop in two, the first of which knows that conditions on its variable hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr, Var, Where
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Block, For, Kernel, Stmt, map_exprs, names, own_exprs, substmts
from tilewright.schedule.nest import copied, fresh, loop_place, reads_in, replace_stmt, substituted
from tilewright.schedule.primitive import primitive
from tilewright.schedule.thresholds import true_until
from tilewright.util.errors import ScheduleError


@primitive
def partition(kernel: Kernel, loop: str) -> tuple[Kernel, tuple[str, ...]]:
    """Separate the first iterations of ``loop``, in which conditions on indices hold that later ones must ask for.

    ``where(c, a, b)`` is ``a`` in them. Returns the two loops in program order; the first keeps the name.
    ScheduleError: a stepped loop, bounds that read memory, no condition that holds up to a known iteration.
    """
    place = loop_place(kernel, loop, "partition")
    f = place.node
    assert isinstance(f, For)  # the place of a loop
    if f.step != 1 or reads_in(f.lo, f.hi):
        raise ScheduleError(f"partition {loop}: it has a step, or its bounds read memory", location=f.loc)
    scope = Simplifier({})
    limits: dict[Expr, Expr] = {}
    _collect(f.body, f, (), scope, limits)
    around = {g.name for g in place.loops} | {v.name for v in kernel.sizes}
    limits = {c: e for c, e in limits.items() if ex.free_vars(e) <= around}
    if not limits:
        raise ScheduleError(f"partition {loop}: no condition in it is known to hold up to some iteration", location=f.loc)
    cut = reduce(lambda a, b: ex.binary("min", a, b), limits.values())
    cut = scope.expr(ex.binary("max", f.lo, ex.binary("min", cut, f.hi)))

    def chosen(e: Expr) -> Expr | None:
        return ex.transform(e.a, chosen) if isinstance(e, Where) and e.cond in limits else None

    first = Block(tuple(map_exprs(s, lambda e: ex.transform(e, chosen)) for s in f.body.stmts))
    taken = names(kernel)
    var = Var(fresh(taken, f"{loop}r"))
    rest = copied(substituted(f.body, {loop: var}), taken)
    parts = replace(f, hi=cut, body=first), replace(f, var=var, lo=cut, body=rest)
    return replace_stmt(kernel, f, *parts), (loop, var.name)


def _collect(s: Stmt, f: For, inside: Sequence[For], scope: Simplifier, out: dict[Expr, Expr]) -> None:
    """Conditions below ``s`` that hold before some iteration of ``f``, and before which."""
    for e in own_exprs(s):
        for n in ex.walk(e):
            if isinstance(n, Where) and n.cond not in out and f.name in ex.free_vars(n.cond):
                at = true_until(n.cond, f, inside, scope)
                if at is not None:
                    out[n.cond] = at
    below = (*inside, s) if isinstance(s, For) else inside
    for t in substmts(s):
        _collect(t, f, below, scope, out)
