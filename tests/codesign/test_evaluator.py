"""Populations against one mapping at a time; the smallest machine against its definition; the run's bookkeeping."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.codesign.evaluator import Evaluator
from tilewright.codesign.layer import KERNEL, Layer
from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.pareto import undominated
from tilewright.codesign.problem import Budget, Limits, Problem, Run
from tilewright.cost.nestcost import NestModel
from tilewright.hw.library.gemmini import family
from tilewright.util.errors import SpaceError

LAYERS = (
    Layer("conv", {"K": 12, "C": 6, "P": 7, "Q": 4, "R": 3, "S": 3}, {"SH": 2}, count=2),
    Layer.gemm("gemm", 512, 768, 256),
    Layer("dilated", {"N": 2, "K": 8, "C": 3, "P": 6, "Q": 6, "R": 3, "S": 2}, {"DH": 2, "SW": 3}, count=4),
)
SPACE = MapSpace(LAYERS, family())
EVALUATOR = Evaluator(SPACE)


def test_populations_cost_what_their_mappings_cost_one_by_one() -> None:
    points = SPACE.sample(30, np.random.default_rng(0))
    e = EVALUATOR.evaluate(points)
    for n, point in enumerate(points):
        machine = {k: float(v[n]) for k, v in e.hardware.items()}
        for x, (layer, nest) in enumerate(zip(LAYERS, SPACE.nests(point), strict=True)):
            cost = NestModel(KERNEL, nest, SPACE.family.hierarchy, rounded=False)({**layer.parameters, **machine})
            assert e.cycles[n, x] == pytest.approx(cost.cycles, rel=1e-12)
            assert e.energy[n, x] == pytest.approx(cost.energy, rel=1e-12)


def test_the_machine_is_the_smallest_that_fits_all_layers() -> None:
    points = SPACE.sample(50, np.random.default_rng(1))
    e = EVALUATOR.evaluate(points)
    assert e.fits.all()
    for n, point in enumerate(points):
        units, near, sums = 1, 0.0, 0.0
        for layer, nest in zip(LAYERS, SPACE.nests(point), strict=True):
            units = max([units, *(int(f.trips) for level in nest.levels for f in level.spatial)])
            cost = NestModel(KERNEL, nest, SPACE.family.hierarchy)(
                {**layer.parameters, "dim": 1, "scratchpad_bytes": 1, "accumulator_bytes": 1}
            )
            near, sums = max(near, cost.held["L2"]), max(sums, cost.held["L1"])
        assert e.hardware["dim"][n] == units
        assert e.hardware["scratchpad_bytes"][n] == -(-near // 1024) * 1024
        assert e.hardware["accumulator_bytes"][n] == -(-4 * sums * units // 1024) * 1024
    for p in SPACE.family.parameters:
        one = {k: float(v[0]) for k, v in e.hardware.items()}
        assert EVALUATOR.evaluate(points[:1], one).fits.all()
        assert not EVALUATOR.evaluate(points[:1], {**one, p.name: one[p.name] - p.step}).fits.any()


def test_no_other_order_of_the_outer_loops_is_cheaper_than_the_five() -> None:
    """Every representative of the 5,040 orders, on mappings of which many have loops of one iteration."""
    from dataclasses import replace
    from itertools import permutations

    from tilewright.cost.loopnest import Factor, Level, LoopNest
    from tilewright.cost.orders import Orders

    f = family()
    outer = SPACE.family.hierarchy.levels[0].name
    rules = Orders.of(KERNEL, f.hierarchy)
    distinct = set()
    for p in permutations("NKCPQRS"):
        nest = LoopNest((Level(outer, "WIO", tuple(Factor(d, 2) for d in p)), Level("L2", "WI"), Level("L1", "O"), Level("L0", "W")))
        distinct.add("".join(x.dim for x in rules.canonical(nest).levels[0].temporal))
    every = replace(f, orders=(tuple(sorted(distinct)), *f.orders[1:]))
    small = MapSpace(tuple(Layer(str(n), {"N": 2, "K": 4, "C": 4, "P": 6, "Q": 4, "R": 3, "S": 3}, {"SH": n}) for n in (1, 2)), every)
    declared = MapSpace(small.layers, f)
    points = small.sample(300, np.random.default_rng(2))
    words = {}
    for space in (small, declared):
        found = []
        for order in range(len(space.variants)):
            points[..., -1] = order
            u = Evaluator(space).usage(points)
            found.append(u.words["L3"] + 1e-6 * u.words["L2"])
        words[space] = np.min(found, axis=0)
    assert len(distinct) > 20
    assert np.allclose(words[small], words[declared], rtol=1e-12)


def test_limits_and_objectives() -> None:
    points = SPACE.sample(60, np.random.default_rng(3))
    for objective, powers in (("edp", (1, 1)), ("latency", (0, 1)), ("energy", (1, 0)), ((1.0, 2.0), (1, 2))):
        problem = Problem(SPACE, objective)  # type: ignore[arg-type]
        e = problem.evaluate(points)
        total, latency = (v @ np.array([2, 1, 4]) for v in (e.energy, e.cycles))
        assert np.allclose(problem.score(e), total ** powers[0] * latency ** powers[1])
    e = Problem(SPACE).evaluate(points)
    size = e.hardware["dim"] ** 2
    area = float(np.median(size))
    limited = Problem(SPACE, limits=Limits(area=area, area_model=lambda m: m["dim"] * m["dim"], most={"scratchpad_bytes": 8192}))
    score = limited.score(limited.evaluate(points))
    good = (size <= area) & (e.hardware["scratchpad_bytes"] <= 8192)
    assert 0 < good.sum() < 60 and (np.isfinite(score) == good).all()
    watts = e.energy @ SPACE.counts / (e.cycles @ SPACE.counts) * 1e-3
    cold = Problem(SPACE, limits=Limits(power=float(np.median(watts))))
    assert (np.isfinite(cold.score(e)) == (watts <= np.median(watts))).all()
    two = Problem(SPACE, networks=[[1, 0, 1], [0, 3, 0]])
    each = [Problem(SPACE, networks=[n]).score(e) for n in ([1, 0, 1], [0, 3, 0])]
    assert np.allclose(two.score(e), np.sqrt(each[0] * each[1]))


def test_every_evaluation_is_charged() -> None:
    run = Run(Problem(SPACE), Budget(evaluations=100), seed=4, pareto=True)
    first = run.evaluate(SPACE.sample(20, run.rng))
    assert run.evaluations == 60 and np.isfinite(first).all() and run.best == first.min()
    second = run.evaluate(SPACE.sample(20, run.rng))
    assert run.evaluations == 99 and np.isfinite(second).sum() == 13 and run.done
    assert run.point is not None and run.problem.score(run.problem.evaluate(run.point[None]))[0] == run.best
    assert [h.best for h in run.history] == sorted([h.best for h in run.history], reverse=True)
    assert run.front is not None and 1 <= len(run.front.points) == len(run.front.values)
    e = run.problem.evaluate(np.array(run.front.points))
    assert np.allclose(run.front.values[:, 0], e.cycles @ SPACE.counts) and run.best == pytest.approx(
        (run.front.values[:, 0] * run.front.values[:, 1]).min()
    )


def test_undominated_points_by_definition() -> None:
    values = np.random.default_rng(5).integers(0, 6, (80, 3)).astype(float)
    kept = {tuple(v) for v in values[undominated(values)]}
    expected = {tuple(v) for v in values if not any((w <= v).all() and (w < v).any() for w in values)}
    assert kept == expected and len(undominated(values)) == len(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "speed"}, "no objective 'speed'"),
        ({"limits": Limits(area=-1.0)}, "the limit of area is -1"),
        ({"limits": Limits(area=1.0)}, "nothing says how large a gemmini is"),
        ({"limits": Limits(most={"dim": 0.5})}, "the limit has dim = 0.5, gemmini needs 1 or more"),
        ({"limits": Limits(most={"banks": 2})}, "gemmini has no parameter 'banks'"),
        ({"hardware": {"dim": 16}}, "the machine gives dim"),
        (
            {"hardware": {"dim": 16, "scratchpad_bytes": 2048, "accumulator_bytes": 1024}, "limits": Limits(most={"dim": 8})},
            "dim = 16, the limit is 8",
        ),
        ({"hardware": {"dim": 200, "scratchpad_bytes": 2048, "accumulator_bytes": 1024}}, "the machine has dim = 200"),
        ({"hardware": {"dim": 16.5, "scratchpad_bytes": 2048, "accumulator_bytes": 1024}}, r"the machine has dim = 16\.5"),
        (
            {"hardware": {"dim": float("nan"), "scratchpad_bytes": 2048, "accumulator_bytes": 1024}},
            "the machine has dim = nan, gemmini needs 1",
        ),
        ({"networks": [[1, 2]]}, "networks count 2 layers, the space has 3"),
    ],
)
def test_contradictions_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Problem(SPACE, **arguments)
    with pytest.raises(SpaceError, match="the budget is None evaluations and None seconds"):
        Budget()
