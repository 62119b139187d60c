"""The bound by requests: below every run of whole blocks, and equal to sums done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tilewright.hw import load_machine
from tilewright.ir.types import DType, bf16, f32, i8, i32
from tilewright.sim.gemmini import Configuration, Timing, simulate
from tilewright.sim.gemmini.baseline import Gemm, tiled_ws
from tilewright.sim.gemmini.bounds import SHARES, Stored, read_cycles, write_cycles
from tilewright.sim.gemmini.memory_timing import requests

C = Configuration.of(load_machine("gemmini"))
SMALL = Configuration(dim=4, spad_rows=512, acc_rows=128, max_bytes=16, bus_bytes=4)
TIMING = Timing()


def cycles(m: int, n: int, k: int, tile: tuple[int, int, int], c: Configuration = SMALL) -> int:
    return simulate(tiled_ws(c, Gemm(m, n, k, 0x8000_0000, 0x8100_0000, 0x8200_0000), tile), c).cycles


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(1, 60)] * 3), st.tuples(*[st.integers(1, 4)] * 3), st.sampled_from([(i8, i32), (bf16, f32), (f32, f32)]))
@example((2, 1, 3), (1, 1, 1), (f32, f32))
@example((12, 1, 4), (3, 4, 3), (f32, f32))
def test_no_run_of_whole_blocks_is_faster(shape: tuple[int, int, int], tile: tuple[int, int, int], types: tuple[DType, DType]) -> None:
    """With what every program pays besides, as the benchmark adds it: a small product less its weights and its six requests.

    That is where a row of the small product is one beat. Where it takes two, they are part of what is counted already.
    """
    m, n, k = shape
    c = replace(SMALL, inputs=types[0], sums=types[1])
    read = read_cycles(c, TIMING, (Stored(m, k, 4), Stored(k, n, 4)))
    write = write_cycles(c, TIMING, (Stored(m, n, 4),))
    besides = cycles(2, 2, 2, (1, 1, 1), c) - c.dim - 6 if 2 * types[0].bits <= 8 * c.bus_bytes else 0
    assert max(read, write) + besides <= cycles(m, n, k, tile, c)


def test_aligned_rows_take_the_bus() -> None:
    assert read_cycles(C, TIMING, (Stored(1024, 64, 16),)) == 1024 * 64 // 16
    assert read_cycles(replace(C, inputs=f32, sums=f32), TIMING, (Stored(1024, 64, 16),)) == 1024 * 64 * 4 // 16


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


def compositions(blocks: int, most: int) -> list[tuple[int, ...]]:
    """All ways to cut so many blocks into moves of at most ``most``."""
    if not blocks:
        return [()]
    return [(first, *rest) for first in range(1, min(blocks, most) + 1) for rest in compositions(blocks - first, most)]


def cut(array: Stored, first: int, parts: tuple[int, ...], share: float, timing: Timing, out: bool) -> float:
    """Cycles of rows ``first`` to ``first + together`` of an array, cut into ``parts`` blocks each, from every row's own address."""
    total = 0.0
    for row in range(first, min(first + array.together, array.rows)):
        for number, blocks in enumerate(parts):
            start = sum(parts[:number]) * SMALL.dim
            width = min(blocks * SMALL.dim, array.cols - start)
            beats = list(requests((row * array.cols + start) % SMALL.max_bytes, width, SMALL.bus_bytes, SMALL.max_bytes))
            if out:
                beats[0] = max(beats[0], 1 if blocks == 1 else blocks + timing.gather)
            way = timing.memory + (timing.write if out else timing.request)
            total += share * sum(beats) + (1 - share) * sum(way + n for n in beats) / timing.in_flight
    return total


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 22), st.integers(1, 4)), min_size=1, max_size=2),
    st.booleans(),
    st.sampled_from([TIMING, Timing(memory=9, in_flight=2, request=3, write=1, gather=5)]),
)
def test_the_cheapest_of_all_cuts(shapes: list[tuple[int, int, int]], out: bool, timing: Timing) -> None:
    """Every way to cut every group of rows, tried one by one; from the sum the way of a whole request that nothing runs beside."""
    arrays = [Stored(*s) for s in shapes]
    if out:
        alone = timing.memory + timing.write + SMALL.max_bytes // SMALL.dim + timing.gather
    else:
        alone = timing.memory + timing.request + SMALL.max_bytes // SMALL.bus_bytes
    bounds = []
    for share in SHARES:
        total = 0.0
        for a in arrays:
            ways = compositions(-(-a.cols // SMALL.dim), SMALL.max_bytes // SMALL.dim)
            total += sum(min(cut(a, first, w, share, timing, out) for w in ways) for first in range(0, a.rows, a.together))
        bounds.append(total - (1 - share) * alone)
    found = (write_cycles if out else read_cycles)(SMALL, timing, arrays)
    assert found == pytest.approx(max(bounds), abs=1)
