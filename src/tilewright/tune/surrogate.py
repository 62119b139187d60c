"""A learned stand-in for measuring: gradient-boosted trees from points to the logarithm of seconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.cost.model import library
from tilewright.tune.author import SearchSpace
from tilewright.tune.novelty import MOST, Doubt

#: Trees learned from the estimate, and added for the measurements.
FIRST_ROUNDS, ROUNDS = 100, 60
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

    ``assisted``: it sees the space's estimate. With :meth:`pretrain` the trees start from the estimate; :meth:`fit` puts trees for the
    measurements on top, always of all measurements, so the order of observation does not matter.
    ``doubt`` is how far the estimate (or a constant, without it) was off at measured points, ``best`` the least measured
    logarithm in the unit of the predictions (None: nothing was measured).
    """

    def __init__(self, space: SearchSpace, seed: int = 0, *, assisted: bool = True):
        self.doubt = Doubt(1.0, UNMEASURED**2, 0.0)
        self.best: float | None = None
        self._space = space
        self._assisted = assisted
        self._parameters: dict[str, Any] = {**PARAMETERS, "seed": seed, "verbosity": 0}
        self._first: Any = None
        self._trees: Any = None

    @property
    def ready(self) -> bool:
        """Whether it has learned anything."""
        return self._trees is not None

    def pretrain(self, points: np.ndarray) -> None:
        """Learn what the space's estimate says of ``points``."""
        xgb = library()
        labels = np.log(self._space.estimate(points))
        data = xgb.DMatrix(self._columns(points), label=labels - labels.mean())
        self._first = self._trees = xgb.train(self._parameters, data, FIRST_ROUNDS)

    def fit(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """Learn from measurements; nothing of earlier ones is kept. Fast points count more: that is where the choice is."""
        xgb = library()
        weights = seconds.min() / seconds
        data = xgb.DMatrix(self._columns(points), weight=weights)
        # The estimate may be off by any factor: only its differences between points are taken over.
        guess = self._first.predict(data) if self._first is not None else np.zeros(len(points))
        labels = np.log(seconds)
        labels -= np.average(labels - guess, weights=weights)
        self.best = float(labels.min())
        fast = np.argsort(seconds, kind="stable")[:MOST]
        errors = (labels - guess)[fast]
        self.doubt = Doubt.fitted(points[fast], errors - errors.mean(), self.doubt)
        data.set_label(labels)
        self._trees = xgb.train({**self._parameters, "base_score": 0.0}, data, ROUNDS, xgb_model=self._first)

    def predict(self, points: np.ndarray) -> np.ndarray:
        """Predicted logarithms of seconds, up to a constant."""
        return np.asarray(self._trees.predict(library().DMatrix(self._columns(points))), np.float64)

    def _columns(self, points: np.ndarray) -> np.ndarray:
        """What the trees see of a point: its knobs, and the estimate."""
        columns = np.column_stack([points, np.log(self._space.estimate(points))]) if self._assisted else points
        return columns.astype(np.float32)
