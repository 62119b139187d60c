"""Cycles fitted to measured ones in searches: the model's own on each mapping, followed by gradients, refused where they are not known."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.codesign.exact import optimum
from tilewright.codesign.layer import Layer
from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.methods import METHODS
from tilewright.codesign.problem import Budget, Problem, Run, array_time
from tilewright.codesign.relaxed import Relaxation
from tilewright.codesign.search import codesign
from tilewright.cost.residual import tile_environment
from tilewright.hw.library.gemmini import family
from tilewright.hw.load import load_family
from tilewright.util.errors import SpaceError

LAYERS = (
    Layer("conv", {"K": 64, "C": 32, "P": 14, "Q": 14, "R": 3, "S": 3}, {"SH": 2}, count=2),
    Layer.gemm("gemm", 96, 128, 256),
)
SPACE = MapSpace(LAYERS, family())
RTL = array_time(family(), "rtl")


def test_mappings_have_the_cycles_of_the_fitted_model() -> None:
    assert RTL is not None
    points = SPACE.sample(40, np.random.default_rng(0))
    plain, fitted = Problem(SPACE).evaluate(points), Problem(SPACE, array=RTL).evaluate(points)
    assert np.allclose(plain.energy, fitted.energy) and not np.allclose(plain.cycles, fitted.cycles, rtol=0.5)
    for n, point in enumerate(points):
        for x, nest in enumerate(SPACE.nests(point)):
            strides = {k: LAYERS[x].parameters[k] for k in ("SH", "SW")}
            alone = RTL.predict({**tile_environment(nest), **strides, "dim": float(fitted.hardware["dim"][n])})
            assert fitted.cycles[n, x] == pytest.approx(max(alone, plain.cycles[n, x]))


def test_smooth_cycles_are_the_fitted_ones_where_blocks_are_whole() -> None:
    assert RTL is not None
    points = SPACE.sample(200, np.random.default_rng(1))
    problem = Problem(SPACE, array=RTL)
    machine = {"dim": np.full(200, 4.0), "scratchpad_bytes": np.full(200, 1e9), "accumulator_bytes": np.full(200, 1e9)}
    tile = problem.evaluator.usage(points).tile
    whole = ((tile["tile.C"] % 4 == 0) & (tile["tile.K"] % 4 == 0)).all(axis=1)
    assert whole.sum() > 20
    e, wanted = problem.evaluator.cost(problem.evaluator.usage(points), machine)[0], Relaxation(problem)
    _, _, shares, _ = wanted(np.log(points[..., :-1]), points[..., -1], machine)
    energy = problem.evaluator.cost(problem.evaluator.usage(points), machine)[1]
    counts = np.array([x.count for x in LAYERS])
    expected = e * counts / (e @ counts)[:, None] + energy * counts / (energy @ counts)[:, None]
    assert np.allclose(shares[whole], expected[whole], rtol=1e-9)


@pytest.mark.parametrize("method", ["gradient", "dosa", "genetic"])
def test_searches_find_what_is_better_by_the_fitted_cycles(method: str) -> None:
    plain, fitted = (Run(Problem(SPACE, array=a), Budget(evaluations=6000), 3) for a in (None, RTL))
    for run in (plain, fitted):
        METHODS[method](run)
    assert plain.point is not None
    assert fitted.best <= fitted.problem.score(fitted.problem.evaluate(plain.point[None]))[0] * 1.02
    assert fitted.best >= plain.best * 0.98


def test_the_call_takes_the_name_of_the_cycles() -> None:
    roofline, rtl = (codesign(LAYERS, family(), cycles=c, budget=1500) for c in ("roofline", "rtl"))
    assert rtl.score > roofline.score


def test_what_has_no_such_cycles_is_refused() -> None:
    with pytest.raises(SpaceError, match="nvdla has no cycles fitted to measured ones"):
        array_time(load_family("nvdla"), "rtl")
    with pytest.raises(SpaceError, match="there are no cycles 'guess'"):
        array_time(family(), "guess")
    with pytest.raises(SpaceError, match="nvdla has no parameter dim"):
        Problem(MapSpace(LAYERS, load_family("nvdla")), array=RTL)
    with pytest.raises(SpaceError, match="the exact optimum is known for the roofline's cycles"):
        optimum(Problem(SPACE, array=RTL))
