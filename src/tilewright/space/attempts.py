"""Rules tried on a schedule: what one of them cannot do is listed with the reason, and the next one is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tilewright.schedule.schedule import Schedule
from tilewright.util.errors import ScheduleError


@dataclass(slots=True)
class Attempts:
    """A schedule on which rules are tried, each as a whole; ``refused`` says which were not possible, and why."""

    sch: Schedule
    refused: list[str] = field(default_factory=list)

    def attempt(self, what: str, rule: Callable[[], object]) -> bool:
        """Apply ``rule``, or, when one of its primitives refuses, nothing of it."""
        kernel, trace = self.sch.kernel, self.sch.trace
        try:
            rule()
        except ScheduleError as error:
            self.sch.kernel, self.sch.trace = kernel, trace
            self.refused.append(f"{what}: {error.message}")
            return False
        return True
