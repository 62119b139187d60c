"""Sketches: one structural way to schedule a kernel, with integer knobs left open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tilewright.ir.expr import Expr
from tilewright.ir.stmt import Kernel
from tilewright.schedule.schedule import Schedule
from tilewright.space.knob import Knob
from tilewright.space.plan import Plan


@dataclass(frozen=True)
class Sketch:
    """A family of schedules that differ only in numbers.

    ``constraints`` are bool expressions over the knobs; a point is valid when all hold. ``source`` is the
    symbolic :attr:`program`, or a function that makes it when it is first asked for. ``steps`` applies the
    schedule for given knob values through primitives; ``plan`` does the same and says what was decided.
    The default of a space is looked for among the ``likely`` points: for each reduction (in turn, the best so far elsewhere)
    arrays of values of its knobs, one entry a point (None: nowhere). No point is estimated at less than ``bound`` cycles;
    ``parts`` names the form of the kernel and what is done with each reduction, ``leads`` the loop of each that is divided
    among threads (kept apart from its part).
    ``mapping`` says which loops ride on the hardware's axes, ``extras`` what the structure adds to plain tiles
    (copies of operands, blocks of a reduction): they tell apart what :mod:`tilewright.space.narrow` leaves out.
    """

    name: str
    knobs: tuple[Knob, ...]
    constraints: tuple[Expr, ...]
    source: Kernel | Callable[[], Kernel]
    steps: Callable[[Mapping[str, int]], Schedule]
    plan: Callable[[Mapping[str, int]], Plan] | None = None
    mapping: str = ""
    extras: tuple[str, ...] = ()
    likely: Callable[[], Sequence[Mapping[str, np.ndarray]] | None] | None = None
    bound: float = 0.0
    parts: tuple[str, ...] = ()
    leads: tuple[str | None, ...] = ()

    @cached_property
    def program(self) -> Kernel:
        """The scheduled kernel with knobs in its loop extents (they are its ``sizes``): what cost models walk.

        Remainders of tiles are rounded up in it, so that it has one copy of each loop.
        """
        return self.source if isinstance(self.source, Kernel) else self.source()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(k.name for k in self.knobs)})"
