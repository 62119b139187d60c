"""Reductions from nothing, and over windows that reach over the edges of an array: what lies outside has no part in them.

``y[p] max= where(p + r >= 1, f(x[p + r - 1]), lowest)`` is ``y[p] max= f(x[p + r - 1])`` for the ``x`` that are there.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from tilewright.hw import Instruction
from tilewright.ir import expr as ex
from tilewright.ir.expr import Binary, Compare, Const, Expr, Load, Var, Where
from tilewright.ir.linear import Linear
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Span, Window
from tilewright.ir.types import DType
from tilewright.schedule.region import largest_extent
from tilewright.schedule.unify import Chain, Match, Mismatch, chain_of

#: By operand: for each dimension of its window, elements before and after it that an instruction finds as zeros.
Around = dict[str, tuple[tuple[Expr, Expr], ...]]


def _is_neutral(value: Expr, op: str | None, dtype: DType) -> bool:
    """Whether ``value`` has no effect on a reduction of integers with ``op``; of floats (-0.0, NaN) that is not said."""
    return op is not None and dtype.is_int and isinstance(value, Const) and value.value == dtype.neutral(op)


def started(first: Chain | None, nest: Chain | None) -> Chain | None:
    """``nest`` as a fresh reduction where ``first``, right before it, sets all of its elements to what has no effect on it."""
    if first is None or nest is None or nest.store.op is None or first.store.op is not None:
        return None
    start, value = first.store, first.store.value
    if start.buffer != nest.store.buffer or not _is_neutral(value, nest.store.op, start.buffer.dtype):
        return None
    used = {v for i in nest.store.indices for v in ex.free_vars(i)}
    spatial = [f for f in nest.loops if f.name in used]
    if len(spatial) != len(first.loops):
        return None
    env: dict[str, Expr] = {}
    for f, g in zip(first.loops, spatial, strict=True):
        if (ex.substitute(f.lo, env), ex.substitute(f.hi, env), f.step) != (g.lo, g.hi, g.step):
            return None
        env[f.name] = g.var
    same = tuple(ex.substitute(i, env) for i in start.indices) == nest.store.indices
    return replace(nest, fresh=True) if same else None


@dataclass(frozen=True, slots=True)
class Guarded:
    """A nest without its guard, and the indices between which ``load``, all that it reads of an array, has elements: half-open, by
    dimension, None where the guard says nothing."""

    nest: Chain
    load: Load
    low: tuple[Expr | None, ...]
    high: tuple[Expr | None, ...]


def unguarded(scope: Simplifier, nest: Chain) -> Guarded | None:
    """``nest``, a reduction of what one array holds wherever a box of its indices has elements; None when it is no such nest."""
    store, value = nest.store, nest.store.value
    if not isinstance(value, Where) or not _is_neutral(value.b, store.op, store.buffer.dtype):
        return None
    arrays = {ld for ld in ex.loads(value.a) if ld.buffer.rank}
    if len(arrays) != 1:
        return None
    load = arrays.pop()
    low: list[Expr | None] = [None] * load.buffer.rank
    high: list[Expr | None] = [None] * load.buffer.rank
    own = {f.name for f in nest.loops}
    with ExitStack() as stack:
        for f in nest.loops:
            stack.enter_context(scope.inside(f))
        indices = [scope.linear(i) for i in load.indices]
        for condition in ex.conjuncts(value.cond):
            margin = _margin(scope, condition)
            if margin is None or not _bounds(scope, margin, indices, own, low, high):
                return None
    return Guarded(replace(nest, store=replace(store, value=value.a)), load, tuple(low), tuple(high))


def _margin(scope: Simplifier, e: Expr) -> Linear | None:
    """What is at least 0 where ``e`` holds; None for what is no comparison."""
    if not isinstance(e, Compare):
        return None
    ends = {">=": (e.a - e.b), ">": (e.a - e.b - 1), "<=": (e.b - e.a), "<": (e.b - e.a - 1)}
    return scope.linear(ends[e.op]) if e.op in ends else None


def _bounds(
    scope: Simplifier, margin: Linear, indices: list[Linear], own: set[str], low: list[Expr | None], high: list[Expr | None]
) -> bool:
    """Takes a bound of one index from ``margin``; False when it is none."""
    for d, i in enumerate(indices):
        below, above = margin.plus(i, -1), margin.plus(i)
        if low[d] is None and not _moves(below, own):
            low[d] = scope.render(below.times(-1))
            return True
        if high[d] is None and not _moves(above, own):
            high[d] = scope.render(Linear(above.terms, above.const + 1))
            return True
    return False


def _moves(a: Linear, own: set[str]) -> bool:
    return any(ex.free_vars(t) & own for t in a.terms)


def clipped(scope: Simplifier, instruction: Instruction, found: Match, guarded: Guarded) -> tuple[dict[str, Window], Around] | Mismatch:
    """The windows of ``found`` without what the guard leaves out, and how much that is.

    A mismatch where the instruction finds no zeros there, or one of its windows might hold nothing else.
    """
    name = next(n for n, w in found.windows.items() if w.buffer == guarded.load.buffer)
    w = found.windows[name]
    indices = list(w.indices)
    around: list[tuple[Expr, Expr]] = []
    reach = _reach(instruction, name, found)
    for at, i in enumerate(w.indices):
        if not isinstance(i, Span):
            if guarded.low[at] is not None or guarded.high[at] is not None:
                return Mismatch(f"operand {name}: {w.buffer.name} is guarded along dimension {at}, which it does not walk", 8)
            continue
        d = len(around)
        before, after = _beyond(scope, i, guarded.low[at], guarded.high[at])
        around.append((before, after))
        for beyond in (before, after):
            if beyond == ex.idx(0):
                continue
            if (name, d) not in instruction.around or i.step != 1:
                return Mismatch(f"operand {name} finds nothing outside {w.buffer.name}, which its windows reach over", 9)
            most = largest_extent(scope, ex.idx(0), beyond)
            if most is None or most >= reach[d]:
                return Mismatch(f"a window of {name} may lie outside {w.buffer.name} altogether", 9)
        if guarded.low[at] is not None or guarded.high[at] is not None:
            indices[at] = Span(leveled(scope, i.lo + before), leveled(scope, i.extent - before - after), i.step)
    return {**found.windows, name: replace(w, indices=tuple(indices))}, {name: tuple(around)}


def _beyond(scope: Simplifier, s: Span, low: Expr | None, high: Expr | None) -> tuple[Expr, Expr]:
    """Elements of a span before ``low``, and from ``high`` on."""
    before = ex.idx(0) if low is None else scope.expr(ex.binary("max", leveled(scope, low - s.lo), 0))
    after = ex.idx(0) if high is None else scope.expr(ex.binary("max", leveled(scope, s.lo + s.extent - high), 0))
    return before, after


def leveled(scope: Simplifier, e: Expr) -> Expr:
    """``e``, simplified, after all minima and maxima became ``min(d, 0)``: those of the same difference cancel."""
    lower: dict[str, Expr] = {}

    def level(x: Expr) -> Expr | None:
        if not isinstance(x, Binary) or x.op not in ("min", "max"):
            return None
        a, b = ex.transform(x.a, level), ex.transform(x.b, level)
        difference = scope.linear(a - b)
        first = min(difference.terms, key=str, default=None)
        turned = first is not None and difference.terms[first] < 0
        mine = scope.render(difference.times(-1) if turned else difference)
        name = f"below 0 of {mine}"
        lower[name] = ex.binary("min", mine, 0)
        least = Var(name) - mine if turned else Var(name)  # min(-d, 0) is min(d, 0) - d
        return b + least if x.op == "min" else a - least

    out = scope.expr(ex.transform(e, level))
    while ex.free_vars(out) & lower.keys():
        out = ex.substitute(out, lower)
    return out


def _reach(instruction: Instruction, name: str, found: Match) -> list[int]:
    """Elements along each dimension of an operand that go into one element of the result: at least so many."""
    body = chain_of(instruction.kernel.body)
    assert body is not None  # it matched
    load = next(ld for ld in ex.loads(body.store.value) if ld.buffer.name == name)
    last: dict[str, Expr] = {a.name: found.extents[a.name] - 1 if a.is_reduction else ex.idx(0) for a in instruction.axes}
    sizes = [ex.substitute(i, last) + 1 for i in load.indices]
    return [int(e.value) if isinstance(e, Const) else 0 for e in sizes]
