"""How a point travels to the worker that schedules and builds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tilewright.hw.machine import Machine
from tilewright.ir.stmt import Kernel
from tilewright.runtime.jobs import Recipe
from tilewright.schedule.schedule import Schedule


class Scheduler(Protocol):
    """A picklable space."""

    def schedule(self, point: np.ndarray) -> Schedule:
        """The schedule of a point, through primitives."""


@dataclass(frozen=True, slots=True)
class OwnPoint:
    """A point of a space that can be sent as it is."""

    space: Scheduler
    point: tuple[int, ...]

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule:
        return self.space.schedule(np.array(self.point, np.int64))


def recipe(space: Scheduler, point: np.ndarray) -> Recipe:
    """The recipe of ``point``."""
    return OwnPoint(space, tuple(int(v) for v in point))
