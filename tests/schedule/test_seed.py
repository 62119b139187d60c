from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError


def layer(m: int = 3, n: int = 4, value: str = "i32(acc[i, j] + bias[j])", between: str = "pass") -> Kernel:
    return kernel_of(f"""
def layer(a: i8[{m}, 5], b: i8[5, {n}], bias: i32[{n}], other: i32[{m}, {n}], y: i32[{m}, {n}]):
    acc = alloc(i32[{m}, {n}])
    for i in range({m}):
        for j in range({n}):
            acc[i, j] = 0
    for i in range({m}):
        for j in range({n}):
            for k in range(5):
                acc[i, j] += a[i, k] * b[k, j]
    for i in range({n}):
        {between}
    for i in range({m}):
        for j in range({n}):
            y[i, j] = max({value}, 0) * 2
""")


@settings(max_examples=20, deadline=None)
@given(hs.integers(1, 5), hs.integers(1, 5), hs.sampled_from(["bias[j]", "other[i, j]", "bias[j] * 3", "y[i, j]"]))
def test_sums_start_from_what_was_added(m: int, n: int, added: str) -> None:
    kernel = layer(m, n, f"i32(acc[i, j] + {added})")
    sch = Schedule(kernel)
    assert sch.seed("acc") == ("i", "j")
    assert_same(kernel, sch.kernel)
    assert "acc[i, j] = " + ("i32(" if "*" in added else "") + added in str(sch.kernel)


def test_sums_that_do_not_wrap_alike_stay() -> None:
    """acc + bias has 33 bits: formed in 32 it would lose one."""
    with pytest.raises(ScheduleError, match="nothing is added to it where it is read"):
        Schedule(layer(value="acc[i, j] + bias[j]")).seed("acc")


@pytest.mark.parametrize(
    ("value", "between", "why"),
    [
        ("i32(acc[i, j] + bias[j])", "bias[i] = 7", "bias is written while the sums are formed"),
        ("i32(acc[i, j] + bias[j]) + acc[i, j]", "pass", "read, once"),
        ("i32(acc[i, 0] + bias[j])", "pass", "not read element by element"),
        ("i32(acc[i, j] - bias[j])", "pass", "nothing is added"),
    ],
)
def test_refusals(value: str, between: str, why: str) -> None:
    with pytest.raises(ScheduleError, match=why):
        Schedule(layer(4, 4, value, between)).seed("acc")


def floats(value: str) -> Kernel:
    return kernel_of(f"""
def layer(a: f32[3, 5], b: f32[5, 4], bias: f32[4], column: f32[3], short: f16[4], other: f32[3, 4], y: f32[3, 4]):
    acc = alloc(f32[3, 4])
    for i in range(3):
        for j in range(4):
            acc[i, j] = 0.0
    for i in range(3):
        for j in range(4):
            for k in range(5):
                acc[i, j] += a[i, k] * b[k, j]
    for i in range(3):
        for j in range(4):
            y[i, j] = max({value}, 0.0) * 2.0
""")


@pytest.mark.parametrize("added", ["bias[j]", "other[i, j]"])
def test_sums_of_floats_start_from_rows_of_their_type(added: str) -> None:
    kernel = floats(f"{added} + acc[i, j]")
    sch = Schedule(kernel)
    assert sch.seed("acc") == ("i", "j")
    assert f"acc[i, j] = {added}\n" in str(sch.kernel) and "max(acc[" in str(sch.kernel)
    rng = np.random.default_rng(0)
    arrays = {b.name: rng.integers(-4, 5, b.static_shape).astype(b.dtype.to_numpy()) for b in kernel.args}
    want, got = ({n: x.copy() for n, x in arrays.items()} for _ in range(2))
    interpret(kernel, want)
    interpret(sch.kernel, got)
    np.testing.assert_array_equal(got["y"], want["y"])  # whole numbers: exact in any order


def test_a_second_addend_stays() -> None:
    """What is left of ``acc + a + b`` has the form that is looked for, too."""
    kernel = floats("acc[i, j] + other[i, j] + bias[j]")
    sch = Schedule(kernel)
    sch.seed("acc")
    assert "max(acc[i_2, j_2] + bias[j_2]" in str(sch.kernel)
    assert_same(kernel, sch.kernel)


def test_what_a_condition_guards_is_not_read_without_it() -> None:
    kernel = layer(value="where(j < 3, i32(acc[i, j] + bias[j + 1]), 0)")
    with pytest.raises(ScheduleError, match=r"is computed under a condition, without which it may read outside of bias"):
        Schedule(kernel).seed("acc")
    kernel = layer(value="where(j < 3, i32(acc[i, j] + bias[j]), 0)")
    sch = Schedule(kernel)
    sch.seed("acc")
    assert_same(kernel, sch.kernel)


@pytest.mark.parametrize("added", ["column[i]", "bias[0]", "f32(short[j])", "bias[j] * 2.0"])
def test_other_additions_to_floats_stay(added: str) -> None:
    with pytest.raises(ScheduleError, match="nothing is added to it where it is read") as caught:
        Schedule(floats(f"acc[i, j] + {added}")).seed("acc")
    assert "with b of f32, in rows like the sums" in str(caught.value.hint)
