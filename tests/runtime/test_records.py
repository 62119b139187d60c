"""Tasks, records and sessions: what is read is what was written, and is found again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.runtime.trials import full_record, matmul, task

from tilewright.hw import load_machine
from tilewright.lang import parse
from tilewright.runtime.records import Record, RecordStore, Session, Task, records_path
from tilewright.schedule.replay import replay
from tilewright.schedule.trace import Trace
from tilewright.util.errors import RuntimeFailure

# --- tasks ----------------------------------------------------------------------------------


def test_a_task_is_its_program_machine_threads_and_constants() -> None:
    base = task()
    assert base.key == task().key and len(base.key) == 32
    assert base.kernel() == matmul()
    others = [
        task(16),
        task(threads=2),
        Task.of(matmul(), load_machine("x86.avx512"), 1),
        Task.of(matmul(), load_machine("x86.avx2"), 1, ["b"]),
    ]
    assert len({base.key, *(t.key for t in others)}) == 5
    renamed = parse(str(matmul()).replace("def gmm(", "def group_12("))
    assert Task.of(renamed, load_machine("x86.avx2"), 1).key == base.key, "a kernel's name does not count"
    moved = parse(str(matmul()).replace("i_0", "row"))
    assert Task.of(moved, load_machine("x86.avx2"), 1).key != base.key, "traces use loop names"
    assert Task.of(matmul(), load_machine("x86.avx2"), 1, ["b", "a"]) == Task.of(matmul(), load_machine("x86.avx2"), 1, ["a", "b"])


def test_where_arrays_lie_is_part_of_the_task_and_not_of_its_structure(store: RecordStore) -> None:
    machine = load_machine("x86.avx2")
    here, there = Task.of(matmul(), machine, 1, unaligned=["b", "a"]), Task.of(matmul(), machine, 1, ["b"], ["a"])
    assert len({task().key, here.key, there.key, Task.of(matmul(), machine, 1, ["a", "b"]).key}) == 4
    assert here.unaligned == ("a", "b") and here.structure == task().structure and here.distance(task()) == 0
    store.add(Record(here, "ok", (1.0,)), Record(task(), "ok", (2.0,)))
    assert [r.task for r in store.similar(here)] == [task()] and store.task(here.key) == here
    assert store.best(here).seconds == 1.0  # type: ignore[union-attr]


def test_structure_leaves_out_shapes_and_nothing_else() -> None:
    assert task().structure == task(16).structure == task(1000).structure
    assert task().structure != task(threads=2).structure
    text = "@kernel\ndef f(x: f32[8], y: f32[8]):\n    for i in range(8):\n        y[i] = x[i] * {}"
    machine = load_machine("x86.avx2")
    keys = {n: Task.of(parse(text.format(n)), machine, 1).structure for n in ("2.5", "3.5", "1e-06", "1e-07", "2.5 + 1.0")}
    assert len(set(keys.values())) == 5, "numbers with a fraction are not shapes"
    half = parse(text.format("2.5").replace("f32", "f16"))
    assert Task.of(half, machine, 1).structure != keys["2.5"], "neither are types"


def test_distance_orders_shapes() -> None:
    assert task(8).distance(task(8)) == 0 < task(8).distance(task(16)) < task(8).distance(task(128))
    assert task(8).distance(task(128)) == task(128).distance(task(8))


@pytest.mark.parametrize(("change", "message"), [({"program": "matmul"}, "text of a kernel"), ({"threads": 0}, "0 threads")])
def test_tasks_that_mean_nothing_are_refused(change: dict, message: str) -> None:
    values = {"program": str(matmul()), "machine": "m", "fingerprint": "m:1", "threads": 1} | change
    with pytest.raises(RuntimeFailure, match=message):
        Task(**values)


# --- records --------------------------------------------------------------------------------


def test_what_is_read_is_what_was_written(store: RecordStore) -> None:
    record = full_record()
    assert store.add(record) == 1
    [back] = RecordStore(store.path).records(task())
    assert back == record and back.seconds == 1e-3 and back.point == {"sketch": "rows", "mc": 4}
    assert str(replay(back.task.kernel(), Trace.from_json(back.trace)).kernel) != str(matmul())
    assert back.versions["tilewright"] and back.host and back.date.endswith("+00:00")


def test_a_record_is_added_once(store: RecordStore) -> None:
    record = full_record()
    assert store.add(record, record) == 1 and store.add(record) == 0
    assert store.count() == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"status": "fine"}, "verdict 'fine'"),
        ({"status": "ok", "samples": ()}, "0 samples"),
        ({"status": "crash", "samples": (1.0,)}, "'crash' and 1 samples"),
        ({"status": "ok", "samples": (0.0,)}, "not positive"),
        ({"status": "ok", "samples": (float("nan"),)}, "not positive"),
        ({"status": "ok", "samples": (1.0,), "role": "winner"}, "role 'winner'"),
        ({"status": "ok", "samples": (1.0,), "point": {"a": object()}}, "not JSON data"),
    ],
)
def test_records_that_contradict_themselves_are_refused(values: dict, message: str) -> None:
    with pytest.raises(RuntimeFailure, match=message):
        Record(task(), **values)


def test_messages_of_crashed_programs_need_not_be_text(store: RecordStore) -> None:
    store.add(Record(task(), "crash", message="\udcff\x00broken"))
    assert store.records()[0].message == "?\x00broken"


def test_queries(store: RecordStore) -> None:
    a, b = task(8), task(16)
    store.add(
        Record(a, "ok", (3e-3,), session="s1"), Record(a, "ok", (2e-3,), session="s2"), Record(a, "wrong", message="off", session="s2")
    )
    store.add(Record(b, "timeout", session="s2"))
    assert store.best(a).seconds == 2e-3 and store.best(a.key).session == "s2"
    assert store.best(b) is None and store.best("0" * 32) is None
    assert [r.status for r in store.records(session="s2")] == ["ok", "wrong", "timeout"]
    assert [r.message for r in store.records(a, status="wrong")] == ["off"]
    assert store.count() == 4 and store.count(a) == 3 and store.count(session="s2", status="ok") == 1
    summary = {s.task.key: s for s in store.tasks()}
    assert (summary[a.key].records, summary[a.key].timed, summary[a.key].seconds) == (3, 2, 2e-3)
    assert (summary[b.key].records, summary[b.key].timed, summary[b.key].seconds) == (1, 0, None)
    assert store.task(a.key[:10]) == a and [r.samples for r in store.matching(store.records(a)[1].uid[:12])] == [(2e-3,)]
    with pytest.raises(RuntimeFailure, match="no tasks begin with 'zz'"):
        store.task("zz")
    with pytest.raises(RuntimeFailure, match="2 tasks begin with ''"):
        store.task("")


def test_a_final_measurement_beats_a_lucky_trial(store: RecordStore) -> None:
    store.add(Record(task(), "ok", (1e-3,)), Record(task(), "ok", (3e-3,), role="final"), Record(task(), "ok", (2e-3,), role="final"))
    assert store.best(task()).seconds == 2e-3 == store.tasks()[0].seconds


def test_similar_finds_other_shapes_nearest_first(store: RecordStore) -> None:
    for extent in (1024, 16, 64):
        store.add(Record(task(extent), "ok", (extent * 1e-6,)), Record(task(extent), "ok", (extent * 2e-6,)))
    store.add(Record(task(8), "ok", (1e-6,)), Record(task(12), "wrong"), Record(task(9, threads=2), "ok", (1e-6,)))
    assert [r.task.key for r in store.similar(task(8))] == [task(16).key, task(64).key, task(1024).key]
    assert [r.seconds for r in store.similar(task(900), limit=1)] == [1024e-6]


def test_sessions_are_found_again(store: RecordStore) -> None:
    store.add_tasks([task()])
    conditions = ({"host": "here", "load": 0.25, "versions": {"python": "3"}},)
    first = store.save(Session("model.onnx", {task().key: 12.0}, "xgb", 3, 100, None, {"threads": 1}, sittings=conditions))
    second = store.save(Session("matmul", {task().key: 1.0}, created="2999-01-01"))
    assert store.session(first.id) == first and store.session(first.id[:-1]) == first
    assert store.sessions() == [second, first] and store.sessions(subject="model.onnx", state="running") == [first]
    done = store.save(Session("model.onnx", first.tasks, id=first.id, state="done", created=first.created))
    assert store.sessions(subject="model.onnx", state="running") == [] and store.session(first.id) == done
    store.add(Record(task(), "ok", (1.0,), session=first.id))
    assert store.delete(first.id) == 1 and store.sessions() == [second] and store.count() == 0
    with pytest.raises(RuntimeFailure, match="no sessions begin with 'x'"):
        store.session("x")
    with pytest.raises(RuntimeFailure, match="unknown tasks ffff"):
        store.save(Session("m", {"ffff": 1.0}))
    with pytest.raises(RuntimeFailure, match="state 'asleep'"):
        store.sessions(state="asleep")


def test_path_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TILEWRIGHT_RECORDS", str(tmp_path / "a" / "mine.db"))
    with RecordStore() as store:
        assert store.path == records_path() == tmp_path / "a" / "mine.db" and store.path.exists()
    monkeypatch.delenv("TILEWRIGHT_RECORDS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert records_path() == tmp_path / "tilewright" / "records.db"
