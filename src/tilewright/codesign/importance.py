"""Which layers get the next steps: those that matter and still improve (thesis section 6.5, equations 6.7 to 6.9).

Each layer has had t units of effort and its part of the objective is g(t). The gain of one more unit is estimated from the last
one and from an optimistic forecast: that g falls as g / t (the printed sign of 6.8 makes it grow), or reaches what similar layers
reach for their arithmetic.
"""

from __future__ import annotations

import numpy as np

#: Weight of the past against the forecast; of what similar layers reach.
ALPHA, BETA = 0.2, 2.0


class Importance:
    """Effort and progress of layers. ``operations`` [layers] of all their runs; ``similar`` [layers]: layers with one number are alike."""

    def __init__(self, operations: np.ndarray, similar: np.ndarray):
        self.operations = np.asarray(operations, dtype=np.float64)
        self.alike = similar[:, None] == similar
        self.effort = np.zeros(len(operations))
        self._before = np.full(len(operations), np.nan)
        self._now = np.full(len(operations), np.nan)

    def record(self, cost: np.ndarray, active: np.ndarray) -> None:
        """One unit of effort went into the layers ``active`` (indices); ``cost`` [layers] is each one's best part of the objective."""
        self.effort[active] += 1
        self._before[active] = self._now[active]
        self._now = np.where(np.isnan(self._now), cost, np.minimum(self._now, cost))

    def gains(self) -> np.ndarray:
        """How much one more unit of effort would lower the objective [layers]; infinite for layers that had less than two."""
        now, before = self._now, self._before
        with np.errstate(over="ignore"):  # nothing is as good as a part that is 0
            reached = self.operations / np.maximum(now, 1e-300)
        by_similar = BETA * self.operations / np.where(self.alike, reached, 0).max(axis=1)
        forecast = np.minimum(now - now / np.maximum(self.effort, 1), by_similar)
        gain = ALPHA * (before - now) + (1 - ALPHA) * (now - forecast)
        return np.where(self.effort < 2, np.inf, np.abs(gain))

    def choose(self, share: float) -> np.ndarray:
        """Indices of the ``share`` of layers with the largest gains, one at least, ascending."""
        gains = self.gains()
        fresh = int(np.isinf(gains).sum())
        count = max(1, fresh, round(share * len(gains)))
        return np.sort(np.argsort(-gains, kind="stable")[:count])
