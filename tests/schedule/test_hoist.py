from __future__ import annotations

import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError

GEMM = """
def gemm(a: f64[5, 7], b: f64[7, 9], c: f64[5, 9]):
    for i in range(5):
        for j in range(9):
            c[i, j] = 0.0
            for k in range(7):
                c[i, j] += a[i, k] * b[k, j]
"""


def test_a_packed_copy_leaves_every_loop_it_does_not_depend_on() -> None:
    k = kernel_of(GEMM)
    s = Schedule(k)
    b = s.cache_read("b", "j", "l1")[0]
    a = s.cache_read("a", "j", "l1")[0]
    with pytest.raises(ScheduleError, match="depends on j"):
        s.hoist(b, "j")
    s.hoist(a, "j")
    with pytest.raises(ScheduleError, match="depends on i"):
        s.hoist(a, "i")
    assert_same(k, s.kernel)
    s = Schedule(k)
    b = s.cache_read("b", "i", "l1", "1/4 0 1", padded=True)[0]
    assert s.hoist(b, "i") == f"{b}_0"
    assert_same(k, s.kernel)


def test_a_reduction_moves_whole() -> None:
    k = kernel_of("""
def f(x: f64[6], s: f64[1], y: f64[4]):
    for i in range(4):
        s[0] = 0.0
        for k in range(6):
            s[0] += x[k]
        y[i] = s[0]
""")
    s = Schedule(k)
    assert s.hoist("s", "i") == "k"
    assert_same(k, s.kernel)


REFUSED = {
    "continues": ("s[0] += x[1]\n        y[i] = s[0]", "4", "continues from the value of the previous iteration"),
    "read before": ("y[i] = s[0]\n        s[0] = x[1]", "4", "changes it after its use"),
    "changed after": ("s[0] = x[1]\n        y[i] = s[0]\n        s[0] = 2.0", "4", "changes it after its use"),
    "input changes": ("s[0] = x[1]\n        x[1] = s[0] + 1.0", "4", "reads x, which the body of i changes"),
    "may not run": ("s[0] = x[1]\n        y[i] = s[0]", "N", "may run no iteration at all"),
    "not direct": ("for j in range(2):\n            s[0] = x[1]\n            y[i] = s[0]", "4", "also writes y"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    body, count, message = REFUSED[case]
    k = kernel_of(f'@kernel(params=("N",))\ndef f(x: f64[6], s: f64[1], y: f64[4]):\n    for i in range({count}):\n        {body}\n')
    with pytest.raises(ScheduleError, match=message):
        Schedule(k).hoist("s", "i")
