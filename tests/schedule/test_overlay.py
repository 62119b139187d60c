from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import If, find_loop, walk
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError

PAD = """
def pad(x: i8[5, 6], y: i8[{rows}, {columns}]):
    for i in range({rows}):
        for j in range({columns}):
            y[i, j] = where(i >= {top} and i < {top} + 5 and j >= {left} and j < {left} + 6, x[i - {top}, j - {left}], {other})
"""


@settings(max_examples=25, deadline=None)
@given(hs.integers(1, 9), hs.integers(1, 9), hs.integers(0, 3), hs.integers(0, 3))
def test_a_padded_copy_is_a_fill_and_a_rectangle(rows: int, columns: int, top: int, left: int) -> None:
    kernel = kernel_of(PAD.format(rows=rows, columns=columns, top=top, left=left, other="i8(3)"))
    sch = Schedule(kernel)
    sch.overlay("i")
    assert_same(kernel, sch.kernel)
    assert not any(isinstance(s, If) for s in walk(sch.kernel.body))


def test_bounds_of_tiles_are_clipped() -> None:
    kernel = kernel_of(PAD.format(rows=9, columns=8, top=1, left=1, other="i8(0)"))
    sch = Schedule(kernel)
    _, inner = sch.split("i", 4, "clip")
    sch.overlay(inner)
    copy = find_loop(sch.kernel, inner)
    assert str(copy.lo) == "max(1 - io * 4, 0)" and "6 - io * 4" in str(copy.hi)
    assert_same(kernel, sch.kernel)


@pytest.mark.parametrize(
    ("value", "why"),
    [("a[i] + 1", "does not choose"), ("where(i < 3, a[i], a[i + 1])", "does not choose"), ("where(i < 3, b[i], i32(0))", "reads b")],
)
def test_refusals(value: str, why: str) -> None:
    kernel = kernel_of(f"def f(a: i32[9], b: i32[8]):\n    for i in range(8):\n        b[i] = {value}")
    with pytest.raises(ScheduleError, match=why):
        Schedule(kernel).overlay("i")


def test_an_element_that_is_stored_twice_keeps_its_last_choice() -> None:
    kernel = kernel_of("""
def f(x: f32[6, 6], y: f32[6]):
    for i in range(6):
        for j in range(6):
            y[i] = where(j <= i % 3, x[i, j], 0.0)
""")
    with pytest.raises(ScheduleError, match=r"overlay i: iteration \(i=\d, j=\d\) must run before .* because of y"):
        Schedule(kernel).overlay("i")
