"""Two loops: machines outside, mappings for each of them inside. Random machines and mappings; or evolved ones."""

from __future__ import annotations

import numpy as np

from tilewright.codesign.baselines.mapper import Mapped, map_layers
from tilewright.codesign.exact import grid_of
from tilewright.codesign.problem import Problem, Run

#: Machines a search looks at, if its budget is one of evaluations; evaluations of a layer on one of them otherwise, and at least.
MACHINES, EACH, LEAST = 60, 200, 16


class Machines:
    """The machines of the outer loop: ``ladders`` of values for each parameter, within the limits."""

    def __init__(self, problem: Problem):
        if problem.hardware is not None:
            self.ladders = {k: np.array([float(v)]) for k, v in problem.hardware.items()}
        else:
            self.ladders = {k: np.unique(v) for k, v in grid_of(problem).items()}
        self.problem = problem
        self.sizes = np.array([len(v) for v in self.ladders.values()])

    def at(self, index: np.ndarray) -> dict[str, float]:
        """The machine of one index for each parameter."""
        return {k: float(v[n]) for (k, v), n in zip(self.ladders.items(), index, strict=True)}

    def allowed(self, indices: np.ndarray) -> np.ndarray:
        """Which machines [n, parameters] are within the limits: bool [n]."""
        columns = {k: v[n] for (k, v), n in zip(self.ladders.items(), indices.T, strict=True)}
        return np.asarray(self.problem.oversize(columns) <= 1e-12)

    def every(self) -> np.ndarray:
        """All machines within the limits, [n, parameters]."""
        found = np.stack(np.meshgrid(*(np.arange(n) for n in self.sizes), indexing="ij"), axis=-1).reshape(-1, len(self.sizes))
        return found[self.allowed(found)]


def each_of(run: Run) -> int:
    """Evaluations of one layer on one machine."""
    total = run.budget.evaluations
    return EACH if total is None else max(LEAST, total // (MACHINES * len(run.space.layers)))


def attempt(run: Run, machine: dict[str, float], each: int, mutate: bool = True) -> tuple[float, Mapped]:
    """Map the layers to a machine and offer the point, on the smallest machine it fits: its score's logarithm, infinite where none fits."""
    found = map_layers(run, machine, max(each - 1, 1), mutate=mutate)
    if not np.isfinite(found.value):
        return np.inf, found
    score = run.evaluate(found.point[None])[0]
    return float(np.log(score)) if np.isfinite(score) else np.inf, found


def random_search(run: Run) -> None:
    """Random machines; random mappings of each layer, those that do not fit dropped, the best kept."""
    every, each = Machines(run.problem), each_of(run)
    allowed = every.every()
    while not run.done and len(allowed):
        attempt(run, every.at(allowed[run.rng.integers(len(allowed))]), each, mutate=False)


def two_loop(run: Run) -> None:
    """Machines evolve: steps along the ladders from the best ones; the mapper runs for each."""
    every, each = Machines(run.problem), each_of(run)
    allowed = every.every()
    known: list[tuple[float, tuple[int, ...]]] = []
    while not run.done and len(allowed):
        if len(known) < 12 or run.rng.random() < 0.1:
            index = allowed[run.rng.integers(len(allowed))]
        else:
            parent = np.array(sorted(known)[run.rng.integers(0, 4)][1])
            index = np.clip(parent + run.rng.integers(-2, 3, len(parent)), 0, every.sizes - 1)
            if not every.allowed(index[None])[0]:
                continue
        value, _ = attempt(run, every.at(index), each)
        known.append((value, tuple(int(n) for n in index)))
