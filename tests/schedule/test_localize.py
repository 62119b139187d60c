from __future__ import annotations

import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.hw import load_machine
from tilewright.ir.stmt import allocated
from tilewright.lang import parse
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError

ROWS = kernel_of("""
def rows(x: i32[6, 5], y: i32[6, 5]):
    t = alloc(i32[6, 5])
    s = alloc(i32[6])
    for i in range(6):
        s[i] = 0
        for j in range(5):
            t[i, j] = x[i, j] * 3
        for j in range(5):
            s[i] += t[i, j]
        for j in range(5):
            y[i, j] = t[i, j] - s[i]
""")


def test_row_buffers_shrink_to_a_row() -> None:
    sch = Schedule(ROWS)
    sch.localize("t", "i")
    sch.localize("s", "i")
    assert {b.name: b.static_shape for b in allocated(sch.kernel)} == {"t": (1, 5), "s": (1,)}
    assert_same(ROWS, sch.kernel)
    sch.parallel("i")  # private now: iterations share nothing
    assert_same(ROWS, sch.kernel)


def test_two_loops_select_two_dimensions() -> None:
    kernel = kernel_of("""
def f(x: i32[3, 4, 5], y: i32[3, 4, 5]):
    t = alloc(i32[3, 4, 5])
    for i in range(3):
        for j in range(4):
            for k in range(5):
                t[i, j, k] = x[i, j, k] + 1
            for k in range(5):
                y[i, j, k] = t[i, j, 4 - k]
""")
    sch = Schedule(kernel)
    sch.localize("t", "j")
    assert allocated(sch.kernel)[0].static_shape == (1, 1, 5)
    assert_same(kernel, sch.kernel)


CARRIED = kernel_of("""
def carried(x: i32[6], y: i32[6]):
    t = alloc(i32[7])
    t[0] = 0
    for i in range(6):
        t[i + 1] = t[i] + x[i]
        y[i] = t[i + 1]
""")


@pytest.mark.parametrize(
    ("kernel", "buffer", "loop", "message"),
    [
        (CARRIED, "t", "i", "also used outside the loop"),
        (ROWS, "x", "i", "no local buffer"),
        (ROWS, "t", "j", "also used outside the loop"),
        (ROWS, "t", "nowhere", "no loop"),
        (
            kernel_of("def f(y: i32[6]):\n    t = alloc(i32[1])\n    for i in range(6):\n        t[0] = i32(i)\n        y[i] = t[0]"),
            "t",
            "i",
            "no dimension is indexed by i",
        ),
    ],
)
def test_refusals(kernel, buffer: str, loop: str, message: str) -> None:
    sch = Schedule(kernel)
    with pytest.raises(ScheduleError, match=message):
        sch.localize(buffer, loop)
    assert sch.kernel is kernel


def test_the_loop_has_to_be_in_the_scope_of_the_buffer() -> None:
    kernel = kernel_of("""
def f(x: i32[6], y: i32[6]):
    for i in range(6):
        t = alloc(i32[6])
        t[i] = x[i]
        y[i] = t[i]
    for j in range(6):
        y[j] += 1
""")
    with pytest.raises(ScheduleError, match="not in the scope of the allocation"):
        Schedule(kernel).localize("t", "j")


def test_buffers_of_calls_stay() -> None:
    kernel = parse(
        """
@kernel
def f(a: f32[6], b: f32[6, 8], c: f32[6, 8]):
    t = alloc(f32[6, 8])
    for i in range(6):
        for j in range(8):
            t[i, j] = 0.0
        fma(t[i, 0:8], a[i], b[i, 0:8])
        for j_1 in range(8):
            c[i, j_1] = t[i, j_1]
""",
        fma=load_machine("x86.avx2").instruction("fma"),
    )
    with pytest.raises(ScheduleError, match="it is passed to a call"):
        Schedule(kernel).localize("t", "i")


@pytest.mark.parametrize("last", range(5, 13))
def test_elements_another_iteration_uses_are_not_its_own(last: int) -> None:
    """Indexed by the loop in one use, and by something else in the other (several: a set of two has no first)."""
    kernel = kernel_of(
        f"def f(x: i32[6], y: i32[6]):\n    t = alloc(i32[13])\n    for i in range(6):\n        t[i] = x[i]\n        y[i] = t[{last} - i]"
    )
    with pytest.raises(ScheduleError, match="no dimension is indexed by i in every use"):
        Schedule(kernel).localize("t", "i")


def test_loops_inside_keep_their_dimension() -> None:
    """The inner loop indexes a dimension in every use, but its iterations are not taken apart."""
    kernel = kernel_of("""
def f(x: i32[6, 5], y: i32[6, 5]):
    t = alloc(i32[6, 5])
    for i in range(6):
        for k in range(5):
            t[i, k] = x[i, k]
            y[i, k] = t[i, k] + 1
""")
    sch = Schedule(kernel)
    sch.localize("t", "i")
    assert allocated(sch.kernel)[0].static_shape == (1, 5)
    assert_same(kernel, sch.kernel)
