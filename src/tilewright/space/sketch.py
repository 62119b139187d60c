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

#: Values of structural knobs, in their order.
Variant = tuple[int, ...]


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
    ``structural`` are knobs that decide of what form the program is: :attr:`program` is that of their first values, ``others`` makes it
    for different ones (in the order of these knobs). They are few, of few values: each has formulas of its own.
    ``held`` are the bytes of each memory that the program fills itself which it holds at once, as expressions over the knobs.
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
    structural: tuple[Knob, ...] = ()
    others: Callable[[Variant], Kernel] | None = None
    held: tuple[tuple[str, Expr], ...] = ()

    @cached_property
    def program(self) -> Kernel:
        """The scheduled kernel with knobs in its loop extents (they are its ``sizes``): what cost models walk.

        Remainders of tiles are rounded up in it, so that it has one copy of each loop.
        """
        return self.source if isinstance(self.source, Kernel) else self.source()

    @property
    def first(self) -> Variant:
        """First values of the structural knobs."""
        return tuple(k.values[0] for k in self.structural)

    @cached_property
    def _variants(self) -> dict[Variant, Kernel]:
        return {}

    def program_of(self, variant: Variant) -> Kernel:
        """The program for these values of the structural knobs."""
        if variant == self.first or self.others is None:
            return self.program
        if variant not in self._variants:
            self._variants[variant] = self.others(variant)
        return self._variants[variant]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(k.name for k in self.knobs)})"
