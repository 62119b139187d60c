from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.schedule.nests import NESTS
from tests.schedule.programs import assert_same, kernel_of

from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3), st.integers(0, 7), st.integers(1, 2), st.integers(0, 3), st.integers(0, 6), st.integers(1, 3))
def test_every_rectangle(lo1: int, hi1: int, step1: int, lo2: int, hi2: int, step2: int) -> None:
    kernel = kernel_of(
        f"def f(a: i32[8, 8]):\n    for i in range({lo1}, {hi1}, {step1}):\n"
        f"        for j in range({lo2}, {hi2}, {step2}):\n            a[i, j] = a[j, i] * 3 + i32(i)"
    )
    sch = Schedule(kernel)
    assert sch.fuse("i", "j") == "ij"
    assert_same(kernel, sch.kernel)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_symbolic_rectangle(size: int) -> None:
    kernel = NESTS["floyd_warshall"]
    sch = Schedule(kernel)
    sch.fuse("i", "j")
    assert_same(kernel, sch.kernel, {"N": size})


def test_fused_loop_can_be_parallel_and_split_again() -> None:
    kernel = kernel_of("def f(a: i32[6, 8]):\n    for i in range(6):\n        for j in range(8):\n            a[i, j] = a[i, j] + 1")
    sch = Schedule(kernel)
    sch.parallel(sch.fuse("i", "j"))
    sch.split("ij", 16)
    assert_same(kernel, sch.kernel)


def test_fused_name_is_no_word_of_the_language() -> None:
    kernel = kernel_of("def g(a: i32[6, 8]):\n    for i in range(6):\n        for f in range(8):\n            a[i, f] = 1")
    assert Schedule(kernel).fuse("i", "f") == "if_1"


def test_refusals() -> None:
    with pytest.raises(ScheduleError, match="j is not the whole body of i"):
        Schedule(NESTS["lu"]).fuse("i", "j")
    triangle = kernel_of("def f(a: i32[6]):\n    for i in range(6):\n        for j in range(i):\n            a[i] += 1")
    with pytest.raises(ScheduleError, match=r"the range of j, range\(i\), changes during i"):
        Schedule(triangle).fuse("i", "j")
    mixed = Schedule(kernel_of("def f(a: i32[6, 6]):\n    for i in range(6):\n        for j in range(6):\n            a[i, j] += 1"))
    mixed.parallel("i")
    with pytest.raises(ScheduleError, match="one runs as parallel, the other as range"):
        mixed.fuse("i", "j")
