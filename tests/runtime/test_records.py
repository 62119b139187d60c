"""Records: what was kept is there, whoever else writes, whatever happens to the process or the disk."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.hw import load_machine
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.mapping.operators import FLOAT, build_operator
from tilewright.runtime.records import Record, RecordStore, Session, Task, records_path
from tilewright.runtime.records import schema as schema_module
from tilewright.runtime.records.exchange import export_lines, import_lines
from tilewright.runtime.records.salvage import salvage_lines
from tilewright.schedule import Schedule
from tilewright.schedule.replay import replay
from tilewright.schedule.trace import Trace
from tilewright.util.errors import RuntimeFailure


def matmul(i: int = 8, j: int = 9, k: int = 10) -> Kernel:
    return build_operator("matmul", FLOAT, i=i, j=j, k=k)


def task(i: int = 8, threads: int = 1) -> Task:
    return Task.of(matmul(i), load_machine("x86.avx2"), threads)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RecordStore]:
    with RecordStore(tmp_path / "records.db") as opened:
        yield opened


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


def full_record(**changes: object) -> Record:
    schedule = Schedule(matmul())
    schedule.split("i", 4)
    values = {
        "samples": (2e-3, 1e-3), "trace": schedule.trace.to_json(), "point": {"sketch": "rows", "mc": np.int64(4)}, "message": "",
        "estimate": np.float64(1.5e-3), "features": "194.1", "author": "xgb", "seed": np.int64(7), "session": "s1",
    }  # fmt: skip
    return Record(task(), "ok", **{**values, **changes})


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
    first = store.save(Session("model.onnx", {task().key: 12.0}, "xgb", 3, 100, None, {"threads": 1}))
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


# --- several processes, and their deaths ----------------------------------------------------

WRITER = """
    import sys
    from tilewright.runtime.records import Record, RecordStore, Task
    program = "@kernel\\ndef f(x: f32[8]):\\n    for i in range(8):\\n        x[i] = 1.0"
    task = Task(program, "m", "m:1", 1)
    store = RecordStore(sys.argv[1])
    for n in range(int(sys.argv[3])):
        store.add(Record(task, "ok", (1e-3 * (n + 1),), trace="t" * 5000, author=sys.argv[2], seed=n))
        print(n, flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_write_at_once(tmp_path: Path) -> None:
    """Three of them make the file and fill it, while we read."""
    path = tmp_path / "records.db"
    running = [writer(path, str(n), 100) for n in range(3)]
    seen = 0
    while any(p.poll() is None for p in running):
        if path.exists() and path.stat().st_size:
            with RecordStore(path) as store:
                now = store.count()
            assert now >= seen
            seen = now
        time.sleep(0.05)
    for process in running:
        assert process.wait() == 0, process.stderr.read()
    with RecordStore(path) as store:
        assert store.count() == 300 and len(store.tasks()) == 1
        for n in range(3):
            assert [r.seed for r in store.records() if r.author == str(n)] == list(range(100))


def test_a_killed_process_loses_only_what_it_had_not_committed(tmp_path: Path) -> None:
    path, pause = tmp_path / "records.db", random.Random(1)
    told = 0
    for turn in range(4):
        process = writer(path, str(turn), 100_000)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        heard = 1 + len(process.stdout.read().splitlines())
        process.wait()
        with RecordStore(path) as store:
            kept = [r.seed for r in store.records() if r.author == str(turn)]
        assert kept == list(range(len(kept))) and heard <= len(kept) <= heard + 1
        told += len(kept)
    with RecordStore(path) as store:
        assert store.count() == told


def test_a_forked_child_uses_its_own_connection(store: RecordStore) -> None:
    child = os.fork()
    if child == 0:
        try:
            store.add(Record(task(), "ok", (1.0,), author="child"))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    store.add(Record(task(), "ok", (1.0,), author="parent"))
    assert [r.author for r in store.records()] == ["child", "parent"]


def test_a_lock_that_is_kept_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    with RecordStore(path, timeout=0.2) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RuntimeFailure, match=r"locked for too long.*\n.*run the same command again"):
            store.add(Record(task(), "ok", (1.0,)))
        other.execute("ROLLBACK")
        assert store.add(Record(task(), "ok", (1.0,))) == 1


# --- disks ----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "small"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(mounted)], capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_full_disk(small_disk: Path) -> None:
    path, kept = small_disk / "records.db", 0
    with RecordStore(path) as store:
        with pytest.raises(RuntimeFailure, match=r"cannot write the records.*the disk is full\n.*earlier records are intact"):
            while True:
                store.add(Record(task(), "ok", (1.0,), trace="t" * 20_000, seed=kept))
                kept += 1
        assert kept > 3
        assert [r.seed for r in store.records()] == list(range(kept))
    with RecordStore(path, readonly=True) as store:
        assert store.count() == kept
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    with RecordStore(path) as store:
        store.add(Record(task(), "ok", (1.0,), trace="t" * 20_000, seed=kept))
        assert store.count() == kept + 1


def test_full_disk_from_the_start(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(1 << 20))
    with pytest.raises(RuntimeFailure, match=r"cannot open the records .*(disk is full|no file can be made|disk reports an error)"):
        RecordStore(small_disk / "records.db")


def test_readonly_disk(small_disk: Path) -> None:
    path = small_disk / "records.db"
    with RecordStore(path) as store:
        store.add(full_record())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RuntimeFailure, match="read-only"):
        RecordStore(path)
    with RecordStore(path, readonly=True) as store:
        assert store.best(task()).samples == (2e-3, 1e-3) and store.sessions() == []
        with pytest.raises(RuntimeFailure, match="for reading only"):
            store.add(full_record())


def test_readonly_disk_with_a_log_that_was_left_behind(small_disk: Path) -> None:
    """What is only in the log is not silently left out."""
    path = small_disk / "records.db"
    child = os.fork()
    if child == 0:
        store = RecordStore(path)
        store.add(full_record())
        os._exit(0)
    os.waitpid(child, 0)
    path.with_name("records.db-shm").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RuntimeFailure, match=r"left by a process that was killed[\s\S]*copy records.db and records.db-wal"):
        RecordStore(path, readonly=True)


def test_an_empty_file_has_no_records_yet(tmp_path: Path) -> None:
    (tmp_path / "records.db").touch()
    with pytest.raises(RuntimeFailure, match="no records in"):
        RecordStore(tmp_path / "records.db", readonly=True)
    with RecordStore(tmp_path / "records.db") as store:
        assert store.add(full_record()) == 1


def test_errors_of_the_disk_while_writing(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that fails half way leaves nothing of itself."""
    store.add(full_record())

    class Failing:
        def __init__(self, connection: sqlite3.Connection):
            self.connection = connection

        def __getattr__(self, name: str) -> object:
            return getattr(self.connection, name)

        def executemany(self, *_: object) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
            raise error

    pid, real = store._open
    monkeypatch.setattr(store, "_open", (pid, Failing(real)))
    with pytest.raises(RuntimeFailure, match="the disk reports an error"):
        store.add(Record(task(77), "ok", (1.0,)))
    monkeypatch.setattr(store, "_open", (pid, real))
    assert store.count() == 1 and not store.has_task(task(77).key)


def test_no_file_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeFailure, match="cannot make the directory"):
        RecordStore(tmp_path / "file" / "records.db")
    with pytest.raises(RuntimeFailure, match="no file can be made or opened"):
        RecordStore(tmp_path)
    with pytest.raises(RuntimeFailure, match=r"no records at .*nowhere.db"):
        RecordStore(tmp_path / "nowhere.db", readonly=True)


@pytest.mark.parametrize("readonly", [False, True])
def test_files_that_are_not_ours(tmp_path: Path, readonly: bool) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are my notes, they are longer than the head of a database would be" * 20)
    with pytest.raises(RuntimeFailure, match="not a records file"):
        RecordStore(text, readonly=readonly)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    before = other.read_bytes()
    with pytest.raises(RuntimeFailure, match="database of another program"):
        RecordStore(other, readonly=readonly)
    assert other.read_bytes() == before and "notes" in text.read_text()


def damaged(tmp_path: Path, seed: int) -> tuple[Path, int]:
    """A file of 200 records with some of its later pages overwritten."""
    path = tmp_path / f"damaged{seed}.db"
    with RecordStore(path) as store:
        store.add(*(Record(task(), "ok", (1e-3,), trace="t" * 900, seed=n) for n in range(200)))
    raw, rng = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(4):
        page = rng.randrange(12, len(raw) // 4096)
        raw[page * 4096 : page * 4096 + 4096] = rng.randbytes(4096)
    path.write_bytes(raw)
    return path, 200


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_reported_and_salvaged(tmp_path: Path, seed: int) -> None:
    path, count = damaged(tmp_path, seed)
    with pytest.raises(RuntimeFailure, match=r"the file is damaged[\s\S]*export --salvage"):
        RecordStore(path)
    with RecordStore(tmp_path / "new.db") as store:
        report = import_lines(store, salvage_lines(path))
        assert not report.refused
        assert count * 0.5 < report.added < count, "rows on other pages are read"
        assert {r.trace for r in store.records()} == {"t" * 900}


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    with RecordStore(path) as store:
        store.add(*(Record(task(), "ok", (1e-3,), trace="t" * 900) for _ in range(50)))
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(RuntimeFailure, match="damaged"):
        RecordStore(path)


# --- versions of the schema -----------------------------------------------------------------


def older_file(path: Path, version: int) -> None:
    """A file as that version made it, with one record."""
    connection = sqlite3.connect(path)
    for script in schema_module.MIGRATIONS[:version]:
        connection.executescript(script)
    connection.executescript(f"PRAGMA application_id = {schema_module.APPLICATION_ID}; PRAGMA user_version = {version};")
    t = task()
    connection.execute(
        "INSERT INTO tasks VALUES (?, ?, 'gmm', ?, ?, ?, 1, '[]')", (t.key, t.structure, t.program, t.machine, t.fingerprint)
    )
    connection.execute(
        "INSERT INTO records VALUES (1, 'u1', ?, 's', 'trial', 'ok', 0.5, '[0.5, 0.75]', '', 'null', '', NULL, '', 'random', 3, "
        "'old-host', '{\"tilewright\": \"0.0.9\"}', '2025-01-01T00:00:00+00:00')",
        (t.key,),
    )
    connection.commit()
    connection.close()


@pytest.mark.parametrize("version", range(1, schema_module.VERSION))
def test_older_files_are_read_and_brought_up_to_date(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.db"
    older_file(path, version)
    before = path.read_bytes()
    with RecordStore(path, readonly=True) as store:
        assert store.best(task()).samples == (0.5, 0.75) and store.sessions() == []
    assert path.read_bytes() == before, "reading changes nothing"
    with RecordStore(path) as store:
        assert store.best(task()).versions == {"tilewright": "0.0.9"}
        store.save(Session("m", {task().key: 1.0}))
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone()[0] == schema_module.VERSION


def test_a_migration_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.db"
    older_file(path, 1)
    monkeypatch.setattr(schema_module, "MIGRATIONS", (schema_module.MIGRATIONS[0], schema_module.MIGRATIONS[1] + "CREATE NONSENSE"))
    with pytest.raises(RuntimeFailure, match="syntax error"):
        RecordStore(path)
    monkeypatch.undo()
    with RecordStore(path) as store:
        assert store.count() == 1


def test_newer_files_are_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    RecordStore(path).close()
    sqlite3.connect(path).execute("PRAGMA user_version = 99")
    for readonly in (False, True):
        with pytest.raises(RuntimeFailure, match=r"newer Tilewright \(schema 99.*\n.*upgrade"):
            RecordStore(path, readonly=readonly)


# --- exchange -------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
points = st.none() | st.dictionaries(texts, st.integers(-(2**40), 2**40) | texts, max_size=3)
times = st.floats(1e-9, 1e3)
records = st.builds(
    Record, st.sampled_from([task(), task(16)]), st.just("ok"), st.lists(times, min_size=1, max_size=3).map(tuple), texts, points, texts,
    st.none() | times, texts, st.sampled_from(["trial", "final"]), texts, st.integers(0, 2**62), texts,
) | st.builds(Record, st.sampled_from([task(), task(16)]), st.sampled_from(["crash", "wrong"]), message=texts)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(records, max_size=6))
def test_export_and_import_lose_nothing(tmp_path_factory: pytest.TempPathFactory, items: list[Record]) -> None:
    folder = tmp_path_factory.mktemp("exchange")
    with RecordStore(folder / "a.db") as a, RecordStore(folder / "b.db") as b:
        a.add(*items)
        a.add_tasks([task()])
        a.save(Session("m", {task().key: 2.0}, options={"deep": [1, {"x": None}]}))
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
        changed(seed=2**70): "seed of the record",
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
        json.dumps({"format": 1, "kind": "record", "task": t.key, "status": "ok", "samples": [1, 2.5], "mood": "good"}),
    ]
    assert import_lines(store, lines).added == 1 and import_lines(store, lines).added == 0
    assert store.best(t).samples == (1.0, 2.5)


def test_the_newer_state_of_a_session_wins(store: RecordStore) -> None:
    store.add_tasks([task()])
    old = store.save(Session("m", {task().key: 1.0}))
    exported = list(export_lines(store))
    new = store.save(Session("m", old.tasks, id=old.id, state="done", created=old.created))
    import_lines(store, exported)
    assert store.sessions() == [new]
