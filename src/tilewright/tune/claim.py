"""Beginning a session, going on with one, or removing it: by one process at a time, and with a note of the conditions."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import replace

from tilewright.runtime.records import RecordStore, Session
from tilewright.runtime.records.lock import Lock
from tilewright.runtime.records.session import sitting
from tilewright.util.errors import RuntimeFailure, TuneError


class Claim:
    """A session that this process works on, and no other.

    Who asks for what another process is being asked for is refused; a session whose process has ended is taken over.
    A full disk costs the records (after one warning), not what is found.
    """

    def __init__(self, store: RecordStore, session: Session, lock: Lock):
        self.session = session
        self._store = store
        self._lock = lock
        self._writable = True
        self._said: set[str] = set()

    @staticmethod
    def take(store: RecordStore, wanted: Session, threads: int) -> Claim:
        """The session ``wanted``: as it is, or the one that asked for the same and was killed or stopped. Its tasks are known.

        TuneError when a process that runs is at it.
        """
        lock = _lock(store, wanted)
        if lock is None:
            raise TuneError(_taken(store, wanted), hint="wait for it, or end it and start again: what it measured is kept")
        try:
            found = next((s for s in _alike(store, wanted) if s.state in ("running", "stopped")), wanted)
            now = sitting(threads)
            session = replace(found, trials=wanted.trials, seconds=wanted.seconds, state="running", sittings=(*found.sittings, now))
            return Claim(store, store.save(session), lock)
        except BaseException:
            lock.release()
            raise

    def write(self, change: Callable[[], object]) -> bool:
        """Make a ``change`` to the records; False when they cannot take it. Then nothing more is written."""
        if self._writable:
            try:
                change()
            except RuntimeFailure as error:
                # What was found is worth more than its record.
                self._writable = False
                self.warn("unwritable", f"{error.message}; tuning goes on, but it will not be recorded")
        return self._writable

    def warn(self, topic: str, text: str) -> None:
        """Say ``text``, unless something was said about ``topic`` in this session before."""
        if topic not in self._said:
            self._said.add(topic)
            warnings.warn(text, RuntimeWarning, stacklevel=3)

    def close(self, state: str) -> None:
        """The session is over, or may be taken up by others."""
        try:
            self.write(lambda: self._store.save(replace(self.session, state=state)))
        finally:
            self._lock.release()


def delete(store: RecordStore, session: Session) -> int:
    """Remove a session and its records; returns how many records went. TuneError when a process that runs is at it."""
    lock = _lock(store, session)
    if lock is None:
        raise TuneError(_taken(store, session), hint="wait for it, or end it first: what it measures would be lost")
    try:
        return store.delete(session.id)
    finally:
        lock.release()


def warn_of_load(uses: int) -> None:
    """Warn when other programs keep more processors busy than the session is going to (``uses``)."""
    load = os.getloadavg()[0]
    if load > uses:
        warnings.warn(
            f"the load average is {load:.1f} before a session that uses {uses} processors itself: other programs are running, and "
            "what is measured beside them is not what the schedules can do",
            RuntimeWarning,
            stacklevel=3,
        )


def _lock(store: RecordStore, wanted: Session) -> Lock | None:
    """The place of all sessions that ask for the same as ``wanted``; None when a process has it."""
    same = (wanted.subject, sorted(wanted.tasks.items()), wanted.author, wanted.seed)
    return Lock.taken(store.path.with_name(store.path.name + "-lock"), json.dumps(same))


def _alike(store: RecordStore, wanted: Session) -> list[Session]:
    """Sessions that asked for the same, the latest first."""
    same = (dict(wanted.tasks), wanted.author, wanted.seed)
    return [s for s in store.sessions(subject=wanted.subject) if (dict(s.tasks), s.author, s.seed) == same]


def _taken(store: RecordStore, wanted: Session) -> str:
    running = next((s for s in _alike(store, wanted) if s.state == "running" and s.sittings), None)
    if running is None:
        return f"{wanted.subject} is being tuned by another process with the same author and seed"
    who = running.sittings[-1]
    return (
        f"{wanted.subject} is being tuned with the same author and seed: session {running.id}, "
        f"process {who.get('pid')} on {who.get('host')}, since {str(who.get('date'))[:16]}"
    )
