from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.schedule.nests import NESTS
from tests.schedule.programs import assert_same, kernel_of

from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 6), st.integers(0, 12), st.integers(1, 3), st.integers(1, 5), st.sampled_from(["first", "last"]))
def test_every_extent(lo: int, hi: int, step: int, count: int, where: str) -> None:
    kernel = kernel_of(f"def f(a: i32[13]):\n    for i in range({lo}, {hi}, {step}):\n        a[i] = a[i - 1 if i > 0 else 0] + 1")
    sch = Schedule(kernel)
    sch.peel("i", count, where=where)
    assert_same(kernel, sch.kernel)


@pytest.mark.parametrize("size", range(6))
@pytest.mark.parametrize("where", ["first", "last"])
def test_triangular_loops(where: str, size: int) -> None:
    kernel = NESTS["lu"]
    sch = Schedule(kernel)
    names = sch.peel("k", 2, where=where)
    assert names == (("kf", "k") if where == "first" else ("k", "kl"))
    assert_same(kernel, sch.kernel, {"N": size})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("i", 0), "count 0 is not an int >= 1"), (("i", 1, "middle"), "where='middle'"), (("j", 1), "step is 2 and its extent")],
)
def test_refusals(arguments: tuple[object, ...], message: str) -> None:
    kernel = kernel_of("def f(a: i32[9]):\n    for i in range(9):\n        for j in range(i, 9, 2):\n            a[j] += 1")
    with pytest.raises(ScheduleError, match=message):
        Schedule(kernel).peel(*arguments)
