"""Search methods under one harness: budgets kept, valid points, limits respected; the mapper against the proven optimum."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.codesign.baselines import BASELINES
from tilewright.codesign.baselines.bayes import _improvement, _normal
from tilewright.codesign.baselines.dosa import DosaSettings, _Descent, dosa
from tilewright.codesign.baselines.loops import Machines
from tilewright.codesign.baselines.mapper import elite_mutation, map_layers
from tilewright.codesign.exact import optimum
from tilewright.codesign.layer import Layer
from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.problem import Budget, Limits, Problem, Run
from tilewright.hw.library.gemmini import family
from tilewright.hw.library.gemmini_costs import area
from tilewright.util.errors import SpaceError

LAYERS = (
    Layer("window", {"K": 32, "C": 16, "P": 28, "Q": 28, "R": 3, "S": 3}, count=2),
    Layer.gemm("product", 64, 128, 96),
)
DEFAULT = {"dim": 16, "scratchpad_bytes": 256 << 10, "accumulator_bytes": 64 << 10}


def problem(**options: object) -> Problem:
    return Problem(MapSpace(LAYERS, family()), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BASELINES)
def test_methods_keep_the_budget_and_find_something(name: str) -> None:
    if name == "tpe":
        pytest.importorskip("optuna")
    p = problem()
    run = Run(p, Budget(evaluations=1500), seed=1)
    BASELINES[name](run)
    assert run.evaluations <= 1500 * 1.02 and run.point is not None
    assert p.space.check(run.point[None]).all()
    assert p.score(p.evaluate(run.point[None]))[0] == pytest.approx(run.best)
    chance = p.score(p.evaluate(p.space.sample(50, np.random.default_rng(0))))
    assert run.best < np.median(chance)
    again = Run(p, Budget(evaluations=1500), seed=1)
    BASELINES[name](again)
    assert again.best == run.best


@pytest.mark.parametrize("name", ["random", "gp", "two-loop"])
def test_methods_that_choose_machines_stay_within_limits(name: str) -> None:
    limit = area({"dim": 8, "scratchpad_bytes": 32 << 10, "accumulator_bytes": 8 << 10})
    p = problem(limits=Limits(area=limit, area_model=area))
    run = Run(p, Budget(evaluations=1500), seed=0)
    BASELINES[name](run)
    assert run.point is not None
    found = p.evaluate(run.point[None]).hardware
    assert area({k: v[0] for k, v in found.items()}) <= limit
    assert len(Machines(p).every()) < len(Machines(problem()).every())


def test_the_mapper_reaches_the_proven_optimum_of_a_machine() -> None:
    p = problem(hardware=DEFAULT)
    best = optimum(p)
    run = Run(p, Budget(evaluations=30_000), seed=0)
    elite_mutation(run)
    assert best.score * (1 - 1e-9) <= run.best <= 1.01 * best.score
    with pytest.raises(SpaceError, match="the mapper needs a machine"):
        elite_mutation(Run(problem(), Budget(evaluations=100)))


def test_mappings_that_fit_nowhere_are_told() -> None:
    run = Run(problem(), Budget(evaluations=2000), seed=0)
    tiny = {"dim": 1, "scratchpad_bytes": 1, "accumulator_bytes": 1}
    assert not np.isfinite(map_layers(run, tiny, 50).value)
    assert np.isfinite(map_layers(run, DEFAULT, 200).value)


def test_the_published_descent_counts_its_steps_and_uses_three_orders() -> None:
    p = problem()
    run = Run(p, Budget(evaluations=10**9), seed=0)
    settings = DosaSettings(starts=2, steps=30, interval=10, drawn=4)
    search = _Descent(run, settings)
    assert len(search.orders) == 3
    search.restart()
    starts, steps, rounds = 2 * 4 * 2, 30 * 2 * 2, 3 * (2 + 3) * 2 * 2
    assert run.evaluations == starts + steps + rounds
    assert run.point is not None and set(run.point[:, -1]) <= set(search.orders)
    longer = Run(p, Budget(evaluations=4_000), seed=0)
    dosa(longer, settings)
    first = longer.history[0].best
    assert longer.best < first


def test_expected_improvement() -> None:
    x = np.array([[0.0], [0.5], [1.0]])
    gain = _improvement(x, np.array([1.0, 0.0, 1.0]), np.linspace(0, 1, 101)[:, None])
    assert 0.2 < np.argmax(gain) / 100 < 0.8 and (gain >= -1e-12).all()
    assert _normal(np.array([0.0, 1.0, -1.96])) == pytest.approx([0.5, 0.8413, 0.025], abs=1e-4)
