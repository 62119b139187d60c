from __future__ import annotations

import pytest
from tests.schedule.nests import NESTS
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import loops
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError


def test_forward_dependence_stays_forward() -> None:
    kernel = kernel_of("def f(a: i32[9], b: i32[9]):\n    for i in range(1, 9):\n        a[i] = b[i] + 1\n        b[i - 1] = a[i - 1] * 2")
    sch = Schedule(kernel)
    assert sch.fission("i") == ("i", "i_1")
    assert_same(kernel, sch.kernel)


def test_reduction_leaves_its_initialisation() -> None:
    kernel = NESTS["gemm"]
    sch = Schedule(kernel)
    sch.fission("j")
    sch.fission("i")
    assert [f.name for f in loops(sch.kernel)] == ["i", "j", "i_1", "j_1", "k"]
    sch.reorder("k", "i_1", "j_1")
    assert_same(kernel, sch.kernel, {"N": 5})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "a[i] = b[i - 1]\n        b[i] = a[i] + 1",
            r"fission i: iteration \(i=1\) must run before \(i=2\) because of b: the first writes b\[1\]",
        ),
        ("a[i] = b[i]\n        b[i + 1] = a[i]", "because of b"),
        ("a[i] = b[i]\n        a[i + 1] = 3", r"because of a: the first writes a\[2\], the second writes it"),
    ],
)
def test_backward_dependences(body: str, message: str) -> None:
    kernel = kernel_of(f"def f(a: i32[20], b: i32[20]):\n    for i in range(1, 9):\n        {body}")
    with pytest.raises(ScheduleError, match=message):
        Schedule(kernel).fission("i")


@pytest.mark.parametrize(
    ("nest", "loop"), [("lu", "i"), ("lu_right", "k"), ("cholesky", "i"), ("jacobi", "t"), ("lu", "j"), ("cholesky", "j")]
)
def test_factorisations_do_not_come_apart(nest: str, loop: str) -> None:
    with pytest.raises(ScheduleError, match=f"fission {loop}: .* must run before"):
        Schedule(NESTS[nest]).fission(loop)


def test_local_buffers_are_not_torn() -> None:
    kernel = kernel_of("def f(a: i32[9]):\n    for i in range(9):\n        t = alloc(i32[1])\n        t[0] = a[i]\n        a[i] = t[0] + 1")
    with pytest.raises(ScheduleError, match="t is allocated in the first part and used in the second"):
        Schedule(kernel).fission("i", 2)


def test_cut_must_be_inside() -> None:
    with pytest.raises(ScheduleError, match="after=2, but its body has 2 statements"):
        Schedule(NESTS["gemm"]).fission("j", 2)


def test_local_buffers_that_are_only_written_later_are_not_torn_either() -> None:
    kernel = kernel_of("def f(a: i32[9]):\n    for i in range(9):\n        t = alloc(i32[1])\n        a[i] += 1\n        t[0] = 2")
    with pytest.raises(ScheduleError, match="t is allocated in the first part and used in the second"):
        Schedule(kernel).fission("i", 2)


def test_bounds_that_are_read_once_must_not_be_read_again() -> None:
    """The first half would change how often the second runs."""
    kernel = kernel_of("def f(x: i32[9], n: i64[1]):\n    for i in range(0, n[0]):\n        x[0] = 1\n        n[0] = 5")
    with pytest.raises(ScheduleError, match="its bounds read memory"):
        Schedule(kernel).fission("i")
