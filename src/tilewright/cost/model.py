"""A tree model of throughput: the sum of a score for each statement of a program.

Gradient-boosted trees see one statement at a time; a candidate's prediction is the sum over its
statements, so one model serves programs of any length. The loss is the squared error weighted by
throughput (the fast candidates are those to be told apart), on throughput divided by the best of
the task: y in (0, 1]. A model may first learn what the analytical estimate says of many candidates that
cost nothing to evaluate, and then go on learning from measurements.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tilewright.cost.columns import VERSION
from tilewright.util.errors import TilewrightError


@dataclass(frozen=True, slots=True)
class Training:
    """How trees are grown: ``first`` from the estimate, ``rounds`` from measurements, others as in xgboost."""

    first: int = 120
    rounds: int = 80
    depth: int = 6
    rate: float = 0.2
    subsample: float = 0.9
    columns: float = 0.7
    min_weight: float = 0.1
    seed: int = 0


class TreeModel:
    """Predicts normalised throughput (higher is better) from feature arrays [n, statements, columns].

    Rows that are all zero are padding and have no score.
    """

    def __init__(self, training: Training | None = None):
        self.training = training or Training()
        self._first: Any = None
        self._trees: Any = None

    @property
    def ready(self) -> bool:
        """Whether it has learned anything."""
        return self._trees is not None

    def pretrain(self, features: Sequence[np.ndarray], estimates: Sequence[np.ndarray]) -> None:
        """Learn the analytical estimate: for each task an array of features and the estimated seconds [n]."""
        throughput = [1.0 / np.asarray(e) for e in estimates]
        self._first = self._grow(features, throughput, None, self.training.first)
        self._trees = self._first

    def fit(
        self, features: Sequence[np.ndarray] | np.ndarray, throughput: Sequence[np.ndarray] | np.ndarray, tasks: np.ndarray | None = None
    ) -> None:
        """Learn measured throughputs (any unit), on top of what :meth:`pretrain` learned; nothing of an earlier ``fit`` is kept.

        Give one array of features and one of throughputs for each task; or single arrays of both, with
        ``tasks`` [n] saying which rows belong together (all, if None). Failed candidates have throughput 0.
        """
        if isinstance(features, np.ndarray):
            ids = np.zeros(len(features), np.int64) if tasks is None else np.asarray(tasks)
            rows = [np.flatnonzero(ids == t) for t in np.unique(ids)]
            features, throughput = [features[r] for r in rows], [np.asarray(throughput)[r] for r in rows]
        self._trees = self._grow(features, list(throughput), self._first, self.training.rounds)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Predicted throughput of each candidate relative to the best of its task: float64 [n].

        TilewrightError before anything was learned.
        """
        if self._trees is None:
            raise TilewrightError("the model has not learned anything", hint="call pretrain or fit first")
        rows, owner = _statements(features)
        return np.bincount(owner, self._trees.inplace_predict(rows), minlength=len(features)).astype(np.float64)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the trees and how they were grown to one JSON file."""
        if self._trees is None:
            raise TilewrightError("the model has not learned anything", hint="call pretrain or fit before save")
        stages = {"first": self._first, "trees": self._trees}
        data = {
            "features": VERSION,
            "training": asdict(self.training),
            **{name: json.loads(bytes(b.save_raw("json"))) for name, b in stages.items() if b is not None},
        }
        Path(path).write_text(json.dumps(data))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> TreeModel:
        """The model that :meth:`save` wrote. TilewrightError when the file is not one, or its features have other meanings."""
        try:
            data = json.loads(Path(path).read_text())
            version, model = data["features"], cls(Training(**data["training"]))
        except (ValueError, KeyError, TypeError) as error:
            raise TilewrightError(f"{path} is not a saved tree model: {error!r}") from error
        if version != VERSION:
            raise TilewrightError(
                f"{path} was trained on features of version {version}, these are of version {VERSION}", hint="train the model again"
            )
        xgb = library()

        def booster(name: str) -> Any:
            return None if name not in data else xgb.Booster(model_file=bytearray(json.dumps(data[name]), "utf8"))

        model._first, model._trees = booster("first"), booster("trees")
        return model

    def _grow(self, features: Sequence[np.ndarray], throughput: Sequence[np.ndarray], start: Any, rounds: int) -> Any:
        xgb = library()
        parts = [_statements(f) for f in features]
        offsets = np.cumsum([0, *(len(f) for f in features)])
        owner = np.concatenate([o + at for (_, o), at in zip(parts, offsets, strict=False)])
        target = np.concatenate([_normalised(t) for t in throughput])
        if len(target) == 0 or not target.any():
            raise TilewrightError("nothing to learn from: no candidate has a throughput", hint="measure at least one that works")
        data = xgb.DMatrix(np.concatenate([r for r, _ in parts]))
        t = self.training
        parameters = {
            "max_depth": t.depth,
            "eta": t.rate,
            "subsample": t.subsample,
            "colsample_bytree": t.columns,
            "min_child_weight": t.min_weight,
            "tree_method": "hist",
            "base_score": 0.0,
            "nthread": 1,  # small data: threads cost more than they bring
            "seed": t.seed,
            "verbosity": 0,
        }
        return xgb.train(parameters, data, rounds, obj=_weighted_squares(owner, target), xgb_model=start)


def _statements(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of all statements, padding left out, and the candidate each belongs to."""
    rows = features.reshape(-1, features.shape[-1])
    real = np.flatnonzero(rows.any(axis=1))
    return np.ascontiguousarray(rows[real]), real // max(features.shape[1], 1)


def _normalised(throughput: np.ndarray) -> np.ndarray:
    """Throughput relative to the task's best."""
    t = np.asarray(throughput, np.float64)
    return t / t.max() if len(t) and t.max() > 0 else t


def _weighted_squares(owner: np.ndarray, target: np.ndarray) -> Any:
    """The objective: sum of y * (sum of scores - y)^2, failed candidates (y = 0) with a small weight.

    The second derivative counts the statements that move together, so that a step does not overshoot.
    """
    weight = np.maximum(target, 0.05)
    together = np.bincount(owner, minlength=len(target))

    def objective(scores: np.ndarray, _: Any) -> tuple[np.ndarray, np.ndarray]:
        error = np.bincount(owner, scores, minlength=len(target)) - target
        return (weight * error)[owner], (weight * together)[owner]

    return objective


def library() -> ModuleType:
    """xgboost; TilewrightError when it is not installed."""
    try:
        import xgboost
    except ImportError as error:
        raise TilewrightError("the tree model needs xgboost, which is not installed", hint="pip install 'tilewright[tune]'") from error
    module: ModuleType = xgboost
    return module
