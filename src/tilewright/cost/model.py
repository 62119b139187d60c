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
        self._trust = 1.0

    @property
    def ready(self) -> bool:
        """Whether it has learned anything."""
        return self._trees is not None or self._first is not None

    def pretrain(self, features: Sequence[np.ndarray], estimates: Sequence[np.ndarray]) -> None:
        """Learn the analytical estimate: for each task an array of features and the estimated seconds [n]."""
        rows, owner, target = _table(features, [1.0 / np.asarray(e) for e in estimates])
        self._first = self._grow(rows, owner, target, np.zeros(len(target)), self.training.first)
        self._trees = None

    def fit(
        self, features: Sequence[np.ndarray] | np.ndarray, throughput: Sequence[np.ndarray] | np.ndarray, tasks: np.ndarray | None = None
    ) -> None:
        """Learn measured throughputs (any unit), on top of what :meth:`pretrain` learned; nothing of an earlier ``fit`` is kept.

        Give one array of features and one of throughputs for each task; or single arrays of both, with
        ``tasks`` [n] saying which rows belong together (all, if None). Failed candidates have throughput 0.
        """
        if isinstance(features, np.ndarray):
            ids = np.zeros(len(features), np.int64) if tasks is None else np.asarray(tasks)
            groups = [np.flatnonzero(ids == t) for t in np.unique(ids)]
            features, throughput = [features[g] for g in groups], [np.asarray(throughput)[g] for g in groups]
        rows, owner, target = _table(features, list(throughput))
        margin = np.zeros(len(target))
        if self._first is not None:
            rows, first = self._with_first(rows, owner, len(target))
            # The estimate's order is trusted as far as it agrees with the measurements.
            square = np.average(first**2, weights=target)
            self._trust = float(np.clip(np.average(first * target, weights=target) / max(square, 1e-12), 0, 2))
            margin = first * self._trust
        self._trees = self._grow(rows, owner, target, margin, self.training.rounds)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Predicted throughput of each candidate relative to the best of its task: float64 [n].

        TilewrightError before anything was learned.
        """
        if not self.ready:
            raise TilewrightError("the model has not learned anything", hint="call pretrain or fit first")
        rows, owner = _statements(features)
        total = np.zeros(len(features))
        if self._first is not None:
            rows, first = self._with_first(rows, owner, len(features))
            total += first * (1.0 if self._trees is None else self._trust)
        if self._trees is not None:
            total += np.bincount(owner, self._trees.inplace_predict(rows), minlength=len(features))
        return total

    def _with_first(self, rows: np.ndarray, owner: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """``rows`` with what the first trees say as two more columns (of the statement, of the candidate), and the latter by candidate."""
        scores = self._first.inplace_predict(rows)
        total = np.bincount(owner, scores, minlength=n)
        return np.column_stack([rows, scores, total[owner]]).astype(np.float32), total

    def save(self, path: str | PathLike[str]) -> None:
        """Write the trees and how they were grown to one JSON file."""
        if not self.ready:
            raise TilewrightError("the model has not learned anything", hint="call pretrain or fit before save")
        stages = {"first": self._first, "trees": self._trees}
        data = {
            "features": VERSION,
            "training": asdict(self.training),
            "trust": self._trust,
            **{name: json.loads(bytes(b.save_raw("json"))) for name, b in stages.items() if b is not None},
        }
        Path(path).write_text(json.dumps(data))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> TreeModel:
        """The model that :meth:`save` wrote. TilewrightError when the file is not one, or its features have other meanings."""
        try:
            data = json.loads(Path(path).read_text())
            version, model = data["features"], cls(Training(**data["training"]))
            model._trust = float(data["trust"])
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

    def _grow(self, rows: np.ndarray, owner: np.ndarray, target: np.ndarray, margin: np.ndarray, rounds: int) -> Any:
        t = self.training
        parameters = {
            "max_depth": t.depth,
            "eta": t.rate,
            "subsample": t.subsample,
            "colsample_bytree": t.columns,
            "min_child_weight": t.min_weight,
            "tree_method": "hist",
            "base_score": 0.0,
            "nthread": 1,
            "seed": t.seed,
            "verbosity": 0,
        }
        return library().train(parameters, matrix(rows), rounds, obj=_weighted_squares(owner, target, margin))


def _statements(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of all statements, padding left out, and the candidate each belongs to."""
    rows = features.reshape(-1, features.shape[-1])
    real = np.flatnonzero(rows.any(axis=1))
    return np.ascontiguousarray(rows[real]), real // max(features.shape[1], 1)


def _table(features: Sequence[np.ndarray], throughput: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All tasks together: statement rows, the candidate each belongs to, and normalised throughputs."""
    parts = [_statements(f) for f in features]
    offsets = np.cumsum([0, *(len(f) for f in features)])
    target = np.concatenate([_normalised(t) for t in throughput])
    if not target.any():
        raise TilewrightError("nothing to learn from: no candidate has a throughput", hint="measure at least one that works")
    owner = np.concatenate([o + at for (_, o), at in zip(parts, offsets, strict=False)])
    return np.concatenate([r for r, _ in parts]), owner, target


def _normalised(throughput: np.ndarray) -> np.ndarray:
    """Throughput relative to the task's best."""
    t = np.asarray(throughput, np.float64)
    return t / t.max() if len(t) and t.max() > 0 else t


def _weighted_squares(owner: np.ndarray, target: np.ndarray, margin: np.ndarray) -> Any:
    """The objective: sum of y * (sum of scores - y)^2, failed candidates (y = 0) with a small weight.

    The second derivative counts the statements that move together, so that a step does not overshoot.
    """
    weight = np.maximum(target, 0.1)
    residual = target - margin
    together = np.bincount(owner, minlength=len(target))

    def objective(scores: np.ndarray, _: Any) -> tuple[np.ndarray, np.ndarray]:
        error = np.bincount(owner, scores, minlength=len(target)) - residual
        return (weight * error)[owner], (weight * together)[owner]

    return objective


def matrix(rows: np.ndarray, **columns: Any) -> Any:
    """``rows`` with ``columns`` (label, weight, base_margin) as xgboost takes them.

    One thread: there is little data, and threads that wait for each other cost several times more than they bring, above all on a
    busy machine.
    """
    return library().DMatrix(rows, nthread=1, **columns)


def library() -> ModuleType:
    """xgboost; TilewrightError when it is not installed."""
    try:
        import xgboost
    except ImportError as error:
        raise TilewrightError("the tree model needs xgboost, which is not installed", hint="pip install 'tilewright[tune]'") from error
    module: ModuleType = xgboost
    return module
