"""Performance counters against what the events of a run say, cycle by cycle."""

from __future__ import annotations

import pytest

from tilewright.sim.gemmini import Configuration, Timing, isa, simulate, words
from tilewright.sim.gemmini.baseline import Gemm, default_ws
from tilewright.sim.gemmini.counters import BUSY, Counters, busy
from tilewright.sim.gemmini.isa import Counter
from tilewright.util.errors import ExecutionError

C = Configuration(dim=16, spad_rows=16384, acc_rows=1024)
GEMM = list(default_ws(C, Gemm(64, 96, 80, 1 << 20, 2 << 20, 3 << 20)))


def test_controllers_busy_at_once() -> None:
    """All seven, read after a fence; a cycle belongs to one of them or to none."""
    configure = [Counter(n - 1, configure=1, event=n) for n in BUSY]
    run = simulate([*configure, *GEMM, isa.Fence(), *(Counter(n - 1) for n in BUSY)], C, Timing())
    counted = run.counted[len(BUSY) :]
    assert run.counted[: len(BUSY)] == (0,) * len(BUSY)
    began = min(e.issued for e in run.events)
    for units, shown in zip(BUSY.values(), counted, strict=True):
        per_cycle = [{e.unit for e in run.events if e.start <= t <= e.end} for t in range(began, run.cycles + 1)]
        assert shown == sum(now == units for now in per_cycle)
    assert counted[2] > 0 and counted[4] > 0 and sum(counted) <= run.cycles + 1


def test_counters_take_no_cycles() -> None:
    reads = [x for c in GEMM for x in (Counter(0, configure=1, event=3), c)]
    assert simulate([c for c in reads if not isinstance(c, Counter)], C).cycles == simulate(GEMM, C).cycles
    assert simulate([*GEMM, Counter(0)], C).cycles == simulate(GEMM, C).cycles


def test_resets_snapshots_and_external_numbers() -> None:
    work = [("load", 0, 10), ("load", 20, 30), ("store", 25, 40)]
    c, none = Counters(), {"load": 0, "store": 0, "execute": 0}
    assert c.operate(Counter(1, configure=1, event=1), 0, work, none) == 0
    assert c.operate(Counter(1), 30, work, none) == 15  # 0 to 10 and 20 to 25
    assert c.operate(Counter(1, snapshot=1), 22, work, none) == c.operate(Counter(1), 40, work, none) == 12
    assert c.operate(Counter(1, snapshot_reset=1), 40, work, none) == 15
    assert c.operate(Counter(1, reset=1), 8, work, none) == 0 and c.operate(Counter(1), 12, work, none) == 2
    c.operate(Counter(2, configure=1, event=2, external=1), 0, work, none)
    assert c.operate(Counter(2), 0, work, {**none, "store": 3}) == 3 and c.operate(Counter(7), 99, work, none) == 0
    assert busy(work, frozenset({"load", "store"}), 0, 100) == 5 and busy(work, frozenset({"store"}), 32, 34) == 2


def test_events_that_the_model_has_not() -> None:
    with pytest.raises(ExecutionError, match="event 12 is none that the model has") as caught:
        simulate([Counter(0, configure=1, event=12)], C)
    assert caught.value.hint


def test_words() -> None:
    assert words.encode(Counter(3, reset=1, configure=1, event=7, external=1)) == (126, 1 << 31 | 7 << 12 | 3 << 4 | 0b1001, 0)
