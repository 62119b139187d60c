"""Sketches: one structural way to schedule a kernel, with integer knobs left open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tilewright.ir.expr import Expr
from tilewright.ir.stmt import Kernel
from tilewright.schedule.schedule import Schedule
from tilewright.space.knob import Knob


@dataclass(frozen=True, slots=True)
class Sketch:
    """A family of schedules that differ only in numbers.

    ``constraints`` are bool expressions over the knobs; a point is valid when all hold. ``program``
    is the scheduled kernel with knobs in its loop extents (they are its ``sizes``): what cost models
    walk. Remainders of tiles are rounded up in it, so that it has one copy of each loop. ``steps``
    applies the schedule for given knob values through primitives.
    """

    name: str
    knobs: tuple[Knob, ...]
    constraints: tuple[Expr, ...]
    program: Kernel
    steps: Callable[[Mapping[str, int]], Schedule]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(k.name for k in self.knobs)})"
