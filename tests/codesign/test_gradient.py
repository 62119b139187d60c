"""The search against every point of small spaces, its importance estimate, its limits, what it refuses."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tilewright.codesign.baselines.dosa import dosa
from tilewright.codesign.baselines.mapper import elite_mutation
from tilewright.codesign.divisors import factors_of
from tilewright.codesign.gradient import Search, Settings, ablations, gradient
from tilewright.codesign.importance import ALPHA, BETA, Importance
from tilewright.codesign.layer import KERNEL, Layer
from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.pool import Pool, Site
from tilewright.codesign.problem import Budget, Limits, Problem, Run
from tilewright.codesign.search import codesign
from tilewright.codesign.workloads import workload
from tilewright.cost.nestcost import NestModel
from tilewright.hw.library.gemmini import family
from tilewright.hw.library.gemmini_costs import area
from tilewright.util.errors import SpaceError

SMALL = family(dim=8)
TINY = (Layer("conv", {"K": 8, "C": 4, "P": 6, "R": 3}), Layer.gemm("gemm", 64, 16, 8, count=2))


def every_row(space: MapSpace, layer: int) -> np.ndarray:
    """All mappings of a layer."""
    parts = []
    for k, own in enumerate(space.by_dim.values()):
        size = int(space.sizes[layer, k])
        choices = [c for c in product(factors_of(size), repeat=len(own)) if np.prod(c) == size]
        parts.append([(own, c) for c in choices])
    rows = []
    for chosen in product(*parts):
        row = np.ones(space.width, dtype=np.int64)
        for own, c in chosen:
            row[list(own)] = c
        rows += [np.array([*row[:-1], order]) for order in range(len(space.variants))]
    found = np.array(rows)
    return found[[all(c.most is None or r[n] <= c.most for n, c in enumerate(space.columns)) for r in found]]


def optimum(problem: Problem) -> float:
    """The best score over all machines: each layer's cost there by one model for each mapping, least over the mappings that fit."""
    space = problem.space
    needs, costs = [], []
    for x in range(len(space.layers)):
        rows = every_row(space, x)
        usage = problem.evaluator.rows(rows, np.full(len(rows), x))
        needs.append((usage.units["L2"], usage.units["L1"], usage.held["L2"], usage.held["L1"]))
        costs.append(usage)
    kb = 1024.0
    best = np.inf
    units = sorted({float(u) for n in needs for u in (*n[0], *n[1])})
    near = sorted({np.ceil(v / kb) * kb for n in needs for v in n[2]})
    sums = sorted({float(v) for n in needs for v in n[3]})
    for dim in units:
        for spad, acc in product(near, sorted({np.ceil(4 * v * dim / kb) * kb for v in sums})):
            pairs = []
            machine = {"dim": dim, "scratchpad_bytes": spad, "accumulator_bytes": acc}
            for x, (u, (k, c, w, o)) in enumerate(zip(costs, needs, strict=True)):
                fits = (k <= dim) & (c <= dim) & (w <= spad) & (4 * o * dim <= acc)
                cycles = np.maximum.reduce([u.steps, u.words["L1"] / (2 * k), u.words["L2"] / (2 * dim), u.words["L3"] / 8])
                rate = {"L0": 0.48746, "L1": 1.94 + 0.1005 * acc / kb / dim, "L2": 0.49 + 0.02513 * spad / kb, "L3": 100.0}
                energy = 0.5608 * space.layers[x].operations + sum(u.words[s] * rate[s] for s in rate)
                pairs.append(_lowest(np.column_stack([cycles, energy])[fits] * space.counts[x]))
            for chosen in product(*pairs):
                latency, total = np.sum(chosen, axis=0)
                best = min(best, total * latency)
            assert machine
    return float(best)


def _lowest(values: np.ndarray) -> np.ndarray:
    """Pairs that no other pair beats."""
    order = np.lexsort(values.T[::-1])
    lowest, out = np.inf, []
    for n in order:
        if values[n, 1] < lowest:
            lowest = values[n, 1]
            out.append(values[n])
    return np.array(out)


def test_small_spaces_to_the_optimum() -> None:
    problem = Problem(MapSpace(TINY, SMALL))
    best = optimum(problem)
    for seed in range(2):
        run = Run(problem, Budget(evaluations=12_000), seed)
        gradient(run)
        assert run.best == pytest.approx(best, rel=1e-9)


def test_a_seed_gives_the_same_search() -> None:
    runs = []
    for _ in range(2):
        runs.append(codesign(TINY, SMALL, budget=4000, seed=7))
    assert [(h.evaluations, h.best) for h in runs[0].history] == [(h.evaluations, h.best) for h in runs[1].history]
    assert runs[0].mappings == runs[1].mappings and runs[0].evaluations <= 4000


@pytest.mark.parametrize("without", ablations())
def test_every_variant_stays_within_its_budget(without: str) -> None:
    problem = Problem(MapSpace(TINY, SMALL))
    run = Run(problem, Budget(evaluations=3000), 1)
    gradient(run, ablations()[without])
    assert 2500 < run.evaluations <= 3000 and np.isfinite(run.best)


def test_results_are_what_their_mappings_cost() -> None:
    square = lambda m: m["dim"] * m["dim"] * 0.01 + m["scratchpad_bytes"] * 1e-4 + m["accumulator_bytes"] * 2e-4  # noqa: E731
    free = codesign(TINY, SMALL, budget=3000, area_model=square)
    for found in (free, codesign(TINY, SMALL, budget=3000, area=0.7, area_model=square), codesign(TINY, SMALL, "latency", budget=3000)):
        cycles, energy = 0.0, 0.0
        for x, (layer, nest) in enumerate(zip(found.layers, found.mappings, strict=True)):
            cost = NestModel(KERNEL, nest, SMALL.hierarchy, rounded=False)({**layer.parameters, **found.hardware})
            assert (cost.cycles, cost.energy) == pytest.approx((found.cycles[x], found.energy[x]))
            cycles, energy = cycles + layer.count * cost.cycles, energy + layer.count * cost.energy
        assert found.score == pytest.approx(cycles if found.score < 1e6 else cycles * energy)
        assert any(d.latency == pytest.approx(cycles) for d in found.front)
        values = np.array([[d.latency, d.energy, d.area or 0] for d in found.front])
        assert (np.diff(values[:, 0]) >= 0).all()
    limited = codesign(TINY, SMALL, budget=3000, area=0.7, area_model=square)
    assert square(limited.hardware) <= 0.7 < square(free.hardware) and limited.score > free.score


def test_several_networks_and_given_machines() -> None:
    machine = {"dim": 4, "scratchpad_bytes": 2048, "accumulator_bytes": 1024}
    both = codesign({"a": TINY[:1], "b": TINY}, SMALL, budget=2500, hardware=machine)
    assert both.hardware == machine and len(both.layers) == 2
    alone = [codesign({"x": x}, SMALL, budget=2500, hardware=machine).score for x in (TINY[:1], TINY)]
    assert both.score == pytest.approx(np.sqrt(alone[0] * alone[1]), rel=0.01)


def test_the_best_of_a_pool_is_the_best_of_every_combination() -> None:
    problem = Problem(MapSpace(TINY, SMALL))
    rng = np.random.default_rng(0)
    points = problem.space.sample(40, rng)
    e = problem.evaluate(points)
    first = int(problem.score(e).argmin())
    pool = Pool(problem)
    rows, layers = points.reshape(-1, problem.space.width), np.tile([0, 1], len(points))
    new = pool.fresh(rows, layers)
    assert pool.fresh(rows, layers).sum() == 0
    pool.add(rows[new], layers[new], problem.evaluator.rows(rows[new], layers[new]))
    latency, total = problem.totals(e.cycles, e.energy)
    value, picked = pool.select(e.hardware, latency[first], total[first])
    for h in range(len(points)):
        machine = {k: float(v[h]) for k, v in e.hardware.items()}
        pairs = np.array([[a, b] for a in points[:, 0] for b in points[:, 1]])
        every = problem.evaluator.evaluate(pairs, machine)
        lat, tot = problem.totals(every.cycles, every.energy)
        linear = np.where(every.fits, (lat / latency[first] + tot / total[first])[:, 0], np.inf)
        chosen = problem.evaluator.evaluate(pool.points(picked[h : h + 1]), machine)
        assert chosen.fits[0] and np.exp(value[h]) == pytest.approx(problem.score(chosen)[0])
        lat, tot = problem.totals(chosen.cycles, chosen.energy)
        assert (lat / latency[first] + tot / total[first])[0, 0] == pytest.approx(linear.min())


def test_a_pool_does_not_forget_what_is_best_for_a_site() -> None:
    """Pruned for large machines, it keeps the best few mappings for a small one that was refined."""
    problem = Problem(MapSpace(TINY, SMALL))
    large = {k: np.array([v]) for k, v in {"dim": 8.0, "scratchpad_bytes": 65536.0, "accumulator_bytes": 65536.0}.items()}
    small = {"dim": 1.0, "scratchpad_bytes": 1024.0, "accumulator_bytes": 1024.0}
    e = problem.evaluate(problem.space.outermost[None])
    latency, total = (v[0] for v in problem.totals(e.cycles, e.energy))
    site = Site(1.0, problem.space.outermost, small, latency, total)
    for sites in ((), (site,)):
        pool = Pool(problem, capacity=40)
        for x in range(len(TINY)):
            rows = every_row(problem.space, x)
            rows = rows[np.argsort(rows[:, [n for n, c in enumerate(problem.space.columns) if c.spatial]].prod(axis=1), kind="stable")]
            pool.add(rows, np.full(len(rows), x), problem.evaluator.rows(rows, np.full(len(rows), x)))
        one = {k: np.array([v]) for k, v in small.items()}
        before = pool.select(one, latency, total)[0][0]
        pool.prune(large, latency, total, sites)
        assert (pool.select(one, latency, total)[0][0] == before) == bool(sites) and max(map(len, pool.rows)) < 100


def test_importance_by_its_equations() -> None:
    work, similar = np.array([100.0, 50.0, 50.0]), np.array([0, 1, 1])
    est = Importance(work, similar)
    everything = np.arange(3)
    assert np.isinf(est.gains()).all()
    est.record(np.array([8.0, 4.0, 1.0]), everything)
    est.record(np.array([6.0, 4.0, 1.0]), everything)
    reached = work / np.array([6.0, 4.0, 1.0])
    expected = []
    for n, (now, before) in enumerate([(6.0, 8.0), (4.0, 4.0), (1.0, 1.0)]):
        peers = [reached[k] for k in range(3) if similar[k] == similar[n]]
        forecast = min(now - now / 2, BETA * work[n] / max(peers))
        expected.append(abs(ALPHA * (before - now) + (1 - ALPHA) * (now - forecast)))
    assert np.allclose(est.gains(), expected)
    assert list(est.choose(1 / 3)) == [int(np.argmax(expected))]
    for _ in range(8):  # a layer that stands still loses its turn
        est.record(np.array([6.0, 4.0, 1.0]), np.array([0]))
    assert 0 not in est.choose(1 / 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"area": 0.01, "area_model": lambda m: m["dim"] + m["scratchpad_bytes"] * 1.0}, "the smallest gemmini has 1025 mm2"),
        ({"power": 1e-9}, "within the limits were found: the least power found is .* W, the limit 1e-09"),
        ({"most": {"scratchpad_bytes": 512}}, "the limit has scratchpad_bytes = 512"),
        ({"author": "luck"}, "no search method 'luck'"),
        ({"budget": 0}, "the budget is 0 evaluations"),
        ({"objective": "beauty"}, "no objective 'beauty'"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        codesign(TINY, SMALL, **{"budget": 2000, **arguments})
    with pytest.raises(SpaceError, match="network b has no layers"):
        codesign({"a": TINY, "b": ()}, SMALL, budget=2000)


def test_a_power_limit_is_kept() -> None:
    free = codesign(TINY, SMALL, budget=2500)
    watts = float((free.energy @ [x.count for x in free.layers]) / (free.cycles @ [x.count for x in free.layers])) * 1e-3
    cold = codesign(TINY, SMALL, budget=2500, power=watts * 0.7)
    used = float((cold.energy @ [x.count for x in cold.layers]) / (cold.cycles @ [x.count for x in cold.layers])) * 1e-3
    assert used <= watts * 0.7 and cold.score > free.score
    assert Problem(MapSpace(TINY, SMALL), limits=Limits(power=watts * 0.7)).powers == (1.0, 1.0)


def test_the_descent_follows_the_slope_of_what_it_moves() -> None:
    """A factor inside grows at the cost of the outermost one, so differences are taken along that, not at a growing product."""
    problem = Problem(MapSpace(TINY, SMALL))
    search = Search(Run(problem, Budget(evaluations=10), 3), Settings())
    space = problem.space
    logs = np.log(space.sample(4, np.random.default_rng(5))[..., :-1].astype(float)) + 0.01
    order = np.zeros(logs.shape[:2], dtype=np.int64)

    def rest(at: np.ndarray) -> np.ndarray:
        for k, (*inner, last) in enumerate(space.by_dim.values()):
            at[..., last] = np.log(space.sizes[:, k]) - at[..., inner].sum(axis=-1)
        return at

    slope = search._tangent(search.relaxed(rest(logs), order)[1])
    checked = []
    for own in space.by_dim.values():
        assert (slope[..., own[-1]] == 0).all()
        for n in own[:-1]:
            for x in range(len(space.layers)):
                ends = []
                for d in (1e-6, -1e-6):
                    moved = logs.copy()
                    moved[:, x, n] += d
                    ends.append(search.relaxed(rest(moved), order)[0])
                near = np.isclose((ends[0] - ends[1]) / 2e-6, slope[:, x, n], rtol=1e-3, atol=1e-4)
                # Where two needs or two limits of time are equal, the objective has an edge.
                checked.append(near)
    assert np.mean(checked) > 0.97


def test_descent_alone_holds_its_own_against_the_published_descent() -> None:
    """At equal evaluations, without combination, refinement and a pool."""
    problem = Problem(MapSpace(workload("bert"), family()))
    scores = []
    for seed in range(2):
        ours, theirs = (Run(problem, Budget(evaluations=3000 * len(problem.space.layers)), seed) for _ in range(2))
        gradient(ours, ablations()["combination"])
        dosa(theirs)
        scores.append(np.log(ours.best / theirs.best))
    assert np.mean(scores) < 0


def test_a_limit_of_area_that_random_points_miss_is_met_and_used() -> None:
    """Mappings of many layers at random need large machines; the first one within the limit is made of the pool's."""
    space = MapSpace(workload("resnet50"), family())
    problem = Problem(space, "edp", Limits(area=1.1, area_model=area))
    rng = np.random.default_rng(0)
    assert not np.isfinite(problem.score(problem.evaluate(space.sample(500, rng)))).any()
    run = Run(problem, Budget(evaluations=1000 * len(space.layers)), 1)
    gradient(run)
    assert run.point is not None
    machine = {k: v[0] for k, v in problem.evaluate(run.point[None]).hardware.items()}
    assert 0.8 < area(machine) <= 1.1


def test_a_machine_that_random_mappings_do_not_fit_is_mapped() -> None:
    """Of a hundred random points none fits memories so small: layers share nothing, so mappings are found for each."""
    machine = {"dim": 40, "scratchpad_bytes": 20 << 10, "accumulator_bytes": 6 << 10}
    problem = Problem(MapSpace(workload("retinanet"), family()), hardware=machine)
    ev, points = problem.evaluator, problem.space.sample(100, np.random.default_rng(0))
    given = {k: np.full(100, float(v)) for k, v in machine.items()}
    fits = np.all([need <= given[k][:, None] for k, need in ev.needs(ev.usage(points), given).items()], axis=0)
    assert not fits.all(axis=1).any()
    everything_outside = problem.score(problem.evaluate(problem.space.outermost[None]))[0]
    for method in (gradient, elite_mutation):
        run = Run(problem, Budget(evaluations=400 * len(problem.space.layers)), 0)
        method(run)
        assert run.best < everything_outside / 100


def test_machines_beyond_a_limit_of_area_shrink_to_it() -> None:
    problem = Problem(MapSpace(workload("bert"), family()), "edp", Limits(area=1.1, area_model=area))
    search = Search(Run(problem, Budget(evaluations=10), 0))
    given = {"dim": [128.0, 8.0, 64.0], "scratchpad_bytes": [1 << 20, 1 << 14, 1 << 21], "accumulator_bytes": [1 << 20, 1 << 14, 1 << 12]}
    offered = {k: np.array(v, dtype=np.float64) for k, v in given.items()}
    found = search._within({k: v.copy() for k, v in offered.items()})
    assert (problem.oversize(found) <= 0).all()
    assert all((found[k] <= offered[k]).all() and found[k][1] == offered[k][1] for k in found)
    assert (found["scratchpad_bytes"] % 1024 == 0).all() and (area(found)[[0, 2]] > 0.9).any()
