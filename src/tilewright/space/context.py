"""What a rule sees: the kernel brought into the form that rules expect, the machine, and names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tilewright.cost.core import VectorCore, vector_core
from tilewright.hw import Machine
from tilewright.ir import stmt as st
from tilewright.ir.stmt import Kernel
from tilewright.schedule.schedule import Schedule
from tilewright.space.prepare import prepared
from tilewright.space.stages import Stage, stages


@dataclass(frozen=True, slots=True)
class Context:
    """The input of a rule.

    ``kernel`` is the program as the user wrote it; ``base`` the schedule that every sketch starts from
    (loops of one iteration gone, element-wise producers inlined, divided loops split, layouts spread);
    ``stages`` its nests. ``refused`` says what of that could not be done. ``constants`` are arguments known before
    the kernel runs. ``dividing`` are loops that only divide work among threads: no part of a register tile.
    """

    kernel: Kernel
    machine: Machine
    threads: int
    constants: frozenset[str]
    base: Schedule
    stages: tuple[Stage, ...] = ()
    refused: tuple[str, ...] = ()
    dividing: frozenset[str] = frozenset()

    def core(self, stage: Stage) -> VectorCore:
        """One core of the machine for the element type that ``stage`` computes."""
        return vector_core(self.machine, stage.output.dtype)

    def names(self) -> set[str]:
        """Names of loops, buffers and sizes in use: new ones must differ."""
        return st.names(self.base.kernel)

    @staticmethod
    def of(kernel: Kernel, machine: Machine, threads: int, constants: Iterable[str]) -> Context:
        """The context of ``kernel``; IRTypeError when sizes are not bound."""
        done = prepared(kernel, machine)
        return Context(kernel, machine, threads, frozenset(constants), done.sch, tuple(stages(done.sch.kernel)), tuple(done.refused))
