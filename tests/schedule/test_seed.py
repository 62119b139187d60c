from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from tests.schedule.programs import assert_same, kernel_of

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
