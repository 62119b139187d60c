"""Sums of two quantised tensors as sums of their integers, where that gives the same numbers for every pair.

``round(a * (sa / sy) + b * (sb / sy))`` takes two multiplications. Where both scales are alike it is nearly ``round((a + b) * f)``,
which adds integers first, as accumulators do; but what is rounded on the way may fall on the other side of a half. Of small integers
there are few pairs, so all are computed.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tilewright.ir.types import DType


@lru_cache(maxsize=1024)
def common_factor(left: np.float32, right: np.float32, dtype: DType, result: DType) -> np.float32 | None:
    """The ``f`` with ``round((a + b) * f) == round(fma(a, left, b * right))``, in f32 and limited to the integers of ``result``, for all
    ``a`` and ``b`` of ``dtype``. None where neither scale does it, or there are too many pairs to try.
    """
    if dtype.bits > 8 or not 0 < left < 2 * right < 4 * left:
        return None
    a = np.arange(dtype.range[0], dtype.range[1] + 1, dtype=np.float64)[:, None]
    # f64 holds these products, and their sums with an f32, exactly: one rounding each, as a fused multiply-add does it.
    second = (a.T * np.float64(right)).astype(np.float32)
    wanted = _limited((a * np.float64(left) + second).astype(np.float32), result)
    total = (a + a.T).astype(np.float32)
    return next((f for f in dict.fromkeys((left, right)) if np.array_equal(_limited(total * f, result), wanted)), None)


def _limited(values: NDArray[np.float32], dtype: DType) -> NDArray[np.float32]:
    lo, hi = dtype.range
    return np.clip(np.rint(values), np.float32(lo), np.float32(hi))
