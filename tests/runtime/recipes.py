"""Recipes that do things to whoever runs them. In a module, because recipes are sent by name."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from tilewright.hw.machine import Machine
from tilewright.ir.stmt import Kernel
from tilewright.schedule import Schedule


def kill_the_worker(kernel: Kernel, machine: Machine) -> Schedule:
    """Recipes run in a builder, whose parent is the worker that talks to the scheduler."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
    return Schedule(kernel, machine)


@dataclass(frozen=True)
class Busy:
    """Takes a tenth of a second, and writes its name, start and end into the file ``log``."""

    log: str
    name: str

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule:
        start = time.time()
        time.sleep(0.1)
        with open(self.log, "a") as file:
            file.write(f"{self.name} {start} {time.time()}\n")
        return Schedule(kernel, machine)
