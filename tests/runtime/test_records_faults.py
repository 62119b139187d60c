"""Records when processes die and disks fail: what was kept is there, and errors say what to do."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.runtime.trials import full_record, task

from tilewright.runtime.records import Record, RecordStore, Session
from tilewright.runtime.records import schema as schema_module
from tilewright.runtime.records.exchange import export_lines, import_lines
from tilewright.runtime.records.salvage import salvage_lines
from tilewright.runtime.records.store import RECORD_COLUMNS
from tilewright.util.errors import RuntimeFailure

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
    ours = store._connection()
    child = os.fork()
    if child == 0:
        try:
            store.add(Record(task(), "ok", (1.0,), author="child"))
            os._exit(0 if store._connection() is not ours else 2)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    store.add(Record(task(), "ok", (1.0,), author="parent"))
    assert [r.author for r in store.records()] == ["child", "parent"]


def test_what_a_writer_has_read_nobody_changes_before_it_writes(store: RecordStore) -> None:
    """Others wait from the beginning; who waited only for its first write would find that it had read old rows, and fail."""
    with RecordStore(store.path, timeout=0.1) as other:
        with store._writing("write") as connection:
            connection.execute("SELECT count(*) FROM records").fetchone()
            with pytest.raises(RuntimeFailure, match="locked for too long"):
                other.add(Record(task(), "ok", (1.0,), author="other"))
            connection.execute("DELETE FROM records")
        other.add(Record(task(), "ok", (1.0,), author="other"))
    assert [r.author for r in store.records()] == ["other"]


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


def test_damage_in_what_sqlite_quotes_itself(tmp_path: Path) -> None:
    """Its message about a damaged table names what stands there, which need not be text."""
    path = tmp_path / "records.db"
    RecordStore(path).close()
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"CREATE TABLE records", b"CREATE TABLE \x90\xff\xa5\xcb\xe2rd", 1))
    for readonly in (False, True):
        with pytest.raises(RuntimeFailure, match=r"the file is damaged[\s\S]*export --salvage"):
            RecordStore(path, readonly=readonly)
    with pytest.raises(RuntimeFailure, match="can be read: "):
        list(salvage_lines(path))


@pytest.mark.parametrize(
    "damage",
    [
        "samples = '[0.001,'",
        "point = x'ff00'",
        "versions = '[]'",
        "winner = 1",
        "message = x'41'",
        "seed = 'x'",
        "samples = '[]'",
        "task = 'x'",
    ],
)
def test_a_row_that_makes_no_sense_is_damage(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "records.db"
    with RecordStore(path) as store:
        store.add(full_record(), full_record())
        store.save(Session("matmul", {task().key: 1.0}))
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute(f"UPDATE records SET {damage} WHERE id = 1")
        with pytest.raises(RuntimeFailure, match=r"the file is damaged[\s\S]*export --salvage"):
            store.records()
    with RecordStore(tmp_path / "new.db") as store:
        report = import_lines(store, salvage_lines(path))
        assert (report.added, report.refused) == (1, []) and [s.subject for s in store.sessions()] == ["matmul"]


@pytest.mark.parametrize("changes", [1, 4, 40])
def test_random_damage_never_ends_in_another_error(tmp_path: Path, changes: int) -> None:
    whole, path = tmp_path / "whole.db", tmp_path / "records.db"
    with RecordStore(whole) as store:
        store.add(*(full_record() for _ in range(3)), full_record(role="final", against="x", winner=True, gain=1.5))
        store.save(Session("matmul", {task().key: 1.0}))
    raw, verdicts = whole.read_bytes(), []
    for seed in range(25):
        rng, bits = random.Random(seed), bytearray(raw)
        for _ in range(changes):
            bits[rng.randrange(len(bits))] ^= 1 << rng.randrange(8)
        path.write_bytes(bits)
        for use in (lambda: _all_of(path), lambda: list(salvage_lines(path))):
            try:
                use()
                verdicts.append("fine")
            except RuntimeFailure as error:
                verdicts.append("refused")
                assert str(path) in error.message
    assert "fine" in verdicts and (changes < 4 or "refused" in verdicts)


def _all_of(path: Path) -> None:
    """Everything a reader may ask of a file."""
    with RecordStore(path, readonly=True) as store:
        for summary in store.tasks():
            list(store.ranked(summary.task))
            store.similar(summary.task)
        store.sessions()
        list(export_lines(store))


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
        "INSERT INTO records (id, uid, task, session, role, status, seconds, samples, trace, point, message, author, seed, host, versions, "
        f"date{', features' if version < 3 else ''}) VALUES (1, 'u1', ?, 's', 'trial', 'ok', 0.5, '[0.5, 0.75]', '', 'null', '', 'random', "
        f"3, 'old-host', '{{\"tilewright\": \"0.0.9\"}}', '2025-01-01T00:00:00+00:00'{', 1' if version < 3 else ''})",
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
        store.add(Record(task(), "ok", (1.0,)))
        columns = {row[1] for row in store._connection().execute("PRAGMA table_info(records)")}
        assert columns == {"id", *RECORD_COLUMNS.split(", ")}
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
