"""How a point travels to the worker that schedules and builds it.

Spaces hold closures and do not travel. A worker makes the same space once for each task and keeps it;
proving a schedule's steps takes as long as compiling it, so that is done there and in parallel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from tilewright.hw.machine import Machine
from tilewright.ir.stmt import Kernel
from tilewright.runtime.jobs import Recipe
from tilewright.schedule.schedule import Schedule
from tilewright.space.rule import Rule
from tilewright.space.space import Space


class Scheduler(Protocol):
    """What turns points into schedules: a Space, or anything picklable that does."""

    def schedule(self, point: Any) -> Schedule:
        """The schedule of a point, through primitives."""


@dataclass(frozen=True, slots=True)
class SpacePoint:
    """A point of the space of whatever kernel it is called with."""

    point: tuple[int, ...]
    threads: int
    constants: tuple[str, ...]
    rules: tuple[Rule, ...] | None

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule:
        return _space(kernel, machine, self.threads, self.constants, self.rules).schedule(np.array(self.point, np.int64))


@dataclass(frozen=True, slots=True)
class OwnPoint:
    """A point of a space that travels with it."""

    space: Scheduler
    point: tuple[int, ...]

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule:
        return self.space.schedule(np.array(self.point, np.int64))


def recipe(space: Scheduler, point: np.ndarray) -> Recipe:
    """The recipe of ``point``."""
    values = tuple(int(v) for v in point)
    return SpacePoint(values, space.threads, space.constants, space.rules) if isinstance(space, Space) else OwnPoint(space, values)


@lru_cache(maxsize=4)
def _space(kernel: Kernel, machine: Machine, threads: int, constants: tuple[str, ...], rules: tuple[Rule, ...] | None) -> Space:
    return Space(kernel, machine, threads, constants, rules)
