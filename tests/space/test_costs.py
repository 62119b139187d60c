"""Costs of a space's sketches: shared and bounded formulas say what the plain ones of each program say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from benchmarks.workloads import batched, conv, gemm, softmax

from tilewright.cost.estimate import estimate
from tilewright.cost.features import features
from tilewright.hw import load_machine
from tilewright.ir.stmt import Kernel
from tilewright.space import Space

MACHINE = load_machine("x86.avx512")
KERNELS: dict[str, Callable[[], Kernel]] = {
    "gemm": gemm(97, 200, 300).kernel,
    "large gemm": gemm(1024, 1024, 1024).kernel,
    "batched": batched(3, 50, 30, 40).kernel,
    "conv": conv("3x3", 28, 32, 64).kernel,
    "softmax": softmax(64, 200).kernel,
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", KERNELS)
def test_formulas_of_a_space_agree_with_those_of_each_program(name: str, threads: int) -> None:
    space = Space(KERNELS[name](), MACHINE, threads)
    points = space.sample(200, np.random.default_rng(0))
    seconds, columns = space.estimate(points), space.features(points)
    for s, rows in space.groups(points):
        env, program = space.environment(s, points[rows]), space.sketches[s].program
        assert seconds[rows] == pytest.approx(estimate(program, MACHINE, env, threads), rel=1e-9)
        alone = features(program, MACHINE, env)
        assert np.allclose(columns[rows, : alone.shape[1]], alone, atol=1e-4)
        assert not columns[rows, alone.shape[1] :].any()
    together, spent = space.predict(points)
    assert np.array_equal(together, columns)
    assert spent == pytest.approx(seconds, rel=1e-9)
