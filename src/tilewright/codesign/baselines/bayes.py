"""Bayesian optimisation of the machine, the mapper inside: a Gaussian process of our own, and optuna's tree-structured Parzen estimator."""

from __future__ import annotations

import math

import numpy as np

from tilewright.codesign.baselines.loops import Machines, attempt, each_of
from tilewright.codesign.problem import Run
from tilewright.util.errors import SpaceError

#: Random machines before the model is asked.
FIRST = 8
#: Length scales (parts of a ladder) and noise of the process, of which the most likely are taken.
SCALES, NOISES = (0.1, 0.2, 0.4, 0.8), (1e-3, 1e-2, 1e-1)


def gaussian_process(run: Run) -> None:
    """The machine with the largest expected improvement on the logarithm of the objective, over all machines of the ladders.

    Kernel: Matern 5/2 over places on the ladders; its scale and noise are the most likely of a few.
    """
    every, each = Machines(run.problem), each_of(run)
    allowed = every.every()
    places = allowed / np.maximum(every.sizes - 1, 1)
    seen: list[int] = []
    values: list[float] = []
    while not run.done and len(allowed):
        good = np.isfinite(values)
        if len(seen) < FIRST or good.sum() < 2 or len(set(seen)) == len(allowed):
            n = int(run.rng.integers(len(allowed)))
        else:
            y = np.array(values)
            y = np.where(good, y, y[good].max())  # what does not fit is as bad as the worst
            gain = _improvement(places[seen], y, places)
            gain[seen] = -np.inf
            n = int(gain.argmax())
        value, _ = attempt(run, every.at(allowed[n]), each)
        seen.append(n)
        values.append(value)


def _improvement(x: np.ndarray, y: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Expected improvement (minimising) at ``candidates``."""
    mean, spread = y.mean(), y.std() or 1.0
    target = (y - mean) / spread
    best: tuple[float, np.ndarray, float, float] | None = None
    for scale in SCALES:
        kernel = _matern(x, x, scale)
        for noise in NOISES:
            chol = np.linalg.cholesky(kernel + noise * np.eye(len(x)))
            weights = np.linalg.solve(chol, target)
            likelihood = -0.5 * weights @ weights - np.log(np.diag(chol)).sum()
            if best is None or likelihood > best[0]:
                best = likelihood, chol, scale, noise
    assert best is not None
    _, chol, scale, _ = best
    cross = np.linalg.solve(chol, _matern(x, candidates, scale))
    mu = cross.T @ np.linalg.solve(chol, target)
    sigma = np.sqrt(np.maximum(1.0 - (cross**2).sum(axis=0), 1e-12))
    z = (target.min() - mu) / sigma
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.asarray(sigma * (z * _normal(z) + density))


def _matern(a: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    r = np.sqrt(5) * np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2)) / scale
    return np.asarray((1 + r + r**2 / 3) * np.exp(-r))


def _normal(z: np.ndarray) -> np.ndarray:
    """Cumulative normal distribution."""
    return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in z])


def tree_parzen(run: Run) -> None:
    """Optuna's TPE over places on the ladders. SpaceError when optuna is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise SpaceError("the method tpe needs optuna", hint="pip install 'tilewright[codesign]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    every, each = Machines(run.problem), each_of(run)
    sampler = optuna.samplers.TPESampler(seed=int(run.rng.integers(2**31)), n_startup_trials=FIRST, multivariate=True)
    study = optuna.create_study(sampler=sampler)
    worst, refused = 0.0, 0
    while not run.done and refused < 1000:
        trial = study.ask()
        index = np.array([trial.suggest_int(k, 0, int(n) - 1) for k, n in zip(every.ladders, every.sizes, strict=True)])
        if not every.allowed(index[None])[0]:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            refused += 1
            continue
        value, _ = attempt(run, every.at(index), each)
        worst = max(worst, value) if np.isfinite(value) else worst
        study.tell(trial, value if np.isfinite(value) else worst + 10.0)
        refused = 0
