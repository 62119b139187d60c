from __future__ import annotations

import pytest
from tests.schedule.nests import NESTS
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import loops
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError

MATMUL = """
def matmul(a: i32[12, 8], b: i32[8, 10], c: i32[12, 10]):
    for i in range(12):
        for j in range(10):
            for k in range(8):
                c[i, j] += a[i, k] * b[k, j]
"""


def test_loops_over_tiles_come_first() -> None:
    kernel = kernel_of(MATMUL)
    sch = Schedule(kernel)
    assert sch.tile(["i", "j", "k"], [4, 5, 2]) == ("io", "jo", "ko", "ii", "ji", "ki")
    assert [f.name for f in loops(sch.kernel)] == ["io", "jo", "ko", "ii", "ji", "ki"]
    assert_same(kernel, sch.kernel)


def test_guarded_tiles() -> None:
    kernel = kernel_of(MATMUL)
    sch = Schedule(kernel)
    sch.tile(["i", "j"], [5, 4], tail="guard")
    assert_same(kernel, sch.kernel)


def test_floyd_warshall_may_be_tiled_in_i_and_j() -> None:
    kernel = NESTS["floyd_warshall"]
    sch = Schedule(kernel)
    sch.tile(["i", "j"], [2, 2], tail="guard")
    assert_same(kernel, sch.kernel, {"N": 7})
    with pytest.raises(ScheduleError, match="because of P"):
        Schedule(kernel).tile(["k", "i"], [2, 2], tail="guard")


def test_seidel_needs_a_skew_before_it_can_be_tiled() -> None:
    kernel = NESTS["seidel"]
    with pytest.raises(ScheduleError, match="because of A"):
        Schedule(kernel).tile(["t", "i"], [2, 2], tail="guard")
    sch = Schedule(kernel)
    i = sch.skew("t", "i")
    with pytest.raises(ScheduleError, match="because of A"):
        sch.tile(["t", i], [2, 3], tail="guard")  # tiles that begin at the lower bound move with t
    sch.tile(["t", i], [2, 3], tail="guard", align=True)
    assert_same(kernel, sch.kernel, {"T": 3, "N": 9})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["i", "j"], [2]), "2 loops but 1 factors"),
        (([], []), "0 loops"),
        ((["i"], [2], "peel"), "tail 'peel'"),
        ((["i", "j"], [5, 5]), "12 is not a multiple of 5"),
    ],
)
def test_refusals(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Schedule(kernel_of(MATMUL)).tile(*arguments)
