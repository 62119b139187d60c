"""Recipes that harm whoever runs them. In a module, because recipes are sent by name."""

from __future__ import annotations

import os
import signal
import time

from tilewright.hw.machine import Machine
from tilewright.ir.stmt import Kernel
from tilewright.schedule import Schedule


def kill_the_worker(kernel: Kernel, machine: Machine) -> Schedule:
    """Recipes run in a builder, whose parent is the worker that talks to the scheduler."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
    return Schedule(kernel, machine)
