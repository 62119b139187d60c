"""How a number is split into factors, as tables: rounding a population of reals to valid factors is a few gathers.

Factors need not divide. Of a number m, a factor f leaves the quotient ceil(m / f), and together they may make up to a part ``padding``
more than m. Of the factors that leave the same quotient only the least counts: others pad more and gain nothing. Without padding these are
the divisors.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

#: Of what padding allows, what rounding errors may add.
_CLOSE = 1e-9


@cache
def prime_factors(n: int) -> tuple[tuple[int, int], ...]:
    """Primes of ``n`` with their powers."""
    out, p = [], 2
    while p * p <= n:
        power = 0
        while n % p == 0:
            n, power = n // p, power + 1
        if power:
            out.append((p, power))
        p += 1
    return (*out, (n, 1)) if n > 1 else tuple(out)


@cache
def factors_of(n: int, padding: float = 0.0) -> tuple[int, ...]:
    """Factors of ``n``, ascending: its divisors, and those that overshoot by no more than ``padding`` (0.25: a quarter)."""
    if padding == 0:
        out = [1]
        for p, power in prime_factors(n):
            out = [d * p**k for d in out for k in range(power + 1)]
        return tuple(sorted(out))
    least = np.unique(-(-n // np.arange(1, n + 1)))
    return tuple(int(f) for f in least[splits(n, least, padding)])


def splits(number: np.ndarray | int, factor: np.ndarray | int, padding: float) -> np.ndarray:
    """Whether ``factor`` is one of ``number``: it and what it leaves are the least for each other, and pad no more than allowed."""
    left = -(-number // factor)
    return np.asarray((-(-number // left) == factor) & (left * factor <= number * (1 + padding + _CLOSE)))


@cache
def chains(n: int, places: int, padding: float = 0.0) -> tuple[tuple[int, ...], ...]:
    """Factors of ``n`` at each of ``places``, and what they leave."""
    if places == 0:
        return ((n,),)
    return tuple((f, *rest) for f in factors_of(n, padding) for rest in chains(-(-n // f), places - 1, padding))


class Divisors:
    """``values`` ascending: all numbers that splitting ``n`` again and again leads to. For each pair of indices (number, factor of it) the
    index of the ``quotient`` (-1: not a factor)."""

    def __init__(self, n: int, padding: float = 0.0):
        self.values = np.array(sorted(_closure(n, padding)), dtype=np.int64)
        self.last = len(self.values) - 1
        number, factor = self.values[:, None], self.values[None, :]
        left = np.searchsorted(self.values, -(-number // factor))
        self.quotient = np.where(splits(number, factor, padding), left, -1)
        self._logs = np.log(self.values)

    def nearest(self, wanted: np.ndarray, left: np.ndarray, most: int | None = None) -> np.ndarray:
        """Index of the factor of ``values[left]``, at most ``most``, nearest to ``wanted`` (>= 0) in ratio; arrays of one length."""
        far = np.abs(np.log(np.maximum(wanted, 1e-30))[:, None] - self._logs)
        valid = self.quotient[left] >= 0
        if most is not None:
            valid &= self.values <= most
        return np.where(valid, far, np.inf).argmin(axis=1)

    def count(self, places: int) -> float:
        """How many ways there are to split the number over ``places`` (one or more)."""
        ways = np.ones(len(self.values))
        for _ in range(places - 1):
            ways = np.where(self.quotient >= 0, ways[self.quotient], 0.0).sum(axis=1)
        return float(ways[self.last])


def _closure(n: int, padding: float) -> Iterator[int]:
    """``n``, its factors, theirs, and so on (quotients are factors)."""
    seen, new = {n}, [n]
    while new:
        found = set(factors_of(new.pop(), padding)) - seen
        seen |= found
        new += found
    yield from seen
