"""Records as JSON lines: nothing is lost, nothing is added twice, bad lines are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.trials import task

from tilewright.hw import load_machine
from tilewright.runtime.records import Record, RecordStore, Session, Task
from tilewright.runtime.records.exchange import export_lines, import_lines
from tilewright.runtime.records.exchange import record_line as line_of

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
points = st.none() | st.dictionaries(texts, st.integers(-(2**40), 2**40) | texts, max_size=3)
times = st.floats(1e-9, 1e3)
placed = Task.of(task().kernel(), load_machine("x86.avx2"), 1, unaligned=["a"])
records = st.builds(
    Record, st.sampled_from([task(), task(16), placed]), st.just("ok"), st.lists(times, min_size=1, max_size=3).map(tuple),
    texts, points, texts,
    st.none() | times, st.sampled_from(["trial", "final"]), texts, st.integers(0, 2**62), texts,
) | st.builds(Record, st.sampled_from([task(), task(16)]), st.sampled_from(["crash", "wrong"]), message=texts)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(records, max_size=6))
def test_export_and_import_lose_nothing(tmp_path_factory: pytest.TempPathFactory, items: list[Record]) -> None:
    folder = tmp_path_factory.mktemp("exchange")
    with RecordStore(folder / "a.db") as a, RecordStore(folder / "b.db") as b:
        a.add(*items)
        a.add_tasks([task()])
        a.save(Session("m", {task().key: 2.0}, options={"deep": [1, {"x": None}]}, sittings=({"load": 1.5},)))
        lines = list(export_lines(a))
        first, second = import_lines(b, lines), import_lines(b, (line.encode() + b"\n" for line in lines))
        assert (first.added, first.known, first.refused) == (len(items), 0, [])
        assert (second.added, second.known, second.refused) == (0, len(items), [])
        assert a.records() == b.records() and a.sessions() == b.sessions()
        assert list(export_lines(b)) == lines
    shutil.rmtree(folder)


def test_export_of_a_task_and_of_a_session(store: RecordStore, tmp_path: Path) -> None:
    store.add(*(Record(task(i), "ok", (1.0,), session=s) for i in (8, 16) for s in ("s1", "s2")))
    for options in ({"task": task(16)}, {"session": "s1"}):
        with RecordStore(tmp_path / f"{next(iter(options))}.db") as other:
            assert import_lines(other, export_lines(store, **options)).added == 2
            assert other.records() == store.records(**options)


def test_every_bad_line_is_reported_by_its_number(store: RecordStore) -> None:
    good = Record(task(), "ok", (1.0,), session="s")
    with RecordStore(store.path.with_name("source.db")) as source:
        source.add(good)
        task_line, record_line = export_lines(source)
    data = json.loads(record_line)

    def changed(**values: object) -> str:
        return json.dumps({**data, "uid": "other", **values})

    bad = {
        "{oops": "not JSON text",
        b"\xff\xfe": "not JSON text",
        "[1, 2]": "not a JSON object",
        '{"kind": "record"}': "of format None",
        '{"format": 99, "kind": "record"}': "of format 99; this Tilewright reads format 1",
        '{"format": 1, "kind": "song"}': "unknown kind 'song'",
        "[" * 100_000: "not JSON text",
        changed(task="f" * 32): "which no line before it declares",
        changed(task=None): "which no line before it declares",
        changed(status="fine"): "verdict 'fine'",
        changed(samples=[]): "0 samples",
        changed(samples="fast"): 'samples of the record is "fast"',
        changed(samples=[-1.0]): "not positive",
        changed(seed=2**63): "seed of the record",
        changed(host=7): "host of the record is 7",
        changed(point=[1]): "point of the record",
        record_line.replace('"status":"ok",', ""): "lacks status",
        changed(trace="\ud800"): "trace of the record",
        task_line.replace("gmm", "gmm").replace("range(8)", "range(9)"): "the line was altered",
        '{"format": 1, "kind": "task", "program": "x"}': "lacks fingerprint, machine, threads",
        '{"format": 1, "kind": "session", "subject": "m", "tasks": {"f0": 1}}': "a session with task 'f0'",
        '{"format": 1, "kind": "session", "subject": "m", "tasks": {"f0": "x"}}': "tasks of the session",
    }
    lines = [task_line, *bad, "", record_line]
    report = import_lines(store, lines)
    assert report.added == 1 and store.records() == [good]
    assert [r.line for r in report.refused] == list(range(2, 2 + len(bad)))
    for refused, reason in zip(report.refused, bad.values(), strict=True):
        assert reason in refused.reason


def test_lines_of_other_versions_and_hands(store: RecordStore) -> None:
    """Fields that are not known are skipped, those that are missing have defaults, and importing stays idempotent."""
    t = task()
    lines = [
        json.dumps(
            {"format": 1, "kind": "task", "program": t.program, "machine": t.machine, "fingerprint": t.fingerprint, "threads": 1, "x": 1}
        ),
        json.dumps({"format": 1, "kind": "record", "task": t.key, "status": "ok", "samples": [1, 2.5], "features": "3", "mood": "good"}),
    ]
    assert import_lines(store, lines).added == 1 and import_lines(store, lines).added == 0
    assert store.best(t).samples == (1.0, 2.5)


def test_whole_numbers_of_every_size_that_a_file_keeps(store: RecordStore) -> None:
    kept = [Record(task(), "ok", (1e-3,), seed=seed) for seed in (1 - 2**63, -1, 2**63 - 1)]
    store.add(kept[0])
    lines = [*export_lines(store), *(line_of(r) for r in kept[1:])]
    assert import_lines(store, lines).refused == [] and store.records() == kept


def test_the_newer_state_of_a_session_wins(store: RecordStore) -> None:
    store.add_tasks([task()])
    old = store.save(Session("m", {task().key: 1.0}))
    exported = list(export_lines(store))
    new = store.save(Session("m", old.tasks, id=old.id, state="done", created=old.created))
    import_lines(store, exported)
    assert store.sessions() == [new]
