"""Kernels of a network on the simulated Gemmini, as far as it can do them; the host does the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tilewright.codegen.commands import Command, Program, check, generate, walk
from tilewright.hw import Machine
from tilewright.ir.reference import reference
from tilewright.ir.stmt import Kernel
from tilewright.sim.gemmini.generated import execute, timed
from tilewright.space.default import plan
from tilewright.util.errors import CodegenError, ScheduleError, SpaceError


class Offload:
    """Runs kernels, as ``Network.executed`` asks for it: scheduled by default for ``machine`` and checked, on the functional model.

    ``programs`` has what was made of each kernel that the array takes part in, ``refused`` why the host does another alone.
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        self.programs: dict[Kernel, Program] = {}
        self.refused: dict[Kernel, str] = {}
        self._cycles: dict[Kernel, int] = {}

    def __call__(self, kernel: Kernel, arrays: Sequence[NDArray[Any]], constants: frozenset[str] = frozenset()) -> None:
        """Updates ``arrays``, the arguments of ``kernel``, in place; the program lays out those in ``constants`` as it likes."""
        program = self.prepare(kernel, constants)
        if program is not None:
            execute(program, self.machine, {b.name: a for b, a in zip(kernel.args, arrays, strict=True)})
        else:
            reference(kernel, arrays)

    def prepare(self, kernel: Kernel, constants: frozenset[str] = frozenset()) -> Program | None:
        """The program of ``kernel``, made once; None when the host does it alone."""
        if kernel not in self.programs and kernel not in self.refused:
            self._prepare(kernel, constants)
        return self.programs.get(kernel)

    def cycles(self, kernel: Kernel) -> int:
        """What the program of a prepared ``kernel`` takes on the cycle model; 0 when the host does it alone.

        What the host computes takes no time there.
        """
        if kernel not in self._cycles:
            program = self.programs.get(kernel)
            self._cycles[kernel] = timed(program, self.machine).cycles if program is not None else 0
        return self._cycles[kernel]

    def _prepare(self, kernel: Kernel, constants: frozenset[str]) -> None:
        try:
            program = generate(plan(kernel, self.machine, constants=constants).schedule.kernel, self.machine)
        except (CodegenError, ScheduleError, SpaceError) as error:
            self.refused[kernel] = error.message
            return
        if not any(isinstance(i, Command) for i in walk(program.body)):
            self.refused[kernel] = "nothing in it is work for the array"
            return
        check(program, self.machine)
        self.programs[kernel] = program
