"""Random search: what every other author has to beat."""

from __future__ import annotations

import numpy as np

from tilewright.tune.author import History, SearchSpace, draw


class RandomAuthor:
    """Valid points, drawn independently, none twice."""

    def __init__(self, space: SearchSpace, seed: int = 0):
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._history = History()

    def propose(self, n: int) -> np.ndarray:
        """``n`` random points; fewer when the space is exhausted."""
        return self._history.propose(draw(self._space, self._history, n, self._rng))

    def observe(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """Remember them, so that they are not proposed again."""
        self._history.observe(points, seconds)
