"""A tuned network is compared as a whole: what does not pay between other kernels is taken back, what is not faster in all is not kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tune.gemm_space import GemmSpace
from tests.tune.simulated import BEST, Simulated
from tests.tune.test_network import network

from tilewright.graph import compile
from tilewright.runtime.records import RecordStore, Task
from tilewright.runtime.workers import Workers
from tilewright.tune import tune
from tilewright.tune import tuner as tuning
from tilewright.tune.claim import Claim
from tilewright.tune.decision import MAX_ROUNDS, MIN_ROUNDS
from tilewright.tune.ledger import Entry, Ledger
from tilewright.tune.network import tune_network
from tilewright.tune.verdict import in_turns, judge, rounds_of

#: Seconds of the steps without tuning; kernel "b" is called twice.
DEFAULT = (1.0, 2.0, 3.0, 2.0)
STEPS = {"a": (0,), "b": (1, 3), "c": (2,)}


class Fake:
    """Networks are lists of step seconds; tuned kernels take ``tuned`` seconds instead, unless they are reverted."""

    def __init__(self, tuned: Mapping[str, float], rounds: Sequence[float] = (1.0, 1.1, 0.9, 1.0)):
        self.tuned, self.rounds = dict(tuned), rounds
        self.reverted: list[tuple[str, float, float]] = []
        self.compiled = 0

    def compile(self) -> Any:
        self.compiled += 1
        out = list(DEFAULT)
        for name, seconds in self.tuned.items():
            for k in STEPS[name]:
                out[k] = seconds
        return tuple(out)

    def changed(self, network: Any) -> dict[str, tuple[int, ...]]:
        return {name: STEPS[name] for name in self.tuned}

    def revert(self, name: str, default: Sequence[float], tuned: Sequence[float]) -> None:
        self.reverted.append((name, default[0], tuned[0]))
        del self.tuned[name]

    def in_turns(self, default: Any, tuned: Any) -> Any:
        return [[s * r for s in default] for r in self.rounds], [[s * r for s in tuned] for r in self.rounds]

    def judge(self) -> Any:
        return judge(DEFAULT, self.compile, self.changed, self.revert, self.in_turns)  # type: ignore[arg-type]


def test_what_is_faster_is_kept() -> None:
    fake = Fake({"a": 0.5, "b": 1.5})
    network, verdict = fake.judge()
    assert network == (0.5, 1.5, 3.0, 1.5) and fake.compiled == 1 and not fake.reverted
    assert verdict.kept and verdict.tuned == ("a", "b") and verdict.reverted == ()
    assert verdict.baseline == pytest.approx(8.0) and verdict.seconds == pytest.approx(6.5) and verdict.gain == pytest.approx(8 / 6.5)


def test_what_is_slower_between_others_goes_back_and_the_rest_stays() -> None:
    fake = Fake({"a": 0.5, "b": 2.5})
    network, verdict = fake.judge()
    assert network == (0.5, 2.0, 3.0, 2.0) and fake.compiled == 2
    assert verdict.kept and verdict.tuned == ("a",) and verdict.reverted == ("b",) and verdict.gain == pytest.approx(8 / 7.5)
    assert fake.reverted == [("b", 4.0, 5.0)]


@pytest.mark.parametrize("tuned", [{}, {"a": 1.0}, {"b": 2.5, "c": 3.1}])
def test_without_anything_faster_the_default_network_stays(tuned: dict[str, float]) -> None:
    fake = Fake(tuned)
    network, verdict = fake.judge()
    assert network is DEFAULT and not verdict.kept and verdict.gain == 1.0 and verdict.reverted == tuple(tuned) and not fake.tuned


def test_a_network_that_is_not_clearly_faster_as_a_whole_is_not_kept() -> None:
    """The kernel is faster in the median of the rounds, but not in three of four."""
    fake = Fake({"a": 0.9})
    honest = fake.in_turns

    def noisy(default: Any, tuned: Any) -> Any:
        before, after = honest(default, tuned)
        return before, [[s * f for s in r] for r, f in zip(after, (1.0, 1.0, 1.3, 1.3), strict=True)]

    fake.in_turns = noisy  # type: ignore[method-assign]
    fake.rounds = (1.0, 1.0, 1.0, 1.0)
    network, verdict = fake.judge()
    assert network is DEFAULT and not verdict.kept and verdict.tuned == () and not fake.tuned
    assert rounds_of(1e-6) == MAX_ROUNDS and rounds_of(10.0) == MIN_ROUNDS


def test_the_default_that_won_in_a_network_is_what_the_records_give(tmp_path: Path) -> None:
    space = GemmSpace.of()
    found = tune(space, trials=60, author="evolutionary", executor=Simulated(), records=tmp_path / "r.db", unaligned=())
    assert found.point == BEST
    with RecordStore(tmp_path / "r.db") as store:
        task = Task.of(space.kernel, space.machine, 1)
        (session,) = store.sessions()
        ledger = Ledger(store, task, Claim.take(store, session, 1))
        start = found.history[0]
        ledger.keep_default(Entry(space.encode(start.array), start.outcome, start.estimate), (2e-5, 3e-5))
        best = store.best(task)
        assert best is not None and best.winner and best.gain == 1.0 and best.point == space.encode(space.default())
        beaten = store.records(task, role="final")[-1]
        assert beaten.samples == (2e-5, 3e-5) and beaten.point == space.encode(np.array(BEST)) and beaten.against == best.uid
        ledger.close("done")
    again = Simulated()
    later = tune(space, trials=70, author="random", executor=again, records=tmp_path / "r.db", unaligned=())
    assert later.point == BEST, "a later comparison may find otherwise"


def test_networks_are_judged_where_they_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real workers: whatever the comparison says, records give the network that it chose."""
    seen: list[tuple[int, int]] = []

    def watched(default: Any, tuned: Any, threads: int) -> Any:
        before, after = in_turns(default, tuned, threads)
        seen.append((len(before), len(after)))
        assert all(len(r) == len(default.steps) and min(r) > 0 for r in (*before, *after))
        return before, [[0.5 * s for s in r] for r in before]

    monkeypatch.setattr(tuning, "in_turns", watched)
    model = network(1)
    with Workers(builders=1) as workers:
        found = tune_network(model, records=tmp_path / "r.db", trials=12, threads=1, author="random", executor=workers, patience=99)
    assert found.reason == "trials" and found.verdict is not None
    assert bool(seen) == found.verdict.kept == bool(found.verdict.tuned) and found.verdict.reverted == ()
    later = compile(model, threads=1, records=tmp_path / "r.db")
    assert [str(a.module.kernel) for a in later.compiled] == [str(b.module.kernel) for b in found.network.compiled]
