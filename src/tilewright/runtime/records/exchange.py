"""Records as JSON lines: one object a line, to be sent, kept in a repository, or read by other programs.

Lines are of three kinds, each complete by itself: a ``task``, a ``session``, a ``record`` that names
its task by key. A file holds tasks before the records that use them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any

from tilewright.runtime.records.fields import checked
from tilewright.runtime.records.record import Record
from tilewright.runtime.records.session import Session
from tilewright.runtime.records.store import RecordStore
from tilewright.runtime.records.task import Task
from tilewright.util.errors import RuntimeFailure, TilewrightError

#: Version of the line format. Readers ignore fields they do not know and refuse lines of later versions.
FORMAT = 1
#: Lines that are kept together when they are read.
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that was not understood: its number, counted from 1, and why."""

    line: int
    reason: str


@dataclass(slots=True)
class ImportReport:
    """What an import did: records that were new, records that were there already, lines refused."""

    added: int = 0
    known: int = 0
    refused: list[Refused] = field(default_factory=list)


def export_lines(store: RecordStore, task: Task | str | None = None, session: str | None = None) -> Iterator[str]:
    """All records of ``store`` (of one task, of one session) and what they refer to, as lines without line ends."""
    told: set[str] = set()
    for s in store.sessions():
        if (session is None or s.id == session) and task is None:
            for key in s.tasks:
                if key not in told:
                    told.add(key)
                    yield task_line(store.task(key))
            yield session_line(s)
    for record in store.stream(task, session=session):
        if record.task.key not in told:
            told.add(record.task.key)
            yield task_line(record.task)
        yield record_line(record)


def task_line(task: Task) -> str:
    """A task as a line."""
    return _line("task", {f.name: getattr(task, f.name) for f in fields(task)})


def session_line(session: Session) -> str:
    """A session as a line."""
    return _line("session", {f.name: getattr(session, f.name) for f in fields(session)})


def record_line(record: Record) -> str:
    """A record as a line, its task by key."""
    return _line("record", {f.name: getattr(record, f.name) for f in fields(record)} | {"task": record.task.key})


def import_lines(store: RecordStore, lines: Iterable[str | bytes]) -> ImportReport:
    """Add what :func:`export_lines` wrote to ``store``.

    Importing twice adds nothing. A line that is not understood is reported and the others are
    kept. RuntimeFailure (full disk, ...) leaves what was read before it: run the import again.
    """
    report = ImportReport()
    tasks: dict[str, Task] = {}
    numbered = enumerate(lines, 1)
    while batch := list(islice(numbered, _BATCH)):
        parsed: list[Record | Session] = []
        for number, raw in batch:
            try:
                item = _parse(raw, tasks, store)
            except TilewrightError as error:
                report.refused.append(Refused(number, error.message))
                continue
            if isinstance(item, Task):
                tasks[item.key] = item
            elif item is not None:
                parsed.append(item)
        records = [p for p in parsed if isinstance(p, Record)]
        sessions = [p for p in parsed if isinstance(p, Session)]
        store.add_tasks(tasks[key] for s in sessions for key in s.tasks if key in tasks)
        store.restore(sessions)
        new = store.add(*records)
        report.added += new
        report.known += len(records) - new
    return report


def _line(kind: str, data: Mapping[str, Any]) -> str:
    return json.dumps({"format": FORMAT, "kind": kind, **data}, separators=(",", ":"), allow_nan=False)


def _parse(raw: str | bytes, tasks: Mapping[str, Task], store: RecordStore) -> Task | Session | Record | None:
    """What a line says (None: it is blank); RuntimeFailure says why it cannot be used."""
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        data = json.loads(text) if text.strip() else None
    except (ValueError, RecursionError) as error:
        raise RuntimeFailure(f"not JSON text: {error}") from error
    if data is None:
        return None
    if not isinstance(data, dict):
        raise RuntimeFailure("not a JSON object")
    if data.get("format") != FORMAT:
        raise RuntimeFailure(f"of format {data.get('format')!r}; this Tilewright reads format {FORMAT}")
    match data.get("kind"):
        case "task":
            return _task(data)
        case "session":
            return _session(data, tasks, store)
        case "record":
            return _record(data, text, tasks, store)
    raise RuntimeFailure(f"of unknown kind {data.get('kind')!r}")


def _task(data: Mapping[str, Any]) -> Task:
    task = Task(**checked(Task, data))
    if data.get("key") not in (None, task.key):
        raise RuntimeFailure("the task's key does not fit its program: the line was altered")
    return task


def _session(data: Mapping[str, Any], tasks: Mapping[str, Task], store: RecordStore) -> Session:
    session = Session(**checked(Session, data))
    for key in session.tasks:
        if key not in tasks and not store.has_task(key):
            raise RuntimeFailure(f"a session with task {key[:40]!r}, which no line before it declares")
    return session


def _record(data: Mapping[str, Any], text: str, tasks: Mapping[str, Task], store: RecordStore) -> Record:
    key = data.get("task")
    task = tasks.get(key) if isinstance(key, str) else None
    if task is None and isinstance(key, str) and store.has_task(key):
        task = store.task(key)
    if task is None:
        raise RuntimeFailure(f"a record of task {str(key)[:40]!r}, which no line before it declares")
    values = checked(Record, {k: v for k, v in data.items() if k != "task"})
    # A line written by hand may leave the identity out: the same line is the same record.
    values.setdefault("uid", hashlib.sha256(text.strip().encode()).hexdigest()[:32])
    return Record(task, **values)
