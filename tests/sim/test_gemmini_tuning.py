"""Schedules chosen by the cycle model: right to the bit, never slower than the vendor's heuristic, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from tests.codegen.commands.scheduled_gemm import Gemm

from tilewright.codegen.commands import check, generate
from tilewright.hw import load_machine
from tilewright.sim.gemmini import Configuration, baseline, simulate, tuning
from tilewright.sim.gemmini.generated import execute, timed
from tilewright.sim.gemmini.tuning import tuned
from tilewright.space import Space

MACHINE = load_machine("gemmini")


@pytest.mark.parametrize(("m", "n", "k"), [(4, 64, 256), (96, 32, 128)])
def test_best_of_a_few_schedules(m: int, n: int, k: int) -> None:
    kernel = Gemm(m, n, k).kernel()
    found = tuned(kernel, MACHINE, measured=6)
    check(found.program, MACHINE)
    rng = np.random.default_rng(0)
    a, b = rng.integers(-128, 128, (m, k)).astype(np.int8), rng.integers(-128, 128, (k, n)).astype(np.int8)
    c = np.zeros((m, n), np.int8)
    execute(found.program, MACHINE, {"a": a, "b": b, "c": c})
    np.testing.assert_array_equal(c, np.clip(a.astype(np.int32) @ b.astype(np.int32), -128, 127))
    configuration = Configuration.of(MACHINE)
    base = 0x8000_0000
    vendor = baseline.Gemm(m, n, k, base, base + (1 << 20), base + (1 << 21))
    assert found.cycles < simulate(baseline.default_ws(configuration, vendor), configuration).cycles
    again = tuned(kernel, MACHINE, measured=6)
    assert (again.cycles, again.schedule) == (found.cycles, found.schedule)


def test_a_short_last_block_of_rows_feeds_the_array_for_as_long_as_it_takes() -> None:
    """50 rows are three blocks and one of 2, which takes 16 cycles if the weights change after it, and 4 elsewhere."""
    program = generate(Gemm(50, 64, 64, (64, 64, 64)).scheduled(MACHINE), MACHINE)
    check(program, MACHINE)
    weights = (64 // 16) ** 2
    assert weights * 50 <= timed(program, MACHINE).fed <= weights * (48 + 4) + 3 * 16


def test_loop_forms_are_a_choice() -> None:
    """Where the host's issue is the limit, a few words of a form are faster than the commands they stand for. Runs of forms have a
    search of their own after that of the commands, whose best they do not take away.
    """
    kernel = Gemm(4, 256, 256).kernel()
    explicit, free = (tuned(kernel, MACHINE, measured=4, forms=forms) for forms in ((), ("loop_ws",)))
    check(free.program, MACHINE)
    assert free.cycles < explicit.cycles
    assert free.schedule.endswith("; by loop_ws")
    assert (explicit.measured, free.measured) == (4, 8)
    small = Gemm(40, 20, 20).kernel()
    explicit, free = (tuned(small, MACHINE, measured=4, orders=8, forms=forms) for forms in ((), ("loop_ws",)))
    assert free.cycles <= explicit.cycles


def test_tiles_known_to_be_good_are_where_the_search_starts() -> None:
    kernel = Gemm(96, 96, 96).kernel()
    space = Space(kernel, MACHINE)
    tiles = {"i_1_tiles": 2, "j_1_tiles": 3, "k_tiles": 6}
    found = tuned(kernel, MACHINE, measured=1, starts=(tiles,))
    free = [s.name for s in space.sketches if not s.extras]
    assert found.measured == 1 + len(free)
    for name in free:
        program = generate(space.schedule(space.decode({"sketch": name, "knobs": tiles})).kernel, MACHINE)
        assert found.cycles <= timed(program, MACHINE).cycles


def test_runs_of_forms_that_only_come_up_as_such_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """No schedule that is measured for its commands has any, nor is a run: those that should be best as runs are left."""
    candidate = tuning._Search.candidate
    monkeypatch.setattr(tuning._Search, "candidate", lambda self, *given: None if self.explicit else candidate(self, *given))
    assert tuned(Gemm(64, 64, 64).kernel(), MACHINE, measured=4, forms=("loop_ws",)).schedule.endswith("by loop_ws")


def test_starts_take_nothing_from_the_search() -> None:
    kernel = Gemm(48, 48, 48).kernel()
    tiles = {"i_1_tiles": 1, "j_1_tiles": 1, "k_tiles": 1}
    alone, started = (tuned(kernel, MACHINE, measured=4, starts=starts) for starts in ((), (tiles,)))
    assert started.measured > alone.measured == 4


def test_tiles_no_larger_than_the_known_ones_are_tried_too() -> None:
    """5 blocks of 6 are no even tile; 6 are the nearest, and 3 fit where 5 do."""
    kernel = Gemm(96, 96, 96).kernel()
    space = Space(kernel, MACHINE)
    tiles = {"i_1_tiles": 5, "j_1_tiles": 3, "k_tiles": 6}
    found = tuned(kernel, MACHINE, measured=1, starts=(tiles,))
    free = [s.name for s in space.sketches if not s.extras]
    assert found.measured == 1 + 2 * len(free)
    smaller = [space.decode({"sketch": name, "knobs": {**tiles, "i_1_tiles": 3}}) for name in free]
    assert found.cycles <= min(timed(generate(space.schedule(p).kernel, MACHINE), MACHINE).cycles for p in smaller)


def test_a_program_that_begins_well_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are run whole as long as their beginnings are no slower than the best of the whole ones."""
    kernel = Gemm(17, 200, 200).kernel()
    whole = tuned(kernel, MACHINE, measured=6)
    monkeypatch.setattr(tuning, "BEGINNING", 200)
    assert tuned(kernel, MACHINE, measured=6).cycles <= whole.cycles * 1.03


def test_schedules_of_the_same_commands_count_once_when_orders_are_tried() -> None:
    """Tiles of any size give one list of commands where all of a product is written out: all orders are tried on that."""
    program = generate(Gemm(31, 63, 127, (32, 128, 64)).scheduled(MACHINE), MACHINE)
    cycles = timed(program, MACHINE).cycles
    alone, thrice = (tuning._Orders([(cycles, program)] * count, MACHINE, None, 0) for count in (1, 3))
    alone.search([0], 40)
    thrice.search([0, 1, 2], 40)
    assert thrice.tried == alone.tried == 40
    assert min(cycles for cycles, _ in thrice.programs) == alone.programs[0][0] < cycles
