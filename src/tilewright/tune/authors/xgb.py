"""Model-assisted search with gradient-boosted trees (ALCOP, section 4.3).

The trees first learn the analytical estimate on many points that cost nothing to evaluate, then go
on learning from measurements. So the first batch already knows what the estimate knows, and later
ones what it got wrong.
"""

from __future__ import annotations

import numpy as np

from tilewright.tune.author import History, SearchSpace, draw
from tilewright.tune.novelty import MOST, promising
from tilewright.tune.screening import screened
from tilewright.tune.surrogate import Surrogate

#: How many of the best by the model are looked at when a batch is chosen.
SHORTLIST = 400


class XgbAuthor:
    """Of every ten points eight are those the model expects most of, and two are random (``explore`` of a batch).

    ``pretrain`` is the number of points whose estimate the model learns beforehand (0: none, and it never sees the estimate).
    """

    def __init__(self, space: SearchSpace, seed: int = 0, *, pretrain: int = 2048, explore: float = 0.2):
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._history = History()
        self._explore = explore
        self._model = Surrogate(space, seed, assisted=pretrain > 0)
        self._stale = False
        if pretrain:
            self._model.pretrain(space.sample(pretrain, self._rng))

    def propose(self, n: int) -> np.ndarray:
        """``n`` points: favourites first, then random ones. Random ones only as long as nothing was learned."""
        if self._stale:
            self._model.fit(*self._history.measured())
            self._stale = False
        favourites = n - int(self._explore * n) if self._model.ready else 0
        found = self._favourites(favourites) if favourites else self._space.sample(0, self._rng)
        random = draw(self._space, self._history, n - len(found), self._rng)
        return np.concatenate([found, self._history.propose(random)])

    def observe(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """Learn from them before the next proposal."""
        self._history.observe(points, seconds)
        self._stale = self._stale or bool(np.isfinite(seconds).any())

    def _favourites(self, n: int) -> np.ndarray:
        best = self._history.best(MOST)
        pool = screened(self._space, self._history, self._model.predict, n, self._rng, best[:32])[:SHORTLIST]
        if not len(pool):
            return pool
        scores, goal = self._model.predict(pool), self._model.best
        return self._history.propose(pool[promising(pool, scores, scores.min() if goal is None else goal, best, self._model.doubt, n)])


class PlainXgbAuthor(XgbAuthor):
    """Without the estimate: the first batch is random, and the model sees knobs only."""

    def __init__(self, space: SearchSpace, seed: int = 0, *, explore: float = 0.2):
        super().__init__(space, seed, pretrain=0, explore=explore)
