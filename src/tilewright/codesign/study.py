"""Several search methods on one problem, at one budget: what the command line, the report and the benchmarks show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.codesign.evaluator import Evaluation
from tilewright.codesign.layer import Layer
from tilewright.codesign.methods import METHODS, search
from tilewright.codesign.problem import Budget, Limits, Problem, Run, array_time
from tilewright.cost.loopnest import LoopNest
from tilewright.hw.family import Family
from tilewright.util.errors import SpaceError

#: Is told of a method's run each time it gets better, and when it begins.
Watch = Callable[[str, Run], None]


class WatchedRun(Run):
    """A run that tells ``watch`` whenever points were evaluated."""

    def __init__(self, name: str, problem: Problem, budget: Budget, seed: int, pareto: bool, watch: Watch | None):
        super().__init__(problem, budget, seed, pareto)
        self.name, self.watch = name, watch

    def offer(self, points: np.ndarray, scores: np.ndarray, evaluation: Evaluation) -> None:
        super().offer(points, scores, evaluation)
        if self.watch is not None:
            self.watch(self.name, self)


@dataclass(frozen=True, slots=True)
class Study:
    """Runs of search methods, the first being the one whose result counts; what their ``cycles`` are; ``interrupted`` (Ctrl-C) before
    their budget was spent."""

    problem: Problem
    runs: Mapping[str, Run]
    cycles: str = "roofline"
    interrupted: bool = False

    @property
    def run(self) -> Run:
        """The first method's."""
        return next(iter(self.runs.values()))

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.problem.space.layers

    @property
    def point(self) -> np.ndarray:
        """The best mappings [layers, width]. SpaceError when none was within the limits."""
        if self.run.point is None:
            raise self.run.nothing()
        return self.run.point

    @property
    def evaluation(self) -> Evaluation:
        """Costs of the best point, arrays of one row."""
        return self.problem.evaluate(self.point[None])

    @property
    def hardware(self) -> dict[str, float]:
        """The machine found."""
        return {k: float(v[0]) for k, v in self.evaluation.hardware.items()}

    @property
    def nests(self) -> tuple[LoopNest, ...]:
        """The mapping of each layer."""
        return self.problem.space.nests(self.point)


def study(
    layers: Sequence[Layer] | Mapping[str, Sequence[Layer]],
    family: Family,
    *,
    objective: str | tuple[float, float] = "edp",
    limits: Limits | None = None,
    hardware: Mapping[str, float] | None = None,
    cycles: str = "roofline",
    batch: int = 1,
    padding: float = 0.0,
    budget: Budget,
    methods: Sequence[str] = ("gradient",),
    seed: int = 0,
    watch: Watch | None = None,
) -> Study:
    """Search a machine of ``family`` and mappings of ``layers``, those of one network or of several by name: then the geometric mean of
    their objectives counts. ``cycles`` are the ``roofline``'s or ``rtl``: fitted to measured ones. ``batch`` and ``padding`` are those of
    :func:`tilewright.codesign.search.codesign`.

    Other methods than the first get as many evaluations as it took.
    A KeyboardInterrupt ends the study with what was found, and is passed on where nothing was. SpaceError for a method that is
    unknown, an objective or limits that make no sense.
    """
    if unknown := [m for m in methods if m not in METHODS]:
        raise SpaceError(f"there is no search method {unknown[0]!r}", hint=f"methods: {', '.join(METHODS)}")
    problem = Problem.of(layers, family, objective, limits, hardware, array_time(family, cycles), batch, padding)
    runs: dict[str, Run] = {}
    for name in methods:
        first = next(iter(runs.values()), None)
        given = budget if first is None else Budget(first.evaluations, budget.seconds)
        runs[name] = WatchedRun(name, problem, given, seed, first is None, watch)
        try:
            search(METHODS[name], runs[name])
        except KeyboardInterrupt:
            if next(iter(runs.values())).point is None:
                raise
            return Study(problem, runs, cycles, interrupted=True)
    return Study(problem, runs, cycles)
