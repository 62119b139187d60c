"""Index arithmetic as polynomials of loop variables, with ranges.

Every index expression is brought to the form  const + sum of coefficient * product of atoms.  An
atom is an i64 that already has an SSA name (a loop variable, a size, the result of a division) and a
known range. The form makes constants of unrolled loops fold, divisions of block layouts
disappear where the ranges allow, and the stride of a vector lane readable.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from tilewright.ir.interval import Range, product_range


class Atom:
    """An i64 with an SSA name, compared by identity.

    ``lo``/``hi`` bound it inclusively (None: unknown). ``order`` grows with program order, so sums
    are formed outermost first. ``lanes`` is 0 for scalars. ``is_lane`` marks the lane number. The quotient and the
    remainder of a division know of what by what: (dividend, divisor).
    """

    __slots__ = ("hi", "is_lane", "lanes", "lo", "order", "quotient_of", "ref", "remainder_of")

    def __init__(self, ref: str, order: int, lo: int | None = None, hi: int | None = None, lanes: int = 0, is_lane: bool = False):
        self.ref, self.order, self.lo, self.hi, self.lanes, self.is_lane = ref, order, lo, hi, lanes, is_lane
        self.quotient_of: tuple[Poly, int] | None = None
        self.remainder_of: tuple[Poly, int] | None = None


Monomial = tuple[Atom, ...]


class Poly:
    """``const`` + sum of ``terms[monomial] * monomial``. Never modified once built."""

    __slots__ = ("const", "terms")

    def __init__(self, const: int = 0, terms: dict[Monomial, int] | None = None):
        self.const = const
        self.terms: dict[Monomial, int] = terms or {}

    @staticmethod
    def of(atom: Atom) -> Poly:
        return Poly(0, {(atom,): 1})

    @property
    def is_const(self) -> bool:
        return not self.terms

    @property
    def key(self) -> tuple[int, frozenset[tuple[Monomial, int]]]:
        """Equal for equal polynomials over the same atoms."""
        return self.const, frozenset(self.terms.items())

    def __add__(self, o: Poly) -> Poly:
        if not o.terms:
            return Poly(self.const + o.const, self.terms) if o.const else self
        if not self.terms:
            return Poly(self.const + o.const, o.terms)
        terms = dict(self.terms)
        for m, c in o.terms.items():
            total = terms.get(m, 0) + c
            if total:
                terms[m] = total
            else:
                terms.pop(m, None)
        return Poly(self.const + o.const, terms)

    def __sub__(self, o: Poly) -> Poly:
        return self + o.scaled(-1)

    def scaled(self, k: int) -> Poly:
        if k == 1:
            return self
        return Poly(self.const * k, {m: c * k for m, c in self.terms.items()}) if k else Poly()

    def __mul__(self, o: Poly) -> Poly:
        if not o.terms:
            return self.scaled(o.const)
        if not self.terms:
            return o.scaled(self.const)
        out = self.scaled(o.const) + Poly(0, {m: c * self.const for m, c in o.terms.items()} if self.const else None)
        for m, c in self.terms.items():
            for n, d in o.terms.items():
                out = out + Poly(0, {tuple(sorted(m + n, key=lambda a: a.order)): c * d})
        return out

    def range(self) -> Range:
        """Inclusive bounds implied by the ranges of the atoms."""
        lo: int | None = self.const
        hi: int | None = self.const
        for m, c in self.terms.items():
            mlo, mhi = reduce(product_range, ((a.lo, a.hi) for a in m))
            if c < 0:
                mlo, mhi = mhi, mlo
            lo = None if lo is None or mlo is None else lo + c * mlo
            hi = None if hi is None or mhi is None else hi + c * mhi
        return lo, hi

    def split_multiples(self, c: int) -> tuple[Poly, Poly]:
        """(q, r) with ``self == c*q + r`` and r free of terms that c divides."""
        q = {m: k // c for m, k in self.terms.items() if k % c == 0}
        r = {m: k for m, k in self.terms.items() if k % c}
        return Poly(self.const // c, q), Poly(self.const % c, r)

    def lane_parts(self) -> tuple[Poly, int, Poly]:
        """(part equal in all lanes, constant stride of the lane, rest that varies otherwise)."""
        uniform: dict[Monomial, int] = {}
        varying: dict[Monomial, int] = {}
        stride = 0
        for m, c in self.terms.items():
            if len(m) == 1 and m[0].is_lane:
                stride = c
            elif any(a.lanes for a in m):
                varying[m] = c
            else:
                uniform[m] = c
        return Poly(self.const, uniform), stride, Poly(0, varying)

    def recombined(self) -> Poly:
        """The same value with quotients and remainders that belong together put back: ``k*c*(x // c) + k*(x % c)`` is ``k*x``.

        Rows of a buffer that one fused loop walks are contiguous again.
        """
        for m, k in self.terms.items():
            divided = m[0].remainder_of if len(m) == 1 else None
            if divided is None:
                continue
            x, c = divided
            for n, other in self.terms.items():
                of = n[0].quotient_of if len(n) == 1 else None
                if of is not None and other == k * c and _at_once(*of) == _at_once(x, c):
                    return (self - Poly(0, {m: k, n: other}) + x.scaled(k)).recombined()
        return self

    @property
    def is_uniform(self) -> bool:
        return not any(a.lanes for m in self.terms for a in m)

    def ordered(self) -> Iterable[tuple[Monomial, int]]:
        """Terms, those of outer loops first."""
        return sorted(self.terms.items(), key=lambda t: tuple(a.order for a in reversed(t[0])))


def _at_once(x: Poly, c: int) -> tuple[object, int]:
    """Dividend and divisor of ``x // c``, through quotients of quotients: (p // 5) // 7 is p // 35."""
    (m, k), *more = [*x.terms.items()] or [((), 0)]
    of = m[0].quotient_of if len(m) == 1 and k == 1 and not more and not x.const else None
    return _at_once(of[0], of[1] * c) if of else (x.key, c)
