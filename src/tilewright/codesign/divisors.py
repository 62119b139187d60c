"""Divisors of a number as tables: rounding a population of reals to valid factors is a few gathers."""

from __future__ import annotations

from functools import cache

import numpy as np


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


class Divisors:
    """``values`` ascending, and for each pair of indices (number, divisor of it) the index of the ``quotient`` (-1: divides not)."""

    def __init__(self, n: int):
        self.values = np.array(self.of(n), dtype=np.int64)
        self.last = len(self.values) - 1
        whole, rest = np.divmod(self.values[:, None], self.values[None, :])
        self.quotient = np.where(rest == 0, np.searchsorted(self.values, whole), -1)
        self._logs = np.log(self.values)

    @staticmethod
    @cache
    def of(n: int) -> tuple[int, ...]:
        """All divisors, ascending."""
        out = [1]
        for p, power in prime_factors(n):
            out = [d * p**k for d in out for k in range(power + 1)]
        return tuple(sorted(out))

    def nearest(self, wanted: np.ndarray, left: np.ndarray, most: int | None = None) -> np.ndarray:
        """Index of the divisor of ``values[left]``, at most ``most``, nearest to ``wanted`` (>= 0) in ratio; arrays of one length."""
        far = np.abs(np.log(np.maximum(wanted, 1e-30))[:, None] - self._logs)
        valid = self.quotient[left] >= 0
        if most is not None:
            valid &= self.values <= most
        return np.where(valid, far, np.inf).argmin(axis=1)
