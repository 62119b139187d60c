"""Exhaustive search of small spaces: the oracle for the others."""

from __future__ import annotations

import numpy as np

from tilewright.tune.author import ENUMERABLE, History, SearchSpace
from tilewright.util.errors import TuneError


class ExhaustiveAuthor:
    """Every valid point, those with the best estimate first. TuneError for spaces of more than ``limit`` points."""

    def __init__(self, space: SearchSpace, seed: int = 0, limit: int = ENUMERABLE):
        if space.size > limit:
            raise TuneError(
                f"a space of {space.size:,} points cannot be searched exhaustively", hint="take another author, xgb for instance"
            )
        points = space.enumerate(limit)
        self._rest = points[np.argsort(space.estimate(points), kind="stable")]
        self._history = History()

    def propose(self, n: int) -> np.ndarray:
        """The next ``n`` points."""
        found = self._rest[:0]
        while len(found) < n and len(self._rest):
            wanted = n - len(found)
            found = np.concatenate([found, self._history.propose(self._rest[:wanted])])
            self._rest = self._rest[wanted:]
        return found

    def observe(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """Remember them, so that they are not proposed again."""
        self._history.observe(points, seconds)
