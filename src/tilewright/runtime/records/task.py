"""What is tuned: a program with its sizes, for one machine, on so many threads."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tilewright.runtime.pool import default_threads
from tilewright.util.errors import RuntimeFailure

if TYPE_CHECKING:
    from tilewright.hw.machine import Machine
    from tilewright.ir.stmt import Kernel

_NAME = re.compile(r"^(\s*def )\w+(?=\()", re.MULTILINE)
#: Numbers with a fraction or exponent and identifiers stay as they are; what the group catches is an integer.
_TOKEN = re.compile(r"\d+\.\d*(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|[A-Za-z_]\w*|(\d+)")


@dataclass(frozen=True, slots=True)
class Task:
    """A tuning task. Equal tasks have equal keys, in every process and on every host.

    ``program`` is the kernel's text, ``fingerprint`` identifies the machine's declaration by content
    (``machine`` is only its name), ``constants`` are arguments whose layout a schedule may change. ``unaligned`` are arguments
    whose arrays begin where NumPy's usually do, not at a cache line (:attr:`tilewright.runtime.jobs.Job.unaligned`): what is fast on
    the one can be slow on the other, so these are different tasks.
    The kernel's own name does not count, the names of its loops and buffers do: traces use them.
    """

    program: str
    machine: str
    fingerprint: str
    threads: int
    constants: tuple[str, ...] = ()
    unaligned: tuple[str, ...] = ()
    key: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not _NAME.search(self.program):
            raise RuntimeFailure("a task's program is the text of a kernel", hint="make tasks with Task.of(kernel, machine)")
        if self.threads < 1:
            raise RuntimeFailure(f"a task for {self.threads} threads", hint="give 1 or more")
        object.__setattr__(self, "constants", tuple(sorted(self.constants)))
        object.__setattr__(self, "unaligned", tuple(sorted(self.unaligned)))
        # Tasks with nothing unaligned keep the keys they had before there was a choice.
        placement = ("unaligned:", *self.unaligned) if self.unaligned else ()
        parts = (_anonymous(self.program), self.fingerprint, str(self.threads), *self.constants, *placement)
        object.__setattr__(self, "key", _digest(*parts))

    @staticmethod
    def of(
        kernel: Kernel,
        machine: Machine | None = None,
        threads: int | None = None,
        constants: Iterable[str] = (),
        unaligned: Iterable[str] = (),
    ) -> Task:
        """The task of tuning ``kernel`` for ``machine`` (default: this host) on ``threads`` threads (default: as `build`)."""
        from tilewright.hw.machine import Machine

        machine = machine or Machine.host()
        return Task(str(kernel), machine.name, machine_key(machine), threads or default_threads(), tuple(constants), tuple(unaligned))

    @property
    def name(self) -> str:
        """Name of the kernel."""
        match = re.search(r"^\s*def (\w+)\(", self.program, re.MULTILINE)
        return match[1] if match else ""

    @property
    def structure(self) -> str:
        """Key of the program without its integers: equal for the same operator on other shapes (or strides, paddings, placements)."""
        text = _TOKEN.sub(lambda m: "#" if m[1] else m[0], _anonymous(self.program))
        return _digest(text, self.fingerprint, str(self.threads), *self.constants)

    @property
    def integers(self) -> tuple[int, ...]:
        """What :attr:`structure` leaves out, in program order: as many for every task of one structure."""
        return tuple(int(m[1]) for m in _TOKEN.finditer(_anonymous(self.program)) if m[1])

    def distance(self, other: Task) -> float:
        """How far the shapes of two tasks of one structure are apart: the Euclidean norm of log2 of their ratios."""
        pairs = zip(self.integers, other.integers, strict=True)
        return math.sqrt(sum(math.log2((a + 1) / (b + 1)) ** 2 for a, b in pairs))

    def kernel(self) -> Kernel:
        """The program, parsed; LanguageError when it is not one (a damaged or foreign record)."""
        from tilewright.lang import parse

        return parse(self.program)

    def __str__(self) -> str:
        return f"{self.name} for {self.machine} on {self.threads} thread{'s' if self.threads > 1 else ''} ({self.key[:8]})"


def machine_key(machine: Machine) -> str:
    """What identifies a machine among the workers of a cluster and in records: its name and a digest of its declaration."""
    from tilewright.runtime.fingerprint import machine_fingerprint

    return f"{machine.name}:{_digest(machine_fingerprint(machine))[:12]}"


def _anonymous(program: str) -> str:
    return _NAME.sub(r"\1_", program, count=1)


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part.encode()).to_bytes(8, "little"))
        digest.update(part.encode())
    return digest.hexdigest()[:32]
