"""Cycles and energy of mappings: by hand, one by one against populations, gradients against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tilewright.cost.loopnest import LoopNest, convolution, parse_nest
from tilewright.cost.nestcost import NestModel, Population
from tilewright.hw.hierarchy import STREAMED, Hierarchy, Storage
from tilewright.hw.library.gemmini import hierarchy
from tilewright.util.errors import IRTypeError, MachineError

#: Structures with stationarity of each tensor, windows in both directions, units side by side.
NESTS = [
    parse_nest(t)
    for t in (
        "L3[WIO] K4 C2 P7 - L2[WI] N1 K4X - L1[O] K2 S3 R3 C4 Q14 P2 C8X - L0[W] N1",
        "L3[WIO] P4 C3 R3 K2 Q5 - L2[WI] N1 K3X - L1[O] S3 K2 C2X - L0[W] P6",
        "L3[WIO] P28 Q56 K8 - L2[WI] N1 K4X - L1[O] K2 S5 R5 Q2 P4 C3X - L0[W] N1",
        "L3[WIO] R3 S3 P7 - L2[WI] N1 - L1[O] K16 C8 Q7 - L0[W] P2",
    )
]
ENV = {"SH": 2, "SW": 1, "dim": 16, "scratchpad_bytes": 256 << 10, "accumulator_bytes": 64 << 10}
LAYER = convolution(("SH", "SW"))


def columns(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    dim = rng.choice([4, 16, 64], n)
    return {
        "SH": rng.integers(1, 4, n),
        "SW": rng.integers(1, 4, n),
        "dim": dim,
        "scratchpad_bytes": rng.integers(1, 64, n) << 10,
        "accumulator_bytes": dim * (rng.integers(1, 64, n) << 8),
    }


def test_a_matrix_product_costed_by_hand() -> None:
    """A 4 x 6 by 6 x 8 product: outputs stay (C inside), 2 x 2 units, weights in registers for two rows."""
    machine = Hierarchy(
        "by hand",
        (
            Storage("far", energy=100, words_per_cycle=4, line=32),
            Storage("near", energy=lambda m: m["near"], words_per_cycle=3),
            Storage("sums", energy=2, words_per_cycle=1),
            Storage("weights", energy=0.5),
        ),
        arithmetic=1,
        parameters=("near",),
    )
    nest = parse_nest("far[WIO] K4 P2 C3 - near[WI] N1 K2X - sums[O] N1 C2X - weights[W] P2")
    cost = NestModel(convolution(), nest.structure(), machine)({**nest.environment(), "near": 10})
    weights = 192 + 96  # reads; fills: 24 tiles of 4 words
    sums = 96 + 32 + 64  # updates (two products summed each), fills, reads: 96 less 32 first ones
    near = (96 + 96) + (96 + 96)  # of W and of I: reads, fills
    far = 96 + 96 + 32  # W, I, O written once and never read
    assert cost.words == {"far": far, "near": near, "sums": sums, "weights": weights}
    assert cost.held == {"far": 48 + 24 + 32, "near": 4 + 4, "sums": 2, "weights": 1}
    assert cost.instances == {"far": 1, "near": 1, "sums": 2, "weights": 4}
    assert cost.cycles == max(48, far // 4, near // 3, sums // 2)
    assert cost.energy == 192 + 0.5 * weights + 2 * sums + 10 * near + 100 * far
    padded = NestModel(convolution(), parse_nest("far[WIO] K3 - near[WI] C3 - sums[O] N1 - weights[W] N1"), machine)({"near": 10})
    assert padded.words["far"] == 9 + 3 + 3 and padded.energy - 100 * 3 * 32 == 9 + 0.5 * 18 + 2 * (9 + 3 + 6) + 10 * (9 + 9 + 9 + 3)


def test_a_population_gives_what_each_mapping_gives() -> None:
    rng = np.random.default_rng(4)
    nests = [NESTS[n] for n in rng.integers(0, len(NESTS), 60)]
    parameters = columns(60)
    population = Population(LAYER, hierarchy())
    cycles, energy = population.evaluate(nests, parameters)
    for n, nest in enumerate(nests):
        one = NestModel(LAYER, nest, hierarchy())({k: int(v[n]) for k, v in parameters.items()})
        assert cycles[n] == one.cycles
        assert energy[n] == pytest.approx(one.energy, rel=1e-12)
    assert population.model(nests[0].structure()) is population.model(nests[0].structure())


def _values(nest: LoopNest, n: int) -> dict[str, np.ndarray]:
    """Trips and machine parameters that are no integers, away from kinks."""
    rng = np.random.default_rng(5)
    knobs = {k: v * rng.uniform(1.02, 1.3, n) for k, v in nest.environment().items()}
    return {**knobs, **{k: v * rng.uniform(1.01, 1.2, n) for k, v in ENV.items()}}


@pytest.mark.parametrize("nest", NESTS, ids=str)
def test_gradients_are_finite_differences(nest: LoopNest) -> None:
    torch = pytest.importorskip("torch")
    model = NestModel(LAYER, nest.structure(), hierarchy(), rounded=False)
    start = _values(nest, 8)
    tensors = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in start.items()}
    cost = model(tensors)
    exact = model(start)
    assert np.allclose(cost.energy.detach(), exact.energy, rtol=1e-12) and np.allclose(cost.cycles.detach(), exact.cycles, rtol=1e-12)
    for name in ("cycles", "energy"):
        gradients = torch.autograd.grad(getattr(cost, name).sum(), list(tensors.values()), retain_graph=True, allow_unused=True)
        moved = 0
        for (knob, value), gradient in zip(start.items(), gradients, strict=True):
            step = value * 1e-6
            up, down = (getattr(model({**start, knob: value + sign * step}), name) for sign in (1, -1))
            found = np.zeros(8) if gradient is None else gradient.numpy()
            assert np.allclose(found, (up - down) / (2 * step), rtol=1e-4, atol=1e-5 * np.abs(getattr(exact, name) / value).max()), knob
            moved += gradient is not None
        assert moved >= 3


def test_rounding_counts_whole_cycles_and_lines() -> None:
    machine = Hierarchy("lines", (Storage("m", energy=1, words_per_cycle=2.5, line=4),), arithmetic=0)
    nest = parse_nest("m[WIO] P3")
    whole, smooth = (NestModel(convolution(), nest, machine, rounded=r)({}) for r in (True, False))
    assert (smooth.cycles, smooth.energy) == ((3 + 3 + 3) / 2.5, 9)  # W, I, updates of O, which is never read back
    assert (whole.cycles, whole.energy) == (4, 12)


def test_trips_of_one_are_loops_that_are_not_there() -> None:
    """One structure with all loops serves every mapping that orders them so."""
    full = parse_nest("L3[WIO] K9 C9 P9 Q9 R9 S9 - L2[WI] N1 K9X - L1[O] K9 S9 R9 C9 Q9 P9 C9X - L0[W] P9")
    model = NestModel(LAYER, full.structure(), hierarchy())
    nest = parse_nest("L3[WIO] K4 P7 R3 - L2[WI] N1 K4X - L1[O] K2 S3 C4 Q14 - L0[W] P2")
    env = {**dict.fromkeys(full.environment(), 1), **nest.environment(), **ENV}
    alone = NestModel(LAYER, nest, hierarchy())(ENV)
    together = model(env)
    assert (together.cycles, together.energy, together.words) == (alone.cycles, pytest.approx(alone.energy, rel=1e-12), alone.words)


def test_what_is_not_bound_is_named() -> None:
    model = NestModel(LAYER, NESTS[0].structure(), hierarchy())
    assert {*NESTS[0].environment(), "SH", "dim", "scratchpad_bytes", "accumulator_bytes"} <= set(model.variables)
    with pytest.raises(IRTypeError, match="knob 'dim' has no value"):
        model({k: v for k, v in {**NESTS[0].environment(), **ENV}.items() if k != "dim"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Storage("a", 1, reuse="some"), "storage a has no reuse 'some'"),
        (lambda: Storage("a", 1, word_bytes=0), "storage a has words of 0 bytes"),
        (lambda: Hierarchy("h", (), 1), "hierarchy h has levels none"),
        (lambda: Hierarchy("h", (Storage("a", 1), Storage("a", 1, reuse=STREAMED)), 1), "hierarchy h has levels a, a"),
        (lambda: hierarchy().rate(lambda m: m["dim"], {"dim": 1}), "gemmini needs the parameter 'scratchpad_bytes'"),
    ],
)
def test_a_hierarchy_must_make_sense(make: Any, message: str) -> None:
    with pytest.raises(MachineError, match=message):
        make()
