"""The cycle model: against RTL runs it was not calibrated on, its own laws, and what it refuses."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from benchmarks.gemmini_cycles import errors, load, predict, spearman, split, table
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sim.programs import CONFIGURATION, Programs

from tilewright.hw import load_machine
from tilewright.sim.gemmini import Configuration, Run, Timing, isa, simulate
from tilewright.sim.gemmini.baseline import Gemm, default_ws, tiled_ws
from tilewright.sim.gemmini.memory_timing import Channel, Port, requests
from tilewright.sim.gemmini.timeline import breakdown, chrome_trace, trace_text
from tilewright.util.errors import ExecutionError

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "gemmini_rtl_cycles_16x16.csv"
C = Configuration.of(load_machine("gemmini"))
SMALL = Configuration(dim=4, spad_rows=512, acc_rows=128, max_bytes=16, bus_bytes=4)


def gemm(m: int, n: int, k: int) -> Gemm:
    return Gemm(m, n, k, 0x8000_0000, 0x8100_0000, 0x8200_0000)


@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"the published table {PUBLISHED.name} is not in ../shared/data beside the repository")
def test_it_predicts_rtl_runs_of_shapes_it_was_not_calibrated_on() -> None:
    ours, held = split(load(PUBLISHED))
    assert ours and held and not {r.shape for r in ours} & {r.shape for r in held}
    quick = [r for r in held if r.cycles < 60_000]
    found = errors(quick, predict(quick, C, Timing()))
    assert len(quick) >= 30 and len({r.stream for r in quick}) == 3
    assert found["median"] <= 0.06 and found["spearman"] >= 0.98 and found["p90"] <= 0.12, table({"held back": found})


def test_a_run_of_one_block_takes_what_its_parts_take() -> None:
    """Bounds written down by hand: two loads of 16 rows after one latency each, 16 rows through the array, one store."""
    timing = Timing(memory=20, gap=0)
    run = simulate(tiled_ws(C, gemm(16, 16, 16), (1, 1, 1)), C, timing)
    assert 20 + 2 * 16 + 2 * 16 <= run.cycles <= 20 + 400


def test_registers_between_units_make_results_later() -> None:
    """Each of the array's rows that a sum passes takes so many cycles more; what is fed after it does not wait."""
    one, many = (gemm(16, 16, 16), (1, 1, 1)), (gemm(256, 16, 16), (8, 1, 1))
    slow = Configuration.of(load_machine("gemmini:inputs=f32,tile_latency=2"))
    fast = replace(slow, tile_latency=0)
    assert slow.tile_latency == 2 and slow.passage == 48
    runs = {name: [simulate(tiled_ws(c, *given), c) for c in (fast, slow)] for name, given in (("one", one), ("many", many))}
    assert runs["one"][1].cycles - runs["one"][0].cycles == 2 * 16
    assert runs["many"][1].fed == runs["many"][0].fed and runs["many"][1].cycles - runs["many"][0].cycles < 16 * 2 * 16


def test_a_row_for_all_lines_is_read_once_and_written_as_often_as_it_is_there() -> None:
    """As the load controller asks for it (stride 0): the bus waits for the lines, not for as many reads."""

    def cycles(stride: int, rows: int, local: int, times: int = 1) -> int:
        load = isa.Mvin(0x8000_0000, isa.Tile(local, 16, rows))
        return simulate([isa.ConfigLd(stride, 0, 16, C.unscaled), *[load] * times], C).cycles

    acc, spad = isa.accumulator(0), 0
    assert cycles(64, 16, acc) - cycles(0, 16, acc) == 16 * 4 - 1 - 16
    assert cycles(0, 16, acc) - cycles(0, 4, acc) == 12
    assert cycles(0, 16, acc, 5) - cycles(0, 16, acc) >= 4 * 16
    assert cycles(0, 16, spad) <= cycles(16, 16, spad)


def test_spearman_shares_the_ranks_of_ties() -> None:
    assert spearman(np.array([1, 2, 3.0]), np.array([10, 20, 15.0])) == pytest.approx(0.5)
    assert spearman(np.array([1, 1, 2.0]), np.array([5, 5, 9.0])) == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 3), st.tuples(*[st.integers(1, 4)] * 3), st.integers(1, 100), st.integers(0, 8))
def test_laws_of_a_run(shape: tuple[int, int, int], tile: tuple[int, int, int], memory: int, gap: int) -> None:
    timing = Timing(memory, gap)
    program = list(tiled_ws(SMALL, gemm(*shape), tile))
    run = simulate(program, SMALL, timing)
    laws(run)
    m, n, k = shape
    assert run.cycles >= m * n * k / SMALL.dim**2  # the array
    assert run.cycles >= run.fed
    assert run.cycles >= sum(1 + gap for _ in program)  # the host
    slower = simulate(program, SMALL, replace(timing, memory=4 * memory + 50))
    assert slower.cycles > run.cycles
    assert {str(e.command) for e in run.events} == {str(e.command) for e in slower.events}


def laws(run: Run) -> None:
    """What holds for every run: the cycles add up, controllers work in order, nothing ends before it starts."""
    assert run.fed + sum(run.stalls.values()) == run.cycles == max(e.end for e in run.events)
    assert min(run.stalls.values()) >= 0
    for unit in ("load", "execute", "store"):
        mine = [e for e in run.events if e.unit == unit]
        assert all(a.start <= b.start and a.issued < b.issued for a, b in pairwise(mine))
    assert all(e.issued < e.start <= e.end for e in run.events if e.unit != "execute")


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_obey_the_laws_too(seed: int) -> None:
    program = [*Programs(seed).program(), isa.Fence(), isa.Mvin(0, isa.Tile(0, 4, 4), 0)]
    run = simulate(program, CONFIGURATION, Timing(random.Random(seed).randrange(80)))
    laws(run)
    assert run.events[-1].issued >= max(e.end for e in run.events[:-1])  # the fence


def test_a_result_leaves_only_after_it_is_complete_and_operands_are_there() -> None:
    run = simulate(default_ws(C, gemm(64, 64, 64)), C)
    loads = {e.command.local.row: e for e in run.events if isinstance(e.command, isa.Mvin)}
    for e in run.events:
        if isinstance(e.command, isa.Compute) and e.command.a.row in loads:
            assert e.start > loads[e.command.a.row].end
    last = {}
    for e in run.events:
        if isinstance(e.command, isa.Preload):
            last[e.command.c.row] = e.end
        if isinstance(e.command, isa.Mvout):
            rows = range(e.command.local.row, e.command.local.row + 64, 16)
            assert e.start > max(last[r] for r in rows)


def test_large_products_keep_the_array_busy_and_skinny_ones_do_not() -> None:
    macs = 512**3
    busy = simulate(default_ws(C, gemm(512, 512, 512)), C).utilisation(macs, C)
    skinny = simulate(default_ws(C, gemm(16, 192, 160)), C).utilisation(16 * 192 * 160, C)
    assert 0.9 < busy < 1 and skinny < 0.6


def test_sharing_a_bank_with_arriving_data_slows_the_array() -> None:
    far = replace(C, spad_banks=C.spad_rows)  # a bank for each row
    program = list(default_ws(C, gemm(320, 16, 320)))
    assert simulate(program, C).cycles > 1.3 * simulate(program, far).cycles
    assert simulate(program, C).stalls["bank"] > 0


def test_requests_are_aligned_powers_of_two() -> None:
    assert requests(0, 64, 16, 64) == (4,)
    assert requests(0, 16, 16, 64) == (1,)
    assert requests(48, 32, 16, 64) == (1, 1)
    assert requests(13, 64, 16, 64) == (4, 1)
    assert requests(9, 13, 16, 64) == (2,)
    for offset in range(64):
        for count in range(1, 130):
            beats = requests(offset, count, 16, 64)
            assert 16 * sum(beats) >= count and max(beats) <= 4


def test_a_channel_limits_what_is_outstanding() -> None:
    timing = Timing(memory=100, in_flight=2)
    channel = Channel(timing, 0)
    assert channel.read(10, (1,)) == 110 and channel.bus == 110
    channel.read(10, (4,))
    assert channel.bus == 114  # issued a cycle later, four beats from 111 on
    assert channel.read(10, (1,)) == 211  # had to wait for the first to come back


def test_a_port_gives_each_cycle_once() -> None:
    port = Port()
    assert port.use(0, 10) == 10
    assert port.use(20, 10) == 30
    assert port.use(5, 10) == 20  # 10 to 20 are free
    assert port.use(0, 5) == 35


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=20))
def test_a_port_books_like_a_calendar(wishes: list[tuple[int, int]]) -> None:
    port, taken = Port(), set()
    for start, cycles in wishes:
        free = (t for t in range(start, 1000) if t not in taken)
        mine = [next(free) for _ in range(cycles)]
        assert port.use(start, cycles) == (mine[-1] + 1 if mine else start)
        taken |= set(mine)


def test_the_timeline_is_a_chrome_trace_and_the_breakdown_adds_up() -> None:
    run = simulate(default_ws(C, gemm(32, 32, 32)), C)
    trace = json.loads(trace_text(run))
    complete = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert trace == chrome_trace(run) and len(complete) == len(run.events)
    assert {e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M"} == {"load", "execute", "store"}
    for lane in {(e["pid"], e["tid"]) for e in complete}:
        mine = sorted((e["ts"], e["ts"] + e["dur"]) for e in complete if (e["pid"], e["tid"]) == lane)
        assert all(a[1] <= b[0] for a, b in pairwise(mine))
    lines = breakdown(run).splitlines()
    assert lines[-1].split() == ["total", str(run.cycles)]
    assert sum(int(line.split()[1]) for line in lines[:-1]) == run.cycles


def test_what_it_cannot_time_is_refused() -> None:
    with pytest.raises(ExecutionError, match="the cycle model does not run ConfigNorm"):
        simulate([isa.ConfigNorm()], C)
    with pytest.raises(ExecutionError, match="mvin 0 was never configured"):
        simulate([isa.Mvin(64, isa.Tile(0, 16, 16))], C)
    with pytest.raises(ExecutionError, match="before any LoopBounds"):
        simulate([isa.LoopWs()], C)


@pytest.mark.parametrize("row", [3, 14, 16])
def test_operands_that_are_transposed_take_the_rows_of_their_memory(row: int) -> None:
    """16 rows of 4 weights: what is loaded into one of them waits until the array has them, what is loaded below them does not."""
    weights, rows, new = isa.Tile(0, 16, 4), isa.Tile(64, 4, 16), isa.Tile(row, 16, 1)
    setup = [isa.ConfigEx(b_transpose=1), isa.ConfigLd(64), isa.ConfigSt(64)]
    loads = [isa.Mvin(0x8000_0000, isa.Tile(0, 4, 16)), isa.Mvin(0x8000_1000, isa.Tile(64, 4, 16))]
    product = [isa.Preload(weights, isa.Tile(isa.accumulator(0), 16, 16)), isa.Compute(rows, isa.Tile(isa.GARBAGE, 16, 16))]
    run = simulate([*setup, *loads, *product, isa.Mvin(0x8000_2000, new)], C, Timing(memory=20, gap=0))
    preload, last = (
        next(e for e in run.events[::step] if isinstance(e.command, kind)) for kind, step in ((isa.Preload, 1), (isa.Mvin, -1))
    )
    assert (last.start >= preload.end) == (row < 16)
