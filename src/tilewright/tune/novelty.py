"""Choosing a batch: by expected improvement, so that its points are good by the model and not all alike.

A model's favourites differ in details it cannot tell apart, and its errors are the same for all of them. How far it may be off
at a point depends on what was measured nearby: the errors that the estimate made at measured points are taken for a Gaussian
process over the distance of points, whose length scale, size and noise are those under which the observed errors are most
likely. Where nothing is near, the doubt is as large as the errors were; beside a measured point it is
small, and every point that is chosen removes it around itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, pi, sqrt

import numpy as np

#: Distance between points of different sketches, in addition to that of their knobs.
OTHER_SKETCH = 2.0
#: Length scales that are looked at, and noise as a share of the variance: from knobs on their own to the whole space.
LENGTHS, NOISES = 0.5 * 2.0 ** np.arange(7), (0.001, 0.01, 0.1, 0.5)
#: Noise at least, as a share of the variance, for the sake of arithmetic.
SMALLEST = 1e-9
#: Errors at so many of the fastest points decide (the work grows with the third power).
MOST = 200
#: Fewer errors than this say nothing about distances.
FEWEST = 3


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How unlike points are: float [len(a), len(b)]. A knob counts one half if it differs, and one half for each factor of two."""
    steps = np.abs(np.log2(np.maximum(a[:, None, 1:], 1)) - np.log2(np.maximum(b[None, :, 1:], 1)))
    return 0.5 * (steps.sum(axis=-1) + (steps > 0).sum(axis=-1)) + OTHER_SKETCH * (a[:, None, 0] != b[None, :, 0])


@dataclass(frozen=True, slots=True)
class Doubt:
    """How far predictions may be off: errors at distance d have covariance ``variance * exp(-d / length)``, and ``noise`` variance each."""

    length: float
    variance: float
    noise: float

    @staticmethod
    def fitted(points: np.ndarray, errors: np.ndarray, before: Doubt) -> Doubt:
        """The most likely one given the ``errors`` (mean 0) at ``points``; ``before`` when they are too few to tell."""
        if len(points) < FEWEST or not np.any(errors):
            return before
        apart, n = distances(points, points), len(points)
        most, found = -np.inf, before
        for length in LENGTHS:
            for share in NOISES:
                root = np.linalg.cholesky(np.exp(-apart / length) + share * np.eye(n))
                variance = float(np.square(np.linalg.solve(root, errors)).mean())
                likelihood = -0.5 * n * np.log(variance) - np.log(np.diag(root)).sum()
                if likelihood > most:
                    most, found = likelihood, Doubt(float(length), variance, share * variance)
        return found

    def covariance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Of the errors at ``a`` with those at ``b``, before anything is known."""
        return np.asarray(self.variance * np.exp(-distances(a, b) / self.length))

    def left(self, pool: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """Covariance of the errors at ``pool`` when those at ``measured`` are known."""
        prior = self.covariance(pool, pool)
        if not len(measured):
            return prior
        across = self.covariance(measured, pool)
        # Points at no distance (a knob of 0 and of 1) make it singular where nothing is noise: an estimate that was right so far.
        noise = max(self.noise, SMALLEST * self.variance, SMALLEST**2)
        known = self.covariance(measured, measured) + noise * np.eye(len(measured))
        return np.asarray(prior - across.T @ np.linalg.solve(known, across))


def promising(pool: np.ndarray, scores: np.ndarray, best: float, measured: np.ndarray, doubt: Doubt, n: int) -> np.ndarray:
    """``n`` of ``pool`` (rows of it, in the order they were chosen) that are expected to improve most on ``best``.

    ``scores`` are predicted logarithms of seconds, ``best`` the least measured one. Each point that is chosen counts as measured for
    the next, with the result that was predicted.
    """
    cov = doubt.left(pool, measured)
    open_ = np.ones(len(pool), bool)
    chosen: list[int] = []
    for _ in range(min(n, len(pool))):
        gain = _log_improvement(best - scores, np.sqrt(np.maximum(np.diag(cov), 1e-18)))
        k = int(np.argmax(np.where(open_, gain, -np.inf)))
        chosen.append(k)
        open_[k] = False
        cov -= np.outer(cov[:, k], cov[k]) / max(cov[k, k] + doubt.noise, 1e-18)
    return np.array(chosen, np.int64)


def _log_improvement(margin: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Logarithm of the expected improvement by normal variables of mean ``margin``, also where it is too small for a float."""
    z = margin / deviation
    density = np.exp(-0.5 * z * z) / sqrt(2 * pi)
    tail = 0.5 * (1.0 + np.vectorize(erf, otypes=[np.float64])(z / sqrt(2)))
    near = deviation * np.maximum(z * tail + density, 1e-300)
    far = np.log(deviation) - 0.5 * z * z - 2 * np.log(np.maximum(-z, 1.0)) - 0.5 * np.log(2 * pi)
    return np.where(z > -6.0, np.log(near), far)
