"""Screening: a cheap model looks at thousands of points so that only the promising ones are measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tilewright.tune.author import History, SearchSpace

#: Points scored at once, the best kept in each generation, and generations of mutation and crossover.
POPULATION, SURVIVORS, GENERATIONS = 2048, 256, 4
#: A space this small is scored completely.
COMPLETE = 20_000

#: Points to a figure of merit for each, smaller is better.
Score = Callable[[np.ndarray], np.ndarray]


def screened(
    space: SearchSpace, history: History, score: Score, n: int, rng: np.random.Generator, seeds: np.ndarray | None = None
) -> np.ndarray:
    """At least ``n`` new points with good scores (if there are so many), best first.

    Small spaces are scored completely. In larger ones a random population evolves, together with
    ``seeds`` (measured points, say), for a few generations.
    """
    if space.size <= COMPLETE:
        points = history.new(space.enumerate(COMPLETE))
        return points[np.argsort(score(points), kind="stable")] if len(points) else points
    pool = space.sample(POPULATION, rng)
    if seeds is not None and len(seeds):
        pool = np.concatenate([seeds, space.neighbours(np.repeat(seeds, 16, axis=0), rng), pool])
    keep = max(SURVIVORS, 2 * n)
    for generation in range(GENERATIONS):
        pool = np.unique(pool, axis=0)
        pool = pool[np.argsort(score(pool), kind="stable")]
        if generation + 1 < GENERATIONS:
            parents = pool[:keep]
            mothers, fathers = (parents[rng.integers(len(parents), size=POPULATION // 2)] for _ in range(2))
            pool = np.concatenate([parents, space.neighbours(mothers, rng), space.crossover(mothers, fathers, rng)])
    return history.new(pool)
