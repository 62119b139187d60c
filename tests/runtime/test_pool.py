"""The thread pool: every iteration exactly once, on a thread that exists, whatever the timing."""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from tilewright.runtime import jit
from tilewright.runtime.pool import BODY, ThreadPool, available_cpus, default_threads, parallel_for_address
from tilewright.util.errors import RuntimeFailure

# counts[i] += 1 for the given range, threads[t] += end - begin; `stress` issues many loops whose
# counts come from a table, checking nothing itself: the totals are checked from Python.
STRESS = """
declare void @tw_parallel_for(ptr, ptr, ptr, i64)
%ctx = type { ptr, ptr, ptr, i64 }

define void @mark(ptr %ctx, i64 %begin, i64 %end, i64 %thread) {
  %counts = load ptr, ptr %ctx
  %threads.p = getelementptr %ctx, ptr %ctx, i64 0, i32 1
  %threads = load ptr, ptr %threads.p
  %length = sub i64 %end, %begin
  %slot = getelementptr i64, ptr %threads, i64 %thread
  %x = atomicrmw add ptr %slot, i64 %length monotonic
  br label %head
head:
  %i = phi i64 [ %begin, %0 ], [ %next, %step ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %step, label %done
step:
  %p = getelementptr i32, ptr %counts, i64 %i
  %v = load i32, ptr %p
  %w = add i32 %v, 1
  store i32 %w, ptr %p
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}

define void @stress(ptr %pool, ptr %ctx, ptr %sizes, i64 %n) {
  br label %head
head:
  %i = phi i64 [ 0, %0 ], [ %next, %step ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %step, label %done
step:
  %p = getelementptr i64, ptr %sizes, i64 %i
  %count = load i64, ptr %p
  call void @tw_parallel_for(ptr %pool, ptr @mark, ptr %ctx, i64 %count)
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}

; Each iteration of the outer loop runs an inner loop on the same pool and adds up what it marks.
define void @outer(ptr %ctx, i64 %begin, i64 %end, i64 %thread) {
  %pool.p = getelementptr %ctx, ptr %ctx, i64 0, i32 2
  %pool = load ptr, ptr %pool.p
  %inner.p = getelementptr %ctx, ptr %ctx, i64 0, i32 3
  %inner = load i64, ptr %inner.p
  br label %head
head:
  %i = phi i64 [ %begin, %0 ], [ %next, %step ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %step, label %done
step:
  call void @tw_parallel_for(ptr %pool, ptr @number, ptr %ctx, i64 %inner)
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}

define internal void @number(ptr %ctx, i64 %begin, i64 %end, i64 %thread) {
  %threads.p = getelementptr %ctx, ptr %ctx, i64 0, i32 1
  %threads = load ptr, ptr %threads.p
  %length = sub i64 %end, %begin
  %slot = getelementptr i64, ptr %threads, i64 %thread
  %x = atomicrmw add ptr %slot, i64 %length monotonic
  ret void
}
"""


class Context(ctypes.Structure):
    _fields_ = [("counts", ctypes.c_void_p), ("threads", ctypes.c_void_p), ("pool", ctypes.c_void_p), ("inner", ctypes.c_int64)]


@pytest.fixture(scope="module")
def library() -> jit.Library:
    return jit.load(jit.assemble(STRESS), ["stress", "mark", "outer"], {"tw_parallel_for": parallel_for_address()})


def run_counts(library: jit.Library, pool: ThreadPool | None, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts, per_thread = np.zeros(max(int(sizes.max()), 1), np.int32), np.zeros(64, np.int64)
    context = Context(counts.ctypes.data, per_thread.ctypes.data, None, 0)
    pointer = ctypes.c_void_p
    stress = library.function("stress", None, pointer, pointer, pointer, ctypes.c_int64)
    stress(pool.handle if pool else None, ctypes.addressof(context), sizes.ctypes.data, len(sizes))
    return counts, per_thread


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_every_iteration_runs_exactly_once(library: jit.Library, threads: int) -> None:
    """Tens of thousands of loops with random counts: warm, and after the workers fell asleep."""
    rng = np.random.default_rng(threads)
    with ThreadPool(threads, spin=rng.integers(1, 200)) as pool:
        sizes = rng.integers(-2, 60, 20000)
        counts, per_thread = run_counts(library, pool, sizes)
        expected = (sizes[:, None] > np.arange(len(counts))).sum(0)
        np.testing.assert_array_equal(counts, expected)
        assert per_thread[threads:].sum() == 0
        assert per_thread.sum() == expected.sum()


def test_loops_race_with_workers_going_to_sleep(library: jit.Library) -> None:
    with ThreadPool(2, spin=0) as pool:
        counts, _ = run_counts(library, pool, np.full(20000, 2))
        np.testing.assert_array_equal(counts, [20000, 20000])


@pytest.mark.parametrize("spin", [0, 20, None])
def test_no_wake_up_is_lost(spin: int | None) -> None:
    """Both iterations of each loop wait for one another, so a worker that sleeps on stops the test."""
    barrier, met = threading.Barrier(2), []

    def body(context: int, begin: int, end: int, thread: int) -> None:
        try:
            barrier.wait(timeout=10)
            met.append(thread)
        except threading.BrokenBarrierError:
            pass  # shows in the count: an exception cannot cross the native frame

    with ThreadPool(2, spin=spin) as pool:
        callback = BODY(body)
        for _ in range(500):
            pool.parallel_for(callback, 2)
    assert len(met) == 1000 and met.count(0) == met.count(1)


@pytest.mark.slow
def test_stress_many_threads(library: jit.Library) -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        with ThreadPool(int(rng.integers(2, 17)), spin=int(rng.integers(0, 3000))) as pool:
            sizes = rng.integers(0, 300, 30000)
            counts, _ = run_counts(library, pool, sizes)
            np.testing.assert_array_equal(counts, (sizes[:, None] > np.arange(len(counts))).sum(0))


def test_no_pool_runs_inline(library: jit.Library) -> None:
    counts, per_thread = run_counts(library, None, np.array([5, 0, -1]))
    assert counts.tolist() == [1] * 5
    assert per_thread[0] == 5


def test_work_reaches_other_threads() -> None:
    """A loop whose iterations wait for each other ends only if they run at the same time."""
    barrier, seen = threading.Barrier(2), []

    def body(_: int, begin: int, end: int, thread: int) -> None:
        barrier.wait(timeout=30)
        seen.append((begin, end, thread))

    with ThreadPool(2) as pool:
        pool.parallel_for(BODY(body), 2)
    assert sorted((b, e) for b, e, _ in seen) == [(0, 1), (1, 2)]
    assert {t for _, _, t in seen} == {0, 1}


def test_pieces_are_contiguous_and_balanced() -> None:
    pieces: list[tuple[int, int]] = []
    with ThreadPool(3) as pool:
        pool.parallel_for(BODY(lambda c, b, e, t: pieces.append((b, e))), 100)
    pieces.sort()
    assert pieces[0][0] == 0 and pieces[-1][1] == 100
    assert all(x[1] == y[0] for x, y in itertools.pairwise(pieces))
    lengths = {e - b for b, e in pieces}
    assert len(pieces) == 12 and lengths <= {8, 9}


def test_nested_loop_keeps_the_number_of_its_thread(library: jit.Library) -> None:
    per_thread = np.zeros(64, np.int64)
    with ThreadPool(3) as pool:
        context = Context(None, per_thread.ctypes.data, pool.handle, 10)
        for _ in range(500):
            pool.parallel_for(library.address("outer"), 30, ctypes.addressof(context))
    assert per_thread.sum() == 500 * 30 * 10
    assert per_thread[3:].sum() == 0


def test_second_caller_runs_alone_and_right(library: jit.Library) -> None:
    """Loops issued at the same time from several Python threads on one pool."""
    with ThreadPool(2) as pool:
        results: list[np.ndarray] = []
        callers = [threading.Thread(target=lambda: results.append(run_counts(library, pool, np.full(3000, 16))[0])) for _ in range(4)]
        for c in callers:
            c.start()
        for c in callers:
            c.join()
    assert len(results) == 4
    for counts in results:
        np.testing.assert_array_equal(counts, 3000)


def test_pinned_workers_stay_on_their_processor() -> None:
    cpus = available_cpus()
    seen: dict[int, set[int]] = {}
    barrier = threading.Barrier(2)

    def body(_: int, begin: int, end: int, thread: int) -> None:
        barrier.wait(timeout=30)
        seen[thread] = os.sched_getaffinity(0)

    with ThreadPool(2, pin=True) as pool:
        pool.parallel_for(BODY(body), 2)
    assert seen[1] == {cpus[1 % len(cpus)]}
    assert seen[0] == set(cpus)


def test_child_of_fork_has_working_threads(library: jit.Library) -> None:
    with ThreadPool(2) as pool:
        run_counts(library, pool, np.full(100, 8))
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                barrier = threading.Barrier(2)
                pool.parallel_for(BODY(lambda c, b, e, t: barrier.wait(timeout=20)), 2)
                counts, _ = run_counts(library, pool, np.full(1000, 8))
                status = 0 if (counts == 1000).all() and barrier.broken is False else 2
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        counts, _ = run_counts(library, pool, np.full(1000, 8))
        assert (counts == 1000).all()


def test_process_exits_cleanly_with_live_workers() -> None:
    code = """
        from tilewright.runtime.pool import BODY, default_pool
        pool = default_pool(4)
        pool.parallel_for(BODY(lambda c, b, e, t: None), 64)
    """
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("threads", [0, -1, 5000, 1.5, "2"])
def test_refuses_bad_thread_counts(threads: object) -> None:
    with pytest.raises(RuntimeFailure, match="threads is an int from 1"):
        ThreadPool(threads)  # type: ignore[arg-type]


def test_closed_pool_is_refused() -> None:
    pool = ThreadPool(2)
    pool.close()
    pool.close()
    with pytest.raises(RuntimeFailure, match="closed"):
        pool.parallel_for(BODY(lambda *a: None), 3)


def test_thread_count_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_THREADS", str(n := random.randint(1, 9)))
    assert default_threads() == n
    monkeypatch.setenv("TILEWRIGHT_THREADS", "many")
    with pytest.raises(RuntimeFailure, match="TILEWRIGHT_THREADS='many'"):
        default_threads()


def test_workers_keep_clear_of_the_caller() -> None:
    """A sleeping worker that is woken on the caller's processor would get no piece before the caller has done them all."""
    cpus = available_cpus()
    if len(cpus) < 2:
        pytest.skip("needs two processors")
    seen: set[tuple[int, int]] = set()
    getcpu = ctypes.CDLL(None).sched_getcpu

    def body(context: int, begin: int, end: int, thread: int) -> None:
        seen.add((thread, getcpu()))
        time.sleep(0.005)  # long enough for the other thread to take its share

    callback = BODY(body)
    before = os.sched_getaffinity(0)
    try:
        with ThreadPool(2) as pool:
            for cpu in cpus[:2]:
                os.sched_setaffinity(0, {cpu})  # the caller moves; the worker must make way
                seen.clear()
                time.sleep(0.05)
                pool.parallel_for(callback, 8)
                assert {t for t, _ in seen} == {0, 1}
                assert all((c == cpu) == (t == 0) for t, c in seen)
    finally:
        os.sched_setaffinity(0, before)


def test_workers_may_share_the_callers_processor_when_there_are_not_enough() -> None:
    """Kept away from it they would have none, or be crowded on the others."""
    count = len(available_cpus())
    for threads, kept_away in ((count + 1, False), (1, False), *(((2, True),) if count > 1 else ())):
        with ThreadPool(threads) as pool:
            assert (pool._allowed is not None) == kept_away, threads
    with ThreadPool(2, pin=True) as pool:
        assert pool._allowed is None and pool._cpus is not None
