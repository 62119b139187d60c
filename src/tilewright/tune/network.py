"""Tuning a network: one search for each distinct kernel, rounds divided among them by the scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import inf, isfinite
from os import PathLike
from pathlib import Path
from statistics import median

import numpy as np

from tilewright.graph.compiler import KernelTask, Prepared, prepare
from tilewright.graph.fusion import Fusion
from tilewright.graph.importer import load
from tilewright.graph.kernels import arithmetic_operations
from tilewright.graph.layout import Layouts
from tilewright.graph.loading import ModelSource
from tilewright.graph.network import Network
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.runtime.jobs import Executor
from tilewright.runtime.pool import default_threads
from tilewright.runtime.records import Record, RecordStore, Session, Task
from tilewright.runtime.workers import Workers
from tilewright.space.rule import Rule
from tilewright.tune.authors import make_author
from tilewright.tune.budget import BATCH
from tilewright.tune.claim import Claim, warn_of_load
from tilewright.tune.decision import COMPARISON, Standing, comparison_seconds
from tilewright.tune.ledger import Entry, Ledger
from tilewright.tune.scheduler import PATIENCE, SCHEDULERS, Scheduler, TaskState
from tilewright.tune.search import Search
from tilewright.tune.verdict import Verdict, in_turns, judge
from tilewright.util.errors import ScheduleError, SpaceError, TuneError

#: Trials for each distinct kernel, on average, when no budget is given.
TRIALS = 64
#: Share of a budget of seconds that comparisons of single kernels may take in the end: those that promise most come first.
COMPARED = 0.2
#: Share of it that is kept at most for comparing the network as a whole.
KEPT = 0.15
#: Seconds kept for building the tuned network and running it in turns with the default one, beyond what building that one took.
JUDGED = 2 * COMPARISON

#: How a search ends that somebody ended.
INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class TunedTask:
    """A distinct kernel of the network: ``weight`` calls per run, seconds of one call without and with tuning, trials spent.

    ``gain`` is the median of their ratio over the rounds of the final comparison if ``confirmed``. Otherwise there was none: nothing was
    faster than without tuning, or the session was interrupted.
    """

    task: Task
    operators: str
    weight: int
    baseline: float
    seconds: float
    trials: int
    gain: float
    confirmed: bool


@dataclass(frozen=True, slots=True)
class SkippedTask:
    """A distinct kernel that has no schedule space, and why: it runs as it does without tuning."""

    task: Task
    operators: str
    weight: int
    reason: str


@dataclass(frozen=True, slots=True)
class NetworkProgress:
    """Where the tuning of a network stands after a round of task ``latest``; seconds per run of the network, summed over its kernels."""

    latest: str
    trials: int
    elapsed: float
    baseline: float
    seconds: float


@dataclass(frozen=True, slots=True)
class NetworkTuning:
    """The compiled network, and what tuning did to its kernels. ``session`` names the session in the records.

    ``reason`` says why the search ended: "trials", "seconds", "goal", "exhausted" (no more points), "converged" (no kernel that counts
    got faster within 200 trials of its own), "interrupted". ``skipped``: kernels that could not be tuned.
    ``verdict`` compares the network as a whole with the default one; None where that was not done: candidates were measured on other
    computers, or somebody interrupted.
    """

    network: Network
    tasks: tuple[TunedTask, ...]
    session: str
    elapsed: float
    reason: str
    verdict: Verdict | None
    skipped: tuple[SkippedTask, ...] = ()

    @property
    def baseline(self) -> float:
        """Seconds per run without tuning, summed over the kernels."""
        return sum(t.weight * t.baseline for t in self.tasks)

    @property
    def seconds(self) -> float:
        """Seconds per run with the best schedules."""
        return sum(t.weight * t.seconds for t in self.tasks)


def tune_network(
    source: ModelSource,
    machine: Machine | None = None,
    *,
    records: RecordStore | str | PathLike[str],
    trials: int | None = None,
    seconds: float | None = None,
    threads: int | None = None,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    fusion: Fusion = "greedy",
    layouts: Layouts = "channels-last",
    author: str = "xgb",
    seed: int = 0,
    goal: float = 0.0,
    patience: int = PATIENCE,
    executor: Executor | None = None,
    progress: Callable[[NetworkProgress], None] | None = None,
    rules: Sequence[Rule] | None = None,
    scheduler: str = "gradient",
) -> NetworkTuning:
    """Search schedules for the kernels of a model and compile it with the best.

    The budget is ``trials`` in all, ``seconds`` of wall clock, or both (default: 64 trials for each distinct kernel). Every
    trial goes to ``records``; trials found there count as done, so a killed session goes on when started again, and
    :func:`tilewright.graph.compile` uses the best of them later. ``goal`` is the latency (seconds) at which to stop.
    ``rules`` make the spaces (default: the built-in ones), ``scheduler`` divides the rounds among kernels
    (a name of :data:`tilewright.tune.scheduler.SCHEDULERS`). In the end the tuned network is compared with the default one as a whole
    (:mod:`tilewright.tune.verdict`), and what is not faster there is not used. Ctrl-C ends the search with the best so far.

    TuneError for an unknown scheduler, for a budget in which nothing can be measured, and for a network of which no kernel can be tuned:
    it says why. Where some cannot, the others are.
    """
    if scheduler not in SCHEDULERS:
        raise TuneError(f"there is no scheduler {scheduler!r}", hint=f"there are: {', '.join(SCHEDULERS)}")
    if (trials is not None and trials < 1) or (seconds is not None and seconds <= 0):
        raise TuneError("a budget without a trial or a second cannot measure anything", hint="give trials >= 1 or seconds > 0")
    start = time.monotonic()
    machine = machine or Machine.host()
    threads = threads or default_threads()
    graph = load(source, dims=dims, shapes=shapes, constants=constants)
    with ExitStack() as stack:
        store = records if isinstance(records, RecordStore) else stack.enter_context(RecordStore(Path(records)))
        workers = executor if executor is not None else stack.enter_context(Workers())
        prepared = prepare(graph, machine, threads=threads, fusion=fusion, layouts=layouts)
        # Candidates measured elsewhere say nothing about the network here.
        default = _Default.of(prepared) if isinstance(workers, Workers) else None
        tuner = _Tuner(prepared, default, rules, workers, store, author, seed, start)
        warn_of_load(max(workers.width, threads))
        session = tuner.open(graph.name, trials, seconds)
        allowed = trials if trials is not None or seconds is not None else TRIALS * len(tuner.entries)
        state = "failed"
        try:
            reason = tuner.run(_Limit(allowed, seconds), SCHEDULERS[scheduler], goal, patience, progress)
            network, verdict = None, None
            if reason != INTERRUPTED:
                try:
                    network, verdict = tuner.judged()
                except KeyboardInterrupt:
                    reason = INTERRUPTED
            state = "stopped" if reason == INTERRUPTED else "done"
        finally:
            tuner.close(state)
        network = network or prepared.compile(records=tuner)
        return NetworkTuning(network, tuple(tuner.results()), session, tuner.elapsed(), reason, verdict, tuner.skipped())


@dataclass(frozen=True, slots=True)
class _Limit:
    trials: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class _Default:
    """The network as it is without tuning, and how many seconds it took to build."""

    network: Network
    seconds: float

    @staticmethod
    def of(prepared: Prepared) -> _Default:
        start = time.monotonic()
        network = prepared.compile()
        return _Default(network, time.monotonic() - start)


@dataclass(slots=True)
class _Entry:
    """A distinct kernel, called at ``steps`` of the network. After its first turn (``visited``) it has a ``search``, unless it is
    ``refused``: it has no schedule space. ``first`` and ``spent``: seconds that its first turn took, and all others together.
    """

    kernel: Kernel
    constants: tuple[str, ...]
    steps: tuple[int, ...]
    operators: str
    task: Task
    visited: bool = False
    refused: ScheduleError | SpaceError | None = None
    search: Search | None = None
    ledger: Ledger | None = None
    standing: Standing | None = None
    first: float = 0.0
    spent: float = 0.0
    tried: int = 0

    @property
    def weight(self) -> int:
        """Calls per run of the network."""
        return len(self.steps)

    @property
    def trial_seconds(self) -> float:
        """What a trial takes; before there was one, at most as much as the first turn."""
        return self.spent / self.tried if self.tried else self.first

    @property
    def name(self) -> str:
        """For people: what it computes, and its task."""
        return f"{self.operators} ({self.task.key[:8]})"

    @property
    def saving(self) -> float:
        """Seconds per run of the network that the trials promise; infinite where the default does not work."""
        s = self.search
        return self.weight * (s.start.seconds - s.bar) if s is not None and s.trials and s.start and isfinite(s.bar) else 0.0

    def revert(self, default: Sequence[float], tuned: Sequence[float]) -> None:
        """Record that the default is better where the network runs it: seconds of all of its calls in each round."""
        if self.search is None or self.search.start is None or self.ledger is None:
            return
        start, each = self.search.start, [tuple(s / self.weight for s in samples) for samples in (default, tuned)]
        entry = Entry(self.search.space.encode(start.array), replace(start.outcome, samples=each[0]), start.estimate)
        self.ledger.keep_default(entry, each[1])
        self.standing = Standing(start, median(each[0]), median(each[0]), 1.0, True)

    def comparison_seconds(self) -> float:
        """What comparing its best candidates takes."""
        if self.search is None:
            return 0.0
        contenders = [self.search.bar] * (self.search.finalists + 1)
        return self.first + comparison_seconds(contenders) + len(contenders) * self.trial_seconds


def _differ(a: Network, b: Network, step: int) -> bool:
    """Whether two compilations of one network schedule a step differently."""
    return str(a.compiled[step].module.kernel) != str(b.compiled[step].module.kernel)


def _entries(prepared: Prepared) -> list[_Entry]:
    """The distinct kernels of a network, those with most arithmetic per run of the network first."""
    places: dict[KernelTask, list[int]] = {}
    for n, s in enumerate(prepared.steps):
        places.setdefault(prepared.task(s), []).append(n)
    names = {s.call.kernel: "+".join(s.operators) for s in prepared.steps}
    found = []
    for t, steps in places.items():
        task = Task.of(t.kernel, prepared.machine, prepared.threads, t.constants, t.unaligned)
        found.append(_Entry(t.kernel, tuple(sorted(t.constants)), tuple(steps), names[t.kernel], task))
    return sorted(found, key=lambda e: -e.weight * arithmetic_operations(e.kernel))


class _Tuner:
    """The searches of one network and what they may still spend."""

    def __init__(
        self,
        prepared: Prepared,
        default: _Default | None,
        rules: Sequence[Rule] | None,
        executor: Executor,
        store: RecordStore,
        author: str,
        seed: int,
        start: float,
    ):
        self.entries = _entries(prepared)
        self._prepared, self._default, self._rules = prepared, default, rules
        self._machine, self._threads = prepared.machine, prepared.threads
        self._executor, self._store, self._author, self._seed = executor, store, author, seed
        self._start = start
        self._claim: Claim | None = None

    def elapsed(self) -> float:
        """Seconds since tuning began."""
        return time.monotonic() - self._start

    def open(self, subject: str, trials: int | None, seconds: float | None) -> str:
        """Begin a session in the records, or go on with the one that was killed or stopped; returns its name."""
        weights = {e.task.key: float(e.weight) for e in self.entries}
        self._store.add_tasks([e.task for e in self.entries])
        wanted = Session(subject, weights, self._author, self._seed, trials, seconds)
        self._claim = Claim.take(self._store, wanted, self._threads)
        return self._claim.session.id

    def close(self, state: str) -> None:
        """The session is over."""
        if self._claim is not None:
            self._claim.close(state)

    def run(
        self,
        limit: _Limit,
        make_scheduler: type[Scheduler],
        goal: float,
        patience: int,
        progress: Callable[[NetworkProgress], None] | None,
    ) -> str:
        """Rounds until the budget is spent or nothing is worth it, then final comparisons; returns why it ended."""
        states = [TaskState(e.weight, arithmetic_operations(e.kernel), e.operators) for e in self.entries]
        scheduler = make_scheduler(states, goal=goal, patience=patience, seed=self._seed)
        reason = ""
        try:
            while not reason:
                if (chosen := scheduler.next()) is None:
                    reason = scheduler.reason
                    break
                if not (n := self._batch(limit, self.entries[chosen])):
                    reason = "trials" if limit.trials is not None and self._spent() >= limit.trials else "seconds"
                    break
                exhausted = not self._round(self.entries[chosen], n)
                search = self.entries[chosen].search
                scheduler.observe(chosen, search.bar if search is not None else 0.0, exhausted=exhausted)
                if progress is not None:
                    progress(self._progress(self.entries[chosen], scheduler))
            if not any(e.search is not None and e.search.best is not None for e in self.entries):
                raise self._fruitless()
            if reason == "seconds" and not self._spent():
                first = sum(e.visited for e in self.entries)
                raise TuneError(
                    f"the budget is too small: after {self.elapsed():.0f} s {first} of {len(self.entries)} kernels were measured as they "
                    "are without tuning, and no candidate was tried",
                    hint=f"give at least {2 * self.elapsed() * len(self.entries) / first:.0f} seconds",
                )
            self._compare(limit)
        except KeyboardInterrupt:
            return INTERRUPTED
        return reason

    def judged(self) -> tuple[Network | None, Verdict | None]:
        """The network with what was found, as far as it is faster there than the default; None where they cannot be compared."""
        searched = {e.name: e.search.start for e in self.entries if e.search is not None and e.search.start is not None}
        if self._default is None or not all(start.outcome.ok for start in searched.values()):
            return None, None
        entries = {e.name: e for e in self.entries if e.name in searched}
        before = self._default.network
        return judge(
            before,
            lambda: self._prepared.compile(records=self),
            lambda after: {name: e.steps for name, e in entries.items() if _differ(before, after, e.steps[0])},
            lambda name, default, tuned: entries[name].revert(default, tuned),
            lambda a, b: in_turns(a, b, self._threads),
        )

    def ranked(self, task: Task) -> Iterator[Record]:
        """Records of the task, best first: what compiling asks for. Those of this session count even where they could not be written."""
        ledger = next((e.ledger for e in self.entries if e.task == task), None)
        return self._store.ranked(task) if ledger is None else ledger.ranked()

    def results(self) -> list[TunedTask]:
        """Every kernel that was searched, the most expensive first."""
        out = []
        for e in self.entries:
            if e.search is None or e.search.best is None:
                continue
            start = e.search.start.seconds if e.search.start else inf
            s = e.standing
            base, best, gain = (s.baseline, s.seconds, s.gain) if s is not None else (start, e.search.bar, start / e.search.bar)
            confirmed = s is not None and s.confirmed
            out.append(TunedTask(e.task, e.operators, e.weight, base, best, len(e.search.trials), gain, confirmed))
        return sorted(out, key=lambda t: -t.weight * t.baseline)

    def skipped(self) -> tuple[SkippedTask, ...]:
        """Every kernel that could not be tuned."""
        refused = [e for e in self.entries if e.refused is not None and e.search is None]
        return tuple(SkippedTask(e.task, e.operators, e.weight, str(e.refused)) for e in refused)

    # --- inside -------------------------------------------------------------------------------

    def _fruitless(self) -> TuneError:
        """Why there is nothing to show: no candidate works, no kernel has a schedule space, or the time was too short."""
        tried = [e.search for e in self.entries if e.search is not None and e.search.everything()]
        if tried:
            return tried[0].hopeless()
        if not self.entries:
            return TuneError("there is no kernel to tune: everything in the network is known before it runs", hint="compile it")
        refused = [(e, e.refused) for e in self.entries if e.refused is not None]
        if len(refused) == len(self.entries):
            (first, why), others = refused[0], len(refused) - 1
            more = f" (and so for {others} other kernels)" if others else ""
            return TuneError(f"no kernel can be tuned: {first.name}: {why.message}{more}", hint=why.hint)
        return TuneError(f"nothing was measured within the budget ({self.elapsed():.0f} s went by)", hint="give more seconds or trials")

    def _batch(self, limit: _Limit, e: _Entry) -> int:
        """Trials of the next round, which is for ``e``; 0 when the budget is spent."""
        most = BATCH
        if limit.seconds is not None:
            left = limit.seconds - self.elapsed() - self._reserve(limit.seconds)
            most = min(BATCH, int(left / max(e.trial_seconds, 1e-6))) if left > 0 else 0
        if limit.trials is None or not all(e.visited for e in self.entries):
            return most  # first turns cost no trial, and recorded trials of one kernel may be all that is allowed
        return max(0, min(most, limit.trials - self._spent()))

    def _spent(self) -> int:
        return sum(len(e.search.trials) for e in self.entries if e.search is not None)

    def _reserve(self, seconds: float) -> float:
        """What final comparisons will take of a budget."""
        comparing = sum(e.comparison_seconds() for e in self._improved())
        judging = 2 * self._default.seconds + JUDGED if self._default is not None and comparing else 0.0
        return min(COMPARED * seconds, comparing) + min(KEPT * seconds, judging)

    def _round(self, e: _Entry, n: int) -> bool:
        """Measure the kernel without tuning the first time, ``n`` more candidates after that; False when there are none."""
        start, fresh = time.monotonic(), e.search is None
        try:
            return self._tried(e, n)
        finally:
            taken = time.monotonic() - start
            if fresh:
                e.first = taken
            else:
                e.spent += taken
                e.tried += n

    def _tried(self, e: _Entry, n: int) -> bool:
        e.visited = True
        try:
            if e.search is not None:
                return bool(e.search.step(n))
            e.search = self._search(e)
        except (ScheduleError, SpaceError) as error:
            e.refused = error  # it runs as the default has it, or with the best so far
            return False
        e.search.resume()
        e.search.baseline()
        return True

    def _search(self, e: _Entry) -> Search:
        from tilewright.space.space import Space

        space = Space(e.kernel, self._machine, self._threads, e.constants, self._rules)
        author = make_author(self._author, space, self._seed)
        e.ledger = Ledger(self._store, e.task, self._claim) if self._claim is not None else None
        return Search(space, author, self._executor, seed=self._seed, ledger=e.ledger, unaligned=e.task.unaligned)

    def _improved(self) -> list[_Entry]:
        """Kernels for which some trial was faster than no tuning, those that promise most first."""
        return sorted((e for e in self.entries if e.saving > 0), key=lambda e: -e.saving)

    def _compare(self, limit: _Limit) -> None:
        """Re-measure the best candidates of each kernel in turns with its baseline: records of these decide.

        As many kernels as a budget of seconds has room for; the others only meet the default in the network.
        """
        start = time.monotonic()
        for e in self._improved():
            assert e.search is not None  # improved kernels were searched
            if limit.seconds is not None and time.monotonic() - start + e.comparison_seconds() > COMPARED * limit.seconds and self._default:
                break
            e.standing = e.search.finish()

    def _progress(self, e: _Entry, scheduler: Scheduler) -> NetworkProgress:
        known = [x for x in self.entries if x.search is not None and x.search.start is not None]
        baseline = sum(x.weight * x.search.start.seconds for x in known if x.search is not None and x.search.start is not None)
        best = sum(x.weight * x.search.bar for x in known if x.search is not None)
        return NetworkProgress(e.operators, self._spent(), self.elapsed(), baseline, best)
