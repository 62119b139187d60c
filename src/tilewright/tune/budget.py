"""What a session may spend, and when it should stop spending."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import TYPE_CHECKING

from tilewright.tune.decision import comparison_seconds
from tilewright.util.errors import TuneError

if TYPE_CHECKING:
    from tilewright.tune.search import Search

#: Points proposed at once: the author learns between batches.
BATCH = 10
#: A trial this much faster than all before it is an improvement.
IMPROVEMENT = 0.995


def check_budget(trials: int | None, seconds: float | None) -> None:
    """TuneError unless each of both that is given allows something and is a number that ends."""
    if (trials is not None and trials < 1) or (seconds is not None and seconds <= 0):
        given = f"{trials} trials" if seconds is None else f"{seconds:g} s"
        raise TuneError(f"a budget of {given} is too small to measure anything", hint="give at least one trial, or a few seconds")
    if seconds is not None and not isfinite(seconds):
        raise TuneError(f"a budget of {seconds} s is no time", hint="give seconds that end, or trials alone")


@dataclass(slots=True)
class Budget:
    """``trials`` and ``seconds`` (None: no limit), and ``patience``: trials without improvement until it is given up."""

    trials: int | None
    seconds: float | None
    patience: int | None
    start: float = field(default_factory=time.monotonic)
    _searching: float = 0.0  # when the first batch began, and how many trials there were
    _before: int = 0

    def elapsed(self) -> float:
        """Seconds since the session began."""
        return time.monotonic() - self.start

    def begin(self, search: Search) -> None:
        """The baseline is measured. TuneError when no time is left to measure anything else."""
        self._searching, self._before = time.monotonic(), len(search.trials)
        if not search.trials and self.trials != 0 and self.next_batch(search) == 0:
            raise TuneError(
                f"a budget of {self.seconds:g} s is too small to measure anything: {self.elapsed():.1f} s went by until the schedule "
                f"without tuning was measured, and a trial takes {self._trial_seconds(search):.1f} s",
                hint=f"give at least {self.elapsed() + self._reserve(search) + 10 * self._trial_seconds(search):.0f} s",
            )

    def next_batch(self, search: Search) -> int:
        """How many points to try next; 0 when the budget is spent or further trials are hopeless."""
        n = BATCH
        if self.trials is not None:
            n = min(n, self.trials - len(search.trials))
        if self.seconds is not None:
            left = self.seconds - self.elapsed() - self._reserve(search)
            n = min(n, int(left / max(self._trial_seconds(search), 1e-6)))
        return 0 if self.stagnant(search) else max(n, 0)

    def reason(self, search: Search) -> str:
        """Why :meth:`next_batch` was 0."""
        if self.trials is not None and len(search.trials) >= self.trials:
            return "trials"
        return "stagnation" if self.stagnant(search) else "seconds"

    def stagnant(self, search: Search) -> bool:
        """Whether the last ``patience`` trials of this sitting brought nothing."""
        if self.patience is None or len(search.trials) - self._before < self.patience:
            return False
        earlier, late = search.trials[: -self.patience], search.trials[-self.patience :]
        before = min([t.seconds for t in earlier] + ([search.start.seconds] if search.start else []), default=inf)
        return min(t.seconds for t in late) > IMPROVEMENT * before

    def _trial_seconds(self, search: Search) -> float:
        """What a trial takes, from those of this sitting; from the baseline before there are any."""
        done = len(search.trials) - self._before
        if done:
            return (time.monotonic() - self._searching) / done
        outcome = search.start.outcome if search.start else None
        return outcome.build_seconds + outcome.run_seconds if outcome else 1.0

    def _reserve(self, search: Search) -> float:
        """What the final comparison will take."""
        if not isfinite(search.bar):  # nothing works so far: nothing to compare
            return 0.0
        contenders = [search.bar] * (search.finalists + 1)
        return comparison_seconds(contenders) + len(contenders) * self._trial_seconds(search)
