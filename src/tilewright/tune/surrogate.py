"""Learned stand-ins for measuring: from points to the logarithm of seconds.

They have one interface. :class:`KnobTrees` see a point's knobs, and learn by how much the estimate was off.
:class:`StatementTrees` see the features of its statements, learn what the estimate says of many points beforehand, and go
on with measurements.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from tilewright.cost.model import Training, TreeModel, library, matrix
from tilewright.tune.author import History, SearchSpace
from tilewright.tune.novelty import MOST, Doubt
from tilewright.tune.screening import screened

#: Trees grown for the measurements.
ROUNDS = 60
PARAMETERS = {
    "max_depth": 5,
    "eta": 0.15,
    "subsample": 0.9,
    "colsample_bytree": 0.8,
    "min_child_weight": 1.0,
    "tree_method": "hist",
    "nthread": 1,
}
#: Typical error of the estimate's logarithm before anything was measured.
UNMEASURED = 0.1
#: Points whose estimate is learned before anything is measured: random ones, and as many of the estimate's favourites.
DRAWN = 1000
#: Throughput below which candidates of a :class:`StatementTrees` are not told apart, relative to the best.
LEAST = 1e-3


class Surrogate(ABC):
    """Predicts the logarithm of a point's seconds, up to a constant.

    ``assisted``: it knows what the space's estimate says. :meth:`fit` always learns from all measurements, so the order of
    observation does not matter.
    ``doubt`` is how far the estimate (or a constant, without it) was off at measured points, ``best`` the least measured
    logarithm in the unit of the predictions (None: nothing was measured).
    """

    def __init__(self, space: SearchSpace, *, assisted: bool = True):
        self.doubt = Doubt(1.0, UNMEASURED**2, 0.0)
        self.best: float | None = None
        self._space = space
        self._assisted = assisted

    @property
    def ready(self) -> bool:
        """Whether it knows anything: the estimate, or measurements."""
        return self._assisted or self.best is not None

    def fit(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """Learn from measurements; nothing of earlier ones is kept. Fast points count more: that is where the choice is."""
        throughput = seconds.min() / seconds
        # The estimate may be off by any factor: only its differences between points are taken over.
        guess, labels = self._guess(points), np.log(seconds)
        labels -= np.average(labels - guess, weights=throughput)
        self.best = float(labels.min())
        fast = np.argsort(seconds, kind="stable")[:MOST]
        errors = (labels - guess)[fast]
        self.doubt = Doubt.fitted(points[fast], errors - errors.mean(), self.doubt)
        self._learn(points, labels, throughput)

    @abstractmethod
    def predict(self, points: np.ndarray) -> np.ndarray:
        """Predicted logarithms of seconds, up to a constant."""

    @abstractmethod
    def _learn(self, points: np.ndarray, labels: np.ndarray, throughput: np.ndarray) -> None:
        """Grow trees for ``labels`` (logarithms in the unit of predictions); ``throughput`` is relative to the best."""

    def _guess(self, points: np.ndarray) -> np.ndarray:
        """What is known before anything was measured."""
        return np.log(self._space.estimate(points)) if self._assisted else np.zeros(len(points))


class KnobTrees(Surrogate):
    """Trees on knobs and estimate; predictions start from the estimate, and trees learn by how much it was off.

    A tree that had to learn the estimate itself would blur it where its favourites are told apart.
    """

    def __init__(self, space: SearchSpace, seed: int = 0, *, assisted: bool = True):
        super().__init__(space, assisted=assisted)
        self._parameters: dict[str, Any] = {**PARAMETERS, "seed": seed, "verbosity": 0}
        self._trees: Any = None

    def predict(self, points: np.ndarray) -> np.ndarray:
        guess = self._guess(points)
        if self._trees is None:
            return guess
        return np.asarray(self._trees.predict(matrix(self._columns(points), base_margin=guess)), np.float64)

    def _learn(self, points: np.ndarray, labels: np.ndarray, throughput: np.ndarray) -> None:
        data = matrix(self._columns(points), weight=throughput, label=labels, base_margin=self._guess(points))
        self._trees = library().train(self._parameters, data, ROUNDS)

    def _columns(self, points: np.ndarray) -> np.ndarray:
        """What the trees see of a point: its knobs, and the estimate."""
        columns = np.column_stack([points, np.log(self._space.estimate(points))]) if self._assisted else points
        return columns.astype(np.float32)


class SketchFactors(Surrogate):
    """The estimate times a factor for each sketch: the mean of its errors there, in logarithms, with one of 0 for what is unknown."""

    def __init__(self, space: SearchSpace, seed: int = 0):
        super().__init__(space)
        self._factors: dict[int, float] = {}

    def predict(self, points: np.ndarray) -> np.ndarray:
        return self._guess(points) + np.array([self._factors.get(int(s), 0.0) for s in points[:, 0]])

    def _learn(self, points: np.ndarray, labels: np.ndarray, throughput: np.ndarray) -> None:
        errors = throughput * (labels - self._guess(points))
        own = {int(s): points[:, 0] == s for s in np.unique(points[:, 0])}
        self._factors = {s: float(errors[rows].sum() / (1.0 + throughput[rows].sum())) for s, rows in own.items()}


class StatementTrees(Surrogate):
    """The tree model of :mod:`tilewright.cost.model`: throughput as a sum over statements, seen through their features.

    ``assisted``: it is pre-trained on the estimate of random points and of the estimate's favourites.
    """

    def __init__(self, space: SearchSpace, seed: int = 0, *, assisted: bool = True):
        super().__init__(space, assisted=assisted)
        self._model = TreeModel(Training(seed=seed))
        self._rng = np.random.default_rng(seed)
        self._fastest = 0.0  # logarithm of the seconds of a point whose relative throughput is 1

    def predict(self, points: np.ndarray) -> np.ndarray:
        self._pretrain()
        throughput = self._model.predict(self._space.features(points))
        return np.asarray(self._fastest - np.log(np.maximum(throughput, LEAST)))

    def _learn(self, points: np.ndarray, labels: np.ndarray, throughput: np.ndarray) -> None:
        self._pretrain()
        self._model.fit([self._space.features(points)], [throughput])
        self._fastest = float(labels.min())

    def _pretrain(self) -> None:
        """Learn the estimate, once."""
        if self._model.ready or not self._assisted:
            return
        favourites = screened(self._space, History(), self._space.estimate, DRAWN, self._rng)[:DRAWN]
        points = np.unique(np.concatenate([self._space.sample(DRAWN, self._rng), favourites]), axis=0)
        estimates = self._space.estimate(points)
        self._model.pretrain([self._space.features(points)], [estimates])
        self._fastest = float(np.log(estimates.min()))
