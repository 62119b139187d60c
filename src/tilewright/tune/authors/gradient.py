"""Gradient search: the favourites of the estimate are found by descents, and measurements say by how much it is off for each sketch."""

from __future__ import annotations

import numpy as np

from tilewright.tune.authors.xgb import EXPLORE, SEEDS, ModelAuthor
from tilewright.tune.descents import Descents, DifferentiableSpace, Settings
from tilewright.tune.surrogate import SketchFactors
from tilewright.util.errors import TuneError


class GradientAuthor(ModelAuthor):
    """Chooses from what descents have found, as the other authors with a model do; each batch is preceded by a round of descents.

    TuneError for a space whose estimate has no gradients.
    """

    def __init__(self, space: DifferentiableSpace, seed: int = 0, *, explore: float = EXPLORE, settings: Settings | None = None):
        if not (callable(getattr(space, "relaxed", None)) and space.relaxed()):
            raise TuneError(
                f"the estimate of {type(space).__name__} has no gradients", hint="give it `relaxed` and `nearest`, or take another author"
            )
        super().__init__(space, SketchFactors(space, seed), seed, explore=explore)
        self._descents = Descents(space, self._rng, settings)
        self._due = True

    def propose(self, n: int) -> np.ndarray:
        """``n`` points, favourites first; random ones where descents have found no more."""
        self._due = True
        return super().propose(n)

    def _screened(self, n: int) -> np.ndarray:
        if self._due:
            self._descents.round(self._model.predict, self._history.best(SEEDS))
            self._due = False
        pool = self._history.new(self._descents.points)
        return pool[np.argsort(self._model.predict(pool), kind="stable")] if len(pool) else pool
