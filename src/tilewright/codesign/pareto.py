"""Points of which none is better in every respect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tilewright.codesign.evaluator import Evaluation

if TYPE_CHECKING:
    from tilewright.codesign.problem import Problem


def undominated(values: np.ndarray) -> np.ndarray:
    """Indices of rows of ``values`` [n, k] that no other row is as low as in all columns and lower in one; one of equal rows."""
    order = np.lexsort(values.T[::-1])
    kept: list[int] = []
    front = np.empty((0, values.shape[1]))
    for n in order:
        if not (front <= values[n]).all(axis=1).any():
            kept.append(int(n))
            front = np.vstack([front, values[n]])
    return np.array(kept, dtype=np.int64)


class Front:
    """The Pareto front of latency, energy and area (without an area model: the machine's parameters) of evaluated points."""

    def __init__(self) -> None:
        self.values = np.empty((0, 0))
        self.points: list[np.ndarray] = []

    def add(self, problem: Problem, points: np.ndarray, feasible: np.ndarray, e: Evaluation) -> None:
        """Offer feasible points."""
        model = problem.limits.area_model
        latency, energy = problem.totals(e.cycles, e.energy)
        size = [np.asarray(model(e.hardware), dtype=np.float64)] if model is not None else [e.hardware[k] for k in sorted(e.hardware)]
        values = np.column_stack([latency.sum(axis=1), energy.sum(axis=1), *size])[feasible]
        if not len(values):
            return
        points = points[feasible]
        if len(self.points):
            # Most points are dominated by what is known: they are told apart in one comparison of arrays.
            fresh = ~(self.values[None] <= values[:, None]).all(axis=2).any(axis=1)
            values, points = values[fresh], points[fresh]
            values, pool = np.vstack([self.values, values]), [*self.points, *points]
        else:
            pool = list(points)
        kept = undominated(values)
        self.values, self.points = values[kept], [pool[n].copy() for n in kept]
