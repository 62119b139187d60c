from __future__ import annotations

import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.hw import load_machine
from tilewright.ir.stmt import allocated
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError

GEMM = kernel_of("""
def dot(a: u8[3, 8], b: i8[8, 16], c: i32[3, 16]):
    for i in range(3):
        for ko in range(2):
            for j in range(16):
                for ki in range(4):
                    c[i, j] += i32(a[i, ko * 4 + ki]) * i32(b[ko * 4 + ki, j])
""")


def copied() -> Schedule:
    s = Schedule(GEMM, load_machine("x86.vnni"))
    s.cache_write("c", "i", "reg")
    s.cache_read("b", "ko", "reg", "1 0")
    return s


def test_an_operand_gets_the_order_of_an_instruction() -> None:
    s = copied()
    refused = s.copy()
    with pytest.raises(ScheduleError, match="does not move like operand b"):
        refused.tensorize("j", "dpbusd")
    assert s.permute("b_reg", [1, 0]) == "b_reg"
    found = next(b for b in allocated(s.kernel) if b.name == "b_reg")
    assert found.static_shape == (16, 4) and str(found.layout) == "0 1"
    s.tensorize("j", "dpbusd")
    assert_same(GEMM, s.kernel)


def test_refusals() -> None:
    s = copied()
    with pytest.raises(ScheduleError, match="allocates no such buffer"):
        s.permute("b", [1, 0])
    with pytest.raises(ScheduleError, match=r"\[0, 0\] is not an order of 2 dimensions"):
        s.permute("b_reg", [0, 0])
    s.permute("b_reg", [1, 0])
    s.tensorize("j", "dpbusd")
    with pytest.raises(ScheduleError, match="the call of dpbusd addresses it"):
        s.permute("b_reg", [1, 0])
