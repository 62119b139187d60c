"""The bound by requests: below every run of whole blocks, and equal to sums done by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.hw import load_machine
from tilewright.sim.gemmini import Configuration, Timing, simulate
from tilewright.sim.gemmini.baseline import Gemm, tiled_ws
from tilewright.sim.gemmini.bounds import Stored, read_cycles, write_cycles

C = Configuration.of(load_machine("gemmini"))
SMALL = Configuration(dim=4, spad_rows=512, acc_rows=128, max_bytes=16, bus_bytes=4)
TIMING = Timing()


def cycles(m: int, n: int, k: int, tile: tuple[int, int, int]) -> int:
    return simulate(tiled_ws(SMALL, Gemm(m, n, k, 0x8000_0000, 0x8100_0000, 0x8200_0000), tile), SMALL).cycles


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(1, 60)] * 3), st.tuples(*[st.integers(1, 4)] * 3))
def test_no_run_of_whole_blocks_is_faster(shape: tuple[int, int, int], tile: tuple[int, int, int]) -> None:
    """With what every program pays besides, as the benchmark adds it: a small product less its weights and its six requests."""
    m, n, k = shape
    read = read_cycles(SMALL, TIMING, (Stored(m, k, 4), Stored(k, n, 4)))
    write = write_cycles(SMALL, TIMING, (Stored(m, n, 4),))
    assert max(read, write) + cycles(2, 2, 2, (1, 1, 1)) - SMALL.dim - 6 <= cycles(m, n, k, tile)


def test_aligned_rows_take_the_bus() -> None:
    assert read_cycles(C, TIMING, (Stored(1024, 64, 16),)) == 1024 * 64 // 16


def test_short_rows_take_a_request_each() -> None:
    """16 of them are under way, each for the way through memory and its beat."""
    way = TIMING.memory + TIMING.request
    assert read_cycles(C, TIMING, (Stored(1024, 16, 16),)) == 1024 * (way + 1) // 16 - (way + 4)


def test_rows_are_cut_where_requests_end() -> None:
    """Rows of 80 bytes from multiples of 16 on touch two lines of memory each. One by one they take two requests, of 5 beats together;
    where several are cut alike, some of them take more.
    """
    apart, alike = (read_cycles(C, TIMING, (Stored(256, 80, together),)) for together in (1, 16))
    way = TIMING.memory + TIMING.request
    assert apart == pytest.approx(256 * (2 * way + 5) / 16 - (way + 4), rel=0.01)
    assert alike > apart


def test_wide_rows_are_gathered_before_they_leave() -> None:
    """Four blocks take six cycles, in which four beats leave; single blocks as many requests more. No mixture beats both by much."""
    rows = 1000
    found = write_cycles(C, TIMING, (Stored(rows, 64, 16),))
    assert rows * 5 < found < rows * 6
