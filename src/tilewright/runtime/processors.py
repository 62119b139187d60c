"""Which processors measurements run on: quiet ones, and each thread its own."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tilewright.runtime.pool import available_cpus

#: Seconds that processors are watched for what others do on them (a few ticks of the system's clock).
WATCH = 0.04


def quiet_cpus(count: int) -> tuple[int, ...]:
    """The ``count`` processors of those this process may use on which least goes on now.

    Several programs that measure would all take the first ones otherwise, and halve each other's speed beside idle processors.
    """
    cpus = available_cpus()
    if count >= len(cpus):
        return cpus
    before = _idle_ticks()
    time.sleep(WATCH)
    return quietest(before, _idle_ticks(), cpus, count)


def quietest(before: Mapping[int, int], after: Mapping[int, int], cpus: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The ``count`` of ``cpus`` that were idle most between two readings of their idle time; the first ones among equals."""
    idle = {c: after.get(c, 0) - before.get(c, 0) for c in cpus}
    return tuple(sorted(sorted(cpus, key=lambda c: (-idle[c], c))[:count]))


def _idle_ticks() -> dict[int, int]:
    """Ticks that each processor was idle since the system started; empty where that is not known."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return {}
    rows = [line.split() for line in lines if line.startswith("cpu") and line[3:4].isdigit()]
    return {int(name[3:]): int(idle) + int(waiting) for name, _, _, _, idle, waiting, *_ in rows}


def preemptions() -> int:
    """How often a thread of this process had to leave its processor to another program so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def spread_threads(cpus: tuple[int, ...]) -> None:
    """Give each thread of this process a processor of its own among ``cpus``, the oldest the first.

    A young process has its threads where they were started, all on one processor, and the system takes longer
    to move them than a trial lasts: a candidate on two threads would look as slow as on one.
    """
    for number, thread in enumerate(sorted(_threads())):
        _confine(thread, {cpus[number % len(cpus)]})


@contextmanager
def confined(cpus: tuple[int, ...]) -> Iterator[None]:
    """Keep every thread of this process on ``cpus`` inside the block, and give each back its own set after it.

    Linux keeps affinity per thread: the caller's alone would leave the threads of a pool where they
    are, and threads started in the block inherit it, so they are widened again to what the caller had.
    """
    own = os.sched_getaffinity(0)
    before = {thread: affinity for thread in _threads() if (affinity := _affinity(thread)) is not None}
    try:
        for thread in before:
            _confine(thread, set(cpus))
        yield
    finally:
        for thread in _threads():
            _confine(thread, before.get(thread, own))


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Keep the calling thread, and no other, on processor ``cpu`` inside the block."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def _threads() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/task")]


def _affinity(thread: int) -> set[int] | None:
    """The processors of a thread; None when it has just ended."""
    try:
        return os.sched_getaffinity(thread)
    except ProcessLookupError:
        return None


def _confine(thread: int, cpus: set[int]) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.sched_setaffinity(thread, cpus)
