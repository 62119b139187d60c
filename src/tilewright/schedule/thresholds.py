"""From which iteration of a loop on something holds: conditions on indices solved for the loop's variable.

Other loops inside are eliminated by their bounds, so what comes out is an expression of the loops around. Nothing here
is exact: a threshold may be later than it needs to be (or None), never earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Binary, Compare, Const, Expr, Logical, Var
from tilewright.ir.linear import Linear
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import For

#: Nodes of an expression that is kept: where bounds depend on each other they would grow without end.
_LARGEST = 128


def false_from(cond: Expr, loop: For, inside: Sequence[For], scope: Simplifier) -> Expr | None:
    """An iteration of ``loop`` from which on ``cond`` is false, whatever the loops ``inside`` (innermost last) do."""
    if isinstance(cond, Logical):
        return _joined(cond, "or", lambda c: false_from(c, loop, inside, scope))
    room = gap(cond)
    return None if room is None else nonneg_from(ex.idx(-1) - room, loop, inside, scope)


def true_until(cond: Expr, loop: For, inside: Sequence[For], scope: Simplifier) -> Expr | None:
    """An iteration of ``loop`` before which ``cond`` is true, whatever the loops ``inside`` (innermost last) do."""
    if isinstance(cond, Logical):
        return _joined(cond, "and", lambda c: true_until(c, loop, inside, scope))
    room = gap(cond)
    return None if room is None else _nonneg_until(room, loop, inside, scope)


def _joined(cond: Logical, needs_both: str, turn: Callable[[Expr], Expr | None]) -> Expr | None:
    """Where ``cond`` turns, from where its parts do: with the later of two ways to hold, with the earlier of two needs.

    Conditions by ``needs_both`` say nothing unless both parts do; of the others one part is enough.
    """
    known = [t for t in (turn(cond.a), turn(cond.b)) if t is not None]
    if len(known) == 2:
        return ex.binary("max" if cond.op == "or" else "min", *known)
    return known[0] if known and cond.op != needs_both else None


def gap(cond: Expr) -> Expr | None:
    """``cond`` as an expression that is at least 0 where it holds, and below where it does not."""
    if not isinstance(cond, Compare) or ex.loads(cond) or cond.a.dtype.kind != ty.INDEX or cond.b.dtype.kind != ty.INDEX:
        return None
    match cond.op:
        case "<":
            return cond.b - cond.a - 1
        case "<=":
            return cond.b - cond.a
        case ">":
            return cond.a - cond.b - 1
        case ">=":
            return cond.a - cond.b
    return None


def nonneg_from(e: Expr, loop: For, inside: Sequence[For], scope: Simplifier) -> Expr | None:
    """An iteration of ``loop`` from which on ``e`` is at least 0."""
    found = _apart(e, loop, inside, scope)
    if found is None or found[1] <= 0:
        return None
    atom, step, rest = found
    least = (ex.idx(0) - rest + (step - 1)) // step  # step * atom + rest >= 0
    if atom == loop.var:
        return scope.expr(least)
    assert isinstance(atom, Binary) and isinstance(atom.b, Const)  # what _apart() allows
    return nonneg_from(atom.a - least * int(atom.b.value), loop, inside, scope)


def _nonneg_until(e: Expr, loop: For, inside: Sequence[For], scope: Simplifier) -> Expr | None:
    """An iteration of ``loop`` before which ``e`` is at least 0."""
    found = _apart(e, loop, inside, scope)
    if found is None or found[1] >= 0:
        return None
    atom, step, rest = found
    most = rest // -step  # rest - |step| * atom >= 0
    if atom == loop.var:
        return scope.expr(most + 1)
    assert isinstance(atom, Binary) and isinstance(atom.b, Const)  # what _apart() allows
    over = int(atom.b.value)
    return _nonneg_until(most * over + (over - 1) - atom.a, loop, inside, scope)


def _apart(e: Expr, loop: For, inside: Sequence[For], scope: Simplifier) -> tuple[Expr, int, Expr] | None:
    """``e`` as (atom, factor, the least that is added to it): only the atom has the loop's variable, itself or divided by a constant."""
    form = scope.linear(e)
    mine = [a for a in form.terms if loop.name in ex.free_vars(a)]
    if len(mine) != 1:
        return None
    (atom,) = mine
    divided = isinstance(atom, Binary) and atom.op == "//" and isinstance(atom.b, Const) and atom.b.value > 0
    if atom != loop.var and not divided:
        return None
    rest = scope.render(Linear({a: c for a, c in form.terms.items() if a != atom}, form.const))
    least = eliminated(rest, inside, False)
    if least is None or loop.name in ex.free_vars(least):  # the bounds of a loop inside may have it
        return None
    return atom, form.terms[atom], least


def eliminated(e: Expr, inside: Sequence[For], upper: bool) -> Expr | None:
    """The largest (``upper``) or smallest value of ``e`` over the loops ``inside`` (innermost last), or something beyond it.

    None where that is not known, or reads memory: what is there may be something else when it is asked for.
    """
    out: Expr | None = e
    for f in reversed(inside):
        if out is None:
            return None
        if f.name in ex.free_vars(out):
            out = _extreme(out, f, upper)
        if out is not None and not small(out):
            return None
    return None if out is None or ex.loads(out) else out


def small(e: Expr) -> bool:
    """Whether ``e`` is worth to be asked for in the bounds of a loop."""
    return next(islice(ex.walk(e), _LARGEST, None), None) is None


def _extreme(e: Expr, f: For, upper: bool) -> Expr | None:
    """``e`` with the variable of ``f`` at the end of its range where that is largest or smallest."""
    if f.name not in ex.free_vars(e):
        return e
    match e:
        case Var():
            return f.hi - 1 if upper else f.lo
        case Binary(op="+" | "min" | "max"):
            return _pair(e.op, _extreme(e.a, f, upper), _extreme(e.b, f, upper))
        case Binary(op="-"):
            return _pair("-", _extreme(e.a, f, upper), _extreme(e.b, f, not upper))
        case Binary(op="*", b=Const(value=c)):
            return _pair("*", _extreme(e.a, f, upper == (c >= 0)), e.b)
        case Binary(op="//", b=Const(value=c)) if c > 0:
            return _pair("//", _extreme(e.a, f, upper), e.b)
        case Binary(op="%", b=Const(value=c)) if c > 0:
            return ex.idx(int(c) - 1 if upper else 0)
    return None


def _pair(op: str, a: Expr | None, b: Expr | None) -> Expr | None:
    return None if a is None or b is None else ex.binary(op, a, b)
