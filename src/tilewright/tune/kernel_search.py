"""The distinct kernels of networks: where each is called, its search, and what that takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from statistics import median

from tilewright.graph.compiler import Prepared
from tilewright.graph.kernels import arithmetic_operations
from tilewright.ir.stmt import Kernel
from tilewright.runtime.records import Task
from tilewright.tune.decision import Standing, comparison_seconds
from tilewright.tune.ledger import Entry, Ledger
from tilewright.tune.search import Search
from tilewright.util.errors import ScheduleError, SpaceError, TuneError


@dataclass(slots=True)
class KernelSearch:
    """A distinct kernel and its ``places``: for each network, by number, the steps that call it.

    After its first turn (``visited``) it has a ``search``, unless it is ``refused``: it has no schedule space, or none that the author
    can search. Refused later, its search ended early.
    ``first`` and ``spent``: seconds that its first turn took, and all others together.
    """

    kernel: Kernel
    constants: tuple[str, ...]
    operators: str
    task: Task
    places: dict[int, list[int]] = field(default_factory=dict)
    visited: bool = False
    refused: ScheduleError | SpaceError | TuneError | None = None
    search: Search | None = None
    ledger: Ledger | None = None
    standing: Standing | None = None
    first: float = 0.0
    spent: float = 0.0
    tried: int = 0

    @property
    def weight(self) -> int:
        """Calls per run of all networks."""
        return sum(map(len, self.places.values()))

    def calls(self, network: int) -> int:
        """Calls per run of one of them."""
        return len(self.places.get(network, ()))

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
        """Seconds per run of all networks that the trials promise; infinite where the default does not work."""
        s = self.search
        return self.weight * (s.start.seconds - s.bar) if s is not None and s.trials and s.start and isfinite(s.bar) else 0.0

    def revert(self, network: int, default: Sequence[float], tuned: Sequence[float]) -> None:
        """Record that the default is better where a network runs it: seconds of all of its calls in each round."""
        if self.search is None or self.search.start is None or self.ledger is None:
            return
        start, each = self.search.start, [tuple(s / self.calls(network) for s in samples) for samples in (default, tuned)]
        entry = Entry(self.search.space.encode(start.array), replace(start.outcome, samples=each[0]), start.estimate)
        self.ledger.keep_default(entry, each[1])
        self.standing = Standing(start, median(each[0]), median(each[0]), 1.0, True)

    def comparison_seconds(self) -> float:
        """What comparing its best candidates takes."""
        if self.search is None:
            return 0.0
        contenders = [self.search.bar] * (self.search.finalists + 1)
        return self.first + comparison_seconds(contenders) + len(contenders) * self.trial_seconds


def kernel_searches(networks: Sequence[Prepared]) -> list[KernelSearch]:
    """The distinct kernels of ``networks``, those with most arithmetic per run of all of them first; one that several share, once."""
    found: dict[str, KernelSearch] = {}
    for number, prepared in enumerate(networks):
        for place, step in enumerate(prepared.steps):
            t = prepared.task(step)
            task = Task.of(t.kernel, prepared.machine, prepared.threads, t.constants, t.unaligned)
            known = found.setdefault(task.key, KernelSearch(t.kernel, tuple(sorted(t.constants)), "+".join(step.operators), task))
            known.places.setdefault(number, []).append(place)
    return sorted(found.values(), key=lambda k: -k.weight * arithmetic_operations(k.kernel))
