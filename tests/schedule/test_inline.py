from __future__ import annotations

import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import allocated, loops
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError


def test_a_chain_of_element_wise_stages() -> None:
    k = kernel_of("""
def f(x: f64[5, 7], y: f64[7, 5]):
    t = alloc(f64[5, 7])
    u = alloc(f64[5, 7])
    for i in range(5):
        for j in range(7):
            t[i, j] = x[i, j] * 2.0
    for i1 in range(5):
        for j1 in range(7):
            u[i1, j1] = t[i1, j1] + t[i1, 6 - j1]
    for i2 in range(7):
        for j2 in range(5):
            y[i2, j2] = u[j2, i2]
""")
    s = Schedule(k)
    s.inline("u")
    s.inline("t")
    assert [f.name for f in loops(s.kernel)] == ["i2", "j2"]
    assert not allocated(s.kernel)
    assert_same(k, s.kernel)


def test_through_padding() -> None:
    k = kernel_of("""
def f(x: f64[9], w: f64[3], y: f64[9]):
    p = alloc(f64[11])
    for i in range(11):
        p[i] = where(i >= 1 and i < 10, x[i - 1], 0.0)
    for j in range(9):
        y[j] = 0.0
        for r in range(3):
            y[j] += p[j + r] * w[r]
""")
    s = Schedule(k)
    s.inline("p")
    assert_same(k, s.kernel)


def test_the_element_type_still_rounds() -> None:
    k = kernel_of("""
def f(x: i32[9], y: i32[9]):
    t = alloc(i8[9])
    for i in range(9):
        t[i] = x[i] * 19
    for j in range(9):
        y[j] = t[j] + 1
""")
    s = Schedule(k)
    s.inline("t")
    assert_same(k, s.kernel)


def test_inside_a_loop() -> None:
    k = kernel_of("""
def f(x: f64[4, 6], y: f64[4, 6]):
    for b in range(4):
        t = alloc(f64[6])
        for i in range(6):
            t[i] = x[b, i] + 1.0
        for j in range(6):
            y[b, j] = t[5 - j]
""")
    s = Schedule(k)
    s.inline("t")
    assert [f.name for f in loops(s.kernel)] == ["b", "j"]
    assert_same(k, s.kernel)


REFUSED = {
    "reduction": (
        "    for i in range(9):\n        t[i] = 0.0\n    for i1 in range(9):\n        for k in range(9):\n            t[i1] += x[k]\n",
        "t[j]",
        "2 statements write it",
    ),
    "reduction in one nest": (
        "    for i in range(9):\n        for k in range(9):\n            t[i] = x[k]\n",
        "t[j]",
        "loop k is no dimension",
    ),
    "conditional": (
        "    for i in range(9):\n        if x[i] > 0.0:\n            t[i] = x[i]\n",
        "t[j]",
        "not one unconditional plain store",
    ),
    "input changes": (
        "    for i in range(9):\n        t[i] = x[i]\n    for h in range(9):\n        x[h] = 0.0\n",
        "t[j]",
        "'for h in range.9.:' writes x",
    ),
    "uncomputed elements": ("    for i in range(8):\n        t[i] = x[i]\n", "t[j]", r"t\[j\] is not provably within the computed t\[:8\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    producer, read, message = REFUSED[case]
    s = Schedule(
        kernel_of(f"def f(x: f64[9], y: f64[9]):\n    t = alloc(f64[9])\n{producer}    for j in range(9):\n        y[j] = {read}\n")
    )
    with pytest.raises(ScheduleError, match=message):
        s.inline("t")


def test_arguments_and_unknown_buffers() -> None:
    s = Schedule(kernel_of("def f(x: f64[9], y: f64[9]):\n    for j in range(9):\n        y[j] = x[j]\n"))
    with pytest.raises(ScheduleError, match="y: it is an argument"):
        s.inline("y")
    with pytest.raises(ScheduleError, match="no local buffer 'q'"):
        s.inline("q")
