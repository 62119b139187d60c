"""A learned stand-in for measuring: gradient-boosted trees from points to the logarithm of seconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.cost.model import library
from tilewright.tune.author import SearchSpace
from tilewright.tune.novelty import MOST, Doubt

#: Trees grown for the measurements.
ROUNDS = 60
PARAMETERS = {
    "max_depth": 5,
    "eta": 0.15,
    "subsample": 0.9,
    "colsample_bytree": 0.8,
    "min_child_weight": 1.0,
    "tree_method": "hist",
    "nthread": 1,  # small data: threads cost more than they bring
}


#: Typical error of the estimate's logarithm before anything was measured.
UNMEASURED = 0.1


class Surrogate:
    """Predicts the logarithm of a point's seconds, up to a constant.

    ``assisted``: predictions start from the space's estimate, and trees learn by how much it was off. A tree that had to learn the
    estimate itself would blur it where its favourites are told apart. :meth:`fit` always learns from all measurements, so the
    order of observation does not matter.
    ``doubt`` is how far the estimate (or a constant, without it) was off at measured points, ``best`` the least measured
    logarithm in the unit of the predictions (None: nothing was measured).
    """

    def __init__(self, space: SearchSpace, seed: int = 0, *, assisted: bool = True):
        self.doubt = Doubt(1.0, UNMEASURED**2, 0.0)
        self.best: float | None = None
        self._space = space
        self._assisted = assisted
        self._parameters: dict[str, Any] = {**PARAMETERS, "seed": seed, "verbosity": 0}
        self._trees: Any = None

    @property
    def ready(self) -> bool:
        """Whether it knows anything: the estimate, or measurements."""
        return self._assisted or self._trees is not None

    def fit(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """Learn from measurements; nothing of earlier ones is kept. Fast points count more: that is where the choice is."""
        xgb = library()
        weights = seconds.min() / seconds
        # The estimate may be off by any factor: only its differences between points are taken over.
        guess, labels = self._guess(points), np.log(seconds)
        labels -= np.average(labels - guess, weights=weights)
        self.best = float(labels.min())
        fast = np.argsort(seconds, kind="stable")[:MOST]
        errors = (labels - guess)[fast]
        self.doubt = Doubt.fitted(points[fast], errors - errors.mean(), self.doubt)
        data = xgb.DMatrix(self._columns(points), weight=weights, label=labels, base_margin=guess)
        self._trees = xgb.train(self._parameters, data, ROUNDS)

    def predict(self, points: np.ndarray) -> np.ndarray:
        """Predicted logarithms of seconds, up to a constant."""
        guess = self._guess(points)
        if self._trees is None:
            return guess
        return np.asarray(self._trees.predict(library().DMatrix(self._columns(points), base_margin=guess)), np.float64)

    def _guess(self, points: np.ndarray) -> np.ndarray:
        """What is known before anything was measured."""
        return np.log(self._space.estimate(points)) if self._assisted else np.zeros(len(points))

    def _columns(self, points: np.ndarray) -> np.ndarray:
        """What the trees see of a point: its knobs, and the estimate."""
        columns = np.column_stack([points, np.log(self._space.estimate(points))]) if self._assisted else points
        return columns.astype(np.float32)
