"""Simulated annealing: walks that accept a step back now and then, and less and less."""

from __future__ import annotations

from math import exp, log

import numpy as np

from tilewright.tune.author import History, SearchSpace, draw


class AnnealingAuthor:
    """Several chains, one step of each in turn.

    A chain moves to a neighbour that is slower by the factor r with probability r^(-1/T). The
    temperature T falls by ``cooling`` with every trial observed, from ``start``.
    """

    def __init__(self, space: SearchSpace, seed: int = 0, *, chains: int = 8, start: float = 0.5, cooling: float = 0.98):
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._history = History()
        self._chains: list[tuple[np.ndarray, float]] = []
        self._pending: dict[bytes, int] = {}  # proposed point -> the chain whose step it is
        self._width = chains
        self._temperature = start
        self._cooling = cooling
        self._turn = 0

    def propose(self, n: int) -> np.ndarray:
        """One step of the next ``n`` chains; the starting points first."""
        if len(self._chains) < self._width:
            return self._history.propose(draw(self._space, self._history, min(n, self._width - len(self._chains)), self._rng))
        found = [p for _ in range(n) if len(p := self._step())]
        return np.concatenate(found) if found else self._space.sample(0, self._rng)

    def observe(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """Chains accept or refuse their steps; points nobody asked for may start a chain."""
        self._history.observe(points, seconds)
        for p, s in zip(points, seconds, strict=True):
            chain = self._pending.pop(p.tobytes(), None)
            if chain is None:
                if np.isfinite(s) and len(self._chains) < self._width:
                    self._chains.append((p, float(s)))
            elif np.isfinite(s) and self._accepts(self._chains[chain][1], float(s)):
                self._chains[chain] = (p, float(s))
            self._temperature *= self._cooling

    def _accepts(self, now: float, then: float) -> bool:
        return then <= now or self._rng.random() < exp(-log(then / now) / max(self._temperature, 1e-9))

    def _step(self) -> np.ndarray:
        """A new neighbour of the next chain's point; a random point when all that were looked at are known."""
        chain = self._turn % len(self._chains)
        self._turn += 1
        around = self._chains[chain][0][None].repeat(32, axis=0)
        found = self._history.propose(self._space.neighbours(around, self._rng), 1)
        if not len(found):
            found = self._history.propose(draw(self._space, self._history, 1, self._rng))
        if len(found):
            self._pending[found[0].tobytes()] = chain
        return found
