"""Sums of two quantised tensors as sums of integers, where that gives the same numbers for every pair.

``round(a * (sa / sy) + b * (sb / sy))`` takes two multiplications. Accumulators add integers first, each perhaps several times or
scaled and rounded as it is loaded, and scale the sum: nearly the same where the scales are alike, small multiples of each other, or one is
that of the result; but what is rounded on the way may fall on the other side of a half. Of small integers there are few pairs, so all
are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tilewright.ir.types import DType

#: How often the operands are added, the fewest loads first.
TIMES = ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1))


@dataclass(frozen=True, slots=True)
class Term:
    """An operand in a sum: scaled in f32, rounded and limited to its own integers (not where ``scale`` is 1), then added ``times``."""

    times: int = 1
    scale: float = 1.0

    def of(self, values: NDArray[np.float64], dtype: DType) -> NDArray[np.float64]:
        """Its part of the sum."""
        scaled = _limited(values.astype(np.float32) * np.float32(self.scale), dtype) if self.scale != 1 else values
        return self.times * scaled.astype(np.float64)


@dataclass(frozen=True, slots=True)
class IntegerSum:
    """``round((left + right) * factor)``, limited to the integers of the result."""

    left: Term
    right: Term
    factor: float


@lru_cache(maxsize=1024)
def integer_sum(left: np.float32, right: np.float32, dtype: DType, result: DType) -> IntegerSum | None:
    """A sum of integers that equals ``round(fma(a, left, b * right))``, in f32 and limited to the integers of ``result``, for all
    ``a`` and ``b`` of ``dtype``. None where none that is tried does, or there are too many pairs to try.
    """
    if dtype.bits > 8 or left <= 0 or right <= 0:
        return None
    a = np.arange(dtype.range[0], dtype.range[1] + 1, dtype=np.float64)[:, None]
    # f64 holds these products, and their sums with an f32, exactly: one rounding each, as a fused multiply-add does it.
    second = (a.T * np.float64(right)).astype(np.float32)
    wanted = _limited((a * np.float64(left) + second).astype(np.float32), result)

    def equal(s: IntegerSum) -> bool:
        total = (s.left.of(a, dtype) + s.right.of(a.T, dtype)).astype(np.float32)
        return np.array_equal(_limited(total * np.float32(s.factor), result), wanted)

    return next((s for s in _tried(left, right) if equal(s)), None)


def _tried(left: np.float32, right: np.float32) -> Iterator[IntegerSum]:
    for p, q in TIMES:
        if p == q or abs(left * q - right * p) * 256 < left * q:  # else the largest integers are apart by a step
            for factor in dict.fromkeys((left / np.float32(p), right / np.float32(q))):
                yield IntegerSum(Term(p), Term(q), float(factor))
    yield IntegerSum(Term(scale=float(left)), Term(scale=float(right)), 1.0)


def _limited(values: NDArray[np.float32], dtype: DType) -> NDArray[np.float32]:
    lo, hi = dtype.range
    return np.clip(np.rint(values), np.float32(lo), np.float32(hi))
