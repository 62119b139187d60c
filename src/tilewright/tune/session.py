"""Tuning one program within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from os import PathLike
from pathlib import Path

from tilewright.hw.machine import Machine
from tilewright.ir.stmt import Kernel
from tilewright.runtime.jobs import Executor
from tilewright.runtime.records import RecordStore
from tilewright.runtime.workers import Workers, require_measurable
from tilewright.schedule.schedule import Schedule
from tilewright.schedule.trace import Trace
from tilewright.tune.author import Author
from tilewright.tune.authors import REPLAY, author_for, check_author
from tilewright.tune.budget import Budget, check_budget
from tilewright.tune.claim import warn_of_load
from tilewright.tune.decision import Standing, unconfirmed
from tilewright.tune.ledger import Ledger
from tilewright.tune.search import Search, Trial, TunableSpace

#: The budget when none is given.
TRIALS = 200
#: Trials without an improvement end a session.
PATIENCE = 200


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a session stands: ``trials`` done of ``allowed`` (None: no limit), ``elapsed`` seconds of ``limit``, the ``latest`` trial."""

    trials: int
    allowed: int | None
    elapsed: float
    limit: float | None
    best: float
    baseline: float
    failed: int
    latest: Trial


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What tuning found.

    ``point`` of ``space`` is the winner, ``trace`` its schedule; ``seconds`` and ``baseline`` (the
    schedule without tuning) are per call, from the same rounds if ``confirmed``; ``gain`` is the
    median of their ratio. ``history`` holds every trial in order, the baseline first. ``reason`` says why it ended:
    "trials", "seconds", "exhausted" (no more points), "stagnation", "interrupted".
    """

    space: TunableSpace
    point: tuple[int, ...]
    trace: Trace
    seconds: float
    baseline: float
    gain: float
    confirmed: bool
    history: tuple[Trial, ...]
    reason: str
    elapsed: float

    def schedule(self) -> Schedule:
        """The winning schedule, to be passed to :func:`tilewright.runtime.build`."""
        from tilewright.schedule.replay import replay

        return replay(self.space.kernel, self.trace, self.space.machine)


def tune(
    program: Kernel | TunableSpace,
    *,
    machine: Machine | None = None,
    threads: int | None = None,
    constants: Iterable[str] = (),
    unaligned: Iterable[str] | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    author: str | Author = "xgb",
    seed: int = 0,
    records: RecordStore | str | PathLike[str] | None = None,
    executor: Executor | None = None,
    progress: Callable[[Progress], None] | None = None,
    patience: int | None = PATIENCE,
    subject: str = "",
) -> TuneResult:
    """Search the schedule space of a kernel (or a given space) for the fastest schedule that computes the right thing.

    The budget is ``trials`` beyond the baseline, ``seconds`` of wall clock, or both; 200 trials if
    neither is given. Candidates are built and run by ``executor`` (default: worker processes of this
    computer). With ``records`` every trial is kept, trials kept before count towards ``trials`` and
    are not repeated, so a killed session goes on when it is started again. ``patience`` trials
    without improvement end the session (None: never). Ctrl-C ends it with the best so far.

    Candidates are measured on arrays as NumPy allocates them; ``unaligned`` names the arguments for which that holds (default: all),
    the arrays of others begin at cache lines. Records of one placement do not stand for another.

    Raises TuneError for an unknown author, for a budget in which nothing can be measured, and when
    no candidate works, and while another process does the same with the same records; RuntimeFailure, before anything
    is tried, for a machine whose code this computer cannot run.
    """
    check_budget(trials, seconds)
    if isinstance(author, str):
        check_author(author)
    budget = Budget(TRIALS if trials is None and seconds is None else trials, seconds, patience)
    space = _space(program, machine, threads, tuple(constants))
    name = author if isinstance(author, str) else type(author).__name__
    with ExitStack() as stack:
        store = records if isinstance(records, RecordStore) or records is None else stack.enter_context(RecordStore(Path(records)))
        workers = executor if executor is not None else stack.enter_context(Workers())
        if isinstance(workers, Workers):
            require_measurable(space.machine, space.threads)
        warn_of_load(max(workers.width, space.threads))
        placed = [b.name for b in space.kernel.args] if unaligned is None else list(unaligned)
        subject = subject or space.kernel.name
        ledger = Ledger.open(store, space, placed, subject, name, seed, trials, seconds) if store is not None else None
        state = "failed"
        try:
            proposes = author_for(author, space, seed, ledger) if isinstance(author, str) else author
            search = Search(space, proposes, workers, seed=seed, ledger=ledger, unaligned=placed)
            if progress is not None:
                search.on_trial = lambda trial: progress(_progress(search, budget, trial))
            standing, reason = _searched(search, budget, resume=author != REPLAY)
            state = "stopped" if reason == "interrupted" else "done"
        finally:
            if ledger is not None:
                ledger.close(state)
    winner = standing.winner
    return TuneResult(
        space, winner.point, winner.outcome.trace or space.schedule(winner.array).trace, standing.seconds, standing.baseline,
        standing.gain, standing.confirmed, tuple(search.everything()), reason, budget.elapsed(),
    )  # fmt: skip


def _space(program: Kernel | TunableSpace, machine: Machine | None, threads: int | None, constants: tuple[str, ...]) -> TunableSpace:
    if not isinstance(program, Kernel):
        return program
    from tilewright.space.space import Space

    return Space(program, machine, threads=threads, constants=constants)


def _progress(search: Search, budget: Budget, latest: Trial) -> Progress:
    failed = sum(not t.outcome.ok for t in search.trials)
    baseline = search.start.seconds if search.start else inf
    return Progress(len(search.trials), budget.trials, budget.elapsed(), budget.seconds, search.bar, baseline, failed, latest)


def _searched(search: Search, budget: Budget, *, resume: bool) -> tuple[Standing, str]:
    """Baseline, batches, final comparison; Ctrl-C cuts it short."""
    try:
        if resume:
            search.resume()
        search.baseline()
        budget.begin(search)
        reason = ""
        while not reason:
            n = budget.next_batch(search)
            if n == 0:
                reason = budget.reason(search)
            elif not search.step(n):
                reason = "exhausted"
        return search.finish(), reason
    except KeyboardInterrupt:
        if search.best is None:
            raise
        return unconfirmed(search.start, search.trials), "interrupted"
