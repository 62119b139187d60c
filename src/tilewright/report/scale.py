"""From values to places along an axis, and the values worth a tick."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class Scale(Protocol):
    """An axis: places run from 0 to 1."""

    def place(self, value: float) -> float:
        """Where ``value`` is; outside 0 to 1 when the axis does not hold it."""

    def ticks(self) -> list[float]:
        """Round values from one end to the other."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Equal distances for equal differences."""

    low: float
    high: float

    def place(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        most = (self.high - self.low) / 3
        size = 10.0 ** math.floor(math.log10(most))
        step = next(m * size for m in (5, 2, 1) if m * size <= most * (1 + 1e-10))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [n * step for n in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Log:
    """Equal distances for equal ratios; both ends are positive."""

    low: float
    high: float

    def place(self, value: float) -> float:
        return math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """Powers of ten, with 2 and 5 in between when there are few."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
            found = [s * 10.0**n for n in range(first, last + 1) for s in steps]
            found = [f for f in found if self.low * 0.999 <= f <= self.high * 1.001]
            if len(found) >= 3:
                break
        return found[:: math.ceil(len(found) / 8)] if found else [self.low]


def log_scale(values: Iterable[float], margin: float = 1.15) -> Log:
    """A logarithmic axis that holds ``values`` (positive, at least one) with some room on both sides."""
    found = list(values)
    return Log(min(found) / margin, max(found) * margin)
