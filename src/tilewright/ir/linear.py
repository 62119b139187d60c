"""Linear forms of integer expressions, and what can be proved of them from intervals and facts."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Binary, Cast, Const, Expr, Load, Var, Where
from tilewright.ir.interval import UNBOUNDED, Range, extremum_range, product_range, quotient_range

#: How many facts one proof may combine: bounds the work per query.
_PROOF_DEPTH = 2


@dataclass(slots=True, eq=False)
class Linear:
    """``sum(terms[a] * a) + const`` over integer atoms (variables and irreducible expressions)."""

    terms: dict[Expr, int]
    const: int = 0

    def plus(self, o: Linear, scale: int = 1) -> Linear:
        """``self + scale * o``."""
        if not o.terms:
            return Linear(self.terms, self.const + scale * o.const)
        terms = dict(self.terms)
        for a, c in o.terms.items():
            new = terms.get(a, 0) + scale * c
            if new:
                terms[a] = new
            else:
                terms.pop(a, None)
        return Linear(terms, self.const + scale * o.const)

    def times(self, k: int) -> Linear:
        """``k * self``."""
        return Linear({a: c * k for a, c in self.terms.items()} if k else {}, self.const * k)

    def without(self, atom: Expr) -> Linear:
        """The form less the term of ``atom``, one of its own."""
        return Linear({a: c for a, c in self.terms.items() if a is not atom}, self.const)


@dataclass(slots=True)
class Known:
    """What is known about integers at one place of a program, and what follows from it.

    ``ranges`` also orders variables (outer loops come first); ``facts`` are >= 0: symbolic loop bounds and enclosing guards.
    """

    ranges: dict[str, Range] = field(default_factory=dict)
    facts: list[Linear] = field(default_factory=list)
    _atom_ranges: dict[Expr, Range] = field(default_factory=dict)
    #: What :meth:`nonneg` found so far: searching through facts and branches asks for the same again and again.
    _proofs: dict[tuple[frozenset[tuple[Expr, int]], int, int], bool] = field(default_factory=dict)

    def bounds(self, a: Linear) -> Range:
        """Interval of a linear form from the intervals of its atoms."""
        lo: int | None = a.const
        hi: int | None = a.const
        for atom, c in a.terms.items():
            x, y = self._range_of(atom)
            if c < 0:
                x, y = y, x
            lo = None if lo is None or x is None else lo + c * x
            hi = None if hi is None or y is None else hi + c * y
        return lo, hi

    def _range_of(self, atom: Expr) -> Range:
        if isinstance(atom, Var):
            return self.ranges.get(atom.name, UNBOUNDED)
        known = self._atom_ranges.get(atom)
        if known is None:
            known = self._atom_ranges[atom] = self._compound_range(atom)
        return known

    def _compound_range(self, e: Expr) -> Range:
        match e:
            case Binary(op="//", b=Const(value=m)) if m > 0:
                return quotient_range(self.bounds(read(e.a)), int(m))
            case Binary(op="%", b=Const(value=m)) if m > 0:
                return 0, int(m) - 1
            case Binary(op="min" | "max"):
                return extremum_range(e.op, self.bounds(read(e.a)), self.bounds(read(e.b)))
            case Binary(op="*"):
                return product_range(self.bounds(read(e.a)), self.bounds(read(e.b)))
            case Where():
                (a, b), (c, d) = self.bounds(read(e.a)), self.bounds(read(e.b))
                return None if a is None or c is None else min(a, c), None if b is None or d is None else max(b, d)
            case Cast() if e.a.dtype.is_int or e.a.dtype.kind == ty.BOOL:
                return e.a.dtype.range if e.a.dtype.bits < 64 else UNBOUNDED
        return UNBOUNDED

    def nonneg(self, a: Linear, depth: int = _PROOF_DEPTH) -> bool:
        """Whether ``a >= 0`` at every point can be shown from the intervals and the facts."""
        lo, hi = self.bounds(a)
        if lo is not None and lo >= 0:
            return True
        if depth == 0 or not a.terms or (hi is not None and hi < 0):
            return False
        key = frozenset(a.terms.items()), a.const, depth
        if key not in self._proofs:
            self._proofs[key] = self._by_facts(a, depth) or self._by_branches(a, depth)
        return self._proofs[key]

    def _by_facts(self, a: Linear, depth: int) -> bool:
        """Whether ``a`` is a fact and something else that is not negative."""
        for fact in self._usable(a):
            for atom, c in fact.terms.items():
                mine = a.terms.get(atom, 0)
                if mine and mine % c == 0 and mine // c > 0 and self.nonneg(a.plus(fact, -(mine // c)), depth - 1):
                    return True
        return False

    def _usable(self, a: Linear) -> list[Linear]:
        return [f for f in self.facts if any(atom in a.terms for atom in f.terms)]

    def _by_branches(self, a: Linear, depth: int) -> bool:
        """Replace a min (max) by its branches: a lower bound of +max is any branch, of +min needs both."""
        for atom, c in a.terms.items():
            if isinstance(atom, Binary) and atom.op in ("min", "max"):
                rest = a.without(atom)
                proofs = (self.nonneg(rest.plus(read(x), c), depth) for x in (atom.a, atom.b))
                if all(proofs) if (atom.op == "min") == (c > 0) else any(proofs):
                    return True
        return False

    def split_extrema(self, a: Linear) -> list[Linear]:
        """``a >= 0`` as facts: ``min(x, y) + r >= 0`` is two."""
        for atom, c in a.terms.items():
            if isinstance(atom, Binary) and atom.op in ("min", "max") and (atom.op == "min") == (c > 0):
                rest = a.without(atom)
                return [f for x in (atom.a, atom.b) for f in self.split_extrema(rest.plus(read(x), c))]
        return [a, *self._multiplied_out(a)]

    def _multiplied_out(self, a: Linear) -> list[Linear]:
        """What ``c * (x // d) + r >= 0`` says about ``x``: ``c * x + d * r >= 0`` (for c > 0), which bounds can use."""
        for atom, c in a.terms.items():
            if isinstance(atom, Binary) and atom.op == "//" and isinstance(atom.b, Const) and atom.b.value > 0 and c > 0:
                rest = a.without(atom)
                return self.split_extrema(rest.times(int(atom.b.value)).plus(read(atom.a), c))
        return []

    def render(self, a: Linear) -> Expr:
        """The canonical expression of a linear form: outer variables first, constant last."""
        terms = a.terms.items() if len(a.terms) < 2 else sorted(a.terms.items(), key=lambda t: (t[1] < 0, self._order(t[0])))
        out: Expr | None = None
        for atom, c in terms:
            part = atom if abs(c) == 1 else Binary("*", atom, Const(abs(c), ty.index), ty.index)
            if out is not None:
                out = Binary("+" if c > 0 else "-", out, part, ty.index)
            elif c > 0:
                out = part
            elif a.const:
                out = Binary("-", Const(a.const, ty.index), part, ty.index)
            else:
                out = Binary("*", atom, Const(c, ty.index), ty.index)
        if out is None:
            return Const(a.const, ty.index)
        first_negative = all(c < 0 for c in a.terms.values())
        if a.const == 0 or first_negative:
            return out
        return Binary("+" if a.const > 0 else "-", out, Const(abs(a.const), ty.index), ty.index)

    def _order(self, e: Expr) -> tuple[int, str]:
        if isinstance(e, Var):
            return self._depth(e.name), e.name
        names = [n.name for n in ex.walk(e) if isinstance(n, Var)]
        return min((self._depth(n) for n in names), default=len(self.ranges)), _key(e)

    def _depth(self, name: str) -> int:
        for d, known in enumerate(self.ranges):
            if known == name:
                return d
        return -1


def read(e: Expr) -> Linear:
    """The form that :meth:`IndexScope.render` wrote. (Simplifying it again could never end: proofs look inside atoms.)"""
    match e:
        case Const():
            return Linear({}, int(e.value))
        case Binary(op="+"):
            return read(e.a).plus(read(e.b))
        case Binary(op="-"):
            return read(e.a).plus(read(e.b), -1)
        case Binary(op="*", b=Const(value=k)):
            return read(e.a).times(int(k))
    return Linear({e: 1})


def _key(e: Expr) -> str:
    """A total order on compound atoms (only equality of trees must imply equality of keys)."""
    match e:
        case Const():
            return str(e.value)
        case Var():
            return e.name
        case Load():
            head = e.buffer.name
        case _:
            head = getattr(e, "op", None) or getattr(e, "name", None) or type(e).__name__
    return f"({head} {' '.join(map(_key, ex.children(e)))})"
