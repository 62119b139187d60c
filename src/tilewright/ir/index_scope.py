"""Simplification of expressions at one place of a program, with a canonical rendering.

Index expressions are brought to linear form (a sum of coefficient * atom plus a constant) in one
pass; ``//`` and ``%`` by constants, ``min``/``max`` and comparisons are decided from what is known
of the atoms. Expressions of other types only have their index parts rewritten, so results stay
bit-equal; what is bounded by constants twice on one side is bounded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import gcd

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import FALSE, TRUE, Binary, Cast, Compare, Const, Expr, Load, Logical, Not, Var, Where
from tilewright.ir.interval import UNBOUNDED
from tilewright.ir.linear import Known, Linear, read

_NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
#: How many facts a scope keeps: bounds the work per query.
MAX_FACTS = 64


@dataclass(slots=True)
class IndexScope(Known):
    """What is known at one place, and the simplification it allows.

    ``values`` are variables known to equal a linear form (loops that run once); ``buffers`` are the allocations
    whose shape changed.
    """

    values: dict[str, Linear] = field(default_factory=dict)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    _memo: dict[int, tuple[Expr, Expr]] = field(default_factory=dict)

    def expr(self, e: Expr) -> Expr:
        """An expression with the value of ``e`` at every point of the scope."""
        if isinstance(e, Const):
            return e
        hit = self._memo.get(id(e))
        if hit is not None:
            return hit[1]
        if isinstance(e, Var):
            out = self.render(self._variable(e))
        elif e.dtype.kind == ty.INDEX and isinstance(e, Binary):
            out = self.render(self.linear(e))
        else:
            out = self._node(e)
        self._memo[id(e)] = (e, out)  # keeps e alive, so that its id stays taken
        return out

    def _node(self, e: Expr) -> Expr:
        match e:
            case Compare() if e.a.dtype.kind == ty.INDEX and e.b.dtype.kind == ty.INDEX:
                return self._compare(e.op, self.linear(e.a), self.linear(e.b))
            case Logical():
                return self._logical(e)
            case Not():
                return self.negation(self.expr(e.a))
            case Where():
                return self._where(e)
            case Load() if e.buffer.name in self.buffers:
                return Load(self.buffers[e.buffer.name], tuple(map(self.expr, e.indices)))
        kids = ex.children(e)
        new = tuple(map(self.expr, kids))
        if isinstance(e, Cast) and isinstance(new[0], Const):
            return ex.cast(new[0], e.dtype)
        if isinstance(e, Binary) and e.op in ("min", "max") and (once := _bounded_once(e.op, new[0], new[1], e.dtype)) is not None:
            return once
        return e if all(n is o for n, o in zip(new, kids, strict=True)) else ex.rebuild(e, new)

    def linear(self, e: Expr) -> Linear:
        """The linear form of an index expression, simplified."""
        match e:
            case Const():
                return Linear({}, int(e.value))
            case Var():
                return self._variable(e)
            case Binary(op="+"):
                return self._joined(self.linear(e.a).plus(self.linear(e.b)))
            case Binary(op="-"):
                return self._joined(self.linear(e.a).plus(self.linear(e.b), -1))
            case Binary(op="*"):
                return self._product(self.linear(e.a), self.linear(e.b))
            case Binary(op="//" | "%"):
                a, b = self.linear(e.a), self.linear(e.b)
                if not b.terms and b.const > 0:
                    return self._div(a, b.const) if e.op == "//" else self._mod(a, b.const)
                return self._atom(Binary(e.op, self.render(a), self.render(b), ty.index))
            case Binary(op="min" | "max"):
                return self._extremum(e.op, self.linear(e.a), self.linear(e.b))
            case Binary():
                return self._atom(Binary(e.op, self.expr(e.a), self.expr(e.b), e.dtype))
        out = self.expr(e)
        return self._atom(out) if out.dtype.kind == ty.INDEX and not isinstance(out, (Const, Binary)) else self._reread(out)

    def _variable(self, v: Var) -> Linear:
        if (value := self.values.get(v.name)) is not None:
            return value
        lo, hi = self.ranges.get(v.name, UNBOUNDED)
        return Linear({}, lo) if lo is not None and lo == hi else Linear({v: 1})

    def _reread(self, e: Expr) -> Linear:
        return Linear({}, int(e.value)) if isinstance(e, Const) else self.linear(e)

    def _atom(self, e: Expr) -> Linear:
        return Linear({e: 1})

    def _product(self, a: Linear, b: Linear) -> Linear:
        if not b.terms:
            return a.times(b.const)
        if not a.terms:
            return b.times(a.const)
        factors = sorted((self.render(a), self.render(b)), key=self._order)
        return self._atom(Binary("*", factors[0], factors[1], ty.index))

    def _divided(self, a: Linear, m: int) -> tuple[Linear, Linear]:
        """``q, r`` with ``a == m*q + r`` and the coefficients and constant of r below m in size."""
        q, r = Linear({}, a.const // m), Linear({}, a.const % m)
        for atom, c in a.terms.items():
            whole = c // m if c >= 0 else -(-c // m)
            if whole:
                q.terms[atom] = whole
            if c - whole * m:
                r.terms[atom] = c - whole * m
        return q, r

    def _coarse(self, r: Linear, m: int) -> tuple[int, Linear, Linear] | None:
        """``g, high, low`` with ``r == g*high + low``, 0 <= low < g, g > 1 dividing m."""
        ordered = sorted(r.terms.items(), key=lambda t: -abs(t[1]))
        g = m
        best = None
        for n, (_, c) in enumerate(ordered, 1):
            g = gcd(g, c)
            if g == 1:
                break
            low = Linear(dict(ordered[n:]), r.const % g)
            lo, hi = self.bounds(low)
            if lo is not None and lo >= 0 and hi is not None and hi < g:
                best = g, Linear({a: k // g for a, k in ordered[:n]}, r.const // g), low
        return best

    def _div(self, a: Linear, m: int) -> Linear:
        if m == 1:
            return a
        q, r = self._divided(a, m)
        if (k := self._bucket(r, m)) is not None:
            return Linear(q.terms, q.const + k)
        if (parts := self._coarse(r, m)) is not None:
            g, high, _ = parts
            return q.plus(self._div(high, m // g))
        if len(r.terms) == 1 and not r.const:
            ((atom, c),) = r.terms.items()
            if c == 1 and isinstance(atom, Binary) and atom.op == "//" and isinstance(atom.b, Const) and atom.b.value > 0:
                return q.plus(self._div(read(atom.a), int(atom.b.value) * m))
        return q.plus(self._atom(Binary("//", self.render(r), Const(m, ty.index), ty.index)))

    def _mod(self, a: Linear, m: int) -> Linear:
        if m == 1:
            return Linear({})
        _, r = self._divided(a, m)
        if (k := self._bucket(r, m)) is not None:
            return Linear(r.terms, r.const - k * m)
        if (flat := self._mod_of_mod(r, m)) is not None:
            return self._mod(flat, m)
        if (parts := self._coarse(r, m)) is not None:
            g, high, low = parts
            return low.plus(self._mod(high, m // g), g)
        return self._atom(Binary("%", self.render(r), Const(m, ty.index), ty.index))

    def _mod_of_mod(self, r: Linear, m: int) -> Linear | None:
        """``(x % n + y) % m == (x + y) % m`` when m divides n."""
        for atom, c in r.terms.items():
            if isinstance(atom, Binary) and atom.op == "%" and isinstance(atom.b, Const) and atom.b.value % m == 0:
                rest = r.without(atom)
                return rest.plus(read(atom.a), c)
        return None

    def _bucket(self, r: Linear, m: int) -> int | None:
        """k with ``k*m <= r < (k+1)*m`` at every point, if there is one."""
        lo, hi = self.bounds(r)
        if lo is not None and hi is not None:
            if lo // m == hi // m:
                return lo // m
            if hi - lo >= 3 * m:  # no fact narrows that much in practice
                return None
        if self.facts and self.nonneg(r) and self.nonneg(Linear({}, m - 1).plus(r, -1)):
            return 0
        return None

    def _joined(self, a: Linear) -> Linear:
        """``a`` with atoms combined that simplify each other."""
        for atom, c in a.terms.items():
            if isinstance(atom, Binary):
                new = None
                if atom.op == "%" and isinstance(atom.b, Const):
                    new = self._undivided(a, atom, c)
                elif atom.op in ("min", "max") and abs(c) == 1:
                    new = self._distributed(a, atom, c)
                if new is not None:
                    return self._joined(new)
        return a

    def _undivided(self, a: Linear, atom: Binary, c: int) -> Linear | None:
        """``c*m*(x // m) + c*(x % m)`` is ``c*x``."""
        m = int(atom.b.value)  # type: ignore[attr-defined]
        quotient = self._div(read(atom.a), m)
        if len(quotient.terms) != 1 or quotient.const:
            return None
        ((partner, k),) = quotient.terms.items()
        if k != 1 or a.terms.get(partner) != c * m:
            return None
        terms = {t: v for t, v in a.terms.items() if t is not atom and t != partner}
        return Linear(terms, a.const).plus(read(atom.a), c)

    def _distributed(self, a: Linear, atom: Binary, c: int) -> Linear | None:
        """``min(x, y) + r`` is ``min(x + r, y + r)``: done where that leaves fewer terms."""
        rest = a.without(atom)
        if not rest.terms:
            return None
        sides = (read(atom.a), read(atom.b))
        moved = [rest.plus(x, c) for x in sides]
        if sum(len(x.terms) for x in moved) >= sum(len(x.terms) for x in sides) + len(rest.terms):
            return None
        op = atom.op if c > 0 else {"min": "max", "max": "min"}[atom.op]
        return self._extremum(op, *moved)

    def _extremum(self, op: str, a: Linear, b: Linear) -> Linear:
        gap = b.plus(a, -1)
        if self.nonneg(gap):
            return a if op == "min" else b
        if self.nonneg(gap.times(-1)):
            return b if op == "min" else a
        x, y = self.render(a), self.render(b)
        if isinstance(x, Const) or (not isinstance(y, Const) and self._order(y) < self._order(x)):
            x, y = y, x
        return self._atom(Binary(op, x, y, ty.index))

    def _compare(self, op: str, a: Linear, b: Linear) -> Expr:
        d = a.plus(b, -1)
        known = self._decide(op, d)
        if known is not None:
            return TRUE if known else FALSE
        g = gcd(*d.terms.values())
        if g > 1:
            if op in ("==", "!=") and d.const % g:
                return TRUE if op == "!=" else FALSE
            # d op 0 with d = g*t + c: t < -c/g, rounded to the integer bound that means the same
            c = -((-d.const) // g) if op in ("<=", ">", "==", "!=") else d.const // g
            d = Linear({t: k // g for t, k in d.terms.items()}, c)
        left = Linear({t: k for t, k in d.terms.items() if k > 0})
        right = Linear({t: -k for t, k in d.terms.items() if k < 0})
        if left.terms:
            right.const = -d.const
        else:
            left.const = d.const
        return Compare(op, self.render(left), self.render(right))

    def _decide(self, op: str, d: Linear) -> bool | None:
        """Truth of ``d op 0`` where it is the same at every point."""
        if op in (">", ">="):
            return self._decide("<" if op == ">" else "<=", d.times(-1))
        if op == "<":
            return self._decide("<=", Linear(d.terms, d.const + 1))
        if op == "<=":
            if self.nonneg(d.times(-1)):
                return True
            return False if self.nonneg(Linear(d.terms, d.const - 1)) else None
        if not d.terms:
            return (d.const == 0) == (op == "==")
        if self.nonneg(Linear(d.terms, d.const - 1)) or self.nonneg(Linear(d.times(-1).terms, -d.const - 1)):
            return op == "!="
        if self.nonneg(d) and self.nonneg(d.times(-1)):
            return op == "=="
        return None

    def _logical(self, e: Logical) -> Expr:
        absorbing = FALSE if e.op == "and" else TRUE
        a = self.expr(e.a)
        if a == absorbing:
            return a
        with self.assuming(a if e.op == "and" else self.negation(a)):
            b = self.expr(e.b)
        if b == absorbing:
            return b
        if isinstance(a, Const):
            return b
        return a if isinstance(b, Const) or a == b else Logical(e.op, a, b)

    def negation(self, a: Expr) -> Expr:
        """``not a`` for a simplified condition."""
        match a:
            case Const():
                return FALSE if a.value else TRUE
            case Not():
                return a.a
            case Compare() if a.a.dtype.kind == ty.INDEX and a.b.dtype.kind == ty.INDEX:
                return Compare(_NEGATED[a.op], a.a, a.b)  # not for floats: NaN compares false both ways
        return Not(a)

    def _where(self, e: Where) -> Expr:
        cond = self.expr(e.cond)
        if isinstance(cond, Const):
            return self.expr(e.a if cond.value else e.b)
        with self.assuming(cond):
            a = self.expr(e.a)
        with self.assuming(self.negation(cond)):
            b = self.expr(e.b)
        return a if a == b else Where(cond, a, b, e.dtype)

    @contextmanager
    def assuming(self, cond: Expr) -> Iterator[None]:
        """Adds what ``cond`` (already simplified) says about indices to the facts of the scope."""
        new = self.facts_of(cond)
        if not new:
            yield
            return
        facts, memo, atoms, proofs = self.facts, self._memo, self._atom_ranges, self._proofs
        self.facts, self._memo, self._atom_ranges, self._proofs = (new + facts)[:MAX_FACTS], {}, {}, {}
        try:
            yield
        finally:
            self.facts, self._memo, self._atom_ranges, self._proofs = facts, memo, atoms, proofs

    def facts_of(self, cond: Expr) -> list[Linear]:
        """Linear forms that are non-negative wherever ``cond`` holds."""
        match cond:
            case Logical(op="and"):
                return self.facts_of(cond.a) + self.facts_of(cond.b)
            case Compare() if cond.a.dtype.kind == ty.INDEX and cond.b.dtype.kind == ty.INDEX and not ex.loads(cond):
                d = self.linear(cond.b).plus(self.linear(cond.a), -1)
                match cond.op:
                    case "<=" | "<":
                        return self.split_extrema(Linear(d.terms, d.const - (cond.op == "<")))
                    case ">=" | ">":
                        return self.split_extrema(Linear(d.times(-1).terms, -d.const - (cond.op == ">")))
                    case "==":
                        return [d, d.times(-1)]
        return []


def _bounded_once(op: str, a: Expr, b: Expr, dtype: ty.DType) -> Expr | None:
    """``max(max(x, -128), 0)`` as ``max(x, 0)``; None for anything else (bounds that compare equal may differ in sign)."""
    match a, b:
        case Binary(a=x, b=Const() as first), Const() if a.op == op and a.dtype == dtype and first.dtype == b.dtype:
            if first.value < b.value or b.value < first.value:
                return Binary(op, x, (max if op == "max" else min)(first, b, key=lambda c: c.value), dtype)
    return None
