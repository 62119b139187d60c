"""The store of records: add, ask, resume."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tilewright.runtime.records.fields import checked
from tilewright.runtime.records.record import Record, now
from tilewright.runtime.records.schema import connect, damaged, translated, version_of
from tilewright.runtime.records.session import STATES, Session
from tilewright.runtime.records.task import Task
from tilewright.runtime.records.winner import best_of, ranking, schedule_key
from tilewright.util.errors import RuntimeFailure, TilewrightError

_T = TypeVar("_T")

RECORD_COLUMNS = (
    "uid, task, session, role, status, seconds, samples, trace, point, message, estimate, author, seed, host, versions, date, "
    "against, winner, gain"
)
TASK_COLUMNS = "program, machine, fingerprint, threads, constants, unaligned"
SESSION_COLUMNS = "id, subject, tasks, author, seed, trials, seconds, options, state, host, created, updated, sittings"


def record_columns(connection: sqlite3.Connection) -> str:
    """RECORD_COLUMNS for a SELECT from a file of any version (only files opened for writing are brought up to date)."""
    return RECORD_COLUMNS if version_of(connection) >= 4 else RECORD_COLUMNS.replace("against, winner, gain", "'', 0, NULL")


def session_columns(connection: sqlite3.Connection) -> str:
    """SESSION_COLUMNS likewise."""
    return SESSION_COLUMNS if version_of(connection) >= 5 else SESSION_COLUMNS.replace("sittings", "'[]'")


def task_columns(connection: sqlite3.Connection) -> str:
    """TASK_COLUMNS likewise."""
    return TASK_COLUMNS if version_of(connection) >= 6 else TASK_COLUMNS.replace("unaligned", "'[]'")


def _marks(columns: str) -> str:
    return ", ".join("?" * (columns.count(",") + 1))


_SAVE = f"INSERT OR REPLACE INTO sessions ({SESSION_COLUMNS}) VALUES ({_marks(SESSION_COLUMNS)})"
_ADD = f"INSERT OR IGNORE INTO records ({RECORD_COLUMNS}) VALUES ({_marks(RECORD_COLUMNS)})"
_ADD_TASK = f"INSERT OR IGNORE INTO tasks (key, structure, name, {TASK_COLUMNS}) VALUES (?, ?, ?, {_marks(TASK_COLUMNS)})"


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """What is recorded for a task: number of records, of timed ones, seconds of the best, date of the latest."""

    task: Task
    records: int
    timed: int
    seconds: float | None
    latest: str


class RecordStore:
    """The records in the file ``path`` (default: :func:`records_path`), made if absent.

    Every method is one transaction: when it returns the file has it, and a process killed at any
    moment leaves the file as it was before the call in progress. Several processes and threads may use
    one file; a writer waits ``timeout`` seconds for others. ``readonly`` works on files and directories
    that may not be written. All methods raise RuntimeFailure, with a way out, for a full disk, a
    damaged file and the like; earlier records survive that.
    """

    def __init__(self, path: str | PathLike[str] | None = None, *, readonly: bool = False, timeout: float = 30.0):
        self.path = Path(path) if path is not None else records_path()
        self.readonly = readonly
        self._timeout = timeout
        self._lock = threading.RLock()
        self._open: tuple[int, sqlite3.Connection] | None = None  # with the process it belongs to
        with self._lock:
            self._connection()

    # --- writing ----------------------------------------------------------------------------

    def add(self, *records: Record) -> int:
        """Keep ``records``, all or none; returns how many were new (a record is known by its ``uid``)."""
        with self._writing("write") as connection:
            for task in {r.task.key: r.task for r in records}.values():
                _insert_task(connection, task)
            before = connection.total_changes
            connection.executemany(_ADD, map(_record_row, records))
            return connection.total_changes - before

    def add_tasks(self, tasks: Iterable[Task]) -> None:
        """Keep ``tasks`` even before anything is recorded for them."""
        with self._writing("write") as connection:
            for task in tasks:
                _insert_task(connection, task)

    def delete(self, session: str) -> int:
        """Remove a session and its records; returns how many records went."""
        with self._writing("change") as connection:
            gone = connection.execute("DELETE FROM records WHERE session = ?", (session,)).rowcount
            connection.execute("DELETE FROM sessions WHERE id = ?", (session,))
            return gone

    # --- asking -----------------------------------------------------------------------------

    def best(self, task: Task | str) -> Record | None:
        """The record of ``task`` (or of its key) that counts as best (:mod:`tilewright.runtime.records.winner`), None if nothing ran.

        That is the confirmed winner of final comparisons. Only when none was declared it is the fastest measurement,
        and its ``winner`` is False: it may have been the luckiest.
        """
        finals = self._select("WHERE task = ? AND status = 'ok' AND role = 'final' ORDER BY id", (_key(task),))
        fastest = self._select("WHERE task = ? AND status = 'ok' ORDER BY seconds LIMIT 1", (_key(task),)) if not finals else []
        return best_of(finals or fastest)

    def ranked(self, task: Task | str) -> Iterator[Record]:
        """:meth:`best`, then what would be the best without its schedule, and so on: for who cannot use the first."""
        if (best := self.best(task)) is None:
            return
        yield best
        timed = self._select("WHERE task = ? AND status = 'ok' ORDER BY id", (_key(task),))
        yield from ranking(r for r in timed if schedule_key(r) != schedule_key(best))

    def records(
        self, task: Task | str | None = None, *, session: str | None = None, status: str | None = None, role: str | None = None
    ) -> list[Record]:
        """Records in the order they were added, of all that match."""
        where, values = _conditions(task=None if task is None else _key(task), session=session, status=status, role=role)
        return self._select(f"{where} ORDER BY id", values)

    def stream(self, task: Task | str | None = None, *, session: str | None = None, page: int = 500) -> Iterator[Record]:
        """As :meth:`records`, in bounded memory, including what is added meanwhile."""
        where, values = _conditions(task=None if task is None else _key(task), session=session)
        where, last = (f"{where} AND" if where else "WHERE"), 0
        while True:
            with self._reading() as connection:
                query = f"SELECT id FROM records {where} id > ? ORDER BY id LIMIT {page}"
                ids = [i for (i,) in connection.execute(query, (*values, last))]
            if not ids:
                return
            yield from self._select(f"{where} id BETWEEN ? AND ? ORDER BY id", (*values, ids[0], ids[-1]))
            last = ids[-1]

    def count(
        self, task: Task | str | None = None, *, session: str | None = None, status: str | None = None, role: str | None = None
    ) -> int:
        """How many records :meth:`records` would return."""
        where, values = _conditions(task=None if task is None else _key(task), session=session, status=status, role=role)
        with self._reading() as connection:
            return int(connection.execute(f"SELECT count(*) FROM records {where}", values).fetchone()[0])

    def matching(self, uid: str) -> list[Record]:
        """Records whose ``uid`` begins with these characters."""
        return self._select("WHERE substr(uid, 1, ?) = ?", (len(uid), uid))

    def similar(self, task: Task, limit: int = 8) -> list[Record]:
        """The best record of each task that differs from ``task`` in its shapes only, nearest shapes first."""
        with self._reading() as connection:
            rows = connection.execute(f"SELECT {task_columns(connection)} FROM tasks WHERE structure = ?", (task.structure,)).fetchall()
        others = sorted((t for t in self._decoded(task_of, rows) if t.key != task.key), key=task.distance)
        found = (self.best(other) for other in others)
        return [r for r in found if r is not None][:limit]

    def task(self, key: str) -> Task:
        """The task whose key begins with ``key``; RuntimeFailure when there is none, or more than one."""
        with self._reading() as connection:
            query = f"SELECT {task_columns(connection)} FROM tasks WHERE substr(key, 1, ?) = ?"
            rows = connection.execute(query, (len(key), key)).fetchall()
        if len(rows) != 1:
            raise RuntimeFailure(
                f"{len(rows) or 'no'} tasks begin with {key!r} in {self.path}", hint="`tilewright records list` shows them"
            )
        return self._decoded(task_of, rows)[0]

    def has_task(self, key: str) -> bool:
        """Whether the task of exactly this key is known."""
        with self._reading() as connection:
            return connection.execute("SELECT 1 FROM tasks WHERE key = ?", (key,)).fetchone() is not None

    def tasks(self) -> list[TaskSummary]:
        """Every task with what is recorded for it, the latest used first."""
        with self._reading() as connection:
            rows = connection.execute(
                f"SELECT {task_columns(connection)}, count(r.id), count(r.seconds), coalesce(max(r.date), '') AS latest "
                "FROM tasks LEFT JOIN records r ON r.task = tasks.key GROUP BY tasks.key ORDER BY latest DESC, tasks.key"
            ).fetchall()
        out = []
        tasks = self._decoded(lambda row: task_of(row[:-3]), rows)
        for task, (*_, records, timed, latest) in zip(tasks, rows, strict=True):
            best = self.best(task) if timed else None
            out.append(TaskSummary(task, records, timed, best.seconds if best is not None else None, latest))
        return out

    # --- sessions ---------------------------------------------------------------------------

    def save(self, session: Session) -> Session:
        """Keep ``session``, or its new state; returns it as kept. All of its tasks must be known (:meth:`add_tasks`)."""
        kept = replace(session, updated=now())
        with self._writing("write") as connection:
            marks = ", ".join("?" * len(session.tasks))
            known = {k for (k,) in connection.execute(f"SELECT key FROM tasks WHERE key IN ({marks})", tuple(session.tasks))}
            if unknown := [k for k in session.tasks if k not in known]:
                raise RuntimeFailure(f"session {session.id} names unknown tasks {', '.join(unknown)}", hint="call add_tasks first")
            connection.execute(_SAVE, _session_row(kept))
        return kept

    def restore(self, sessions: Iterable[Session]) -> None:
        """Keep sessions of another store as they are, unless what is known of them here is newer."""
        with self._writing("write") as connection:
            for s in sessions:
                row = connection.execute("SELECT updated FROM sessions WHERE id = ?", (s.id,)).fetchone()
                if row is None or row[0] < s.updated:
                    connection.execute(_SAVE, _session_row(s))

    def session(self, key: str) -> Session:
        """The session whose id begins with ``key``; RuntimeFailure when there is none, or more than one."""
        rows = self._sessions("WHERE substr(id, 1, ?) = ?", (len(key), key))
        if len(rows) != 1:
            raise RuntimeFailure(
                f"{len(rows) or 'no'} sessions begin with {key!r} in {self.path}", hint="`tilewright records list --sessions` shows them"
            )
        return rows[0]

    def sessions(self, *, subject: str | None = None, state: str | None = None) -> list[Session]:
        """Sessions that match, latest first. What to resume: ``sessions(subject=..., state="running")``."""
        if state is not None and state not in STATES:
            raise RuntimeFailure(f"no session is in state {state!r}", hint=f"states: {', '.join(STATES)}")
        where, values = _conditions(subject=subject, state=state)
        return self._sessions(f"{where} ORDER BY created DESC, id DESC", values)

    # --- connection -------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file. The store may not be used after that."""
        with self._lock:
            if self._open is not None and self._open[0] == os.getpid():
                with translated(self.path, "close"):
                    self._open[1].close()
            self._open = None

    def __enter__(self) -> RecordStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RecordStore {self.path}>"

    def _connection(self) -> sqlite3.Connection:
        # A connection must not cross a fork: the child opens its own and leaves the parent's alone.
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), connect(self.path, readonly=self.readonly, timeout=self._timeout))
        return self._open[1]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translated(self.path, "read"):
            yield self._connection()

    @contextmanager
    def _writing(self, action: str) -> Iterator[sqlite3.Connection]:
        if self.readonly:
            raise RuntimeFailure(f"the records {self.path} were opened for reading only", hint="open them without readonly=True")
        with self._lock, translated(self.path, action):
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has already rolled it back
                    connection.execute("ROLLBACK")
                raise

    def _select(self, rest: str, values: tuple[Any, ...]) -> list[Record]:
        with self._reading() as connection:
            rows = connection.execute(f"SELECT {record_columns(connection)} FROM records {rest}", values).fetchall()
            keys = {row[1] for row in rows}
            one = f"SELECT {task_columns(connection)} FROM tasks WHERE key = ?"
            found = [connection.execute(one, (key,)).fetchone() for key in keys]
        tasks = dict(zip(keys, self._decoded(task_of, found), strict=True))
        return self._decoded(lambda row: record_of(row, tasks[row[1]]), rows)

    def _sessions(self, rest: str, values: tuple[Any, ...]) -> list[Session]:
        with self._reading() as connection:
            if version_of(connection) < 2:  # a file of an older version, opened for reading only
                return []
            query = f"SELECT {session_columns(connection)} FROM sessions {rest}"
            rows = connection.execute(query, values).fetchall()
        return self._decoded(session_of, rows)

    def _decoded(self, make: Callable[[tuple[Any, ...]], _T], rows: Sequence[tuple[Any, ...]]) -> list[_T]:
        """What ``rows`` mean. SQLite does not notice damage inside of what it stores: values that make no sense show it."""
        try:
            return [make(row) for row in rows]
        except (TilewrightError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise damaged(self.path) from error


def records_path() -> Path:
    """``TILEWRIGHT_RECORDS``, else ``$XDG_DATA_HOME/tilewright/records.db``, else ``~/.local/share/tilewright/records.db``."""
    if named := os.environ.get("TILEWRIGHT_RECORDS"):
        return Path(named).expanduser()
    if base := os.environ.get("XDG_DATA_HOME"):
        return Path(base) / "tilewright" / "records.db"
    try:
        return Path.home() / ".local" / "share" / "tilewright" / "records.db"
    except RuntimeError as error:
        raise RuntimeFailure("this user has no home directory for tuning records", hint="set TILEWRIGHT_RECORDS to a file") from error


def _key(task: Task | str) -> str:
    return task if isinstance(task, str) else task.key


def _conditions(**columns: str | None) -> tuple[str, tuple[str, ...]]:
    given = {k: v for k, v in columns.items() if v is not None}
    clause = " AND ".join(f"{k} = ?" for k in given)
    return (f"WHERE {clause}" if clause else "", tuple(given.values()))


def _insert_task(connection: sqlite3.Connection, t: Task) -> None:
    connection.execute(
        _ADD_TASK,
        (t.key, t.structure, t.name, t.program, t.machine, t.fingerprint, t.threads, json.dumps(t.constants), json.dumps(t.unaligned)),
    )


def task_of(row: tuple[Any, ...]) -> Task:
    """The task of a row of TASK_COLUMNS."""
    program, machine, fingerprint, threads, constants, unaligned = row
    found = {
        "program": program, "machine": machine, "fingerprint": fingerprint, "threads": threads,
        "constants": json.loads(constants), "unaligned": json.loads(unaligned),
    }  # fmt: skip
    return Task(**checked(Task, found))


def _record_row(r: Record) -> tuple[Any, ...]:
    return (
        r.uid, r.task.key, r.session, r.role, r.status, r.seconds, json.dumps(r.samples), r.trace, json.dumps(r.point), r.message,
        r.estimate, r.author, r.seed, r.host, json.dumps(dict(r.versions)), r.date,
        r.against, int(r.winner), r.gain,
    )  # fmt: skip


def record_of(row: tuple[Any, ...], task: Task) -> Record:
    """The record of a row of RECORD_COLUMNS."""
    uid, _, session, role, status, _, samples, trace, point, message, estimate, author, seed, host, versions, date, *compared = row
    against, winner, gain = compared
    found = {
        "status": status, "samples": json.loads(samples), "trace": trace, "point": json.loads(point), "message": message,
        "estimate": estimate, "role": role, "author": author, "seed": seed, "session": session, "against": against,
        "winner": bool(winner), "gain": gain, "host": host, "versions": json.loads(versions), "date": date, "uid": uid,
    }  # fmt: skip
    return Record(task, **checked(Record, found))


def _session_row(s: Session) -> tuple[Any, ...]:
    return (
        s.id, s.subject, json.dumps(dict(s.tasks)), s.author, s.seed, s.trials, s.seconds, json.dumps(dict(s.options)), s.state,
        s.host, s.created, s.updated, json.dumps([dict(x) for x in s.sittings]),
    )  # fmt: skip


def session_of(row: tuple[Any, ...]) -> Session:
    """The session of a row of SESSION_COLUMNS."""
    id_, subject, tasks, author, seed, trials, seconds, options, state, host, created, updated, sittings = row
    found = {
        "subject": subject, "tasks": json.loads(tasks), "author": author, "seed": seed, "trials": trials, "seconds": seconds,
        "options": json.loads(options), "state": state, "id": id_, "host": host, "created": created, "updated": updated,
        "sittings": json.loads(sittings),
    }  # fmt: skip
    return Session(**checked(Session, found))
