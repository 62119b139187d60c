from __future__ import annotations

import pytest
from tests.schedule.nests import NESTS
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import LoopKind, find_loop
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError


def test_whole_loop_keeps_its_order() -> None:
    kernel = kernel_of("def f(a: i32[9]):\n    for i in range(1, 9):\n        a[i] = a[i - 1] * 2")
    sch = Schedule(kernel)
    assert sch.unroll("i") == "i"
    assert find_loop(sch.kernel, "i").kind is LoopKind.UNROLL
    assert_same(kernel, sch.kernel)


@pytest.mark.parametrize("size", range(7))
def test_by_a_factor(size: int) -> None:
    kernel = NESTS["trmm"]
    sch = Schedule(kernel)
    assert sch.unroll("k", 3) == ("ko", "ki", "kt")
    assert find_loop(sch.kernel, "ki").kind is LoopKind.UNROLL
    assert_same(kernel, sch.kernel, {"N": size})


def test_refusals() -> None:
    with pytest.raises(ScheduleError, match=r"unroll k: its extent N - .* is not a constant") as e:
        Schedule(NESTS["trmm"]).unroll("k")
    assert "give a factor" in str(e.value)
    with pytest.raises(ScheduleError, match="factor 0"):
        Schedule(NESTS["trmm"]).unroll("k", 0)
