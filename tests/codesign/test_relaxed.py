"""The gradient of the network's objective against differences, with and without limits, on machines inferred and given."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.codesign.layer import Layer
from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.problem import Limits, Problem, array_time
from tilewright.codesign.relaxed import Relaxation
from tilewright.hw.library.gemmini import family

LAYERS = (
    Layer("conv", {"K": 12, "C": 6, "P": 7, "Q": 4, "R": 3, "S": 3}, {"SH": 2}, count=2),
    Layer.gemm("gemm", 512, 768, 256),
    Layer("other", {"K": 8, "C": 3, "P": 6, "Q": 6, "R": 3, "S": 2}, count=4),
)
SPACE = MapSpace(LAYERS, family())


def area(m: dict) -> object:
    return m["dim"] * m["dim"] * 0.01 + m["scratchpad_bytes"] * 1e-4 + m["accumulator_bytes"] * 2e-4


PROBLEMS = {
    "edp": Problem(SPACE),
    "latency": Problem(SPACE, "latency"),
    "limits": Problem(SPACE, limits=Limits(area=0.5, power=1e-4, most={"dim": 2}, area_model=area)),
    "networks": Problem(SPACE, networks=[[1, 0, 1], [0, 3, 2]]),
    "rtl": Problem(SPACE, array=array_time(family(), "rtl")),
}


def start(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of real factors, none of them 1, and orders."""
    rng = np.random.default_rng(0)
    logs = np.zeros((n, len(LAYERS), len(SPACE.columns)))
    for x, layer in enumerate(LAYERS):
        for d, own in SPACE.by_dim.items():
            logs[:, x, list(own)] = np.log(layer.sizes[d]) * rng.dirichlet(np.full(len(own), 3.0), n)
    return logs, rng.integers(0, len(SPACE.variants), (n, len(LAYERS)))


@pytest.mark.parametrize("given", [False, True], ids=["inferred", "given"])
@pytest.mark.parametrize("which", PROBLEMS)
def test_gradients_are_finite_differences(which: str, given: bool) -> None:
    relaxed = Relaxation(PROBLEMS[which])
    logs, order = start(4)
    n = len(logs)
    machine = {"dim": np.full(n, 4.5), "scratchpad_bytes": np.full(n, 3e3), "accumulator_bytes": np.full(n, 9e3)} if given else None
    _, gradient, _, traffic = relaxed(logs, order, machine)
    checked = 0
    for c in range(len(SPACE.columns)):
        for x, layer in enumerate(LAYERS):
            if layer.sizes[SPACE.columns[c].dim] == 1:
                continue
            moved = [logs.copy(), logs.copy()]
            for m, sign in zip(moved, (1, -1), strict=True):
                m[:, x, c] += sign * 1e-6
            up, down = (relaxed(m, order, machine)[0] for m in moved)
            assert np.allclose(gradient[:, x, c], (up - down) / 2e-6, rtol=2e-4, atol=1e-6), (SPACE.columns[c], layer.name)
            checked += 1
    assert checked > 20
    part = np.array([0, 2])
    again = relaxed(logs, order, machine, part, traffic)
    assert np.allclose(again[1], gradient[:, part], rtol=1e-12)


def test_whole_factors_have_the_value_of_their_point() -> None:
    points = SPACE.sample(20, np.random.default_rng(1))
    problem = PROBLEMS["networks"]
    e = problem.evaluate(points)
    value, _, shares, _ = Relaxation(problem)(np.log(points[..., :-1]), points[..., -1], e.hardware)
    assert np.allclose(np.exp(value), problem.score(e), rtol=1e-9)
    assert np.allclose(shares.sum(axis=1), 2, rtol=1e-9) and (shares > 0).all()
