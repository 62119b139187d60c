"""tilewright records and worker: what people see of tuning records."""

from __future__ import annotations

import json
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from tests.cli.command import tilewright

from tilewright.cli import worker as worker_module
from tilewright.hw import load_machine
from tilewright.lang import parse
from tilewright.mapping.operators import FLOAT, build_operator
from tilewright.runtime.records import Record, RecordStore, Session, Task
from tilewright.schedule import Schedule
from tilewright.schedule.trace import Trace
from tilewright.tune.claim import Claim

KERNEL = build_operator("matmul", FLOAT, i=8, j=8, k=8)
SYMBOLIC = parse('@kernel(params=("N",))\ndef twice(x: f32[N], y: f32[N]):\n    for i in range(N):\n        y[i] = x[i] * 2.0')


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordStore:
    """A file with one session of two tasks: three records of the first, none of the second."""
    monkeypatch.setenv("TILEWRIGHT_RECORDS", str(tmp_path / "records.db"))
    machine = load_machine("x86.avx2")
    first, second = Task.of(KERNEL, machine, 1), Task.of(SYMBOLIC, machine, 1)
    schedule = Schedule(KERNEL)
    schedule.split("k", 4)
    with RecordStore() as store:
        store.add_tasks([first, second])
        session = store.save(Session("model.onnx", {first.key: 12.0, second.key: 1.0}, "xgb", 3, trials=64))
        store.add(
            Record(first, "ok", (2e-3,), role="baseline", session=session.id, author="xgb"),
            Record(first, "ok", (1e-3,), schedule.trace.to_json(), {"k": 4}, estimate=1.1e-3, session=session.id, author="xgb"),
            Record(first, "wrong", message="[red]c[0, 0] is off by 2[/]", session=session.id, author="xgb"),
        )
    return store


def key_of(store: RecordStore) -> str:
    """Key of the task that has records."""
    with RecordStore(store.path) as opened:
        return next(iter(opened.sessions()[0].tasks))


def session_of(store: RecordStore) -> str:
    """The session's id."""
    with RecordStore(store.path) as opened:
        return opened.sessions()[0].id


def test_list(filled: RecordStore) -> None:
    out = tilewright("records", "list").output
    row = next(line for line in out.splitlines() if "gmm" in line)
    assert key_of(filled)[:10] in row and "2.00x?" in row and "1.00 ms" in row and "x86.avx2" in row
    assert "twice(x: f32[N], y: f32[N])" in out
    assert "1 more: --limit 2" in tilewright("records", "list", "--limit", "1").output
    sessions = tilewright("records", "list", "--sessions").output
    row = next(line for line in sessions.splitlines() if "model.onnx" in line).split()
    assert row[2:-1] == ["running", "xgb", "2", "2", "64", "trials"], "two of its three records are trials"


def test_show_a_task_a_session_a_record(filled: RecordStore) -> None:
    task = tilewright("records", "show", key_of(filled)[:6]).output
    assert "2 ok, 1 wrong" in task and str(KERNEL) in task and "[red]c[0, 0] is off by 2[/]" in task
    session = tilewright("records", "show", session_of(filled)).output
    assert "model.onnx, running, by xgb, seed 3" in session and "2.00x" in session
    with RecordStore(filled.path) as store:
        uid = store.best(key_of(filled)).uid
    record = tilewright("records", "show", uid[:12]).output
    assert "point: k=4" in record and "split(loop='k', factor=4" in record and "estimate: 1.10 ms" in record
    unknown = tilewright("records", "show", "zz")
    assert unknown.exit_code == 1 and "begin with 'zz'" in unknown.output and "hint:" in unknown.output


def test_best(filled: RecordStore) -> None:
    key = key_of(filled)
    guess = tilewright("records", "best", key[:8])
    assert "ok 1.00 ms" in guess.output and "not confirmed by a final comparison" in guess.output
    trace = Trace.from_json(tilewright("records", "best", key[:8], "--json").stdout)
    assert [s.primitive for s in trace.steps] == ["split"]
    assert "2.00x" in tilewright("records", "best").output
    with RecordStore(filled.path) as store:
        other = next(s.task.key for s in store.tasks() if s.task.key != key)
    nothing = tilewright("records", "best", other)
    assert nothing.exit_code == 1 and "nothing ran for twice" in nothing.output
    assert tilewright("records", "best", "--json").exit_code == 2


def test_a_confirmed_winner_is_shown_with_its_gain(filled: RecordStore) -> None:
    key = key_of(filled)
    with RecordStore(filled.path) as store:
        lucky = store.best(key)
        assert lucky is not None
        compared = {"role": "final", "session": lucky.session, "against": "b" * 32}
        store.add(
            Record(lucky.task, "ok", (3e-3,), "", {"k": 0}, uid="b" * 32, **compared),
            Record(lucky.task, "ok", (2e-3,), "", {"k": 2}, winner=True, gain=1.5, **compared),
        )
    shown = tilewright("records", "best", key).output
    assert "ok 2.00 ms" in shown and "1.50 times as fast" in shown and "not confirmed" not in shown
    assert "1.50x " in tilewright("records", "list").output
    assert "1.50x " in tilewright("records", "show", session_of(filled)).output


def test_export_and_import(filled: RecordStore, tmp_path: Path) -> None:
    lines, other = tmp_path / "mine.jsonl", str(tmp_path / "other.db")
    result = tilewright("records", "export", "-o", str(lines))
    assert result.exit_code == 0 and "3 records written" in result.output
    assert "3 records added" in tilewright("records", "import", str(lines), "--records", other).output
    assert "0 records added" in tilewright("records", "import", str(lines), "--records", other).output
    part = tilewright("records", "export", "--records", other, "--session", session_of(filled)[:17]).stdout
    assert [json.loads(line)["kind"] for line in part.splitlines()].count("record") == 3
    with lines.open("a") as file:
        file.write("{bad\n")
    damaged = tilewright("records", "import", str(lines), "--records", other)
    number = len(lines.read_text().splitlines())
    assert damaged.exit_code == 1 and f"mine.jsonl:{number}: not JSON text" in damaged.output and "1 lines" in damaged.output
    missing = tilewright("records", "import", str(tmp_path / "none.jsonl"))
    assert missing.exit_code == 1 and "cannot read" in missing.output
    unwritable = tilewright("records", "export", "-o", str(tmp_path / "none" / "x.jsonl"))
    assert unwritable.exit_code == 1 and "cannot write" in unwritable.output


def test_salvage(filled: RecordStore, tmp_path: Path) -> None:
    raw = bytearray(filled.path.read_bytes())
    raw[-4096:] = bytes(4096)
    filled.path.write_bytes(raw)
    refused = tilewright("records", "list")
    assert refused.exit_code == 1 and "damaged" in refused.output and "export --salvage" in refused.output
    saved = tmp_path / "saved.jsonl"
    assert tilewright("records", "export", "--salvage", "-o", str(saved)).exit_code == 0
    assert tilewright("records", "import", str(saved), "--records", str(tmp_path / "new.db")).exit_code == 0


def test_no_records_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_RECORDS", str(tmp_path / "none.db"))
    result = tilewright("records", "list")
    assert result.exit_code == 1 and "there are no records" in result.output and not (tmp_path / "none.db").exists()


def test_worker_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(worker_module, "find_spec", absent)
    result = tilewright("worker", "tcp://127.0.0.1:1")
    assert result.exit_code == 1 and "Dask is not installed" in result.output and "tilewright[cluster]" in result.output


def test_a_session_is_deleted(filled: RecordStore) -> None:
    session = session_of(filled)
    unknown = tilewright("records", "delete", "zz")
    assert unknown.exit_code == 1 and "begin with 'zz'" in unknown.output
    asked = tilewright("records", "delete", session[:-1])  # nobody answers
    assert asked.exit_code == 1 and f"remove session {session} (model.onnx) and its 3 records from" in asked.output
    with RecordStore(filled.path) as store:
        assert store.count() == 3
    assert "its 3 records removed" in tilewright("records", "delete", session[:-1], "--yes").output
    with RecordStore(filled.path) as store:
        assert store.sessions() == [] and store.count() == 0
    assert tilewright("records", "delete", session).exit_code == 1


def test_a_session_in_use_is_not_deleted(filled: RecordStore) -> None:
    with RecordStore(filled.path) as store:
        claim = Claim.take(store, store.sessions()[0], threads=1)
        refused = tilewright("records", "delete", claim.session.id, "--yes")
        assert refused.exit_code == 1 and "is being tuned" in refused.output and "end it first" in refused.output
        assert store.count() == 3
        claim.close("stopped")
        assert "its 3 records removed" in tilewright("records", "delete", claim.session.id, "--yes").output


def test_nothing_is_made_by_deleting(filled: RecordStore) -> None:
    absent = filled.path.with_name("absent.db")
    assert tilewright("records", "delete", "2026", "--records", str(absent)).exit_code == 1 and not absent.exists()
