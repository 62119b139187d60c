"""What the records of a session say: the figures of the page, before any drawing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tilewright.graph.kernels import arithmetic_operations
from tilewright.ir.stmt import Kernel
from tilewright.runtime.records import Record, RecordStore, Session, Task
from tilewright.runtime.records.winner import best_of
from tilewright.util.errors import RuntimeFailure, TilewrightError


@dataclass(frozen=True, slots=True)
class Work:
    """What one call computes: arithmetic operations, bytes of all arguments, type of its result."""

    flops: int
    nbytes: int
    dtype: str

    @property
    def intensity(self) -> float:
        """Operations for each byte that has to be moved at least."""
        return self.flops / self.nbytes


@dataclass(frozen=True, slots=True)
class Run:
    """The trials of one task in one session, in the order they were made."""

    session: str
    author: str
    seed: int
    trials: tuple[Record, ...]

    @property
    def improvements(self) -> list[tuple[int, Record]]:
        """(trial, counted from 1, and its record) of every trial that was faster than all before it."""
        found: list[tuple[int, Record]] = []
        for n, r in enumerate(self.trials, 1):
            if r.seconds is not None and (not found or r.seconds < (found[-1][1].seconds or 0.0)):
                found.append((n, r))
        return found


class TaskFindings:
    """A task: ``weight`` calls per run of the subject, its records in order (of the sessions that are shown)."""

    def __init__(self, task: Task, weight: float, records: Sequence[Record]):
        self.task = task
        self.weight = weight
        self.records = tuple(records)

    @property
    def label(self) -> str:
        """Name and the beginning of the key: many kernels of a network have one name."""
        return f"{self.task.name} ({self.task.key[:8]})"

    @property
    def trials(self) -> list[Record]:
        """Records of the search proper."""
        return [r for r in self.records if r.role == "trial"]

    @cached_property
    def winner(self) -> Record | None:
        """The record that counts as best, by the rule of `RecordStore.best`."""
        return best_of(self.records)

    @cached_property
    def baseline(self) -> Record | None:
        """The schedule without tuning: as measured in turns with the winner if it was, else by itself."""
        alone = min(
            (r for r in self.records if r.role == "baseline" and r.seconds is not None), key=lambda r: r.seconds or 0.0, default=None
        )
        if alone is None or self.winner is None or self.winner.role != "final":
            return alone
        if self.winner.gain is not None:
            return next((r for r in self.records if r.uid == self.winner.against), alone)
        rivals = [r for r in self.records if r.role == "final" and r.seconds and r.session == self.winner.session]
        return next((r for r in reversed(rivals) if same_point(r, alone)), alone)

    @property
    def rounds(self) -> tuple[int, int] | None:
        """Rounds of the final comparison in which the winner was faster than no tuning, and all rounds; None without one.

        The tuner itself asks for three rounds of four: less is within the noise.
        """
        w, b = self.winner, self.baseline
        if w is None or b is None or w.role != "final" or b.role != "final" or len(w.samples) != len(b.samples):
            return None
        return sum(mine < other for mine, other in zip(w.samples, b.samples, strict=True)), len(w.samples)

    @property
    def doubtful(self) -> bool:
        """Whether the winner is another schedule than the baseline, but did not beat it clearly when compared in turns."""
        return not self.kept_default and self.rounds is not None and 4 * self.rounds[0] < 3 * self.rounds[1]

    @property
    def gain(self) -> float | None:
        """Seconds without tuning over seconds with it: of the same rounds if the winner was confirmed."""
        if self.winner is not None and self.winner.gain is not None:
            return self.winner.gain
        if self.baseline is None or self.winner is None or not (self.baseline.seconds and self.winner.seconds):
            return None
        return self.baseline.seconds / self.winner.seconds

    @property
    def kept_default(self) -> bool:
        """Whether nothing was found that is faster than no tuning."""
        return self.winner is not None and self.baseline is not None and same_point(self.winner, self.baseline)

    @cached_property
    def discovery(self) -> tuple[int, Record] | None:
        """The trial that found the winner's point, and its number; None when another session did (or the winner is the baseline)."""
        if self.winner is None:
            return None
        for run in self.runs:
            for n, r in enumerate(run.trials, 1):
                if r.seconds is not None and same_point(r, self.winner):
                    return n, r
        return None

    @cached_property
    def runs(self) -> list[Run]:
        """Trials by session."""
        made: dict[tuple[str, str, int], list[Record]] = {}
        for r in self.trials:
            made.setdefault((r.session, r.author, r.seed), []).append(r)
        return [Run(*key, tuple(trials)) for key, trials in made.items()]

    @cached_property
    def verdicts(self) -> Counter[str]:
        """How often trials and baselines ended in which way."""
        return Counter(r.status for r in self.records if r.role != "final")

    @cached_property
    def failures(self) -> list[tuple[str, str, int]]:
        """(verdict, first line of the message, how often), most frequent first."""
        counts = Counter((r.status, r.message.partition("\n")[0]) for r in self.records if r.status != "ok")
        return [(status, message, n) for (status, message), n in counts.most_common()]

    @cached_property
    def kernel(self) -> Kernel | None:
        """The program; None when this version does not understand it."""
        try:
            return self.task.kernel()
        except TilewrightError:
            return None

    @cached_property
    def work(self) -> Work | None:
        """What a call computes; None for programs of symbolic size and those this version does not understand."""
        k = self.kernel
        if k is None or k.sizes or not k.args:
            return None
        return Work(arithmetic_operations(k), sum(b.nbytes for b in k.args), str(k.args[-1].dtype))

    @property
    def signature(self) -> str:
        """``gemm(a: f32[64, 32], ...)``."""
        lines = (line.strip() for line in self.task.program.splitlines())
        line = next((x for x in lines if x.startswith("def ")), self.task.name)
        return line.removeprefix("def ").removesuffix(":")


def same_point(a: Record, b: Record) -> bool:
    """Whether two records are of one schedule: the same record, or the same point of the space."""
    return a.uid == b.uid or (a.point is not None and a.point == b.point)


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything the page shows.

    ``subject`` is what was tuned; ``tasks``: those that take most time without tuning first, ``untried`` those of the session
    that have no records; ``weighted``: it is known how often the subject calls each. ``elsewhere``: trials of these tasks by sessions that
    are not shown, which the session did not repeat.
    """

    subject: str
    sessions: tuple[Session, ...]
    tasks: tuple[TaskFindings, ...]
    untried: tuple[Task, ...]
    weighted: bool
    elsewhere: int = 0

    @property
    def records(self) -> list[Record]:
        """All records."""
        return [r for t in self.tasks for r in t.records]

    @property
    def authors(self) -> list[str]:
        """Who proposed trials, in order of appearance; where there are none, who was to."""
        proposed = dict.fromkeys(r.author or "nobody" for r in self.records if r.role == "trial")
        return list(proposed or dict.fromkeys(s.author for s in self.sessions if s.author))


def find(store: RecordStore, session: str | None = None, *, everything: bool = False) -> Findings:
    """The records of ``session`` (first characters of its id; default: the latest that has records).

    All records of the file with ``everything``, or when it has no sessions. RuntimeFailure when there is nothing to report.
    """
    if session is not None:
        chosen = store.session(session)
        if not store.count(session=chosen.id):
            raise RuntimeFailure(
                f"session {chosen.id} ({chosen.subject}, {chosen.state}) in {store.path} has no records yet",
                hint="wait for its first measurement, or name another: `tilewright records list --sessions`",
            )
        return _of_session(store, chosen)
    sessions = store.sessions()
    if not everything:
        latest = next((s for s in sessions if store.count(session=s.id)), None)
        if latest is not None:
            return _of_session(store, latest)
    records = store.records()
    if not records:
        raise RuntimeFailure(f"there are no records in {store.path}", hint="tune something first: `tilewright tune --help`")
    weights = dict.fromkeys((r.task.key for r in records), 1.0)
    return _collected(f"all records of {store.path.name}", tuple(reversed(sessions)), weights, records, (), False)


def _of_session(store: RecordStore, session: Session) -> Findings:
    records = store.records(session=session.id)
    tried = {r.task.key for r in records}
    untried = tuple(store.task(key) for key in session.tasks if key not in tried)
    found = _collected(session.subject, (session,), dict(session.tasks), records, untried, True)
    every = sum(store.count(key, role="trial") for key in session.tasks)
    return replace(found, elsewhere=every - sum(r.role == "trial" for r in records))


def _collected(
    subject: str,
    sessions: tuple[Session, ...],
    weights: dict[str, float],
    records: list[Record],
    untried: tuple[Task, ...],
    weighted: bool,
) -> Findings:
    by_task: dict[str, list[Record]] = {}
    for r in records:
        by_task.setdefault(r.task.key, []).append(r)
    tasks = [TaskFindings(found[0].task, weights.get(key, 1.0), found) for key, found in by_task.items()]
    return Findings(subject, sessions, tuple(sorted(tasks, key=_importance)), untried, weighted)


def _importance(t: TaskFindings) -> float:
    reference = t.baseline or t.winner
    return -t.weight * ((reference.seconds if reference else None) or 0.0)
