"""Which kernel of a network to tune next: rounds go where the network's latency falls fastest.

Thesis section 3.4.2 (equation 3.2) with the gradient of section 6.5 (equations 6.7, 6.8): the objective is
``f = sum over networks j of max(sum of w_ij * g_i, L_j)``, with g_i the best time of task i after t_i rounds, w_ij how often
network j runs it, L_j its latency goal. The slope along t_i mixes what the last rounds brought with an optimistic forecast.
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
    """A kernel to tune: ``weights`` are its runs per run of each network, ``flops`` of one run; tasks of one ``kind`` reach similar rates.

    ``best`` holds the best time after each round, element 0 without tuning.
    """

    weights: Sequence[float]
    flops: float
    kind: str = ""
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

    ``goals`` are the latencies of the networks (seconds, 0: none) below which nothing counts. When no task has improved for ``patience``
    rounds, patience is doubled, up to ``longest``.
    """

    def __init__(
        self,
        tasks: Sequence[TaskState],
        *,
        goals: Sequence[float] = (0.0,),
        patience: int = PATIENCE,
        longest: int = LONGEST,
        epsilon: float = EPSILON,
        seed: int = 0,
    ):
        self.tasks = list(tasks)
        self.goals = tuple(goals)
        self.patience = patience
        self.longest = max(longest, patience)
        self.epsilon = epsilon
        self._rng = np.random.default_rng(seed)

    @property
    def latency(self) -> float:
        """Seconds of one run of each network with the best found so far; infinite while one kernel was never measured."""
        return sum(self._latency(n) for n in range(len(self.goals)))

    def next(self) -> int | None:
        """The task to tune for a round; None when nothing is left worth it.

        First every task gets one round after its first measurement, in turns; then the steepest one.
        """
        if not (unmet := self._unmet()):
            return None
        while not (open_tasks := [i for i, t in enumerate(self.tasks) if self._open(t, unmet)]):
            if self.patience >= self.longest or all(t.exhausted for t in self.tasks):
                return None
            self.patience = min(2 * self.patience, self.longest)
        fresh = [i for i in open_tasks if self.tasks[i].rounds < 2]
        if fresh:
            return min(fresh, key=lambda i: self.tasks[i].rounds)
        if self._rng.random() < self.epsilon:
            return int(self._rng.choice(open_tasks))
        return max(open_tasks, key=lambda i: abs(self._slope(i, unmet)))

    def observe(self, task: int, seconds: float, *, exhausted: bool = False) -> None:
        """A round of ``task`` is over: its best time now, and whether nothing is left to try."""
        t = self.tasks[task]
        t.best.append(min(seconds, t.seconds))
        t.exhausted |= exhausted

    @property
    def reason(self) -> str:
        """Why :meth:`next` gave None: "goal", "exhausted" (no points are left), or "converged"."""
        if not self._unmet():
            return "goal"
        return "exhausted" if all(t.exhausted for t in self.tasks) else "converged"

    def slope(self, task: int) -> float:
        """What a round of ``task`` changes the objective by: seconds (negative: it falls)."""
        return self._slope(task, self._unmet())

    def _slope(self, task: int, unmet: Mapping[int, float]) -> float:
        t = self.tasks[task]
        weight = sum(t.weights[n] for n in unmet)
        if not isfinite(t.seconds):
            return -inf
        window = min(WINDOW, t.rounds - 1)
        backward = (t.seconds - t.best[-1 - window]) / window if window and isfinite(t.best[-1 - window]) else 0.0
        forecast = -t.seconds / t.rounds
        if (rate := self._best_rate(task)) > 0:
            forecast = min(forecast, BETA * t.flops / rate - t.seconds)
        return weight * (ALPHA * backward + (1 - ALPHA) * forecast)

    def _best_rate(self, task: int) -> float:
        """Operations per second that the best task of this one's kind reaches."""
        kind = self.tasks[task].kind
        return max((t.flops / t.seconds for t in self.tasks if t.kind == kind and 0 < t.seconds < inf), default=0.0)

    def _latency(self, network: int) -> float:
        return sum(t.weights[network] * t.seconds for t in self.tasks if t.weights[network])

    def _unmet(self) -> dict[int, float]:
        """The networks that have not reached their goals, with their latencies."""
        return {n: latency for n, goal in enumerate(self.goals) if (latency := self._latency(n)) > goal}

    def _open(self, t: TaskState, unmet: Mapping[int, float]) -> bool:
        """Whether a round of it could bring anything to a network that has not reached its goal."""
        if t.exhausted or t.stagnant(self.patience):
            return False
        return any(t.weights[n] and not t.weights[n] * t.seconds < NEGLIGIBLE * latency < inf for n, latency in unmet.items())


class Turns(Scheduler):
    """Every task gets the same number of rounds, whatever they bring: what the gradient is compared with."""

    def next(self) -> int | None:
        """The task with the fewest rounds among those with points left that a network needs to reach its goal."""
        unmet = self._unmet()
        left = [i for i, t in enumerate(self.tasks) if not t.exhausted and any(t.weights[n] for n in unmet)]
        return min(left, key=lambda i: self.tasks[i].rounds, default=None)


#: How rounds are divided among kernels, by name.
SCHEDULERS: Mapping[str, type[Scheduler]] = {"gradient": Scheduler, "turns": Turns}
