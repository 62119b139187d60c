"""Which processors measurements run on: quiet ones, and each thread its own."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tilewright.runtime.pool import available_cpus, threads_moved

#: Seconds that processors are watched for what others do on them (a few ticks of the system's clock).
WATCH = 0.04
#: A thread takes part in a call if it works this part of what the busiest thread does.
WORKING = 0.25
#: Calls that are watched to tell who works: what a thread does in all of them is work, and not a collection of garbage or a timer.
CALLS = 2
#: Low bits of a Linux clock number that stand for the processor time of one thread.
_THREAD_CLOCK = 6


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
    A thread that already stays within ``cpus`` keeps its narrower set: workers of a pool keep clear of their caller.
    """
    own = os.sched_getaffinity(0)
    before = {thread: affinity for thread in _threads() if (affinity := _affinity(thread)) is not None}
    try:
        for thread, affinity in before.items():
            if not affinity <= set(cpus):
                _confine(thread, set(cpus))
        threads_moved()
        yield
    finally:
        for thread in _threads():
            _confine(thread, before.get(thread, own))
        threads_moved()


@contextmanager
def placed(contenders: Iterable[Callable[[], object]], cpus: tuple[int, ...], rest: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Inside the block the threads that a contender runs on have processors of their own among ``cpus``.

    The system wakes a thread that slept next to its waker and takes milliseconds to part them: whoever was left alone
    for a while would look as slow on two threads as on one. Each contender is called after a ``rest`` of all threads, which are
    clear of the caller; those that work then are its own, the caller's among them or not.
    """
    caller = threading.get_native_id()
    before = {thread: affinity for thread in _threads() if (affinity := _affinity(thread)) is not None}
    try:
        for thread, affinity in before.items() if len(cpus) > 1 else ():
            _confine(thread, {cpus[0]} if thread == caller else affinity & set(cpus[1:]) or affinity)
        threads_moved()
        for contender in contenders if len(cpus) > 1 else ():
            calls = [_work_of(contender, rest) for _ in range(CALLS)]
            worked = {thread: min(call.get(thread, 0.0) for call in calls) for thread in calls[-1]}
            busy = [thread for thread in sorted(worked) if worked[thread] > WORKING * max(worked.values())]
            workers = [thread for thread in busy if thread != caller]
            # As many workers as processors: the caller only prepares their work, even where that takes a while.
            free = cpus[1:] if caller in busy and len(workers) < len(cpus) else cpus
            for number, thread in enumerate(workers):
                _confine(thread, {free[number % len(free)]})
        yield
    finally:
        for thread, affinity in before.items():
            _confine(thread, affinity)
        threads_moved()


def _work_of(contender: Callable[[], object], rest: Callable[[], None]) -> dict[int, float]:
    """Processor seconds of each thread of this process during one call of ``contender``, after a ``rest`` of all."""
    rest()
    at_first = {thread: _worked(thread) for thread in _threads()}
    contender()
    return {thread: _worked(thread) - at_first.get(thread, 0.0) for thread in _threads()}


def _worked(thread: int) -> float:
    """Processor seconds of a thread of this process so far; 0 when it has ended."""
    with suppress(OSError):
        return time.clock_gettime(~thread << 3 | _THREAD_CLOCK)
    return 0.0


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
