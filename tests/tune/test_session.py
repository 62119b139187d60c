"""Sessions keep their budgets, survive kills and faults, and declare only what was verified and compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tests.tune.gemm_space import GemmSpace
from tests.tune.simulated import BEST, Point, Simulated, landscape

from tilewright import lang
from tilewright.runtime import build
from tilewright.runtime.jobs import Job, Limits, Outcome
from tilewright.runtime.records import RecordStore, Task
from tilewright.runtime.verify import check
from tilewright.runtime.workers import Workers
from tilewright.schedule.schedule import Schedule
from tilewright.tune import Progress, tune
from tilewright.util.errors import RuntimeFailure, SpaceError, TuneError


@pytest.fixture(scope="module")
def space() -> GemmSpace:
    return GemmSpace.of()


def points(history: tuple) -> list[Point]:
    return [t.point for t in history]


# --- budgets ----------------------------------------------------------------------------------


def test_the_best_point_wins_with_the_trials_allowed(space: GemmSpace) -> None:
    executor, seen = Simulated(), []
    r = tune(space, trials=60, executor=executor, progress=seen.append)
    assert r.point == BEST and r.reason == "trials" and r.confirmed
    assert r.seconds == landscape(BEST) and r.baseline == landscape(tuple(space.default()))
    assert r.gain == pytest.approx(r.baseline / r.seconds)
    assert len(executor.asked) == len(set(executor.asked)) == len(r.history) == 61
    assert r.history[0].point == tuple(space.default())
    assert executor.compared[0][:2] == [r.history[0].point, BEST] and len(executor.compared[0]) == 6
    assert [p.trials for p in seen] == list(range(61)) and isinstance(seen[-1], Progress)
    assert (seen[-1].allowed, seen[-1].best, seen[-1].failed) == (60, r.seconds, 0)
    assert str(r.schedule().kernel) == str(space.schedule(np.array(BEST)).kernel)


def test_equal_seeds_give_equal_sessions(space: GemmSpace) -> None:
    a, b, c = (tune(space, trials=35, seed=s, executor=Simulated()) for s in (5, 5, 6))
    assert points(a.history) == points(b.history) != points(c.history)


def test_a_budget_of_seconds_is_kept(space: GemmSpace) -> None:
    start = time.monotonic()
    r = tune(space, seconds=2.5, executor=Simulated(before=lambda n: time.sleep(0.05)), author="random")
    assert r.reason == "seconds" and 1.5 < time.monotonic() - start < 3.5
    assert 15 < len(r.history) < 60


@pytest.mark.parametrize("budget", [{"trials": 0}, {"seconds": 0}, {"seconds": -1.0}])
def test_no_budget_at_all_is_refused(space: GemmSpace, budget: dict) -> None:
    with pytest.raises(TuneError, match="too small to measure anything"):
        tune(space, executor=Simulated(), **budget)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan")])
def test_a_time_that_never_ends_is_refused(space: GemmSpace, seconds: float) -> None:
    with pytest.raises(TuneError, match=f"a budget of {seconds} s is no time"):
        tune(space, executor=Simulated(), seconds=seconds)


def test_a_budget_spent_before_the_first_trial_is_an_error_that_says_what_is_needed(space: GemmSpace) -> None:
    with pytest.raises(TuneError, match=r"0.3 s is too small to measure anything: 0\.\d s went by") as e:
        tune(space, seconds=0.3, executor=Simulated(before=lambda n: time.sleep(0.4)))
    assert "give at least" in (e.value.hint or "")


def test_stagnation_and_exhaustion_end_a_session(space: GemmSpace) -> None:
    flat = tune(space, trials=200, patience=30, author="random", executor=Simulated(lambda p: 1e-5))
    assert flat.reason == "stagnation" and 30 <= len(flat.history) < 60 and flat.gain == 1.0
    every = tune(space, trials=10_000, patience=None, author="exhaustive", executor=Simulated())
    assert every.reason == "exhausted" and len(every.history) == len(space.enumerate(space.size)) and every.point == BEST


def caller_s(space: GemmSpace) -> Task:
    """The task of tuning the space's program for arrays as NumPy allocates them."""
    return Task.of(space.kernel, space.machine, 1, unaligned=[b.name for b in space.kernel.args])


# --- who wins ---------------------------------------------------------------------------------


def test_a_lucky_sample_does_not_beat_the_baseline(space: GemmSpace) -> None:
    """During the search candidates look up to twice as fast as the baseline; compared in turns all are alike."""
    rng = np.random.default_rng(0)
    executor = Simulated(lambda p: 1e-5 * float(rng.uniform(0.5, 1.0)))
    executor.compare = lambda jobs, rounds=15: [Outcome("ok", tuple(1e-5 * rng.uniform(0.95, 1.05, rounds))) for _ in jobs]  # type: ignore[method-assign]
    r = tune(space, trials=30, executor=executor)
    assert r.point == tuple(space.default()) and r.gain == 1.0 and r.confirmed


def test_failures_never_win_and_a_failed_baseline_is_no_obstacle(space: GemmSpace) -> None:
    def fails(point: Point) -> Outcome | None:
        return Outcome("wrong", message="y[0] is 1.0, expected 2.0") if point in (tuple(space.default()), BEST) else None

    r = tune(space, trials=120, executor=Simulated(fails=fails))
    assert r.point != BEST and r.baseline == float("inf") and r.confirmed
    assert {t.outcome.status for t in r.history} == {"ok", "wrong"}


def test_a_failed_baseline_leaves_the_time_to_others(space: GemmSpace) -> None:
    default = tuple(space.default())
    executor = Simulated(fails=lambda p: Outcome("timeout", message="still running") if p == default else None)
    r = tune(space, seconds=1.0, trials=20, author="random", executor=executor)
    assert r.reason == "trials" and r.baseline == float("inf") and r.gain == float("inf")


def test_nothing_works(space: GemmSpace) -> None:
    with pytest.raises(TuneError, match=r"no candidate for gemm works \(13 crash\): killed by SIGILL"):
        tune(space, trials=12, executor=Simulated(fails=lambda p: Outcome("crash", message="killed by SIGILL")))


def test_unknown_authors_and_impossible_spaces(space: GemmSpace, tmp_path: Path) -> None:
    with pytest.raises(TuneError, match="no author 'genius'"):
        tune(space, trials=5, author="genius", executor=Simulated(), records=tmp_path / "r.db")
    with RecordStore(tmp_path / "r.db") as store:
        assert store.sessions() == []
    with pytest.raises(SpaceError, match="no rule has a schedule"):
        from tilewright.space.space import Space

        tune(Space(space.kernel, space.machine, rules=()), trials=5, executor=Simulated())


def test_the_decision_is_recorded_and_is_what_best_gives(space: GemmSpace, tmp_path: Path) -> None:
    """The fastest sample of the comparison is the baseline's, by luck; the winner is another."""
    executor = Simulated()
    lucky = tuple(space.default())

    def compare(jobs: Sequence[Job], rounds: int = 15) -> list[Outcome]:
        outcomes = Simulated.compare(executor, jobs, rounds)
        return [
            replace(o, samples=(1e-9, *o.samples[1:])) if p == lucky else o for o, p in zip(outcomes, executor.compared[-1], strict=True)
        ]

    executor.compare = compare  # type: ignore[method-assign]
    r = tune(space, trials=60, executor=executor, records=tmp_path / "r.db")
    with RecordStore(tmp_path / "r.db") as store:
        best = store.best(caller_s(space))
        finals = store.records(role="final")
    assert best is not None and best.winner and best.point == space.encode(np.array(r.point)) == space.encode(np.array(BEST))
    assert best.gain == pytest.approx(r.gain) and {f.against for f in finals} == {finals[0].uid}
    assert finals[0].point == space.encode(np.array(lucky)) and sum(f.winner for f in finals) == 1


def test_the_winner_of_an_earlier_session_is_kept_or_beaten_in_the_same_rounds(space: GemmSpace, tmp_path: Path) -> None:
    """The second search believes that others are faster; compared with the first winner they are not."""
    tune(space, trials=60, executor=Simulated(), records=tmp_path / "r.db")
    second = Simulated(lambda p: landscape(p) * (0.1 if p[1] != BEST[1] else 1.0))
    asked: list[list[Point]] = []

    def compare(jobs: Sequence[Job], rounds: int = 15) -> list[Outcome]:
        honest = Simulated()
        out = honest.compare(jobs, rounds)
        asked.append(honest.compared[0])
        return out

    second.compare = compare  # type: ignore[method-assign]
    r = tune(space, trials=120, seed=9, executor=second, records=tmp_path / "r.db")
    assert r.point == BEST and asked[0][-1] == BEST and len(asked[0]) == 7


def test_what_wins_on_callers_arrays_only_is_passed_over(space: GemmSpace) -> None:
    """The fastest point loses a tenth of the default's speed on aligned arrays, the next one is as fast there as anywhere."""
    executor = Simulated()
    placed: list[tuple[str, ...]] = []

    def compare(jobs: Sequence[Job], rounds: int = 15) -> list[Outcome]:
        placed.append(jobs[0].unaligned)
        outcomes = Simulated.compare(executor, jobs, rounds)
        if jobs[0].unaligned:
            return outcomes
        return [
            replace(o, samples=tuple(1.1 * s for s in outcomes[0].samples)) if p == BEST else o
            for o, p in zip(outcomes, executor.compared[-1], strict=True)
        ]

    executor.compare = compare  # type: ignore[method-assign]
    found = tune(space, trials=300, patience=None, author="exhaustive", executor=executor)
    assert found.point != BEST and found.gain > 1 and found.confirmed
    assert placed == [("a", "b", "c"), (), ()]
    assert {j.unaligned for j in executor.jobs} == {("a", "b", "c")}
    aligned = Simulated()
    assert tune(space, trials=300, patience=None, author="exhaustive", executor=aligned, unaligned=()).point == BEST
    assert {j.unaligned for j in aligned.jobs} == {()} and len(aligned.compared) == 1


def test_records_of_one_placement_are_no_trials_of_another(space: GemmSpace, tmp_path: Path) -> None:
    tune(space, trials=60, executor=Simulated(), records=tmp_path / "r.db", unaligned=())
    executor = Simulated()
    found = tune(space, trials=10, executor=executor, records=tmp_path / "r.db")
    assert len(executor.asked) == 11 and not any(t.recorded for t in found.history)
    assert executor.asked[1] == BEST, "what won there is worth trying first"
    with RecordStore(tmp_path / "r.db") as store:
        assert store.count(Task.of(space.kernel, space.machine, 1)) + store.count(caller_s(space)) == store.count()


# --- interruption -----------------------------------------------------------------------------


def interrupt_at(number: int) -> Simulated:
    def before(n: int) -> None:
        if n == number:
            raise KeyboardInterrupt

    return Simulated(before=before)


def test_ctrl_c_ends_with_the_best_so_far(space: GemmSpace, tmp_path: Path) -> None:
    r = tune(space, trials=100, executor=interrupt_at(25), records=tmp_path / "r.db")
    assert r.reason == "interrupted" and not r.confirmed and len(r.history) == 25
    assert r.seconds == min(t.seconds for t in r.history)
    with RecordStore(tmp_path / "r.db") as store:
        assert store.sessions()[0].state == "stopped" and store.count() == 25
        best = store.best(caller_s(space))
        assert best is not None and not best.winner and best.seconds == r.seconds


def test_ctrl_c_before_anything_worked_is_passed_on(space: GemmSpace) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(space, trials=100, executor=interrupt_at(0))


# --- records ----------------------------------------------------------------------------------


def test_a_session_goes_on_where_it_was_stopped(space: GemmSpace, tmp_path: Path) -> None:
    first = tune(space, trials=50, executor=interrupt_at(25), records=tmp_path / "r.db")
    executor = Simulated()
    second = tune(space, trials=50, executor=executor, records=tmp_path / "r.db")
    assert not set(executor.asked[1:]) & set(points(first.history)) and len(executor.asked) == 1 + 50 - 24
    assert len(second.history) == 51 and second.point == BEST
    again = Simulated()
    third = tune(space, trials=50, executor=again, records=tmp_path / "r.db")
    assert len(again.asked) == 1 and third.point == BEST and third.reason == "trials"
    with RecordStore(tmp_path / "r.db") as store:
        assert [s.state for s in store.sessions()] == ["done", "done"]  # the stopped one was taken up
        assert store.count() == store.count(caller_s(space))
        assert store.best(caller_s(space)).point == space.encode(np.array(BEST))  # type: ignore[union-attr]


def test_the_best_of_other_shapes_is_tried_first(space: GemmSpace, tmp_path: Path) -> None:
    tune(space, trials=60, executor=Simulated(), records=tmp_path / "r.db")
    executor = Simulated()
    tune(GemmSpace.of(64, 64, 64), trials=10, executor=executor, records=tmp_path / "r.db")
    assert executor.asked[1] == BEST


def test_replay_measures_again_what_the_records_know(space: GemmSpace, tmp_path: Path) -> None:
    first = tune(space, trials=60, executor=Simulated(), records=tmp_path / "r.db")
    executor = Simulated()
    again = tune(space, trials=8, author="replay", executor=executor, records=tmp_path / "r.db")
    fastest = sorted(first.history[1:], key=lambda t: t.seconds)[:8]
    assert executor.asked[1:] == [t.point for t in fastest] and again.point == BEST
    with pytest.raises(TuneError, match="nothing to replay"):
        tune(space, trials=8, author="replay", executor=executor)


def test_a_full_disk_costs_the_records_and_not_the_result(space: GemmSpace, tmp_path: Path) -> None:
    with RecordStore(tmp_path / "r.db") as store:
        connection = store._connection()
        connection.execute(f"PRAGMA max_page_count={connection.execute('PRAGMA page_count').fetchone()[0] + 2}")
        with pytest.warns(RuntimeWarning, match="tuning goes on, but it will not be recorded") as warned:
            r = tune(space, trials=60, executor=Simulated(), records=store)
    assert r.point == BEST and len(warned) == 1


def test_records_that_cannot_be_opened_are_an_error_before_anything_runs(space: GemmSpace) -> None:
    executor = Simulated()
    with pytest.raises(RuntimeFailure, match="/proc/nowhere"):
        tune(space, trials=5, executor=executor, records="/proc/nowhere/r.db")
    assert not executor.asked


# --- with real workers ------------------------------------------------------------------------


@dataclass(frozen=True)
class Sabotaged(GemmSpace):
    """Points with 8 rows leave out half of the sum (and would be the fastest), those with 2 crash, with 16 hang."""

    def schedule(self, point: np.ndarray) -> Schedule:
        sch = super().schedule(point)
        text = str(self.kernel)
        if point[1] == 8:
            return Schedule(lang.parse(text.replace("k in range(64)", "k in range(32)")), self.machine)
        if point[1] == 2:
            return Schedule(lang.parse(text.replace("c[i_1, j_1] +=", "c[i_1 * i_1 * 1000000000, j_1] +=")), self.machine)
        if point[1] == 16:
            return Schedule(lang.parse(text.replace("k in range(64)", "k_1 in range(1099511627776):\n                for k in range(64)")
                                       .replace("                c[i_1", "                    c[i_1")), self.machine)  # fmt: skip
        return sch


def test_a_space_full_of_faults_still_yields_a_right_winner(space: GemmSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE", "/proc/nowhere")  # no build cache either
    monkeypatch.setattr("tilewright.tune.decision.MAX_ROUNDS", 7)  # the comparison has the time limit of a few candidates
    sabotaged = Sabotaged(space.kernel, space.machine)
    with Workers(limits=Limits(build=20, run=1.0)) as workers, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        r = tune(sabotaged, trials=24, executor=workers, author="random", seed=2)
        expected = {8: "wrong", 2: "crash", 16: "timeout"}
        for t in r.history:
            assert t.outcome.status == expected.get(t.point[1], "ok"), t
        assert {t.point[1] for t in r.history} >= {2, 8, 16} and r.point[1] in (1, 4) and r.confirmed and r.gain >= 1.0
    warnings.simplefilter("ignore")
    monkeypatch.undo()
    check(build(r.schedule(), threads=1), space.kernel)


def test_a_killed_tuner_loses_no_trial(space: GemmSpace, tmp_path: Path) -> None:
    records = tmp_path / "r.db"
    script = textwrap.dedent(f"""
        from tests.tune.gemm_space import GemmSpace
        from tilewright.tune import tune
        tune(GemmSpace.of(), trials=24, author="random", records={str(records)!r})
    """)
    tuner = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": "."})
    with RecordStore(records) as store:
        deadline = time.monotonic() + 120
        while store.count() < 6 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(tuner.pid, signal.SIGKILL)
        tuner.wait()
        before = store.records(role="trial")
        assert 5 <= len(before) < 24 and store.sessions()[0].state == "running"
        r = tune(space, trials=24, author="random", records=store)
        after = store.records(role="trial")
        tried = [tuple(x.point.items()) for x in after]  # type: ignore[union-attr]
        assert after[: len(before)] == before and len(after) == len(set(tried)) == 24
        assert len(store.sessions()) == 1 and store.sessions()[0].state == "done"
        assert len(r.history) == 25 and r.confirmed
