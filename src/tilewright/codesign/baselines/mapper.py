"""A strong mapper for a machine that is given: random mappings, then mutations of the best, for all layers side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tilewright.codesign.evaluator import SLACK
from tilewright.codesign.problem import Problem, Run
from tilewright.util.errors import SpaceError

#: Mappings of a layer that are kept and mutated, and how many changes a mutation makes at most.
ELITES, MOVES = 24, 3
#: Part of the evaluations that are random.
RANDOM = 0.25
#: What an objective that does not count cycles (energy) still pays for them, so that ties are decided.
TIE = 1e-4


@dataclass(frozen=True, slots=True)
class Mapped:
    """A ``point`` [layers, width] with ``cycles`` and ``energy`` of each layer, and the objective's logarithm (infinite: no fit)."""

    point: np.ndarray
    cycles: np.ndarray
    energy: np.ndarray
    value: float


def map_layers(run: Run, hardware: Mapping[str, float], each: int, start: np.ndarray | None = None, mutate: bool = True) -> Mapped:
    """Mappings for ``hardware`` with ``each`` evaluations a layer, at most what the run has left.

    ``start`` [n, layers, width] are mappings to begin with. Without ``mutate`` all are random. The best mappings are chosen for the
    network: where energy and cycles pull apart, by what they are worth to its objective.
    """
    space, count = run.space, len(run.space.layers)
    each = int(min(each, run.points_left))
    first = max(1, int(each * (RANDOM if mutate else 1.0)))
    fresh = space.sample(first, run.rng)
    rows = fresh if start is None else np.concatenate([start, fresh])[:each]
    state = _Elites(run, hardware)
    state.offer(rows)
    spent = len(rows)
    while spent < each and not run.done:
        parents = state.rows[run.rng.integers(0, len(state.rows), min(4 * ELITES, each - spent)), :]
        m = len(parents)
        rows, layers = parents.reshape(m * count, -1), np.tile(np.arange(count), m)
        for move in range(MOVES):
            again = np.ones(len(rows), dtype=bool) if move == 0 else run.rng.random(len(rows)) < 0.4
            rows = np.where(again[:, None], space.moved(rows, layers, run.rng), rows)
        state.offer(rows.reshape(m, count, -1))
        spent += m
    return state.best()


class _Elites:
    """The best mappings of each layer so far: ``rows`` [n, layers, width], sorted by each layer's own objective."""

    def __init__(self, run: Run, hardware: Mapping[str, float]):
        self.run, self.problem, self.hardware = run, run.problem, {k: np.array([float(v)]) for k, v in hardware.items()}
        self.rows = np.empty((0, len(run.space.layers), run.space.width), dtype=np.int64)
        self.cycles = self.energy = self.value = np.empty((0, len(run.space.layers)))

    def offer(self, rows: np.ndarray) -> None:
        self.run.charge(rows.shape[0] * rows.shape[1])
        cycles, energy, fits = costs(self.problem, rows, self.hardware)
        a, b = (max(p, TIE) for p in self.problem.powers)
        value = np.where(fits, a * np.log(energy) + b * np.log(cycles), np.inf)
        rows = np.concatenate([self.rows, rows])
        cycles, energy, value = (np.concatenate(v) for v in ((self.cycles, cycles), (self.energy, energy), (self.value, value)))
        order = np.argsort(value, axis=0, kind="stable")[:ELITES]
        self.rows = np.take_along_axis(rows, order[..., None], axis=0)
        self.cycles, self.energy, self.value = (np.take_along_axis(v, order, axis=0) for v in (cycles, energy, value))

    def best(self) -> Mapped:
        """Of each layer the mapping that is best for the network, found along the tangent of its objective."""
        picked, layers = np.zeros(self.rows.shape[1], dtype=np.int64), np.arange(self.rows.shape[1])
        a, b = (max(p, TIE) for p in self.problem.powers)
        weights = self.problem.networks
        for _ in range(4):
            latency, total = self.problem.totals(self.cycles[picked, layers][None], self.energy[picked, layers][None])
            by_energy, by_cycles = (a * weights / total.T).sum(axis=0), (b * weights / latency.T).sum(axis=0)
            score = np.where(np.isfinite(self.value), by_energy * self.energy + by_cycles * self.cycles, np.inf)
            picked = score.argmin(axis=0)
        cycles, energy = self.cycles[picked, layers], self.energy[picked, layers]
        fits = np.isfinite(self.value[0]).all()
        value = float(self.problem.value(cycles[None], energy[None])[0]) if fits else np.inf
        return Mapped(self.rows[picked, layers], cycles, energy, value)


def costs(problem: Problem, points: np.ndarray, hardware: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cycles, energy and whether it fits, [n, layers] each, of mappings on one machine ([1] for each parameter)."""
    usage = problem.evaluator.usage(points)
    cycles, energy = problem.evaluator.cost(usage, hardware)
    fits = np.ones(cycles.shape, dtype=bool)
    for name, need in problem.evaluator.needs(usage, hardware).items():
        fits &= need <= hardware[name][0] * (1 + SLACK)
    return cycles, energy, fits


def elite_mutation(run: Run) -> None:
    """The mapper as a search on a fixed machine, until the budget is spent: rounds that start from what the last one found."""
    machine = run.problem.hardware
    if machine is None:
        raise SpaceError("the mapper needs a machine", hint="give the problem its hardware")
    count, start = len(run.space.layers), None
    while not run.done:
        found = map_layers(run, machine, int(min(max(run.points_left // 4, 64), 20_000, max(run.points_left - 1, 1))), start)
        if np.isfinite(found.value):
            run.evaluate(found.point[None])
            start = found.point[None]
        elif count > run.left:
            break
        else:  # with one mapping of each layer that fits, mutations get on
            start = run.space.outermost[None]
