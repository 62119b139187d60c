"""The thread pool that runs `parallel` loops (native part: pool.ll)."""

from __future__ import annotations

import atexit
import ctypes
import os
import weakref
from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import Any

from tilewright.runtime.native import native_library
from tilewright.util.errors import RuntimeFailure

#: `void body(ptr ctx, i64 begin, i64 end, i64 thread)`, the form of an outlined loop body.
BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
MAX_THREADS = 1024
SPIN_TURNS = 4000
#: With more threads than processors a spinning thread keeps the one it waits for from running.
SPIN_TURNS_CROWDED = 50


class _Native:
    """The loaded pool code and its entry points."""

    def __init__(self) -> None:
        self.library = native_library("pool.ll", ("tw_pool_create", "tw_pool_destroy", "tw_pool_reset", "tw_pool_moved", "tw_parallel_for"))
        pointer, void = ctypes.c_void_p, None
        self.create = self.library.function("tw_pool_create", pointer, ctypes.c_int32, ctypes.c_int32, pointer, pointer)
        self.destroy = self.library.function("tw_pool_destroy", void, pointer)
        self.reset = self.library.function("tw_pool_reset", void, pointer)
        self.moved = self.library.function("tw_pool_moved", void, pointer)
        self.parallel_for = self.library.function("tw_parallel_for", void, pointer, pointer, pointer, ctypes.c_int64)
        self.parallel_for_address = self.library.address("tw_parallel_for")


@cache
def native() -> _Native:
    """The pool's code, compiled or taken from the build cache on first use."""
    return _Native()


def parallel_for_address() -> int:
    """Address of ``tw_parallel_for``, which compiled kernels import."""
    return native().parallel_for_address


def available_cpus() -> tuple[int, ...]:
    """Processors this process may run on."""
    return tuple(sorted(os.sched_getaffinity(0)))


def _cpu_set(cpus: tuple[int, ...]) -> ctypes.Array[ctypes.c_uint64]:
    """A cpu_set_t of 1024 processors."""
    words = (ctypes.c_uint64 * 16)()
    for cpu in cpus:
        if cpu < 1024:
            words[cpu // 64] |= 1 << cpu % 64
    return words


class ThreadPool:
    """``threads`` threads, the calling one included, for one parallel loop at a time.

    ``pin=True`` fixes worker thread t to the t-th processor this process may use (not the
    caller's thread, which belongs to the application). Otherwise workers run on any processor but
    the one the caller is on, unless there are fewer processors than threads. Threads start with the first parallel
    loop. After ``fork`` the child has the same pool at the same address with threads of its own.
    A second loop that starts while one runs (nested, or from another Python thread) runs on its
    calling thread alone. Use as a context manager, or let :func:`default_pool` own it.
    """

    def __init__(self, threads: int, *, pin: bool = False, spin: int | None = None):
        if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
            raise RuntimeFailure(f"a pool of {threads!r} threads", hint=f"threads is an int from 1 to {MAX_THREADS}")
        cpus = available_cpus()
        if spin is None:
            spin = SPIN_TURNS if threads <= len(cpus) else SPIN_TURNS_CROWDED
        self.threads = threads
        self.pinned = pin
        # The native side keeps a pointer to this array: it must live as long as the pool.
        self._cpus = (ctypes.c_int32 * threads)(*(cpus[t % len(cpus)] for t in range(threads))) if pin else None
        # Workers keep clear of the caller's processor when there is one for each of them.
        self._allowed = _cpu_set(cpus) if not pin and 1 < threads <= len(cpus) else None
        self._native = native()
        pinned, allowed = (None if a is None else ctypes.addressof(a) for a in (self._cpus, self._allowed))
        handle = self._native.create(threads, spin, pinned, allowed)
        if not handle:
            raise RuntimeFailure(f"out of memory for a pool of {threads} threads")
        self.handle: int = handle
        _live_pools().add(self)

    def parallel_for(self, body: int | Callable[[int, int, int, int], None], count: int, context: int = 0) -> None:
        """Run ``body(context, begin, end, thread)`` over [0, count) in pieces, and wait.

        ``body`` is the address of a native function or a :data:`BODY` callback.
        """
        if not self.handle:
            raise RuntimeFailure("parallel_for on a closed thread pool")
        address = body if isinstance(body, int) else ctypes.cast(body, ctypes.c_void_p)  # type: ignore[arg-type]
        self._native.parallel_for(self.handle, address, context, count)

    def close(self) -> None:
        """Join the threads and free the pool. Idempotent; no loop may be running on it."""
        handle, self.handle = self.handle, 0
        if handle:
            self._native.destroy(handle)

    def __enter__(self) -> ThreadPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "handle", 0):
            self.close()


@cache
def _live_pools() -> weakref.WeakSet[Any]:
    """Pools to repair in a forked child and to close before the interpreter unloads code."""
    pools: weakref.WeakSet[Any] = weakref.WeakSet()

    def repair() -> None:
        for pool in pools:
            if pool.handle:
                native().reset(pool.handle)

    def close_all() -> None:
        for pool in list(pools):
            pool.close()

    os.register_at_fork(after_in_child=repair)
    atexit.register(close_all)
    return pools


def threads_moved() -> None:
    """Tell all pools that threads of this process were given other processors.

    A pool sends its workers clear of the caller when that changes its processor; what others did meanwhile it does not see.
    """
    for pool in _live_pools():
        if pool.handle:
            native().moved(pool.handle)


@cache
def default_pool(threads: int) -> ThreadPool:
    """The process's shared pool of ``threads`` threads (created once, closed at exit)."""
    return ThreadPool(threads)


def default_threads() -> int:
    """``TILEWRIGHT_THREADS`` if set, else the number of processors this process may use."""
    text = os.environ.get("TILEWRIGHT_THREADS")
    if text is None:
        return len(available_cpus())
    if not text.isdigit() or not 1 <= int(text) <= MAX_THREADS:
        raise RuntimeFailure(f"TILEWRIGHT_THREADS={text!r} is not an int from 1 to {MAX_THREADS}")
    return int(text)
