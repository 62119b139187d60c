"""The searches of one or several networks: rounds, final comparisons, and what they may spend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

from tilewright.graph.compiler import Prepared
from tilewright.graph.kernels import arithmetic_operations
from tilewright.graph.network import Network
from tilewright.runtime.jobs import Executor
from tilewright.runtime.records import Record, RecordStore, Session, Task
from tilewright.space.rule import Rule
from tilewright.tune.authors import REPLAY, author_for
from tilewright.tune.budget import BATCH
from tilewright.tune.claim import Claim
from tilewright.tune.decision import COMPARISON
from tilewright.tune.kernel_search import KernelSearch, kernel_searches
from tilewright.tune.ledger import Ledger
from tilewright.tune.results import NetworkProgress, SkippedTask, TunedTask
from tilewright.tune.scheduler import Scheduler, TaskState
from tilewright.tune.search import Search
from tilewright.tune.verdict import Verdict, in_turns, judge
from tilewright.util.errors import ScheduleError, SpaceError, TuneError

#: Share of a budget of seconds that comparisons of single kernels may take in the end: those that promise most come first.
COMPARED = 0.2
#: Share of it that is kept at most for comparing the network as a whole.
KEPT = 0.15
#: Seconds kept for building the tuned network and running it in turns with the default one, beyond what building that one took.
JUDGED = 2 * COMPARISON

#: How a search ends that somebody ended.
INTERRUPTED = "interrupted"


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self._start


@dataclass(frozen=True, slots=True)
class Limit:
    """What may be spent: trials, seconds (None: unlimited)."""

    trials: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Default:
    """A network as it is without tuning, and how many seconds it took to build."""

    network: Network
    seconds: float

    @staticmethod
    def of(prepared: Prepared) -> Default:
        """Build it."""
        clock = Stopwatch()
        network = prepared.compile()
        return Default(network, clock.elapsed())


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to tune. Without a ``default`` it is not compared with it. ``goal``: seconds of its kernels together that are enough."""

    prepared: Prepared
    default: Default | None
    goal: float = 0.0


class Tuner:
    """The searches of networks for one machine and what they may still spend."""

    def __init__(
        self,
        subjects: Sequence[Subject],
        rules: Sequence[Rule] | None,
        executor: Executor,
        store: RecordStore,
        author: str,
        seed: int,
        clock: Stopwatch,
    ):
        self.kernels = kernel_searches([s.prepared for s in subjects])
        self.elapsed = clock.elapsed
        self._subjects, self._rules = tuple(subjects), rules
        self._machine, self._threads = subjects[0].prepared.machine, subjects[0].prepared.threads
        self._executor, self._store, self._author, self._seed = executor, store, author, seed
        self._claim: Claim | None = None

    def open(self, subject: str, trials: int | None, seconds: float | None) -> str:
        """Begin a session in the records, or go on with the one that was killed or stopped; returns its name."""
        weights = {e.task.key: float(e.weight) for e in self.kernels}
        self._store.add_tasks([e.task for e in self.kernels])
        wanted = Session(subject, weights, self._author, self._seed, trials, seconds)
        self._claim = Claim.take(self._store, wanted, self._threads)
        return self._claim.session.id

    def close(self, state: str) -> None:
        """The session is over."""
        if self._claim is not None:
            self._claim.close(state)

    def run(
        self,
        limit: Limit,
        make_scheduler: type[Scheduler],
        patience: int,
        progress: Callable[[NetworkProgress], None] | None,
    ) -> str:
        """Rounds until the budget is spent or nothing is worth it, then final comparisons; returns why it ended."""
        numbers = range(len(self._subjects))
        states = [TaskState(tuple(e.calls(n) for n in numbers), arithmetic_operations(e.kernel), e.operators) for e in self.kernels]
        scheduler = make_scheduler(states, goals=[s.goal for s in self._subjects], patience=patience, seed=self._seed)
        reason = ""
        try:
            while not reason:
                if (chosen := scheduler.next()) is None:
                    reason = scheduler.reason
                    break
                if not (n := self._batch(limit, self.kernels[chosen])):
                    reason = "trials" if limit.trials is not None and self._spent() >= limit.trials else "seconds"
                    break
                exhausted = not self._round(self.kernels[chosen], n)
                search = self.kernels[chosen].search
                scheduler.observe(chosen, search.bar if search is not None else 0.0, exhausted=exhausted)
                if progress is not None:
                    progress(self._progress(self.kernels[chosen]))
            if not any(e.search is not None and e.search.best is not None for e in self.kernels):
                raise self._fruitless()
            if reason == "seconds" and not self._spent():
                first = sum(e.visited for e in self.kernels)
                raise TuneError(
                    f"the budget is too small: after {self.elapsed():.0f} s {first} of {len(self.kernels)} kernels were measured as they "
                    "are without tuning, and no candidate was tried",
                    hint=f"give at least {2 * self.elapsed() * len(self.kernels) / first:.0f} seconds",
                )
            self._compare(limit)
        except KeyboardInterrupt:
            return INTERRUPTED
        return reason

    def judged(self, compare: bool = True) -> tuple[list[tuple[Network, Verdict | None]], bool]:
        """Every network with what was found, as far as it is faster there than the default; and whether nobody interrupted that.

        The verdict is None where they cannot be compared, and if nobody wants to ``compare``. What one network takes back counts for
        all that share it: those are judged once more, until every verdict is about the network it comes with.
        """
        found: list[tuple[Network | None, Verdict | None]] = [(None, None)] * len(self._subjects)
        try:
            waiting = list(range(len(found))) if compare else []
            for _ in range(1 + len(self.kernels)):  # each time at least one more of them goes back to its default
                for n in waiting:
                    found[n] = self._judged(n, found[n][1])
                waiting = [n for n, (network, _) in enumerate(found) if self._outdated(n, network)]
                if not waiting:
                    break
        except KeyboardInterrupt:
            compare = False
        return [
            (network, verdict) if network is not None and not self._outdated(n, network) else (self._compiled(n), None)
            for n, (network, verdict) in enumerate(found)
        ], compare

    def ranked(self, task: Task) -> Iterator[Record]:
        """Records of the task, best first: what compiling asks for. Those of this session count even where they could not be written."""
        ledger = next((e.ledger for e in self.kernels if e.task.key == task.key), None)
        return self._store.ranked(task) if ledger is None else ledger.ranked()

    def results(self, number: int) -> list[TunedTask]:
        """Every kernel of a network that was searched, the most expensive first."""
        out = []
        for e in self.kernels:
            if e.search is None or e.search.best is None or not e.calls(number):
                continue
            start = e.search.start.seconds if e.search.start else inf
            s = e.standing
            base, best, gain = (s.baseline, s.seconds, s.gain) if s is not None else (start, e.search.bar, start / e.search.bar)
            confirmed = s is not None and s.confirmed
            stopped = "" if e.refused is None else str(e.refused)
            out.append(TunedTask(e.task, e.operators, e.calls(number), base, best, len(e.search.trials), gain, confirmed, stopped))
        return sorted(out, key=lambda t: -t.weight * t.baseline)

    def ended(self, number: int, reason: str) -> str:
        """Why the search of a network ended: it reached its goal, whatever ended that of the others."""
        mine = [e for e in self.kernels if e.calls(number)]
        measured = all(e.visited for e in mine) and reason != INTERRUPTED
        latency = sum(e.calls(number) * e.search.bar for e in mine if e.search is not None)
        return "goal" if measured and latency <= self._subjects[number].goal else reason

    def skipped(self, number: int) -> tuple[SkippedTask, ...]:
        """Every kernel of a network that could not be tuned."""
        refused = [e for e in self.kernels if e.refused is not None and (e.search is None or e.search.best is None) and e.calls(number)]
        return tuple(SkippedTask(e.task, e.operators, e.calls(number), str(e.refused)) for e in refused)

    # --- inside -------------------------------------------------------------------------------

    def _judged(self, number: int, earlier: Verdict | None = None) -> tuple[Network | None, Verdict | None]:
        """A network and its verdict, which also names what went back to its default since an ``earlier`` one."""
        default = self._subjects[number].default
        searched = {e.name: e for e in self.kernels if e.calls(number) and e.search is not None and e.search.start is not None}
        if default is None or not all(e.search.start.outcome.ok for e in searched.values() if e.search and e.search.start):
            return None, None
        before = default.network

        def changed(after: Network) -> dict[str, list[int]]:
            return {name: e.places[number] for name, e in searched.items() if _differ(before, after, e.places[number][0])}

        gone: tuple[str, ...] = ()
        if earlier is not None:
            still = changed(self._compiled(number))
            gone = (*earlier.reverted, *(name for name in earlier.tuned if name not in still))
        network, verdict = judge(
            before,
            lambda: self._compiled(number),
            changed,
            lambda name, default, tuned: searched[name].revert(number, default, tuned),
            lambda a, b: in_turns(a, b, self._threads),
        )
        return network, replace(verdict, reverted=(*gone, *verdict.reverted))

    def _compiled(self, number: int) -> Network:
        """A network with the best that is known."""
        return self._subjects[number].prepared.compile(records=self)

    def _outdated(self, number: int, network: Network | None) -> bool:
        """Whether a network that was judged would be compiled otherwise now: another one took a kernel back since."""
        if network is None or len(self._subjects) == 1:
            return False
        now = self._compiled(number)
        return any(_differ(network, now, step) for step in range(len(now.compiled)))

    def _fruitless(self) -> TuneError:
        """Why there is nothing to show: no candidate works, no kernel has a schedule space, or the time was too short."""
        tried = [e.search for e in self.kernels if e.search is not None and e.search.everything()]
        if tried:
            return tried[0].hopeless()
        if not self.kernels:
            return TuneError("there is no kernel to tune: everything in the network is known before it runs", hint="compile it")
        refused = [(e, e.refused) for e in self.kernels if e.refused is not None]
        if len(refused) == len(self.kernels):
            (first, why), others = refused[0], len(refused) - 1
            more = f" (and so for {others} other kernels)" if others else ""
            return TuneError(f"no kernel can be tuned: {first.name}: {why.message}{more}", hint=why.hint)
        return TuneError(f"nothing was measured within the budget ({self.elapsed():.0f} s went by)", hint="give more seconds or trials")

    def _batch(self, limit: Limit, e: KernelSearch) -> int:
        """Trials of the next round, which is for ``e``; 0 when the budget is spent."""
        most = BATCH
        if limit.seconds is not None:
            left = limit.seconds - self.elapsed() - self._reserve(limit.seconds)
            most = min(BATCH, int(left / max(e.trial_seconds, 1e-6))) if left > 0 else 0
        if limit.trials is None or not all(e.visited for e in self.kernels):
            return most  # first turns cost no trial, and recorded trials of one kernel may be all that is allowed
        return max(0, min(most, limit.trials - self._spent()))

    @property
    def _judging(self) -> bool:
        return self._subjects[0].default is not None

    def _spent(self) -> int:
        return sum(len(e.search.trials) for e in self.kernels if e.search is not None)

    def _reserve(self, seconds: float) -> float:
        """What final comparisons will take of a budget."""
        comparing = sum(e.comparison_seconds() for e in self._improved())
        judging = sum(2 * s.default.seconds + JUDGED for s in self._subjects if s.default is not None) if comparing else 0.0
        return min(COMPARED * seconds, comparing) + min(KEPT * seconds, judging)

    def _round(self, e: KernelSearch, n: int) -> bool:
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

    def _tried(self, e: KernelSearch, n: int) -> bool:
        e.visited = True
        try:
            if e.search is not None:
                return bool(e.search.step(n))
            e.search = self._search(e)
        except (ScheduleError, SpaceError, TuneError) as error:
            e.refused = error  # it runs as the default has it, or with the best so far
            return False
        if self._author != REPLAY:
            e.search.resume()
        e.search.baseline()
        return True

    def _search(self, e: KernelSearch) -> Search:
        from tilewright.space.space import Space

        space = Space(e.kernel, self._machine, self._threads, e.constants, self._rules)
        e.ledger = Ledger(self._store, e.task, self._claim) if self._claim is not None else None
        author = author_for(self._author, space, self._seed, e.ledger)
        return Search(space, author, self._executor, seed=self._seed, ledger=e.ledger, unaligned=e.task.unaligned)

    def _improved(self) -> list[KernelSearch]:
        """Kernels for which some trial was faster than no tuning, those that promise most first."""
        return sorted((e for e in self.kernels if e.saving > 0), key=lambda e: -e.saving)

    def _compare(self, limit: Limit) -> None:
        """Re-measure the best candidates of each kernel in turns with its baseline: records of these decide.

        As many kernels as a budget of seconds has room for; the others only meet the default in the network.
        """
        start = time.monotonic()
        for e in self._improved():
            assert e.search is not None  # improved kernels were searched
            if limit.seconds is not None and time.monotonic() - start + e.comparison_seconds() > COMPARED * limit.seconds and self._judging:
                break
            e.standing = e.search.finish()

    def _progress(self, e: KernelSearch) -> NetworkProgress:
        known = [x for x in self.kernels if x.search is not None and x.search.start is not None]
        baseline = sum(x.weight * x.search.start.seconds for x in known if x.search is not None and x.search.start is not None)
        best = sum(x.weight * x.search.bar for x in known if x.search is not None)
        return NetworkProgress(e.operators, self._spent(), self.elapsed(), baseline, best)


def _differ(a: Network, b: Network, step: int) -> bool:
    """Whether two compilations of one network schedule a step differently."""
    return str(a.compiled[step].module.kernel) != str(b.compiled[step].module.kernel)
