from __future__ import annotations

import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.hw import load_machine
from tilewright.schedule import Schedule, replay
from tilewright.util.errors import ScheduleError

PRODUCT = """
def product(a: i8[20, 33], b: i8[33, 17], c: i32[20, 17]):
    for i in range(20):
        for j in range(17):
            for k in range(33):
                c[i, j] += i32(a[i, k]) * i32(b[k, j])
"""


@pytest.mark.parametrize("mapping", ["i<-i  j<-j  k<-k", "i<-1  j<-j  k<-k"])
def test_tiles_of_an_instruction(mapping: str) -> None:
    k, machine = kernel_of(PRODUCT), load_machine("vta.pynq")
    s = Schedule(k, machine)
    loops = s.apply("map_onto", "c", "gemm", mapping)
    assert loops
    assert_same(k, s.kernel)
    assert replay(k, s.trace, machine).kernel == s.kernel


def test_mappings_that_do_not_fit() -> None:
    k, machine = kernel_of(PRODUCT), load_machine("vta.pynq")
    with pytest.raises(ScheduleError, match="map_onto c, gemm: the schedule has no machine"):
        Schedule(k).map_onto("c", "gemm", "i<-i  j<-j  k<-k")
    with pytest.raises(ScheduleError, match="does not compute it"):
        Schedule(k, machine).map_onto("c", "gemm", "i<-k  j<-j  k<-i")
    with pytest.raises(ScheduleError, match="map_onto c, gemm: product has no iteration 'x'"):
        Schedule(k, machine).map_onto("c", "gemm", "i<-x  j<-j  k<-k")
