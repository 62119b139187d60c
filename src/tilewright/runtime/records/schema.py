"""The SQLite file: tables, their history, and errors of the disk in words a person can act on."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tilewright.util.errors import RuntimeFailure

#: "TWrc": tells our files from other SQLite databases.
APPLICATION_ID = 0x54577263

#: Version n of the schema is what the first n scripts make. Scripts that were released are never edited.
MIGRATIONS = (
    """
    CREATE TABLE tasks (
        key TEXT PRIMARY KEY, structure TEXT NOT NULL, name TEXT NOT NULL, program TEXT NOT NULL,
        machine TEXT NOT NULL, fingerprint TEXT NOT NULL, threads INTEGER NOT NULL, constants TEXT NOT NULL
    );
    CREATE INDEX tasks_by_structure ON tasks (structure);
    CREATE TABLE records (
        id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, task TEXT NOT NULL REFERENCES tasks (key),
        session TEXT NOT NULL, role TEXT NOT NULL, status TEXT NOT NULL, seconds REAL, samples TEXT NOT NULL,
        trace TEXT NOT NULL, point TEXT NOT NULL, message TEXT NOT NULL, estimate REAL, features TEXT NOT NULL,
        author TEXT NOT NULL, seed INTEGER NOT NULL, host TEXT NOT NULL, versions TEXT NOT NULL, date TEXT NOT NULL
    );
    CREATE INDEX records_by_task ON records (task, status, seconds);
    CREATE INDEX finals_by_task ON records (task, status, seconds) WHERE role = 'final';
    CREATE INDEX records_by_session ON records (session);
    """,
    """
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY, subject TEXT NOT NULL, tasks TEXT NOT NULL, author TEXT NOT NULL, seed INTEGER NOT NULL,
        trials INTEGER, seconds REAL, options TEXT NOT NULL, state TEXT NOT NULL, host TEXT NOT NULL,
        created TEXT NOT NULL, updated TEXT NOT NULL
    );
    """,
    # Never filled; what it was for follows from trace and versions.
    "ALTER TABLE records DROP COLUMN features",
    """
    ALTER TABLE records ADD COLUMN against TEXT NOT NULL DEFAULT '';
    ALTER TABLE records ADD COLUMN winner INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE records ADD COLUMN gain REAL;
    """,
    "ALTER TABLE sessions ADD COLUMN sittings TEXT NOT NULL DEFAULT '[]'",
    # What was recorded before was measured on aligned arrays only.
    "ALTER TABLE tasks ADD COLUMN unaligned TEXT NOT NULL DEFAULT '[]'",
)
VERSION = len(MIGRATIONS)


def connect(path: Path, *, readonly: bool, timeout: float) -> sqlite3.Connection:
    """An open, checked, up-to-date records file; made if absent (unless ``readonly``).

    Waits ``timeout`` seconds for other processes. RuntimeFailure when the file is not ours, damaged,
    of a newer version, read-only (and ``readonly`` is not asked for), or cannot be opened.
    """
    with translated(path, "open"):
        connection = _open(path, readonly, timeout)
        try:
            _check(connection, path)
            if readonly and version_of(connection) == 0:
                raise RuntimeFailure(f"there are no records in {path} yet", hint=_NOTHING)
            if not readonly:
                _prepare(connection, timeout)
                _migrate(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version a file has (0: empty)."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def translated(path: Path, action: str) -> Iterator[None]:
    """SQLite's errors inside the block become RuntimeFailure with a way out."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        raise _failure(path, action, code, str(error)) from error
    except UnicodeDecodeError as error:  # of SQLite's own message, which quotes what is damaged
        raise damaged(path, action) from error


def damaged(path: Path, action: str = "read") -> RuntimeFailure:
    """The error for a file whose contents make no sense."""
    return _failure(path, action, sqlite3.SQLITE_CORRUPT)


_NOTHING = "`tilewright tune` makes them; --records names another file"
_ADVICE: dict[int, tuple[str, str | None]] = {
    sqlite3.SQLITE_FULL: ("the disk is full", "earlier records are intact: free some space and run the same command again to go on"),
    sqlite3.SQLITE_BUSY: ("another process has kept it locked for too long", "wait for it or end it, then run the same command again"),
    sqlite3.SQLITE_LOCKED: ("another process has kept it locked for too long", "wait for it or end it, then run the same command again"),
    sqlite3.SQLITE_READONLY: ("it is read-only", "name a writable file, or copy it: tilewright records export --records {path}"),
    sqlite3.SQLITE_CANTOPEN: ("no file can be made or opened there", "check the directory and its permissions, or name another file"),
    sqlite3.SQLITE_PERM: ("permission denied", "name a file you may write"),
    sqlite3.SQLITE_CORRUPT: (
        "the file is damaged",
        "move it away, then save what is readable: tilewright records export --salvage --records {path} -o saved.jsonl",
    ),
    sqlite3.SQLITE_NOTADB: ("it is not a records file, or its head is damaged", "name another file, or move this one away"),
    sqlite3.SQLITE_IOERR: ("the disk reports an error", "records written before are kept: check the disk and its free space"),
}


def _failure(path: Path, action: str, code: int, details: str = "") -> RuntimeFailure:
    """The error for one of SQLite's primary result codes."""
    what, hint = _ADVICE.get(code, (details, None))
    return RuntimeFailure(f"cannot {action} the records {path}: {what}", hint=hint and hint.format(path=path))


def _open(path: Path, readonly: bool, timeout: float) -> sqlite3.Connection:
    if readonly and not path.is_file():
        raise RuntimeFailure(f"there are no records at {path}", hint=_NOTHING)
    if not readonly:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RuntimeFailure(
                f"cannot make the directory of the records {path}: {error.strerror}", hint="name another file (TILEWRIGHT_RECORDS)"
            ) from error
        # SQLite would say no more than that it cannot open something.
        if path.is_file() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            raise _failure(path, "open", sqlite3.SQLITE_READONLY)
    mode = "ro" if readonly else "rwc"
    connection = _connection(path, f"mode={mode}", timeout)
    if readonly:
        try:
            connection.execute("PRAGMA schema_version").fetchone()
        except sqlite3.OperationalError:
            # Readers of a write-ahead log keep an index beside the file. Where they may not (a read-only
            # directory) and nobody else can be writing, the file alone is all there is.
            connection.close()
            log = path.with_name(path.name + "-wal")
            if log.is_file() and log.stat().st_size:
                raise RuntimeFailure(
                    f"the records {path} were left by a process that was killed, and cannot be put in order where they are",
                    hint=f"copy {path.name} and {log.name} to a directory that can be written",
                ) from None
            connection = _connection(path, "mode=ro&immutable=1", timeout)
    return connection


def _connection(path: Path, options: str, timeout: float) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{options}"
    # Transactions are begun by us; executors report from their own threads, one at a time (the store has a lock).
    return sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN")  # one look: another process may be making the tables
    version = version_of(connection)
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    connection.execute("COMMIT")
    if application != APPLICATION_ID and (tables or version):
        raise RuntimeFailure(f"{path} is a database of another program", hint="name another file for the records")
    if version > VERSION:
        raise RuntimeFailure(
            f"the records {path} were written by a newer Tilewright (schema {version}, this one knows {VERSION})",
            hint="upgrade Tilewright, or name another file",
        )
    if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise _failure(path, "open", sqlite3.SQLITE_CORRUPT, found)


def _prepare(connection: sqlite3.Connection, timeout: float) -> None:
    """Readers and one writer at a time, and a killed process costs only what it had not committed."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # Changing the mode does not wait for others by itself.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to this version, in one transaction (a new file is one of version 0)."""
    if version_of(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number in range(version_of(connection), VERSION):  # read again: another process may have done it meanwhile
            for statement in MIGRATIONS[number].split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
