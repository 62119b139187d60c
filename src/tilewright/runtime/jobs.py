"""What is asked of those who build and measure candidates, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, Protocol

from tilewright.hw.machine import Machine
from tilewright.ir.stmt import Kernel
from tilewright.schedule.schedule import Schedule
from tilewright.schedule.trace import Trace

#: How a trial can end. ``build_error``: no code for it; ``timeout``, ``crash``, ``memory``: it did not finish;
#: ``wrong``: it finished with other results than the reference.
Status = Literal["ok", "build_error", "timeout", "crash", "wrong", "memory"]
STATUSES: tuple[Status, ...] = ("ok", "build_error", "timeout", "crash", "wrong", "memory")


class Recipe(Protocol):
    """How to schedule a kernel: called in the worker, so it has to be picklable."""

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one trial may use: ``build`` and ``run`` seconds of wall clock, ``memory`` bytes beyond the idle worker's own."""

    build: float = 60.0
    run: float = 20.0
    memory: int = 4 << 30


@dataclass(frozen=True, slots=True)
class Job:
    """One candidate: ``kernel`` as it was written (the reference semantics), and its schedule.

    ``trace`` is replayed, or called if it is a recipe. ``machine`` may be a name that
    :func:`tilewright.hw.load_machine` knows. ``seed`` decides the data it is verified and measured on.
    A candidate several times slower than ``bar`` (seconds) is not measured precisely. Arrays of the arguments in ``unaligned``
    begin :data:`tilewright.runtime.memory.NUMPY_OFFSET` bytes past a cache line, as NumPy's usually do; those of the others at one,
    as inside a network.
    """

    kernel: Kernel
    trace: Trace | Recipe
    machine: Machine | str = "host"
    threads: int = 1
    seed: int = 0
    bar: float = inf
    unaligned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended: seconds per call (one sample each), and the steps that were applied.

    ``samples`` is empty unless ``status`` is "ok", ``message`` says what went wrong. ``build_seconds``
    is for scheduling and compiling, ``run_seconds`` for loading, verifying and measuring. ``host`` is the
    computer it ran on ("": this one).
    """

    status: Status
    samples: tuple[float, ...] = ()
    message: str = ""
    trace: Trace | None = None
    build_seconds: float = 0.0
    run_seconds: float = 0.0
    host: str = ""

    @property
    def ok(self) -> bool:
        """Whether it ran, and right."""
        return self.status == "ok"

    @property
    def seconds(self) -> float:
        """The fastest sample: other programs on the machine only ever add time. Infinite for a failed trial."""
        return min(self.samples, default=inf)


#: Told the index of a job and its outcome as soon as it is known.
Done = Callable[[int, Outcome], None]


class Executor(Protocol):
    """Whoever builds, verifies and measures candidates: worker processes here, or on other machines."""

    @property
    def width(self) -> int:
        """How many jobs it works on at once."""

    def run(self, jobs: Sequence[Job], done: Done | None = None) -> list[Outcome]:
        """Outcomes in the order of ``jobs``. Nothing a candidate does raises here."""

    def compare(self, jobs: Sequence[Job], rounds: int = 15) -> list[Outcome]:
        """Verify ``jobs`` (of one kernel, on arrays that lie alike) on fresh data and time them in turns: samples n are of one round."""

    def close(self) -> None:
        """End the workers."""
