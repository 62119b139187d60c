"""Sums of quantised tensors as sums of integers: only where every pair of int8 numbers gives what ONNX Runtime gives."""

from __future__ import annotations

import numpy as np
import pytest
from tests.graph.test_integers import agree, float_pattern

from tilewright.codegen.commands import Host
from tilewright.codegen.commands import walk as items
from tilewright.graph import load
from tilewright.graph.exact_sums import IntegerSum, Term, integer_sum
from tilewright.graph.integers import integer_form
from tilewright.graph.network import Network
from tilewright.graph.offloading import offloaded
from tilewright.hw import load_machine
from tilewright.ir import types as ty
from tilewright.ir.expr import Intrinsic, walk
from tilewright.ir.stmt import own_exprs
from tilewright.ir.stmt import walk as statements
from tilewright.sim.gemmini.offload import Offload

EVERY = np.arange(-128, 128).astype(np.int8)
PAIRS = {"a": np.repeat(EVERY, 256), "b": np.tile(EVERY, 256)}


def source(a: float, b: float, y: float, zero: int = 0) -> object:
    scales = {n: np.float32(v) for n, v in (("a", a), ("b", b), ("y", y))}
    zeros = {"a": np.int8(zero), "b": np.int8(0), "y": np.int8(0)}
    return float_pattern("Add", {n: v.shape for n, v in PAIRS.items()}, (1 << 16,), scales, zeros)


def fused(a: float, b: float, y: float, zero: int = 0) -> bool:
    """Whether the sum is formed of scaled floats."""
    steps = Network.interpreted(load(integer_form(source(a, b, y, zero)))).steps
    exprs = [e for k in steps for s in statements(k.call.kernel.body) for own in own_exprs(s) for e in walk(own)]
    return any(isinstance(e, Intrinsic) and e.name == "fma" for e in exprs)


@pytest.mark.parametrize(
    ("scales", "integers"),
    [
        ((0.03125, 0.03125, 0.03125), True),
        ((0.05, 0.05, 0.05), True),
        ((0.05, 0.05, 0.1), True),
        ((0.02, 0.02, 0.031), True),
        ((0.02, 0.04, 0.05), True),  # a + 2 b
        ((0.02, 0.05, 0.05), True),  # a is rounded as it is loaded
        ((0.05, 0.013, 0.05), False),  # 25 * 0.26 is 6.5: to even before, to another even after
        ((0.02, 0.03, 0.04), False),
    ],
)
def test_every_pair_is_what_onnx_runtime_says(scales: tuple[float, float, float], integers: bool) -> None:
    assert fused(*scales) is not integers
    agree(source(*scales), PAIRS)  # type: ignore[arg-type]


def test_zero_points_keep_the_sum_of_floats() -> None:
    assert fused(0.05, 0.05, 0.05, zero=3)
    agree(source(0.05, 0.05, 0.05, zero=3), PAIRS)  # type: ignore[arg-type]


def test_some_equal_scales_round_otherwise() -> None:
    """So all pairs have to be tried: a factor near a half of an odd number is on one side of it here, on the other there."""
    rng = np.random.default_rng(0)
    drawn = [np.float32(n) for n in rng.uniform(0.1, 2, 400)] + [np.float32(n / 256) for n in range(1, 256, 2)]
    found = [integer_sum(f, f, ty.i8, ty.i8) for f in drawn]
    assert all(g in (None, IntegerSum(Term(), Term(), float(f))) for f, g in zip(drawn, found, strict=True))
    assert sum(g is not None for g in found) > len(found) // 2


@pytest.mark.parametrize("scale", [0.0, -0.5])
def test_scales_that_are_none_and_numbers_too_many_to_try(scale: float) -> None:
    half, other = np.float32(0.5), np.float32(scale)
    assert integer_sum(half, half, ty.i8, ty.i8) is not None
    assert (
        integer_sum(half, other, ty.i8, ty.i8) is integer_sum(other, half, ty.i8, ty.i8) is integer_sum(other, other, ty.i8, ty.i8) is None
    )
    assert integer_sum(half, half, ty.i16, ty.i8) is None


@pytest.mark.parametrize("scales", [(0.02, 0.04, 0.05), (0.06, 0.02, 0.05), (0.02, 0.05, 0.05)])
def test_the_array_computes_them(scales: tuple[float, float, float]) -> None:
    """Operands loaded several times, or scaled on their way: no part of it is the host's."""
    machine, shape = load_machine("gemmini"), (16, 32)
    each = {n: np.float32(v) for n, v in zip("aby", scales, strict=True)}
    model = integer_form(float_pattern("Add", {"a": shape, "b": shape}, shape, each, dict.fromkeys("aby", np.int8(0))))
    offload = Offload(machine)
    network = offloaded(load(model), machine, offload.prepare)
    inputs = {v.name: np.random.default_rng(2).integers(-128, 128, shape).astype(np.int8) for v in network.graph.inputs}
    for name, want in network.reference(inputs).items():
        np.testing.assert_array_equal(network.executed(inputs, offload)[name], want)
    (program,) = offload.programs.values()
    assert not any(isinstance(i, Host) for i in items(program.body))


def test_sums_by_hand() -> None:
    one, two, less = np.float32(1), np.float32(2), np.float32(0.4619)
    assert integer_sum(one, one, ty.i8, ty.i8) == IntegerSum(Term(), Term(), 1.0)
    assert integer_sum(one, two, ty.i8, ty.i8) == IntegerSum(Term(), Term(2), 1.0)
    assert integer_sum(one, less, ty.i8, ty.i8) == IntegerSum(Term(), Term(scale=float(less)), 1.0)
    # Halves: a + b / 2 is rounded to even once, not b / 2 before.
    assert integer_sum(one, np.float32(0.5), ty.i8, ty.i8) == IntegerSum(Term(2), Term(), 0.5)


def test_what_is_not_tried() -> None:
    one = np.float32(1)
    assert integer_sum(one, one, ty.i16, ty.i8) is None
    assert integer_sum(one, np.float32(0), ty.i8, ty.i8) is None
    assert integer_sum(one, np.float32(1.5), ty.i8, ty.i8) is None
    assert integer_sum(np.float32(0.4), np.float32(0.6), ty.i8, ty.i8) is None
