"""What tuning a network gives, and what it says on the way."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.graph.network import Network
from tilewright.runtime.records import Task
from tilewright.tune.verdict import Verdict


@dataclass(frozen=True, slots=True)
class TunedTask:
    """A distinct kernel of the network: ``weight`` calls per run, seconds of one call without and with tuning, trials spent.

    ``gain`` is the median of their ratio over the rounds of the final comparison if ``confirmed``. Otherwise there was none: nothing was
    faster than without tuning, or the session was interrupted. ``stopped`` says what its space refused in the middle of the search, which
    ended that of this kernel early; it is empty otherwise.
    """

    task: Task
    operators: str
    weight: int
    baseline: float
    seconds: float
    trials: int
    gain: float
    confirmed: bool
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class SkippedTask:
    """A distinct kernel that has no schedule space, or none that the author can search, and why: it runs as it does without tuning."""

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
