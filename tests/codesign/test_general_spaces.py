"""Spaces with choices of what levels keep, with padding, and outputs stationary: against a run of every iteration, and all mappings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from tests.cost.residence_simulation import first_visits, loops_of, simulate, tensors

from tilewright.codesign.divisors import Divisors, chains, factors_of
from tilewright.codesign.evaluator import Evaluator
from tilewright.codesign.exact import enumerate_layer, machines_of, optimum
from tilewright.codesign.layer import DIMS, Layer
from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.methods import METHODS
from tilewright.codesign.problem import Budget, Problem, Run
from tilewright.codesign.search import codesign
from tilewright.hw.family import Family
from tilewright.hw.library import gemmini, gemmini_os
from tilewright.hw.load import load_family
from tilewright.util.errors import MachineError, SpaceError

#: Weights and inputs may pass the scratchpad by, results the accumulator; two orders of loops at main memory.
BYPASS = replace(
    gemmini.family(), keeps=(("WIO",), ("WI", "W", "I"), ("O", ""), ("W",)), orders=(gemmini.ORDERS[::3], ("",), ("KCRSNQP",), ("",))
)
OUTPUTS = gemmini_os.family()
LAYER = Layer("window", {"K": 2, "C": 3, "P": 5, "Q": 2, "R": 3}, {"SH": 2})


def simulated(space: MapSpace, row: np.ndarray, layer: Layer) -> dict[str, float]:
    """Words that each level accesses, counted one by one."""
    nest = space.nests(row[None])[0]
    levels = space.family.hierarchy.levels
    strides = (layer.parameters["SH"], layer.parameters["SW"]), (layer.parameters["DH"], layer.parameters["DW"])
    words = {s.name: 0.0 for s in levels}
    for tensor, access in tensors(*strides).items():
        chain = [n for n, level in enumerate(nest.levels) if tensor in level.keeps]  # the outermost first
        for n, child in zip(chain, [*chain[1:], None], strict=True):
            reuse = levels[n if child is None else child].reuse
            served = simulate(nest, access, tensor, reuse)[len(levels) - 1 - n][0]
            words[levels[n].name] += served
            if tensor == "O":
                words[levels[n].name] += served - first_visits(nest, n)
            if n:
                words[levels[n].name] += simulate(nest, access, tensor, levels[n].reuse)[len(levels) - 1 - n][1]
    return words


@cache
def _evaluator(family: str, padding: float) -> Evaluator:
    return Evaluator(MapSpace((LAYER,), {f.name: f for f in (BYPASS, OUTPUTS)}[family], padding))


@pytest.mark.parametrize("family", [BYPASS, OUTPUTS], ids=["bypass", "outputs stationary"])
@settings(max_examples=12, deadline=None)
@given(seed=hs.integers(0, 1 << 30), padding=hs.sampled_from([0.0, 0.4, 1.0]))
def test_words_of_points_are_what_running_finds(family: Family, seed: int, padding: float) -> None:
    evaluator = _evaluator(family.name, padding)
    space = evaluator.space
    rows = space.sample(1, np.random.default_rng(seed))[0]
    usage = evaluator.rows(rows, np.zeros(1, dtype=np.int64))
    nest = space.nests(rows)[0]
    assert {s: float(v[0]) for s, v in usage.words.items()} == simulated(space, rows[0], LAYER)
    assert usage.operations[0] == prod(trips for _, trips, _, _ in loops_of(nest)) >= LAYER.operations
    assert usage.steps[0] == prod(trips for _, trips, _, side in loops_of(nest) if not side)


# --- padding ------------------------------------------------------------------------------------


def covers(size: int, places: int) -> Iterator[tuple[int, ...]]:
    """All factors of no more than ``size`` whose product is no less."""
    return (f for f in product(range(1, size + 1), repeat=places) if prod(f) >= size)


@pytest.mark.parametrize("padding", [0.0, 0.2, 1.0])
def test_factors_by_definition(padding: float) -> None:
    for n in (1, 6, 7, 17, 24):
        least = [(a, b) for a, b in covers(n, 2) if a * b <= n * (1 + padding) and (a - 1) * b < n and a * (b - 1) < n]
        assert list(factors_of(n, padding)) == sorted(a for a, _ in least)
        table = Divisors(n, padding)
        found = chains(n, 2, padding)
        assert len(set(found)) == len(found) == table.count(3)
        assert {f for chain in found for f in chain} <= set(table.values.tolist())
        assert padding > 0 or all(prod(chain) == n for chain in found)


@pytest.mark.parametrize("family", [gemmini.family(dim=4), BYPASS, OUTPUTS], ids=["weights", "bypass", "outputs"])
def test_samples_changes_and_neighbours_are_points(family: Family) -> None:
    layers = (Layer.gemm("odd", 17, 7, 197), LAYER, Layer.gemm("even", 16, 8, 64))
    space, rng = MapSpace(layers, family, 0.25), np.random.default_rng(0)
    points = space.sample(100, rng)
    assert space.check(points).all()
    moved = space.mutate(points, rng, moves=3)
    assert space.check(moved).all() and (moved != points).any(axis=(1, 2)).mean() > 0.9
    assert (moved[:, 0, :-1].prod(axis=1) > layers[0].operations).mean() > 0.3
    for x, row in enumerate(points[0]):
        near = space.neighbours(row, x)
        assert space.check(np.stack([np.concatenate([points[0][:x], r[None], points[0][x + 1 :]]) for r in near])).all()
        assert len(np.unique(near, axis=0)) == len(near) and (near != row).any(axis=1).all()
    for point in points[:10]:
        again = space.encode(space.nests(point))
        assert (again[:, :-1] == point[:, :-1]).all() and space.nests(again) == space.nests(point)


def test_other_covers_gain_nothing_over_the_least_factors() -> None:
    """All mappings with any factors that cover, costed; the optimum is one with least factors."""
    layer = Layer("tiny", {"K": 3, "C": 2, "P": 5})
    problem = Problem(MapSpace((layer,), gemmini.family(), 1.0))
    space, ev = problem.space, problem.evaluator
    choices = [list(covers(layer.sizes[d], len(space.by_dim[d]))) for d in DIMS]
    factors = np.array([sum(f, ()) for f in product(*choices)])
    columns = [n for d in DIMS for n in space.by_dim[d]]
    rows = np.ones((len(factors), space.width), dtype=np.int64)
    rows[:, columns] = factors
    rows = np.repeat(rows, len(space.variants), axis=0)
    rows[:, -1] = np.tile(np.arange(len(space.variants)), len(factors))
    grid = machines_of(dict(zip(("dim", "scratchpad_bytes", "accumulator_bytes"), map(np.array, ([1, 2, 3], [1024], [1024])), strict=True)))
    found = optimum(problem, grid)
    assert len(np.concatenate(list(enumerate_layer(problem, 0)))) < len(rows) / 3
    usage = ev.rows(rows, np.zeros(len(rows), dtype=np.int64))
    for n, score in enumerate(found.scores):
        machine = {k: v[n : n + 1] for k, v in grid.items()}
        fits = np.all([np.ravel(need) <= machine[k] for k, need in ev.needs(usage, machine).items()], axis=0)
        cycles, energy = ev.costs(usage, machine)
        assert score == pytest.approx((cycles * energy).ravel()[fits].min(), rel=1e-12)


def test_padding_makes_good_mappings_of_sizes_without_divisors() -> None:
    """31 by 37 weights on an array of 8 x 8: whole factors leave most of it idle."""
    layers, machine = (Layer.gemm("prime", 61, 31, 37),), {"dim": 8.0, "scratchpad_bytes": 4096.0, "accumulator_bytes": 16384.0}
    exact, padded = (optimum(Problem(MapSpace(layers, gemmini.family(), padding), "latency", hardware=machine)) for padding in (0.0, 0.25))
    assert padded.score < exact.score / 8
    assert padded.score == pytest.approx(61 * 4 * 5)  # 31 in 4 columns of 8, 37 in 5 rows of 8


@pytest.mark.parametrize("method", ["gradient", "genetic", "dosa"])
def test_searches_use_padding_and_choices(method: str) -> None:
    """All methods run on such spaces, and none beats what is proven; ours finds it."""
    layers, machine = (Layer.gemm("prime", 13, 14, 11),), {"dim": 4.0, "scratchpad_bytes": 2048.0, "accumulator_bytes": 1024.0}
    problem = Problem(MapSpace(layers, BYPASS, 0.5), hardware=machine)
    best = optimum(problem)
    run = Run(problem, Budget(evaluations=2500), seed=0)
    METHODS[method](run)
    assert run.point is not None and problem.space.check(run.point[None]).all()
    assert run.best >= best.score * (1 - 1e-9)
    assert method != "gradient" or run.best <= best.score * 1.001


def test_more_choices_are_never_worse() -> None:
    layers, machine = (LAYER,), {"dim": 2.0, "scratchpad_bytes": 1024.0, "accumulator_bytes": 1024.0}
    plain, padded, bypass = (
        optimum(Problem(MapSpace(layers, f, padding), hardware=machine)).score
        for f, padding in ((gemmini.family(), 0.0), (gemmini.family(), 0.5), (BYPASS, 0.0))
    )
    assert padded <= plain and bypass < plain


def test_what_levels_keep_is_checked() -> None:
    family = gemmini.family()
    for keeps, message in (
        ((("WIO",), (), ("O",), ("W",)), r"level L2 of gemmini keeps \(\)"),
        ((("WIO",), "WI", ("O",), ("W",)), "level L2 of gemmini keeps 'WI'"),
        ((("WI",), ("WI",), ("O",), ("W",)), "level L3 of gemmini keeps WI, others have IOW"),
    ):
        with pytest.raises(MachineError, match=message):
            replace(family, keeps=keeps)
    with pytest.raises(SpaceError, match=r"padding is -0\.1"):
        MapSpace((LAYER,), family, -0.1)


# --- outputs stationary -------------------------------------------------------------------------


def test_outputs_stay_in_the_units() -> None:
    """Long sums of few results: inputs and weights pass once, results leave once."""
    found = codesign((Layer.gemm("sums", 8, 8, 512),), load_family("gemmini_os"), "energy", budget=3000, most={"dim": 8})
    nest = found.mappings[0]
    assert {f.dim: f.trips for f in nest.levels[1].spatial + nest.levels[2].spatial} == {"K": 8, "P": 8}
    space = MapSpace(found.layers, load_family("gemmini_os"))
    usage = Evaluator(space).usage(space.encode(found.mappings)[None])
    assert usage.words["L3"][0, 0] == 8 * 512 * 2 + 64
    with pytest.raises(SpaceError, match="gemmini_os has no cycles fitted to measured ones"):
        codesign(found.layers, load_family("gemmini_os"), cycles="rtl", budget=100)
    assert "Dataflow.OS" in OUTPUTS.files["GemminiConfig.scala"]("x", found.hardware)
