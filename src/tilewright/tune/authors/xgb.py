"""Model-assisted search with gradient-boosted trees (ALCOP, section 4.3).

The trees first learn the analytical estimate on many points that cost nothing to evaluate, then go
on learning from measurements. So the first batch already knows what the estimate knows, and later
ones what it got wrong.
"""

from __future__ import annotations

import numpy as np

from tilewright.tune.author import History, SearchSpace, draw
from tilewright.tune.screening import screened
from tilewright.tune.surrogate import Surrogate


class XgbAuthor:
    """Of every ten points eight are the model's favourites and two are random (``explore`` of a batch).

    ``pretrain`` is the number of points whose estimate the model learns beforehand (0: none).
    """

    def __init__(self, space: SearchSpace, seed: int = 0, *, pretrain: int = 2048, explore: float = 0.2):
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._history = History()
        self._explore = explore
        self._model = Surrogate(space, seed)
        self._stale = False
        if pretrain:
            self._model.pretrain(space.sample(pretrain, self._rng))

    def propose(self, n: int) -> np.ndarray:
        """``n`` points: favourites first, then random ones. Random ones only as long as nothing was learned."""
        if self._stale:
            self._model.fit(*self._history.measured())
            self._stale = False
        chance = n if not self._model.ready else int(self._explore * n)
        best = self._history.best(32)
        found = self._space.sample(0, self._rng)
        if n > chance:
            ranked = screened(self._space, self._history, self._model.predict, n - chance, self._rng, best)
            found = self._history.propose(ranked, n - chance)
        random = draw(self._space, self._history, n - len(found), self._rng)
        return np.concatenate([found, self._history.propose(random)])

    def observe(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """Learn from them before the next proposal."""
        self._history.observe(points, seconds)
        self._stale = self._stale or bool(np.isfinite(seconds).any())


class PlainXgbAuthor(XgbAuthor):
    """Without pre-training: the first batch is random."""

    def __init__(self, space: SearchSpace, seed: int = 0, *, explore: float = 0.2):
        super().__init__(space, seed, pretrain=0, explore=explore)
