"""Mappings met so far, layer by layer, and the best choice among them for any machine.

Layers of a network share nothing but the machine. On a given machine the best network is therefore the best mapping of each layer
that fits; and because words moved do not depend on the machine, choosing needs no new count of words. So mappings that different
starts found for different layers are combined, and the machine is searched over what has been found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.codesign.evaluator import SLACK, Usage
from tilewright.codesign.problem import Problem

#: Mappings of a layer that are kept for a site.
_FEW = 4


@dataclass(frozen=True, slots=True)
class Site:
    """A point with its score, machine, and the latency and energy of the networks."""

    score: float
    point: np.ndarray
    machine: dict[str, float]
    latency: np.ndarray
    total: np.ndarray


class Pool:
    """Mappings of each layer with what they use. ``capacity``: about how many of a layer are kept, beside those of sites."""

    def __init__(self, problem: Problem, capacity: int = 600):
        self.problem, self.capacity = problem, capacity
        self.evaluator, self.space = problem.evaluator, problem.space
        count = len(self.space.layers)
        self.rows: list[np.ndarray] = [np.empty((0, self.space.width), dtype=np.int64)] * count
        self.usage: list[Usage | None] = [None] * count
        self._seen: list[set[bytes]] = [set() for _ in range(count)]

    def fresh(self, rows: np.ndarray, layers: np.ndarray) -> np.ndarray:
        """Which of ``rows`` [m, width] were never added to the pool: bool [m]. They count as seen from now on."""
        out = np.zeros(len(rows), dtype=bool)
        for n, (row, x) in enumerate(zip(np.ascontiguousarray(rows), layers, strict=True)):
            key = row.tobytes()
            if key not in self._seen[x]:
                self._seen[x].add(key)
                out[n] = True
        return out

    def add(self, rows: np.ndarray, layers: np.ndarray, usage: Usage) -> None:
        """Mappings with what they use (arrays [m])."""
        for x in np.unique(layers):
            own = np.flatnonzero(layers == x)
            part = usage.map(lambda v, own=own: v[own])  # type: ignore[misc]
            known = self.usage[x]
            self.rows[x] = np.concatenate([self.rows[x], rows[own]])
            self.usage[x] = part if known is None else known.joined(part)

    def prune(self, machines: Mapping[str, np.ndarray], latency: np.ndarray, total: np.ndarray, sites: Sequence[Site] = ()) -> None:
        """Where a layer has half as many again as the capacity, keep the best on ``machines`` and others, the newest, and the best few for
        each of ``sites``: what is forgotten there would have to be found anew."""
        at = {k: np.array([s.machine[k] for s in sites]) for k in machines}
        for x, rows in enumerate(self.rows):
            usage = self.usage[x]
            if usage is None or len(rows) <= self.capacity * 1.5:
                continue
            several = {k: np.concatenate([v * f for f in (0.25, 0.5, 1.0, 2.0)]) for k, v in machines.items()}
            n = len(next(iter(several.values())))
            scores = self._scores(x, several, np.broadcast_to(latency, (n, len(latency))), np.broadcast_to(total, (n, len(total))))[0]
            each = max(1, self.capacity // 2 // n)
            best = np.argpartition(scores, each - 1, axis=1)[:, :each].ravel()
            kept = np.union1d(best, np.arange(len(rows) - self.capacity // 2, len(rows)))
            if sites:
                own = self._scores(x, at, np.array([s.latency for s in sites]), np.array([s.total for s in sites]))[0]
                kept = np.union1d(kept, np.argpartition(own, _FEW - 1, axis=1)[:, :_FEW])
            self.rows[x], self.usage[x] = rows[kept], usage.map(lambda v, kept=kept: v[kept])  # type: ignore[misc]

    def _scores(
        self, x: int, machines: Mapping[str, np.ndarray], latency: np.ndarray, total: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[machines, mappings] of layer ``x``: its part in a change of the objective (infinite where it does not fit), cycles, energy."""
        usage = self.usage[x]
        assert usage is not None
        needs = self.evaluator.needs(usage, machines)
        at = {k: v[:, None] for k, v in machines.items()}
        cycles, energy = self.evaluator.costs(usage, at)
        weights, (a, b) = self.problem.networks[:, x], self.problem.powers
        by_energy, by_cycles = (a * weights / total).sum(axis=-1), (b * weights / latency).sum(axis=-1)
        fits = np.ones(cycles.shape, dtype=bool)
        for name, need in needs.items():
            fits &= need <= at[name] * (1 + SLACK)
        # Where only one of the two counts, the other decides between equals.
        score = np.maximum(by_energy, 1e-4 * (weights / total).sum(axis=-1))[:, None] * energy
        score = score + np.maximum(by_cycles, 1e-4 * (weights / latency).sum(axis=-1))[:, None] * cycles
        return np.where(fits, score, np.inf), cycles, energy

    def select(self, machines: Mapping[str, np.ndarray], latency: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The best points on ``machines`` ([h] for each parameter), of networks with about this ``latency`` and ``total`` energy.

        Gives the logarithm of the objective with penalties [h] (infinite where a layer has no mapping that fits), and indices of
        mappings [h, layers]. An objective of sums is followed along its tangent at ``latency`` and ``total`` [networks].
        """
        h, count = len(next(iter(machines.values()))), len(self.space.layers)
        latency, total = np.broadcast_to(latency, (h, len(latency))), np.broadcast_to(total, (h, len(total)))
        picked, rows = np.zeros((h, count), dtype=np.int64), np.arange(h)
        cycles, energy = np.empty((h, count)), np.empty((h, count))
        possible = np.ones(h, dtype=bool)
        for x in range(count):
            scores, c, e = self._scores(x, machines, latency, total)
            picked[:, x] = best = scores.argmin(axis=1)
            cycles[:, x], energy[:, x] = c[rows, best], e[rows, best]
            possible &= np.isfinite(scores[rows, best])
        value = self.problem.value(cycles, energy) + 1e3 * self.problem.excess(cycles, energy, machines)
        return np.where(possible, value, np.inf), picked

    def elite(self, machine: Mapping[str, float], latency: np.ndarray, total: np.ndarray, count: int) -> list[np.ndarray]:
        """The ``count`` best mappings of each layer on a machine, all of them where there are fewer."""
        one = {k: np.array([v]) for k, v in machine.items()}
        out = []
        for x, rows in enumerate(self.rows):
            scores = self._scores(x, one, latency[None], total[None])[0][0]
            out.append(rows[np.argsort(scores, kind="stable")[:count]])
        return out

    def points(self, picked: np.ndarray) -> np.ndarray:
        """Points [h, layers, width] of indices [h, layers]."""
        return np.stack([rows[picked[:, x]] for x, rows in enumerate(self.rows)], axis=1)
