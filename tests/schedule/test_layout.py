from __future__ import annotations

import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.buffer import Layout
from tilewright.ir.stmt import all_buffers
from tilewright.lang import parse
from tilewright.schedule import Schedule
from tilewright.util.errors import IRTypeError, ScheduleError

TEXT = """
def f(x: f32[6, 20], y: f32[6, 20]):
    t = alloc(f32[6, 20])
    for i in range(6):
        for j in range(20):
            t[i, j] = x[i, j]
    for i1 in range(6):
        for j1 in range(20):
            y[i1, j1] = t[i1, j1]
"""


@pytest.mark.parametrize("buffer", ["x", "t"])
def test_indices_stay_logical(buffer: str) -> None:
    k = kernel_of(TEXT)
    s = Schedule(k)
    assert s.layout(buffer, "1/16 0 1") == buffer
    assert next(b for b in all_buffers(s.kernel) if b.name == buffer).layout == Layout.parse("1/16 0 1")
    assert_same(k, s.kernel)
    assert parse(str(s.kernel)) == s.kernel
    s.layout(buffer, None)
    assert s.kernel == k


def test_refusals() -> None:
    s = Schedule(kernel_of(TEXT))
    with pytest.raises(ScheduleError, match="no buffer 'q'"):
        s.layout("q", "0 1")
    for wrong in ("0", "0 1 2", "1/3 0 1/2", "x"):
        with pytest.raises(IRTypeError, match="layout"):
            s.layout("t", wrong)
