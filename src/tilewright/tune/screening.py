"""Screening: a cheap model looks at thousands of points so that only the promising ones are measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tilewright.tune.author import History, SearchSpace

#: Random points to begin with, those that survive a generation, their children, and generations.
POPULATION, SURVIVORS, CHILDREN, GENERATIONS = 1024, 128, 1024, 3
#: Mutations of each seed.
VARIANTS = 8
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
        pool = np.concatenate([seeds, space.neighbours(np.repeat(seeds, VARIANTS, axis=0), rng), pool])
    pool, scores = _ranked(np.unique(pool, axis=0), score)
    keep = max(SURVIVORS, 2 * n)
    for _ in range(GENERATIONS - 1):
        mothers, fathers = (pool[:keep][rng.integers(min(keep, len(pool)), size=CHILDREN // 2)] for _ in range(2))
        children = np.concatenate([space.neighbours(mothers, rng), space.crossover(mothers, fathers, rng)])
        known = {p.tobytes() for p in pool}
        children = np.unique(children, axis=0)
        children, marks = _ranked(children[[p.tobytes() not in known for p in children]], score)
        pool, scores = np.concatenate([pool, children]), np.concatenate([scores, marks])
        order = np.argsort(scores, kind="stable")
        pool, scores = pool[order], scores[order]
    return history.new(pool)


def _ranked(points: np.ndarray, score: Score) -> tuple[np.ndarray, np.ndarray]:
    """The points and their scores, best first."""
    scores = score(points) if len(points) else np.empty(0)
    order = np.argsort(scores, kind="stable")
    return points[order], scores[order]
