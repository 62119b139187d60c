"""Trusting the analytical model: its favourites, one after the other."""

from __future__ import annotations

import numpy as np

from tilewright.tune.author import History, SearchSpace
from tilewright.tune.screening import screened


class AnalyticalAuthor:
    """The points the estimate finds fastest among many, best first; measurements change nothing."""

    def __init__(self, space: SearchSpace, seed: int = 0):
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._history = History()

    def propose(self, n: int) -> np.ndarray:
        """The ``n`` best by estimate that were not proposed yet."""
        return self._history.propose(screened(self._space, self._history, self._space.estimate, n, self._rng), n)

    def observe(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """Remember them, so that they are not proposed again."""
        self._history.observe(points, seconds)
