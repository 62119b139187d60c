"""A search under way: one task, its author, its trials. Budgets are the session's affair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Protocol

import numpy as np

from tilewright.hw.machine import Machine
from tilewright.ir.stmt import Kernel
from tilewright.runtime.jobs import Executor, Job, Outcome
from tilewright.schedule.schedule import Schedule
from tilewright.tune.author import Author, SearchSpace
from tilewright.tune.decision import TOLERATED, Standing, decide, median_ratio, rounds_for
from tilewright.tune.ledger import Entry, Ledger
from tilewright.tune.recipe import recipe
from tilewright.util.errors import TuneError


class TunableSpace(SearchSpace, Protocol):
    """A space whose points can be built: :class:`tilewright.space.Space`."""

    @property
    def kernel(self) -> Kernel:
        """The program as it was written."""

    @property
    def machine(self) -> Machine:
        """What it is scheduled for."""

    @property
    def threads(self) -> int:
        """On how many threads it runs."""

    @property
    def constants(self) -> tuple[str, ...]:
        """Arguments known before it runs."""

    def schedule(self, point: np.ndarray) -> Schedule:
        """The schedule of a point, through primitives."""

    def encode(self, point: np.ndarray) -> dict[str, Any]:
        """A point as JSON data that :meth:`decode` understands, in spaces of other shapes too."""

    def decode(self, data: Mapping[str, Any]) -> np.ndarray:
        """The point nearest to what :meth:`encode` wrote; TilewrightError when there is none."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A point and what became of it. ``estimate`` is in seconds; ``recorded``: not run now, but read from the records."""

    point: tuple[int, ...]
    outcome: Outcome
    estimate: float
    recorded: bool = False

    @property
    def array(self) -> np.ndarray:
        """The point as spaces take it."""
        return np.array(self.point, np.int64)

    @property
    def seconds(self) -> float:
        """Fastest sample, infinite for a failed trial."""
        return self.outcome.seconds


class Search:
    """The search of one space.

    Arrays of the arguments in ``unaligned`` lie where callers' NumPy arrays usually do; what wins there must not lose much on
    aligned arrays either. Call :meth:`resume` and :meth:`baseline` once, :meth:`step` as often as it is worth it, then
    :meth:`finish`. With a ``ledger`` every trial is recorded as soon as it is known, and trials of the
    same task that were recorded before, by whichever author, are taken over instead of run again.

    SpaceError for a space without points.
    """

    #: How many of the fastest are measured again, in turns with the baseline, before one is declared the winner.
    finalists = 5

    def __init__(
        self,
        space: TunableSpace,
        author: Author,
        executor: Executor,
        *,
        seed: int = 0,
        ledger: Ledger | None = None,
        unaligned: Iterable[str] = (),
    ):
        self.space = space
        self.author = author
        self.executor = executor
        self.seed = seed
        self.unaligned = tuple(sorted(unaligned))
        self.trials: list[Trial] = []
        self.start: Trial | None = None
        self.on_trial: Callable[[Trial], None] | None = None
        self._ledger = ledger
        self._suggested: list[np.ndarray] = []
        self._default = space.default()

    # --- what is known ------------------------------------------------------------------------

    @property
    def best(self) -> Trial | None:
        """The fastest trial, the baseline included; None when nothing has worked yet."""
        return min((t for t in self.everything() if t.outcome.ok), key=lambda t: t.seconds, default=None)

    @property
    def bar(self) -> float:
        """Seconds of the best."""
        return self.best.seconds if self.best else inf

    def everything(self) -> list[Trial]:
        """The baseline and all trials."""
        return ([self.start] if self.start else []) + self.trials

    def failures(self) -> str:
        """How many trials ended in which way, for messages."""
        counts = Counter(t.outcome.status for t in self.everything())
        return ", ".join(f"{n} {status}" for status, n in counts.most_common())

    def hopeless(self) -> TuneError:
        """What to raise when nothing that was tried works."""
        first = next((t.outcome.message for t in self.everything()), "")
        return TuneError(f"no candidate for {self.space.kernel.name} works ({self.failures() or 'none was tried'}): {first}")

    # --- steps --------------------------------------------------------------------------------

    def resume(self) -> int:
        """Take over recorded trials, and the best of the same program on other shapes as suggestions; returns how many trials."""
        if self._ledger is None:
            return 0
        default = _key(self._default)
        for point, outcome, estimate in self._ledger.trials(self.space):
            if _key(point) != default:
                self.trials.append(Trial(_key(point), outcome, estimate, recorded=True))
        self._tell(self.trials)
        known = {t.point for t in self.trials} | {default}
        self._suggested = [p for p in self._ledger.suggestions(self.space) if _key(p) not in known]
        return len(self.trials)

    def baseline(self) -> Trial:
        """Measure the point taken without tuning."""
        trial = self._run(self._default[None], "baseline")[0]
        self._tell([trial])
        return trial

    def step(self, n: int) -> list[Trial]:
        """Try up to ``n`` new points; an empty list when the author has no more."""
        suggested, self._suggested = self._suggested[:n], self._suggested[n:]
        points = suggested + self._proposed(n - len(suggested))
        found = self._run(np.array(points, np.int64), "trial") if points else []
        self._tell(found)
        return found

    def finish(self) -> Standing:
        """Measure the fastest again, in turns with the baseline and on fresh data, and decide. TuneError when nothing works.

        The winner of earlier sessions takes part, so that it is kept or beaten in the same rounds.
        """
        if self.best is None:
            raise self.hopeless()
        has_baseline = self.start is not None and self.start.outcome.ok
        contenders = self._contenders()
        outcomes = self.executor.compare([self._job(t.array) for t in contenders], rounds_for([t.seconds for t in contenders]))
        standing = decide(contenders, outcomes, has_baseline=has_baseline, robust=self._robust)
        if self._ledger is not None:
            entries = [self._entry(t, o) for t, o in zip(contenders, outcomes, strict=True)]
            place = next(n for n, t in enumerate(contenders) if t is standing.winner)
            self._ledger.add_comparison(entries, place if standing.confirmed else None, standing.gain if has_baseline else inf)
        return standing

    # --- inside -------------------------------------------------------------------------------

    def _proposed(self, n: int) -> list[np.ndarray]:
        """New points of the author, without those that somebody else has tried."""
        known = {t.point for t in self.everything()} | {_key(p) for p in self._suggested}
        while n > 0 and len(points := self.author.propose(n)):
            if fresh := [p for p in points if _key(p) not in known]:
                return fresh
        return []

    def _contenders(self) -> list[Trial]:
        """Who takes part in the final comparison: the baseline first, if it works."""
        base = [self.start] if self.start is not None and self.start.outcome.ok else []
        ranked = sorted((t for t in self.trials if t.outcome.ok), key=lambda t: t.seconds)
        contenders = base + ranked[: self.finalists]
        champion = self._ledger.champion(self.space) if self._ledger is not None else None
        if champion is not None and (key := _key(champion[0])) not in {t.point for t in contenders}:
            contenders.append(next((t for t in ranked if t.point == key), Trial(key, *champion[1:], recorded=True)))
        return contenders

    def _robust(self, baseline: Trial, challenger: Trial) -> bool:
        """Whether the challenger is not much worse than the baseline on aligned arrays, too."""
        if not self.unaligned:
            return True
        jobs = [replace(self._job(t.array), unaligned=()) for t in (baseline, challenger)]
        base, other = self.executor.compare(jobs, rounds_for([baseline.seconds, challenger.seconds]))
        return base.ok and other.ok and median_ratio(base, other) >= TOLERATED

    def _job(self, point: np.ndarray) -> Job:
        s = self.space
        return Job(s.kernel, recipe(s, point), s.machine, s.threads, self.seed, self.bar, self.unaligned)

    def _run(self, points: np.ndarray, role: str) -> list[Trial]:
        estimates = self.space.estimate(points)
        found: dict[int, Trial] = {}

        def done(index: int, outcome: Outcome) -> None:
            trial = Trial(_key(points[index]), outcome, float(estimates[index]))
            found[index] = trial
            if role == "baseline":
                self.start = trial
            else:
                self.trials.append(trial)
            self._record(trial, outcome, role)
            if self.on_trial is not None:
                self.on_trial(trial)

        self.executor.run([self._job(p) for p in points], done)
        return [found[n] for n in range(len(points))]

    def _tell(self, trials: Sequence[Trial]) -> None:
        if trials:
            self.author.observe(np.array([t.point for t in trials], np.int64), np.array([t.seconds for t in trials]))

    def _record(self, trial: Trial, outcome: Outcome, role: str) -> None:
        if self._ledger is not None:
            self._ledger.add(self._entry(trial, outcome), role)

    def _entry(self, trial: Trial, outcome: Outcome) -> Entry:
        return Entry(self.space.encode(trial.array), outcome, trial.estimate)


def _key(point: np.ndarray) -> tuple[int, ...]:
    return tuple(int(v) for v in point)
