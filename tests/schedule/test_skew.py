from __future__ import annotations

import pytest
from tests.schedule.nests import NESTS
from tests.schedule.programs import assert_same, kernel_of

from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError


@pytest.mark.parametrize("factor", [-2, -1, 0, 1, 3])
def test_skewing_renumbers(factor: int) -> None:
    kernel = NESTS["seidel"]
    sch = Schedule(kernel)
    assert sch.skew("t", "j", factor) == "js"
    assert_same(kernel, sch.kernel, {"T": 2, "N": 6})


def test_skew_makes_a_wavefront_parallel() -> None:
    text = "def f(A: i32[8, 8]):\n    for i in range(1, 7):\n        for j in range(1, 7):\n            "
    kernel = kernel_of(text + "A[i, j] = A[i - 1, j + 1] + A[i, j - 1] * 2 - A[i + 1, j]")
    narrow = Schedule(kernel)
    j = narrow.skew("i", "j")
    with pytest.raises(ScheduleError, match="because of A"):
        narrow.reorder(j, "i")
        narrow.parallel("i")  # A[i - 1, j + 1] is on the same diagonal
    wide = Schedule(kernel)
    j = wide.skew("i", "j", 2)
    wide.reorder(j, "i")
    wide.parallel("i")
    assert_same(kernel, wide.kernel)


def test_refusals() -> None:
    with pytest.raises(ScheduleError, match="skew j, i: i is not inside j"):
        Schedule(NESTS["seidel"]).skew("j", "i")
    with pytest.raises(ScheduleError, match=r"factor 1\.5 is not an int"):
        Schedule(NESTS["seidel"]).skew("i", "j", 1.5)
