"""What is read out of records: winners, baselines, discoveries, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.report.sessions import filled, matmul, search, trace_of

from tilewright.report import conditions
from tilewright.report.findings import find
from tilewright.report.page import page
from tilewright.runtime.records import Record, RecordStore, Session, Task
from tilewright.util.errors import RuntimeFailure


def test_winner_and_baseline_are_those_of_the_final_comparison(tmp_path: Path) -> None:
    with filled(tmp_path / "r.db") as store:
        found = find(store)
        assert len(found.tasks) == 3 and found.subject == "model.onnx" and found.weighted
        for t in found.tasks:
            assert t.winner == store.best(t.task), "the page and `records best` agree"
            assert t.winner is not None and t.baseline is not None
            assert (t.winner.role, t.baseline.role, t.baseline.seconds) == ("final", "final", 2.1e-3)
            assert t.gain == t.baseline.seconds / t.winner.seconds
            number, record = t.discovery or (0, t.winner)
            assert record is t.trials[number - 1] and record.point == t.winner.point
            assert t.verdicts == {"ok": 29, "wrong": 2}
            assert t.failures == [("wrong", "c[0, 0] is off by 0", 1), ("wrong", "c[0, 0] is off by 1", 1)]


def test_tasks_come_in_the_order_of_their_cost(tmp_path: Path) -> None:
    with filled(tmp_path / "r.db") as store:
        assert [t.weight for t in find(store).tasks] == [3.0, 2.0, 1.0]


def test_without_a_final_comparison_the_fastest_trial_counts(tmp_path: Path) -> None:
    task = matmul()
    with RecordStore(tmp_path / "r.db") as store:
        store.add(*search(task, "", trials=20, finals=False))
        [t] = find(store).tasks
        times = [r.seconds for r in store.records(task) if r.seconds]
        assert t.winner is not None and t.winner.seconds == min(times) and t.winner.role == "trial"
        assert t.baseline is not None and t.baseline.role == "baseline"


def test_the_default_that_nothing_beats_is_kept(tmp_path: Path) -> None:
    task = matmul()
    with RecordStore(tmp_path / "r.db") as store:
        trace = trace_of(task)
        store.add(
            Record(task, "ok", (1e-3,), trace, {"tile": 0}, role="baseline", session="s"),
            Record(task, "ok", (2e-3,), trace, {"tile": 1}, session="s"),
            Record(task, "ok", (1.1e-3,), trace, {"tile": 0}, role="final", session="s"),
            Record(task, "ok", (2e-3,), trace, {"tile": 1}, role="final", session="s"),
        )
        [t] = find(store, everything=True).tasks
        assert t.kept_default and t.gain == 1.0 and t.discovery is None


def test_records_without_points_are_not_taken_for_one_another(tmp_path: Path) -> None:
    task = matmul()
    with RecordStore(tmp_path / "r.db") as store:
        store.add(Record(task, "ok", (2e-3,), role="baseline"), Record(task, "ok", (1e-3,)), Record(task, "ok", (3e-3,)))
        [t] = find(store).tasks
        assert not t.kept_default and t.gain == 2.0
        assert t.discovery is not None and t.discovery[0] == 1


def test_improvements_are_running_minima(tmp_path: Path) -> None:
    with filled(tmp_path / "r.db", tasks=1, trials=60) as store:
        [t] = find(store).tasks
        [run] = t.runs
        best, expected = float("inf"), []
        for n, r in enumerate(t.trials, 1):
            if r.seconds is not None and r.seconds < best:
                best = r.seconds
                expected.append((n, r.uid))
        assert [(n, r.uid) for n, r in run.improvements] == expected and len(expected) > 2


def test_the_latest_session_with_records_or_a_named_one_or_everything(tmp_path: Path) -> None:
    task = matmul()
    with RecordStore(tmp_path / "r.db") as store:
        store.add_tasks([task, matmul(64)])
        ids = [f"2026112{n}-000000-aaaaaa" for n in range(3)]
        for n, author in enumerate(("random", "xgb", "annealing")):
            store.save(Session("m", {task.key: 1.0, matmul(64).key: 4.0}, author, id=ids[n], created=f"2026-11-2{n}T00:00:00+00:00"))
        store.add(*search(task, ids[0], trials=5, author="random"), *search(task, ids[1], trials=7, author="xgb", seed=1))
        assert (find(store).sessions[0].id, find(store).authors) == (ids[1], ["xgb"])
        assert [t.key for t in find(store).untried] == [matmul(64).key]
        assert find(store, ids[0][:9]).authors == ["random"]
        whole = find(store, everything=True)
        assert whole.authors == ["random", "xgb"] and [len(r.trials) for r in whole.tasks[0].runs] == [5, 7]
        assert not whole.weighted
        assert (find(store).elsewhere, find(store, ids[0][:9]).elsewhere, whole.elsewhere) == (5, 7, 0)
        with pytest.raises(RuntimeFailure, match=rf"session {ids[2]} \(m, running\) in .* has no records yet") as error:
            find(store, ids[2])
        assert "records list --sessions" in (error.value.hint or "")
        with pytest.raises(RuntimeFailure, match="no sessions begin with 'zz'"):
            find(store, "zz")


def test_a_session_that_found_everything_done_says_who_did_not_repeat_it(tmp_path: Path) -> None:
    with filled(tmp_path / "r.db", tasks=1, trials=6) as store:
        task = matmul()
        again = store.save(Session("model.onnx", {task.key: 1.0}, "annealing", 0, trials=6, created="2999-01-01T00:00:00+00:00"))
        store.add(Record(task, "ok", (2e-3,), trace_of(task), {"tile": 0}, role="baseline", author="annealing", session=again.id))
        found = find(store)
    text = page(found)
    assert found.authors == ["annealing"] and found.elsewhere == 6
    assert "0 trials of 1 tasks by annealing" in text and "6 trials of these tasks by other sessions are not shown" in text
    assert "Other sessions made 6 trials of these tasks: what is known is not repeated" in text


def test_an_empty_file_says_what_to_do(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "r.db") as store, pytest.raises(RuntimeFailure, match="there are no records in") as error:
        find(store)
    assert "tilewright tune" in (error.value.hint or "")


def test_work_of_a_task() -> None:
    from tilewright.report.findings import TaskFindings

    work = TaskFindings(matmul(32), 1.0, ()).work
    assert work is not None
    assert (work.flops, work.nbytes, work.dtype) == (2 * 32 * 64 * 64, 4 * (32 * 64 + 64 * 64 + 32 * 64), "f32")
    symbolic = Task(
        '@kernel(params=("N",))\ndef twice(x: f32[N], y: f32[N]):\n    for i in range(N):\n        y[i] = x[i] * 2.0', "m", "m", 1
    )
    foreign = Task("def f(x): this is no program", "m", "m", 1)
    assert TaskFindings(symbolic, 1.0, ()).work is None and TaskFindings(foreign, 1.0, ()).work is None


@pytest.mark.parametrize(("samples", "won", "doubtful"), [((1e-3, 5e-3, 5e-3, 5e-3), 1, True), ((1e-3, 1e-3, 1e-3, 5e-3), 3, False)])
def test_a_lucky_sample_is_no_clear_win(tmp_path: Path, samples: tuple[float, ...], won: int, doubtful: bool) -> None:
    task = matmul()
    with RecordStore(tmp_path / "r.db") as store:
        store.add(
            Record(task, "ok", (2e-3,), point={"tile": 0}, role="baseline", session="s"),
            Record(task, "ok", (1e-3,), point={"tile": 1}, session="s"),
            Record(task, "ok", (2e-3,) * 4, point={"tile": 0}, role="final", session="s"),
            Record(task, "ok", samples, point={"tile": 1}, role="final", session="s"),
        )
        findings = find(store, everything=True)
    [t] = findings.tasks
    assert t.rounds == (won, 4) and t.doubtful == doubtful
    assert ("within the noise" in conditions.notes(findings)) == doubtful
