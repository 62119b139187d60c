"""Loop bounds of a permuted nest: Fourier-Motzkin elimination on affine bounds.

When a loop moves outside one that its bounds mention (a triangular nest), every loop needs new
bounds. The innermost loop keeps all constraints on it, so the nest visits exactly the same
iterations; projecting it out only tells the outer loops where to look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from tilewright.ir import expr as ex
from tilewright.ir.expr import Binary, Const, Expr, Var
from tilewright.ir.simplify import Linear, Simplifier
from tilewright.ir.stmt import For


@dataclass(frozen=True, slots=True)
class NotConvex(Exception):
    """The bounds of ``loop`` cannot be turned inside out; ``reason`` completes "because ..."."""

    loop: For
    reason: str


def permuted_bounds(order: Sequence[For], scope: Simplifier) -> list[tuple[Expr, Expr]]:
    """Bounds (lo, hi) of the loops of one nest when they run in ``order``.

    ``scope`` knows the ranges of the variables around and in the nest. Raises NotConvex for bounds
    that are not affine in the nest's variables, unions of ranges, and stepped loops.
    """
    names = {f.name for f in order}
    constraints = [c for f in order for c in _constraints(f, names, scope)]
    out: list[tuple[Expr, Expr]] = []
    for f in reversed(order):
        below = [c for c in constraints if c.terms.get(f.var, 0) > 0]
        above = [c for c in constraints if c.terms.get(f.var, 0) < 0]
        lo = _extremum("max", [_lower(c, f.var, scope) for c in _strongest(below, f.var, scope)])
        hi = _extremum("min", [_upper(c, f.var, scope) for c in _strongest(above, f.var, scope)])
        out.append((lo, hi))
        # All constraints are joined, not only the strongest: those were chosen knowing the ranges being projected.
        joined = [_tightened(a.times(-b.terms[f.var]).plus(b, a.terms[f.var])) for a in below for b in above]
        rest = [c for c in constraints if f.var not in c.terms]
        constraints = _distinct([*rest, *(c for c in joined if any(isinstance(t, Var) and t.name in names for t in c.terms))])
    return out[::-1]


def _constraints(f: For, names: set[str], scope: Simplifier) -> list[Linear]:
    """Linear forms over the nest's variables that are >= 0 exactly inside the range of ``f``."""
    if f.step != 1:
        raise NotConvex(f, f"it has step {f.step}")
    me = Linear({f.var: 1})
    out = [me.plus(scope.linear(e), -1) for e in _parts(f.lo, "max")]
    out += [scope.linear(e).plus(Linear({f.var: 1}, 1), -1) for e in _parts(f.hi, "min")]
    out = [_without_floors(c, scope) for c in out]
    for c in out:
        for atom in c.terms:
            if not isinstance(atom, Var) and ex.free_vars(atom) & names:
                raise NotConvex(f, f"its bound {atom} is not affine")
    return [_tightened(c) for c in out]


def _without_floors(c: Linear, scope: Simplifier) -> Linear:
    """``c >= 0`` with floor divisions by constants multiplied out (exact where their coefficient is 1 or -1)."""
    for atom, k in c.terms.items():
        if isinstance(atom, Binary) and atom.op == "//" and isinstance(atom.b, Const) and atom.b.value > 0 and abs(k) == 1:
            d, over = int(atom.b.value), scope.linear(atom.a)
            rest = c.without(atom).times(d)
            # e // d >= -r  iff  e + d*r >= 0;   e // d <= r  iff  d*r + d - 1 - e >= 0
            return _without_floors(rest.plus(over) if k == 1 else Linear(rest.terms, rest.const + d - 1).plus(over, -1), scope)
    return c


def _tightened(c: Linear) -> Linear:
    """``c >= 0`` with coprime coefficients; the constant rounds down, as the sum of the others is an integer."""
    g = gcd(*c.terms.values())
    return Linear({t: k // g for t, k in c.terms.items()}, c.const // g) if g > 1 else c


def _distinct(constraints: list[Linear]) -> list[Linear]:
    return list({(frozenset(c.terms.items()), c.const): c for c in constraints}.values())


def _parts(e: Expr, op: str) -> list[Expr]:
    return [*_parts(e.a, op), *_parts(e.b, op)] if isinstance(e, Binary) and e.op == op else [e]


def _strongest(constraints: list[Linear], var: Var, scope: Simplifier) -> list[Linear]:
    """``constraints`` without those that another one implies."""
    kept: list[Linear] = []
    for n, c in enumerate(constraints):
        others = kept + constraints[n + 1 :]
        if not any(o.terms[var] == c.terms[var] and scope.nonneg(c.plus(o, -1)) for o in others):
            kept.append(c)
    return kept


def _lower(c: Linear, var: Var, scope: Simplifier) -> Expr:
    """k*var + rest >= 0 with k > 0: var >= ceil(-rest / k)."""
    k, rest = _isolated(c, var)
    return scope.render(rest.times(-1)) if k == 1 else ex.idx(0) - scope.render(rest) // k


def _upper(c: Linear, var: Var, scope: Simplifier) -> Expr:
    """rest - k*var >= 0 with k > 0: var < floor(rest / k) + 1."""
    k, rest = _isolated(c, var)
    return scope.render(Linear(rest.terms, rest.const + 1)) if k == -1 else scope.render(rest) // -k + 1


def _isolated(c: Linear, var: Var) -> tuple[int, Linear]:
    return c.terms[var], Linear({t: k for t, k in c.terms.items() if t != var}, c.const)


def _extremum(op: str, values: list[Expr]) -> Expr:
    out = values[0]
    for v in values[1:]:
        out = ex.binary(op, out, v)
    return out
