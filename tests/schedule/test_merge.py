from __future__ import annotations

import pytest
from tests.schedule.nests import NESTS
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import loops
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError

TWO = """
def f(a: i32[20], b: i32[20]):
    for i in range({0}):
        a[i + 1] = b[i] * 2
    for j in range({1}):
        b[j] = a[{2}] + 1
"""


@pytest.mark.parametrize("read", ["j", "j + 1", "0"])
def test_consumer_follows_producer(read: str) -> None:
    kernel = kernel_of(TWO.format(9, 9, read))
    sch = Schedule(kernel)
    assert sch.merge("i", "j") == "i"
    assert [f.name for f in loops(sch.kernel)] == ["i"]
    assert_same(kernel, sch.kernel)


def test_ranges_may_be_shifted() -> None:
    kernel = kernel_of(TWO.format(9, "3, 12", "j - 3"))
    sch = Schedule(kernel)
    with pytest.raises(ScheduleError, match="must run before"):
        sch.merge("i", "j")  # a[j - 3] would come after b[j] is overwritten: iteration i reads b[i]
    kernel = kernel_of(
        "def f(a: i32[20], b: i32[20]):\n    for i in range(9):\n        a[i] = 2\n    for j in range(3, 12):\n        b[j] = a[j - 3]"
    )
    sch = Schedule(kernel)
    sch.merge("i", "j")
    assert_same(kernel, sch.kernel)


def test_fission_is_undone() -> None:
    sch = Schedule(NESTS["gemm"])
    sch.fission("j")
    sch.merge("j", "j_1")
    assert [f.name for f in loops(sch.kernel)] == ["i", "j", "k"]
    assert_same(NESTS["gemm"], sch.kernel, {"N": 4})


def test_allocations_in_between_move_out() -> None:
    kernel = kernel_of(
        "def f(a: i32[8], b: i32[8]):\n    for i in range(8):\n        a[i] += 1\n    t = alloc(i32[8])\n"
        "    for j in range(8):\n        t[j] = a[j]\n        b[j] = t[j]"
    )
    sch = Schedule(kernel)
    sch.merge("i", "j")
    assert_same(kernel, sch.kernel)


def test_merged_parallel_loops_stay_independent() -> None:
    kernel = kernel_of(TWO.format(9, 9, "j"))
    sch = Schedule(kernel)
    sch.parallel("i")
    sch.parallel("j")
    with pytest.raises(ScheduleError, match=r"merge i, j \(i is parallel\)"):
        sch.merge("i", "j")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (9, 9, "j + 2"),
            r"merge i, j: iteration \(i=1\) must run before \(j=0\) because of a: the first writes a\[2\], the second reads it",
        ),
        ((9, 8, "j"), r"equally many iterations \(9 and 8\)"),
        ((9, "0, 9, 2", "j"), "differ in step"),
    ],
)
def test_refusals(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Schedule(kernel_of(TWO.format(*arguments))).merge("i", "j")


def test_loops_must_be_neighbours() -> None:
    with pytest.raises(ScheduleError, match="j does not come right after i in the same block"):
        Schedule(NESTS["gemm"]).merge("i", "j")
    with pytest.raises(ScheduleError, match=r"because of A|because of B"):
        Schedule(NESTS["jacobi"]).merge("i", "i2")


def test_the_first_comes_first() -> None:
    kernel = kernel_of("def f(a: i32[8], b: i32[8]):\n    for i in range(8):\n        a[i] = 1\n    for j in range(8):\n        b[j] = 2")
    with pytest.raises(ScheduleError, match="i does not come right after j in the same block"):
        Schedule(kernel).merge("j", "i")


def test_loops_of_different_kinds_stay_apart() -> None:
    sch = Schedule(kernel_of(TWO.format(9, 9, "j")))
    sch.parallel("i")
    with pytest.raises(ScheduleError, match="differ in step or kind"):
        sch.merge("i", "j")


def test_bounds_that_read_memory_are_not_compared() -> None:
    """They are the same text, but the first loop changes what it means."""
    kernel = kernel_of(
        "def f(a: i32[8], n: i64[1]):\n    for i in range(0, n[0]):\n        n[0] = 5\n    for j in range(0, n[0]):\n        a[j] = 2"
    )
    with pytest.raises(ScheduleError, match="a bound reads memory"):
        Schedule(kernel).merge("i", "j")
