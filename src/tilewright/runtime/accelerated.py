"""Kernels on an accelerator that a host drives by instruction words, simulated: called like a compiled module."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tilewright.codegen.commands import Program
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.generated import timed
from tilewright.sim.gemmini.offload import Offload
from tilewright.space.separate import contractions, separated
from tilewright.space.single_rows import single_rows


class Accelerated:
    """``kernel`` as command programs for ``machine``, one for each contraction, and work of its host in between.

    ``kernels`` run in order (a vector in a product is a matrix of one row there); ``programs`` has the command program of each, None
    where the host does it alone, and ``refused`` why: with a warning if that is a contraction. ``temporaries`` pass results from one
    to the next. MachineError when no simulator knows ``machine``.
    """

    def __init__(self, kernel: Kernel, machine: Machine):
        Configuration.of(machine)
        self.kernel, self.machine = kernel, machine
        self._offload = Offload(machine)
        alone: set[str] = set()
        while True:
            found = separated(kernel, alone)
            self.kernels = tuple(map(single_rows, found.kernels))
            self.programs: tuple[Program | None, ...] = tuple(map(self._offload.prepare, self.kernels))
            # What follows a contraction is left to the host where no move does it on the way out.
            hosted = {name for k, p in zip(self.kernels, self.programs, strict=True) if p is None for name in contractions(k)}
            if hosted <= alone:
                break
            alone |= hosted
        self.temporaries = found.temporaries
        for k in self.kernels:
            if contractions(k) and k.name in self.refused:
                warnings.warn(f"the host of {machine.name} does {k.name} alone: {self.refused[k.name]}", stacklevel=4)

    @property
    def refused(self) -> dict[str, str]:
        """Why the host does a kernel alone, by the kernel's name."""
        return {kernel.name: why for (kernel, _), why in self._offload.refused.items() if kernel in self.kernels}

    @property
    def seconds(self) -> float:
        """What the programs take on the cycle model; what the host computes takes no time there."""
        return sum(timed(p, self.machine).cycles for p in self.programs if p is not None) / self.machine.clock_hz

    def __call__(self, *arrays: Any) -> None:
        """Run it on the functional model. ``arrays`` in the kernel's order; written ones are updated in place."""
        named = {b.name: np.asarray(a) for b, a in zip(self.kernel.args, arrays, strict=True)}
        named |= {b.name: np.empty(b.static_shape, b.dtype.to_numpy()) for b in self.temporaries}
        for k in self.kernels:
            self._offload(k, [named[b.name].reshape(b.static_shape) for b in k.args])
