"""Cycles beyond the roofline: the formula by hand, the fit on cycles made here, one formula for numbers, arrays and tensors."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from tilewright.cost.loopnest import parse_nest
from tilewright.cost.residual import ArrayTime, Rates, tile_environment
from tilewright.util.errors import MappingError

RATES = Rates(tile=100, row=1, preload=2, input_word=0.25, input_row=3, weight_word=0.5, weight_row=4)
NEST = parse_nest("L3[WIO] K2 P3 - L2[WI] N1 K4X - L1[O] K2 S3 R3 C2 Q7 P2 C8X - L0[W] N1")


def test_a_tile_is_what_stands_inside_the_outermost_loops() -> None:
    assert tile_environment(NEST) == {
        "tiles": 6, "tile.N": 1, "tile.K": 8, "tile.C": 16, "tile.P": 2, "tile.Q": 7, "tile.R": 3, "tile.S": 3,
    }  # fmt: skip
    with pytest.raises(MappingError, match="no dimension G"):
        tile_environment(parse_nest("L1[WIO] G2 - L0[W] N1"))


def test_the_slower_of_arithmetic_and_memory_counts() -> None:
    env = {**tile_environment(NEST), "SH": 2, "SW": 1, "dim": 8}
    blocks = 2 * 1 * 3 * 3  # 16 channels in rows of 8, 8 columns
    arithmetic = 100 + blocks * (1 * 2 * 7 + 2 * 8)
    pixels = ((2 - 1) * 2 + 3) * (7 - 1 + 3)
    memory = pixels * (0.25 * 16 + 3 * 2) + 3 * 3 * 16 * (0.5 * 8 + 4 * 1)
    assert memory > arithmetic
    assert ArrayTime(RATES).predict(env) == 6 * memory
    fast = Rates(100, 1, 2, 0.01, 0.01, 0.01, 0.01)
    assert ArrayTime(fast).predict(env) == 6 * arithmetic


def test_numbers_arrays_and_tensors_agree_and_tensors_carry_gradients() -> None:
    torch = pytest.importorskip("torch")
    env = {**tile_environment(NEST), "SH": 1, "SW": 1, "dim": 8}
    model = ArrayTime(RATES)
    number = model.predict(env)
    assert model.predict({**env, "tile.C": np.array([16, 16])}).tolist() == [number, number]
    c = torch.tensor(16.0, requires_grad=True)
    found = model.predict({**env, "tile.C": c})
    found.backward()
    assert float(found.detach()) == number and float(c.grad) > 0


def test_the_fit_finds_the_constants_that_made_the_cycles() -> None:
    rng = np.random.default_rng(0)
    env = {f"tile.{d}": rng.integers(1, 65, 600).astype(float) for d in "KCPQ"}
    env |= {"tile.R": rng.choice([1.0, 3.0], 600), "tile.N": np.ones(600), "tiles": rng.integers(1, 1000, 600).astype(float)}
    env |= {"tile.S": env["tile.R"], "SH": np.ones(600), "SW": np.ones(600), "dim": rng.choice([4.0, 8.0, 16.0], 600)}
    truth = ArrayTime(RATES).predict(env)
    assert np.allclose(astuple(ArrayTime.fit(env, truth).rates), astuple(RATES), rtol=1e-3)
    noisy = truth * np.exp(0.1 * rng.standard_normal(600))
    noisy[:12] *= 100  # a few runs that went wrong
    assert np.abs(np.log(ArrayTime.fit(env, noisy).predict(env) / truth)).mean() < 0.03


@pytest.mark.slow
def test_a_learned_correction_starts_at_the_constants_and_learns_what_they_leave() -> None:
    pytest.importorskip("torch")
    from tilewright.cost.residual_attention import AttentionTime

    rng = np.random.default_rng(0)
    env = {f"tile.{d}": rng.integers(1, 33, 400).astype(float) for d in "NKCPQRS"}
    env |= {"tiles": np.full(400, 10.0), "SH": np.ones(400), "SW": np.ones(400), "dim": rng.choice([4.0, 16.0], 400)}
    cycles = ArrayTime(RATES).predict(env) * np.where(env["dim"] == 4, 1.5, 0.8)
    model = AttentionTime.fit(env, cycles)
    plain, learned = (np.abs(np.log(m.predict(env) / cycles)).mean() for m in (model.base, model))
    assert learned < 0.6 * plain
    assert np.array_equal(AttentionTime.fit(env, cycles).predict(env), model.predict(env))
