"""Evolutionary search: children of the fastest points, screened by the analytical estimate."""

from __future__ import annotations

import numpy as np

from tilewright.tune.author import History, SearchSpace, draw
from tilewright.tune.screening import Score

#: Children made for each that is measured.
BROOD = 32


class EvolutionaryAuthor:
    """Parents are the fastest points measured so far; of their many children those with the best ``score`` are tried.

    Each child is a mutation of one parent or a crossover of two. With probability ``epsilon`` a
    place in the batch goes to a child taken at random: the score may be wrong. ``score`` is the
    space's estimate unless given.
    """

    def __init__(self, space: SearchSpace, seed: int = 0, *, population: int = 24, epsilon: float = 0.2, score: Score | None = None):
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._history = History()
        self._population = population
        self._epsilon = epsilon
        self._score = score or space.estimate

    def propose(self, n: int) -> np.ndarray:
        """``n`` children of the population; random points as long as there is none, and where children are no news."""
        parents = self._history.best(self._population)
        if len(parents) < 2:
            return self._history.propose(draw(self._space, self._history, n, self._rng))
        children = self._history.new(self._children(parents, BROOD * n))
        children = children[np.argsort(self._score(children), kind="stable")] if len(children) else children
        chosen = [] if not len(children) else self._choose(len(children), n)
        found = self._history.propose(children[chosen]) if chosen else self._space.sample(0, self._rng)
        if len(found) < n:
            found = np.concatenate([found, self._history.propose(draw(self._space, self._history, n - len(found), self._rng))])
        return found

    def observe(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """They may become parents."""
        self._history.observe(points, seconds)

    def _children(self, parents: np.ndarray, count: int) -> np.ndarray:
        """Half mutations, half crossovers; faster parents have more of them."""
        weights = 1.0 / (1.0 + np.arange(len(parents)))
        mothers, fathers = (parents[self._rng.choice(len(parents), count // 2, p=weights / weights.sum())] for _ in range(2))
        children = [self._space.neighbours(mothers, self._rng), self._space.crossover(mothers, fathers, self._rng)]
        return np.concatenate(children)

    def _choose(self, count: int, n: int) -> list[int]:
        """Places among ``count`` children in order of their score: the best, but for those left to chance."""
        rest = list(range(count))
        chosen: list[int] = []
        while rest and len(chosen) < n:
            chosen.append(rest.pop(int(self._rng.integers(len(rest))) if self._rng.random() < self._epsilon else 0))
        return chosen
