"""A genetic algorithm over whole points: layers cross over, mappings mutate, the machine follows from them."""

from __future__ import annotations

import numpy as np

from tilewright.codesign.problem import Run

POPULATION, TOURNAMENT, ELITES = 100, 3, 4
#: Mean number of changes to a child.
CHANGES = 3.0


def genetic(run: Run) -> None:
    """Tournament selection, uniform crossover by layers, mutation, a few elites; all scores on the smallest machine."""
    space, rng = run.space, run.rng
    size = int(max(min(POPULATION, run.points_left // 4), 2))
    points = space.sample(size, rng)
    scores = run.evaluate(points)
    while not run.done:
        parents = points[_tournament(scores, 2 * size, rng)]
        cross = rng.random((size, len(space.layers))) < 0.5
        children = np.where(cross[..., None], parents[:size], parents[size:])
        moves = rng.poisson(CHANGES, size) + 1
        for n in range(int(moves.max())):
            due = moves > n
            children[due] = space.mutate(children[due], rng)
        found = run.evaluate(children)
        keep = np.argsort(scores, kind="stable")[:ELITES]
        points, scores = np.concatenate([points[keep], children]), np.concatenate([scores[keep], found])
        best = np.argsort(scores, kind="stable")[:size]
        points, scores = points[best], scores[best]


def _tournament(scores: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    drawn = rng.integers(0, len(scores), (n, TOURNAMENT))
    return np.asarray(drawn[np.arange(n), scores[drawn].argmin(axis=1)])
