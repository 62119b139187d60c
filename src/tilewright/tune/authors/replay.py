"""Trying again what is known to be good: points from records, of this task or of the same program on other shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.tune.author import History, SearchSpace
from tilewright.util.errors import TuneError


class ReplayAuthor:
    """The given ``points``, in their order, and nothing else."""

    def __init__(self, space: SearchSpace, seed: int = 0, points: Sequence[np.ndarray] = ()):
        if not len(points):
            raise TuneError(
                "there is nothing to replay: no record of this program, on these or other shapes, has a point of this space",
                hint="give the records of an earlier session, or take another author",
            )
        self._rest = np.array(points, np.int64)
        self._history = History()

    def propose(self, n: int) -> np.ndarray:
        """The next ``n`` points."""
        found = self._history.propose(self._rest, n)
        self._rest = self._history.new(self._rest)
        return found

    def observe(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """Remember them, so that they are not proposed again."""
        self._history.observe(points, seconds)
