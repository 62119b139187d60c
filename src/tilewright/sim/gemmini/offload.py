"""Kernels of a network on the simulated Gemmini, as far as it can do them; the host does the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tilewright.codegen.commands import Command, Program, check, generate, walk
from tilewright.hw import Machine
from tilewright.ir.reference import reference
from tilewright.ir.stmt import Kernel
from tilewright.sim.gemmini.generated import execute
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

    def __call__(self, kernel: Kernel, arrays: Sequence[NDArray[Any]]) -> None:
        """Updates ``arrays``, the arguments of ``kernel``, in place."""
        program = self.prepare(kernel)
        if program is not None:
            execute(program, self.machine, {b.name: a for b, a in zip(kernel.args, arrays, strict=True)})
        else:
            reference(kernel, arrays)

    def prepare(self, kernel: Kernel) -> Program | None:
        """The program of ``kernel``, made once; None when the host does it alone."""
        if kernel not in self.programs and kernel not in self.refused:
            self._prepare(kernel)
        return self.programs.get(kernel)

    def _prepare(self, kernel: Kernel) -> None:
        try:
            program = generate(plan(kernel, self.machine).schedule.kernel, self.machine)
        except (CodegenError, ScheduleError, SpaceError) as error:
            self.refused[kernel] = error.message
            return
        if not any(isinstance(i, Command) for i in walk(program.body)):
            self.refused[kernel] = "nothing in it is work for the array"
            return
        check(program, self.machine)
        self.programs[kernel] = program
