"""Choosing a batch: good by the model, and not all alike.

A model's favourites differ in details it cannot tell apart, and its errors are the same for all of
them. So a point is credited with what the model does not know of it: nothing where a neighbour was
measured, its whole typical error far away from everything (the lower confidence bound of Bayesian
optimisation, with distance in place of a posterior variance).
"""

from __future__ import annotations

import numpy as np

#: How many typical errors a point is credited with far away from all others.
OPTIMISM = 6.0
#: Distance between points of different sketches, in addition to that of their knobs.
OTHER_SKETCH = 2.0


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How unlike points are: float [len(a), len(b)]. A knob counts one half if it differs, and one half for each factor of two."""
    steps = np.abs(np.log2(np.maximum(a[:, None, 1:], 1)) - np.log2(np.maximum(b[None, :, 1:], 1)))
    return 0.5 * (steps.sum(axis=-1) + (steps > 0).sum(axis=-1)) + OTHER_SKETCH * (a[:, None, 0] != b[None, :, 0])


def diverse(pool: np.ndarray, scores: np.ndarray, measured: np.ndarray, error: float, n: int) -> np.ndarray:
    """``n`` of ``pool`` (rows of it, in the order they were chosen) with low scores and far from ``measured`` and each other.

    ``scores`` are logarithms of seconds, ``error`` is the model's typical error in the same unit.
    """
    near = distances(pool, measured).min(axis=1) if len(measured) else np.full(len(pool), np.inf)
    left = scores.astype(np.float64)
    chosen: list[int] = []
    for _ in range(min(n, len(pool))):
        best = int(np.argmin(left - OPTIMISM * error * (1.0 - np.exp(-near))))
        chosen.append(best)
        left[best] = np.inf
        near = np.minimum(near, distances(pool, pool[best][None])[:, 0])
    return np.array(chosen, np.int64)
