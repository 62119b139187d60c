"""Which kernel of a network to tune next: rounds go where the network's latency falls fastest.

Thesis section 3.4.2 (equation 3.2) with the gradient of section 6.5 (equations 6.7, 6.8): the objective is
``f = max(sum of w_i * g_i, L)``, with g_i the best time of task i after t_i rounds, w_i how often the network runs
it, L a latency goal. Its slope along t_i mixes what the last rounds brought with an optimistic forecast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite

import numpy as np

#: Share of the backward difference; the rest is the forecast.
ALPHA = 0.2
#: A task is expected to come within this factor of the rate its kind reaches elsewhere.
BETA = 2.0
#: Rounds of the backward difference.
WINDOW = 3
#: Share of rounds given to a task at random.
EPSILON = 0.05
#: Rounds without an improvement of IMPROVED after which a task gets nothing more.
PATIENCE = 5
IMPROVED = 0.998
#: While the budget lasts and nothing else is left to do, patience is doubled up to so many rounds. After that the search has converged.
LONGEST = 20
#: Share of the network's latency below which a task is not worth a round: it could not bring more than that.
NEGLIGIBLE = 0.002


@dataclass(slots=True)
class TaskState:
    """A kernel to tune: ``weight`` runs per run of the network, ``flops`` of one run; tasks of one ``kind`` reach similar rates.

    ``goal`` (seconds) ends its tuning when reached. ``best`` holds the best time after each round, element 0 without tuning.
    """

    weight: float
    flops: float
    kind: str = ""
    goal: float = 0.0
    best: list[float] = field(default_factory=list)
    exhausted: bool = False

    @property
    def rounds(self) -> int:
        """Rounds given so far, the first measurement included."""
        return len(self.best)

    @property
    def seconds(self) -> float:
        """Best time so far, infinite before the first."""
        return self.best[-1] if self.best else inf

    def stagnant(self, patience: int) -> bool:
        """Whether the last ``patience`` rounds brought nothing (the ES of equation 3.2)."""
        return len(self.best) > patience and self.best[-1] > IMPROVED * self.best[-1 - patience]


class Scheduler:
    """Gives out rounds of tuning, one at a time: :meth:`next`, tune, :meth:`observe`, until next gives None.

    ``goal`` is the latency of the whole network at which to stop (seconds, 0: none). When no task has improved for ``patience``
    rounds, patience is doubled, up to ``longest``.
    """

    def __init__(
        self,
        tasks: Sequence[TaskState],
        *,
        goal: float = 0.0,
        patience: int = PATIENCE,
        longest: int = LONGEST,
        epsilon: float = EPSILON,
        seed: int = 0,
    ):
        self.tasks = list(tasks)
        self.goal = goal
        self.patience = patience
        self.longest = max(longest, patience)
        self.epsilon = epsilon
        self._rng = np.random.default_rng(seed)

    @property
    def latency(self) -> float:
        """Seconds of all kernels of the network with the best found so far; infinite while one was never measured."""
        return sum(t.weight * t.seconds for t in self.tasks)

    def next(self) -> int | None:
        """The task to tune for a round; None when nothing is left worth it.

        First every task gets one round after its first measurement, in turns; then the steepest one.
        """
        if self.latency <= self.goal:
            return None
        while not (open_tasks := [i for i, t in enumerate(self.tasks) if self._open(t)]):
            if self.patience >= self.longest or all(t.exhausted for t in self.tasks):
                return None
            self.patience = min(2 * self.patience, self.longest)
        fresh = [i for i in open_tasks if self.tasks[i].rounds < 2]
        if fresh:
            return min(fresh, key=lambda i: self.tasks[i].rounds)
        if self._rng.random() < self.epsilon:
            return int(self._rng.choice(open_tasks))
        return max(open_tasks, key=lambda i: abs(self.slope(i)))

    def observe(self, task: int, seconds: float, *, exhausted: bool = False) -> None:
        """A round of ``task`` is over: its best time now, and whether nothing is left to try."""
        t = self.tasks[task]
        t.best.append(min(seconds, t.seconds))
        t.exhausted |= exhausted

    @property
    def reason(self) -> str:
        """Why :meth:`next` gave None: "goal", "exhausted" (no points are left), or "converged"."""
        if self.latency <= self.goal:
            return "goal"
        return "exhausted" if all(t.exhausted for t in self.tasks) else "converged"

    def slope(self, task: int) -> float:
        """Seconds of network latency per round of ``task`` (negative: it falls)."""
        t = self.tasks[task]
        if not isfinite(t.seconds):
            return -inf
        window = min(WINDOW, t.rounds - 1)
        backward = (t.seconds - t.best[-1 - window]) / window if window and isfinite(t.best[-1 - window]) else 0.0
        forecast = -t.seconds / t.rounds
        if (rate := self._best_rate(task)) > 0:
            forecast = min(forecast, BETA * t.flops / rate - t.seconds)
        return t.weight * (ALPHA * backward + (1 - ALPHA) * forecast)

    def _best_rate(self, task: int) -> float:
        """Operations per second that the best task of this one's kind reaches."""
        kind = self.tasks[task].kind
        return max((t.flops / t.seconds for t in self.tasks if t.kind == kind and 0 < t.seconds < inf), default=0.0)

    def _open(self, t: TaskState) -> bool:
        if t.exhausted or t.stagnant(self.patience) or t.seconds <= t.goal:
            return False
        return not t.weight * t.seconds < NEGLIGIBLE * self.latency < inf


class Turns(Scheduler):
    """Every task gets the same number of rounds, whatever they bring: what the gradient is compared with."""

    def next(self) -> int | None:
        """The task with the fewest rounds among those with points left."""
        left = [i for i, t in enumerate(self.tasks) if not t.exhausted]
        if not left or self.latency <= self.goal:
            return None
        return min(left, key=lambda i: self.tasks[i].rounds)


#: How rounds are divided among kernels, by name.
SCHEDULERS: Mapping[str, type[Scheduler]] = {"gradient": Scheduler, "turns": Turns}
