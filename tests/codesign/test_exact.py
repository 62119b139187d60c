"""The proven optimum against brute force: every mapping of every layer on every machine, every combination of layers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from tilewright.codesign.divisors import factors_of
from tilewright.codesign.exact import enumerate_layer, finer, grid_of, machines_of, optimum, proven, undominated
from tilewright.codesign.layer import Layer
from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.problem import Budget, Limits, Problem, Run
from tilewright.hw.family import Parameter
from tilewright.hw.library.gemmini import family
from tilewright.hw.library.gemmini_costs import area
from tilewright.util.errors import SpaceError

LAYERS = (
    Layer("window", {"K": 4, "C": 2, "P": 6, "Q": 2, "R": 3}, {"SH": 2}, count=3),
    Layer.gemm("product", 6, 8, 4),
)
GRID = machines_of(
    {"dim": np.array([1.0, 2.0, 8.0]), "scratchpad_bytes": np.array([1024.0, 4096.0]), "accumulator_bytes": np.array([1024.0, 2048.0])}
)


def brute_force(problem: Problem, grid: dict[str, np.ndarray]) -> np.ndarray:
    """Score of every machine, all combinations of layers' mappings costed."""
    ev, out = problem.evaluator, []
    rows = [np.concatenate(list(enumerate_layer(problem, x))) for x in range(len(problem.space.layers))]
    for n in range(len(grid["dim"])):
        machine = {k: v[n : n + 1] for k, v in grid.items()}
        costs = []
        for x, r in enumerate(rows):
            usage = ev.rows(r, np.full(len(r), x))
            fits = np.all([np.ravel(need) <= machine[k] for k, need in ev.needs(usage, machine).items()], axis=0)
            c, e = ev.roofline(usage.steps, usage.operations, usage.words, usage.instances, machine)
            pairs = np.unique(np.stack([np.ravel(c)[fits], np.ravel(e)[fits]], axis=1), axis=0)
            costs.append(pairs * problem.space.counts[x])
        a, b = problem.powers
        latency, energy = (np.add.outer(costs[0][:, k], costs[1][:, k]) for k in range(2))
        excess = problem.excess(np.ones((1, 1)), np.ones(1), machine)[0]
        out.append(np.inf if excess > 0 else (energy**a * latency**b).min())
    return np.array(out)


@pytest.mark.parametrize("objective", ["edp", "latency", "energy", "ed2p"])
def test_the_optimum_is_that_of_brute_force(objective: str) -> None:
    problem = Problem(MapSpace(LAYERS, family()), objective)
    found = optimum(problem, GRID)
    assert np.allclose(found.scores, brute_force(problem, GRID), rtol=1e-9)
    e = problem.evaluator.evaluate(found.point[None], found.hardware)
    assert e.fits.all() and problem.score(e)[0] == pytest.approx(found.score)
    assert np.allclose(e.cycles[0], found.cycles) and np.allclose(e.energy[0], found.energy)


def test_one_memory_for_what_two_levels_hold() -> None:
    """What fits each level alone need not fit both: a unified buffer for inputs, weights and sums."""
    f = family()
    words = lambda u, m: u.held["L2"] + 4 * u.held["L1"] * m["dim"]  # noqa: E731
    levels = tuple(replace(s, words=None, energy=1.0 + n) if s.name in ("L1", "L2") else s for n, s in enumerate(f.hierarchy.levels))
    unified = replace(
        f,
        hierarchy=replace(f.hierarchy, levels=levels, parameters=("dim", "bytes")),
        parameters=(f.parameters[0], Parameter("bytes", (words,), step=16, least=16)),
        area=None,
    )
    problem = Problem(MapSpace(LAYERS, unified))
    grid = machines_of({"dim": np.array([2.0, 4.0]), "bytes": np.array([32.0, 64.0, 96.0, 160.0])})
    found = optimum(problem, grid)
    assert np.allclose(found.scores, brute_force(problem, grid), rtol=1e-9) and len(set(found.scores)) > 4


def test_limits_rule_machines_out() -> None:
    small = area({"dim": 2, "scratchpad_bytes": 4096, "accumulator_bytes": 2048})
    problem = Problem(MapSpace(LAYERS, family()), "latency", Limits(area=small * 1.001, area_model=area))
    found = optimum(problem, GRID)
    assert found.hardware["dim"] <= 2 and np.isinf(found.scores[GRID["dim"] == 8]).all()
    with pytest.raises(SpaceError, match="no machine of the grid"):
        optimum(problem, {name: column[GRID["dim"] == 8] for name, column in GRID.items()})
    with pytest.raises(SpaceError, match=r"the smallest gemmini has .* mm2, the limit is 1e-09"):
        Problem(MapSpace(LAYERS, family()), "edp", Limits(area=1e-9, area_model=area))
    with pytest.raises(SpaceError, match="one network without a limit of power"):
        optimum(Problem(MapSpace(LAYERS, family()), "edp", Limits(power=1.0)), GRID)


def test_all_mappings_are_enumerated_once() -> None:
    problem = Problem(MapSpace(LAYERS, family()))
    for x in range(2):
        rows = np.concatenate(list(enumerate_layer(problem, x)))
        assert len(np.unique(rows, axis=0)) == len(rows)
        points = np.ones((len(rows), 2, problem.space.width), dtype=np.int64)
        points[:, 1 - x] = problem.space.sample(1, np.random.default_rng(0))[0, 1 - x]
        points[:, x] = rows
        assert problem.space.check(points).all()
    # K and C have three places, the other dimensions two.
    places = {"K": 3, "C": 3}
    each = [sum(1 for f in product(factors_of(s), repeat=places.get(d, 2)) if np.prod(f) == s) for d, s in LAYERS[0].sizes.items()]
    assert len(np.concatenate(list(enumerate_layer(problem, 0)))) == np.prod(each) * len(problem.space.variants)


def test_undominated_rows() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 6, (3000, 4)).astype(float)
    kept = undominated(values)
    covered = (values[kept][:, None] <= values[None]).all(axis=2)
    assert covered.any(axis=0).all()
    inside = covered[:, kept]
    assert inside.sum() == len(kept)  # each only by itself


def test_no_search_beats_what_is_proven() -> None:
    problem = Problem(MapSpace((Layer.gemm("g", 64, 96, 80),), family()))
    best = proven(problem)
    assert len(next(iter(grid_of(problem).values()))) > 100
    run = Run(problem, Budget(evaluations=20_000), seed=0)
    while not run.done:
        run.evaluate(problem.space.sample(1000, run.rng))
    fitted = problem.score(problem.evaluate(best.point[None]))[0]
    assert fitted <= best.score * (1 + 1e-9) and fitted <= run.best
    assert any(v > 1 for v in np.ptp(np.stack(list(finer(problem, best.hardware).values())), axis=1))
