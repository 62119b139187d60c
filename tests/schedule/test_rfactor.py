from __future__ import annotations

import numpy as np
import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir import types as ty
from tilewright.ir.stmt import Kernel, all_buffers
from tilewright.lang import parse
from tilewright.schedule import Schedule, replay
from tilewright.util.errors import ScheduleError


def reduction(op: str = "+=", dtype: str = "f64", value: str = "x[i, k]") -> Kernel:
    """One reduction over rows of 12 elements; ``min`` and ``max`` are written as functions."""
    update = f"y[i] = {op}(y[i], {value})" if op in ("min", "max") else f"y[i] {op} {value}"
    return kernel_of(f"""
def f(x: {dtype}[5, 12], y: {dtype}[5]):
    for i in range(5):
        for k in range(12):
            {update}
""")


@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        ("+=", "f64"),
        ("*=", "f64"),
        ("min", "f32"),
        ("max", "f32"),
        ("min", "i8"),
        ("max", "u8"),
        ("+=", "i32"),
        ("&=", "i32"),
        ("&=", "u8"),
    ],
)
def test_partial_results_are_combined(op: str, dtype: str) -> None:
    k = reduction(op, dtype)
    s = Schedule(k)
    _, lane = s.split("k", 4)
    partial, *roots = s.rfactor(lane)
    assert next(b for b in all_buffers(s.kernel) if b.name == partial).static_shape == (5, 4)
    assert len(roots) == 3
    assert_same(k, s.kernel)
    assert parse(str(s.kernel)) == s.kernel
    assert replay(k, s.trace).kernel == s.kernel


def test_lanes_then_run_side_by_side() -> None:
    k = reduction()
    s = Schedule(k)
    outer, lane = s.split("k", 4)
    partial, _, update, _ = s.rfactor(lane)
    s.reorder(outer, lane)
    s.vectorize(lane)
    assert_same(k, s.kernel)
    assert update == "i" and partial == "y_part"


def test_the_outer_part_may_be_kept_too() -> None:
    k = reduction()
    s = Schedule(k)
    outer, _ = s.split("k", 4)
    partial, *_ = s.rfactor(outer)
    assert next(b for b in all_buffers(s.kernel) if b.name == partial).static_shape == (5, 3)
    assert_same(k, s.kernel)


def test_loops_with_offset_and_step() -> None:
    k = kernel_of("""
def f(x: f64[40], y: f64[1]):
    for k in range(4, 40, 3):
        y[0] += x[k]
""")
    s = Schedule(k)
    s.rfactor("k")
    assert_same(k, s.kernel)


def test_prior_contents_count_once() -> None:
    """The result is not initialised by the nest: what it held is added once, not once a partial result."""
    k = reduction()
    s = Schedule(k)
    _, lane = s.split("k", 3)
    s.rfactor(lane)
    assert str(s.kernel).count("y[") == 1  # only the combination touches it
    assert_same(k, s.kernel)


def refused(k: Kernel, loop: str, message: str) -> None:
    s = Schedule(k)
    with pytest.raises(ScheduleError, match=message):
        s.rfactor(loop)
    assert s.kernel is k


def test_loops_that_are_no_reduction() -> None:
    refused(reduction(), "i", "rfactor i: y is indexed by it, so it is not a reduction loop")


def test_values_that_read_the_result() -> None:
    refused(reduction(value="x[i, k] * y[0]"), "k", "the value added to y reads y")


def test_narrowing_updates() -> None:
    k = kernel_of("""
def f(x: f32[12], y: i32[1]):
    for k in range(12):
        y[0] += i32(x[k])
""")
    s = Schedule(k)
    s.rfactor("k")  # each term is an integer: the order of their sum does not matter
    narrowed = kernel_of("""
def f(x: f32[12], y: i32[1]):
    for k in range(12):
        y[0] += x[k]
""")
    refused(narrowed, "k", "the order of the updates of y matters")


def test_nests_that_are_not_perfect() -> None:
    k = kernel_of("""
def f(x: f32[5, 12], y: f32[5]):
    for i in range(5):
        for k in range(12):
            y[i] += x[i, k]
            y[i] += 1.0
""")
    refused(k, "k", "not in a perfect nest around one reduction")


def test_only_the_perfect_part_of_the_nest_is_rewritten() -> None:
    """What else the outer loop does stays."""
    k = kernel_of("""
def f(x: i32[5, 12], y: i32[5]):
    for i in range(5):
        y[i] = 3
        for k in range(12):
            y[i] += x[i, k]
""")
    s = Schedule(k)
    partial, *_ = s.rfactor("k")
    assert next(b for b in all_buffers(s.kernel) if b.name == partial).static_shape == (12,)
    assert_same(k, s.kernel)


COMBINED = [("+", np.add), ("*", np.multiply), ("min", np.minimum), ("max", np.maximum), ("&", np.bitwise_and), ("|", np.bitwise_or)]


@pytest.mark.parametrize("dtype", [ty.i8, ty.u8, ty.i32, ty.boolean, ty.f32], ids=str)
@pytest.mark.parametrize(("op", "apply"), COMBINED, ids=lambda x: x if isinstance(x, str) else "")
def test_neutral_elements_change_nothing(op: str, apply: np.ufunc, dtype: ty.DType) -> None:
    if dtype.is_float and op in "&|":
        pytest.skip("no bits to combine")
    storage = dtype.to_numpy()
    low, high = (-1e30, 1e30) if dtype.is_float else dtype.range
    values = np.array([low, low + 1, 0, 1, high - 1, high]).astype(storage)
    np.testing.assert_array_equal(apply(values, np.array(dtype.neutral(op)).astype(storage)), values)


def test_neutral_elements_of_fixed_point_are_numbers_not_bits() -> None:
    t = ty.Fixed(16, 8)
    assert (t.neutral("min"), t.neutral("max"), t.neutral("+"), t.neutral("*")) == (127.99609375, -128.0, 0, 1)
