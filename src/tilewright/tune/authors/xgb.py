"""Model-assisted search with gradient-boosted trees (ALCOP, section 4.3).

The model knows the analytical estimate, which costs nothing to evaluate, and trees learn from measurements what it got
wrong. So the first batch already knows what the estimate knows. The authors differ in the model.
"""

from __future__ import annotations

import numpy as np

from tilewright.tune.author import History, SearchSpace, draw
from tilewright.tune.novelty import MOST, promising
from tilewright.tune.screening import screened
from tilewright.tune.surrogate import KnobTrees, StatementTrees, Surrogate

#: How many of the best by the model are looked at when a batch is chosen.
SHORTLIST = 400
#: Measured points that screening starts from.
SEEDS = 32
#: Share of a batch that looks elsewhere.
EXPLORE = 0.2


class ModelAuthor:
    """Of every ten points eight are those ``model`` expects most of; two look elsewhere (``explore`` of a batch).

    Elsewhere are the sketches nobody tried: an estimate compares points of one structure better than structures, so the favourite
    of each is measured once. When all were tried, or where nothing is known, it is random points.
    """

    def __init__(self, space: SearchSpace, model: Surrogate, seed: int = 0, *, explore: float = EXPLORE):
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._history = History()
        self._explore = explore
        self._model = model
        self._stale = False

    def propose(self, n: int) -> np.ndarray:
        """``n`` points, favourites first. Random ones only as long as nothing is known."""
        if self._stale:
            self._model.fit(*self._history.measured())
            self._stale = False
        found = self._space.sample(0, self._rng)
        if self._model.ready:
            probes = int(self._explore * n)
            found = self._favourites(n - probes)
            found = np.concatenate([found, self._untried(probes)])
        random = draw(self._space, self._history, n - len(found), self._rng)
        return np.concatenate([found, self._history.propose(random)])

    def observe(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """Learn from them before the next proposal."""
        self._history.observe(points, seconds)
        self._stale = self._stale or bool(np.isfinite(seconds).any())

    def _screened(self, n: int) -> np.ndarray:
        """New points, best first by the model."""
        return screened(self._space, self._history, self._model.predict, n, self._rng, self._history.best(SEEDS))

    def _untried(self, n: int) -> np.ndarray:
        """The favourite of each sketch nobody has tried, best first; at most ``n``."""
        pool = self._screened(n)
        pool = pool[~np.isin(pool[:, 0], self._history.sketches())]
        return self._history.propose(pool[np.sort(np.unique(pool[:, 0], return_index=True)[1])], n)

    def _favourites(self, n: int) -> np.ndarray:
        best = self._history.best(MOST)
        pool = self._screened(n)[:SHORTLIST]
        if not len(pool):
            return pool
        scores, goal = self._model.predict(pool), self._model.best
        return self._history.propose(pool[promising(pool, scores, scores.min() if goal is None else goal, best, self._model.doubt, n)])


class XgbAuthor(ModelAuthor):
    """Trees on knobs correct the estimate."""

    def __init__(self, space: SearchSpace, seed: int = 0, *, explore: float = EXPLORE):
        super().__init__(space, KnobTrees(space, seed), seed, explore=explore)


class PlainXgbAuthor(ModelAuthor):
    """Without the estimate: the first batch is random, and the trees see knobs only."""

    def __init__(self, space: SearchSpace, seed: int = 0, *, explore: float = EXPLORE):
        super().__init__(space, KnobTrees(space, seed, assisted=False), seed, explore=explore)


class FeatureXgbAuthor(ModelAuthor):
    """Trees on the features of statements, pre-trained on the estimate (not if ``assisted`` is False)."""

    def __init__(self, space: SearchSpace, seed: int = 0, *, assisted: bool = True, explore: float = EXPLORE):
        super().__init__(space, StatementTrees(space, seed, assisted=assisted), seed, explore=explore)
