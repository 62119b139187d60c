"""Recipes that do what candidates must never do. Workers import this module to run them."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tilewright import lang
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.schedule.schedule import Schedule

PROGRAM = """
@kernel
def scale(x: f32[64, 64], y: f32[64, 64]):
    for i in range(64):
        for j in range(64):
            y[i, j] = x[i, j] * 2.0
"""
#: The same signature, another body.
BODIES = {
    "wrong": """
    for i in range(64):
        for j in range(64):
            y[i, j] = x[i, j] * 2.001
""",
    "incomplete": """
    for i in range(63):
        for j in range(64):
            y[i, j] = x[i, j] * 2.0
""",
    "hangs": """
    for i in range(1099511627776):
        for j in range(64):
            y[i % 64, j] = x[i % 64, j] * y[(i + 1) % 64, j]
""",
    "segfault": """
    for i in range(64):
        for j in range(64):
            y[i * i * 1000000000, j] = x[i, j]
""",
    "hoard": """
    t = alloc(f32[1048576, 4096])
    for i in range(64):
        for j in range(64):
            t[i * 16384, j] = x[i, j]
    for i_1 in range(64):
        for j_1 in range(64):
            y[i_1, j_1] = t[i_1 * 16384, j_1] * 2.0
""",
}


def program() -> Kernel:
    return lang.parse(PROGRAM)


def long_program() -> Kernel:
    """A few milliseconds of arithmetic that two threads can share."""
    return lang.parse("""
@kernel
def work(x: f32[64, 4096], y: f32[64, 4096]):
    for i in range(64):
        for j in range(4096):
            y[i, j] = exp(exp(exp(exp(x[i, j] - 2.0) - 2.0) - 2.0) - 2.0)
""")


class OuterParallel:
    """The outer loop on all threads."""

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule:
        sch = Schedule(kernel, machine)
        sch.parallel("i")
        return sch


@dataclass(frozen=True)
class Plain:
    """No step at all, or one."""

    lanes: int = 0

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule:
        sch = Schedule(kernel, machine)
        if self.lanes:
            sch.vectorize(sch.split("j", self.lanes)[1])
        return sch


@dataclass(frozen=True)
class Body:
    """A "schedule" whose kernel is another program: what a primitive with a bug would make."""

    name: str

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule:
        head = PROGRAM[: PROGRAM.index("    for")]
        return Schedule(lang.parse(head + BODIES[self.name].lstrip("\n")), machine)


@dataclass(frozen=True)
class Kill:
    """Ends the builder by a signal; with a ``once`` file only the first one."""

    number: int = signal.SIGKILL
    once: str = ""

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule:
        if not self.once or not Path(self.once).exists():
            if self.once:
                Path(self.once).touch()
            os.kill(os.getpid(), self.number)
            time.sleep(10)
        return Schedule(kernel, machine)


class Sleep:
    """A build that never ends."""

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule:
        while True:
            time.sleep(0.01)


class Greedy:
    """A build that wants more memory than it may have, at once: how fast pages come does not decide between limits."""

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule:
        hoard = bytearray(1 << 38)
        return Schedule(kernel, machine) if hoard else Schedule(kernel)


class Raises:
    """A build that meets a bug."""

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule:
        raise KeyError("no such loop")


@dataclass(frozen=True)
class SlowToBuild:
    """Writes a line to ``log`` each time it is asked, and takes longer than allowed."""

    log: Path

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule:
        with self.log.open("a") as file:
            file.write("asked\n")
        time.sleep(60)
        return Schedule(kernel, machine)
