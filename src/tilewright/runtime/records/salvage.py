"""What can still be read of a damaged records file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from tilewright.runtime.records.exchange import record_line, session_line, task_line
from tilewright.runtime.records.store import record_columns, record_of, session_columns, session_of, task_columns, task_of
from tilewright.runtime.records.task import Task
from tilewright.util.errors import RuntimeFailure, TilewrightError

#: No row is smaller than this (bytes), so a file has at most size / SMALLEST rows.
SMALLEST = 64


def salvage_lines(path: Path) -> Iterator[str]:
    """The readable tasks, sessions and records of ``path``, as :func:`~tilewright.runtime.records.exchange.export_lines` gives them.

    Rows are asked for one by one, so that a damaged page costs only the rows on it (and the records
    of tasks on it). RuntimeFailure when not even the list of tables is readable.
    """
    if not path.is_file():
        raise RuntimeFailure(f"there are no records at {path}", hint="name the damaged file")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the message itself quotes what is damaged
            raise RuntimeFailure(f"nothing in {path} can be read: {error}", hint="restore it from a copy or an export") from error
        tasks: dict[str, Task] = {}
        for task in _rows(connection, path, "tasks", task_columns(connection), task_of):
            tasks[task.key] = task
            yield task_line(task)
        for session in _rows(connection, path, "sessions", session_columns(connection), session_of):
            if all(key in tasks for key in session.tasks):
                yield session_line(session)
        for record in _rows(connection, path, "records", record_columns(connection), lambda row: record_of(row, tasks[row[1]])):
            yield record_line(record)


def _rows(connection: sqlite3.Connection, path: Path, table: str, columns: str, make: Callable[[tuple[Any, ...]], Any]) -> Iterator[Any]:
    """What ``make`` gives for the rows that are readable, and mean something."""
    for rowid in range(1, _last(connection, path, table) + 1):
        try:
            row = connection.execute(f"SELECT {columns} FROM {table} WHERE rowid = ?", (rowid,)).fetchone()
            item = make(row) if row else None
        except (sqlite3.DatabaseError, TilewrightError, json.JSONDecodeError, KeyError, TypeError, ValueError):
            continue  # that is what is lost
        if item is not None:
            yield item


def _last(connection: sqlite3.Connection, path: Path, table: str) -> int:
    try:
        return connection.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0] or 0
    except sqlite3.OperationalError:
        return 0  # a file of an older version has no such table
    except sqlite3.DatabaseError:
        return path.stat().st_size // SMALLEST
