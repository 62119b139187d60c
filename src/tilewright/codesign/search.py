"""One call: layers in, the machine and their mappings out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.codesign.layer import Layer
from tilewright.codesign.methods import METHODS, search
from tilewright.codesign.problem import AreaModel, Budget, Limits, Problem, Progress, Run, array_time
from tilewright.cost.loopnest import LoopNest
from tilewright.hw.family import Family
from tilewright.util.errors import SpaceError

#: What a search may spend when nothing is said: mappings of one layer.
EVALUATIONS = 500_000


@dataclass(frozen=True, slots=True)
class Design:
    """A machine and what the networks cost on it: ``latency`` (cycles), ``energy`` (pJ), ``area`` (mm2, where a model was given)."""

    hardware: Mapping[str, float]
    latency: float
    energy: float
    area: float | None
    mappings: tuple[LoopNest, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """The best design of a search.

    ``layers`` (those of one shape are one) with their ``mappings``; ``cycles`` and ``energy`` (pJ) of one run of each.
    ``score`` is the objective, ``history`` how it fell; ``throughput`` samples a second of each network at the clock. ``front``: designs
    that no other one beats in latency, energy and area (without an area model: in the machine's parameters), by latency.
    """

    layers: tuple[Layer, ...]
    hardware: Mapping[str, float]
    mappings: tuple[LoopNest, ...]
    cycles: np.ndarray
    energy: np.ndarray
    score: float
    throughput: tuple[float, ...]
    evaluations: int
    seconds: float
    history: tuple[Progress, ...]
    front: tuple[Design, ...]


def codesign(
    layers: Sequence[Layer] | Mapping[str, Sequence[Layer]],
    family: Family,
    objective: str | tuple[float, float] = "edp",
    *,
    area: float | None = None,
    power: float | None = None,
    most: Mapping[str, float] | None = None,
    area_model: AreaModel | None = None,
    clock_hz: float = 1e9,
    hardware: Mapping[str, float] | None = None,
    cycles: str = "roofline",
    batch: int = 1,
    padding: float = 0.0,
    budget: Budget | int = EVALUATIONS,
    seed: int = 0,
    author: str | Callable[[Run], None] = "gradient",
) -> Result:
    """Search for the machine of ``family`` and the mappings of ``layers`` that minimise ``objective``.

    ``layers`` of one network, or of several by name: then the geometric mean of their objectives counts. ``area`` (mm2, by
    ``area_model``), ``power`` (W at ``clock_hz``) and ``most`` (of parameters) are limits; ``hardware`` fixes the machine.
    ``cycles``: those of the ``roofline``, or ``rtl``: fitted to measured ones, where the family has them. ``batch``: of so many samples at
    once. ``padding``: by what part a split of a loop may overshoot (0: factors divide).
    ``budget``: evaluations of one mapping of one layer, or a :class:`Budget`. ``author``: a name of ``methods.METHODS``, or a
    function of a :class:`Run`. A ``seed`` gives the same result again where the budget is one of evaluations.

    SpaceError for bad layers, contradictory limits, an unknown author, and limits that nothing found keeps.
    """
    limits = Limits(area, power, dict(most or {}), area_model, clock_hz)
    problem = Problem.of(layers, family, objective, limits, hardware, array_time(family, cycles), batch, padding)
    run = Run(problem, Budget(evaluations=budget) if isinstance(budget, int) else budget, seed, pareto=True)
    search(_author(author), run)
    if run.point is None:
        raise run.nothing()
    e = problem.evaluate(run.point[None])
    return Result(
        problem.space.layers,
        {k: float(v[0]) for k, v in e.hardware.items()},
        problem.space.nests(run.point),
        e.cycles[0],
        e.energy[0],
        run.best,
        tuple(problem.throughput(float(v)) for v in problem.totals(e.cycles, e.energy)[0][0]),
        run.evaluations,
        run.seconds,
        tuple(run.history),
        _designs(problem, run),
    )


def _author(author: str | Callable[[Run], None]) -> Callable[[Run], None]:
    if callable(author):
        return author
    if author not in METHODS:
        raise SpaceError(f"there is no search method {author!r}", hint=f"one of {', '.join(METHODS)}, or a function of a run")
    return METHODS[author]


def _designs(problem: Problem, run: Run) -> tuple[Design, ...]:
    if run.front is None or not run.front.points:
        return ()
    points = np.array(run.front.points)
    e = problem.evaluate(points)
    latency, energy = problem.totals(e.cycles, e.energy)
    model = problem.limits.area_model
    area = None if model is None else np.asarray(model(e.hardware), dtype=np.float64)
    found = [
        Design(
            {k: float(v[n]) for k, v in e.hardware.items()},
            float(latency[n].sum()),
            float(energy[n].sum()),
            None if area is None else float(area[n]),
            problem.space.nests(points[n]),
        )
        for n in range(len(points))
    ]
    return tuple(sorted(found, key=lambda d: (d.latency, d.energy)))
