from __future__ import annotations

import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.hw import load_machine
from tilewright.ir.stmt import allocated
from tilewright.schedule import Schedule
from tilewright.util.errors import MachineError, ScheduleError

TEXT = """
def f(x: f32[600], y: f32[600]):
    t = alloc(f32[600])
    for i in range(600):
        t[i] = x[i]
    for j in range(600):
        y[j] = t[j]
"""


def test_every_use_follows() -> None:
    k = kernel_of(TEXT)
    s = Schedule(k, load_machine("x86.avx512"))
    assert s.set_memory("t", "l1") == "t"
    assert allocated(s.kernel)[0].memory == "l1"
    assert_same(k, s.kernel)


def test_refusals() -> None:
    s = Schedule(kernel_of(TEXT), load_machine("x86.avx512"))
    with pytest.raises(ScheduleError, match="x: it is an argument"):
        s.set_memory("x", "l1")
    with pytest.raises(ScheduleError, match="no buffer 'q'"):
        s.set_memory("q", "l1")
    with pytest.raises(MachineError, match="no memory 'l9'"):
        s.set_memory("t", "l9")
    with pytest.raises(ScheduleError, match=r"takes 2400 bytes, x86\.avx512.s memory reg has 2048"):
        s.set_memory("t", "reg")
