"""A session's page in the records: every trial is written down when it is known, and read again after a kill."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tilewright.runtime.jobs import Outcome, Status
from tilewright.runtime.records import Record, RecordStore, Session, Task
from tilewright.runtime.records.record import host_name, new_uid, plain
from tilewright.runtime.records.winner import ranking
from tilewright.schedule.primitive import discover
from tilewright.schedule.trace import Trace
from tilewright.tune.claim import Claim
from tilewright.util.errors import RuntimeFailure, SpaceError, TilewrightError

if TYPE_CHECKING:
    from tilewright.tune.search import TunableSpace

#: Tasks of other shapes whose best point is tried first.
SUGGESTIONS = 4
#: Points that are tried again when records are replayed.
REPLAYED = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A measured point, as the space encodes it; ``estimate`` in seconds."""

    point: Mapping[str, Any]
    outcome: Outcome
    estimate: float


class Ledger:
    """Records of one task within one session. What a full disk does not take is remembered here, as long as the session lasts."""

    def __init__(self, store: RecordStore, task: Task, claim: Claim):
        self.task = task
        self._store = store
        self._claim = claim
        self._session = claim.session
        self._unwritten: list[Record] = []

    @staticmethod
    def open(
        store: RecordStore,
        space: TunableSpace,
        unaligned: Iterable[str],
        subject: str,
        author: str,
        seed: int,
        trials: int | None,
        seconds: float | None,
    ) -> Ledger:
        """The page of a session: of the one that was killed or stopped when it asked for the same, or a new one."""
        task = Task.of(space.kernel, space.machine, space.threads, space.constants, unaligned)
        store.add_tasks([task])
        return Ledger(store, task, Claim.take(store, Session(subject, {task.key: 1.0}, author, seed, trials, seconds), space.threads))

    def add(self, entry: Entry, role: str) -> None:
        """Write down a trial."""
        self._keep(self._record(entry, role))

    def add_comparison(self, entries: Sequence[Entry], winner: int | None, gain: float) -> None:
        """Write down a final comparison and its verdict: which of ``entries`` won (None: nothing was decided), its gain over the first."""
        records = [self._record(e, "final") for e in entries]
        first = records[0].uid
        records = [
            replace(r, against=first, winner=n == winner, gain=gain if n == winner and isfinite(gain) else None)
            for n, r in enumerate(records)
        ]
        self._keep(*records)

    def keep_default(self, default: Entry, tuned: Sequence[float]) -> None:
        """Write down that the ``default`` won against the task's best, which took ``tuned`` seconds in the same rounds: now it counts."""
        best = next(self.ranked(), None)
        base = self._record(default, "final")
        base = replace(base, against=base.uid, winner=True, gain=1.0)
        beaten = [] if best is None else [
            replace(
                best, uid=new_uid(), samples=tuple(tuned), role="final", against=base.uid, winner=False, gain=None,
                session=self._session.id, host=base.host, date=base.date,
            )
        ]  # fmt: skip
        self._keep(base, *beaten)

    def close(self, state: str) -> None:
        """The session is over."""
        self._claim.close(state)

    def ranked(self) -> Iterator[Record]:
        """The task's records, best first, as :meth:`RecordStore.ranked` gives them; those count too that could not be written down."""
        if not self._unwritten:
            return self._store.ranked(self.task)
        try:
            written = self._store.records(self.task, status="ok")
        except RuntimeFailure:  # of the same disk, of which the user was told
            written = []
        return ranking([*written, *self._unwritten])

    def trials(self, space: TunableSpace) -> list[tuple[np.ndarray, Outcome, float]]:
        """(point, outcome, estimate) of the task's recorded trials that are points of ``space``, of any session."""
        return list(self._usable(space, self._store.records(self.task, role="trial")))

    def champion(self, space: TunableSpace) -> tuple[np.ndarray, Outcome, float] | None:
        """The winner of the task's comparisons so far; None when there is none, or it is no point of ``space``."""
        return next(self._usable(space, takewhile(lambda r: r.winner, self.ranked())), None)

    def suggestions(self, space: TunableSpace) -> list[np.ndarray]:
        """The best points of the same program on other shapes, as they are in ``space``."""
        points = [_nearest(space, r) for r in self._store.similar(self.task, SUGGESTIONS)]
        return list({p.tobytes(): p for p in points if p is not None}.values())

    def known(self, space: TunableSpace) -> list[np.ndarray]:
        """The fastest recorded points of the task, then the best of other shapes: what is worth trying again."""
        tried = sorted((t for t in self.trials(space) if t[1].ok), key=lambda t: t[1].seconds)
        points = [p for p, _, _ in tried] + self.suggestions(space)
        return list({p.tobytes(): p for p in points}.values())[:REPLAYED]

    def _usable(self, space: TunableSpace, records: Iterable[Record]) -> Iterator[tuple[np.ndarray, Outcome, float]]:
        """Those of ``records`` that are points of ``space``; the first that is none any more is named, once in a session."""
        for r in records:
            if r.point is None:
                continue  # made by hand
            try:
                yield _read(space, r)
            except TilewrightError as error:
                self._claim.warn(
                    "stale",
                    f"record {r.uid[:10]} of {self.task} is passed over, and others like it: {error.message}. It was made by Tilewright "
                    f"{r.versions.get('tilewright', '?')}, or with other rules. The search finds again what is good in it; to have it "
                    "count as it is, tune with what made it",
                )

    def _record(self, entry: Entry, role: str) -> Record:
        s, o = self._session, entry.outcome
        return Record(
            self.task, o.status, o.samples, o.trace.to_json() if o.trace else "", entry.point, o.message, entry.estimate, role=role,
            author=s.author, seed=s.seed, session=s.id, host=o.host or host_name(),
        )  # fmt: skip

    def _keep(self, *records: Record) -> None:
        if not self._claim.write(lambda: self._store.add(*records)):
            self._unwritten += records


def _read(space: TunableSpace, record: Record) -> tuple[np.ndarray, Outcome, float]:
    """The point that a record of ``space`` is of, what became of it, and the estimate. TilewrightError when there is no such point."""
    try:
        point = space.decode(record.point or {})
    except (KeyError, ValueError, TypeError) as error:
        raise SpaceError(f"its point means nothing here: {error!r}") from error
    if plain(space.encode(point)) != record.point:  # the nearest one: another schedule
        raise SpaceError(f"its point {json.dumps(record.point)} is no longer in the space")
    trace = Trace.from_json(record.trace) if record.trace else None
    if trace is not None and (gone := {s.primitive for s in trace.steps} - discover().keys()):
        raise SpaceError(f"there is no primitive {', '.join(sorted(gone))}")
    outcome = Outcome(cast(Status, record.status), record.samples, record.message, trace)
    return point, outcome, inf if record.estimate is None else record.estimate


def _nearest(space: TunableSpace, record: Record) -> np.ndarray | None:
    """The point of ``space`` nearest to that of a record of another shape; None where there is none: structures depend on the shape."""
    if record.point is None:
        return None
    try:
        return space.decode(record.point)
    except (TilewrightError, KeyError, ValueError, TypeError):
        return None
