"""Measurements: who is faster comes out right, samples and conditions are kept; the host's peak is plausible."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilewright.ir import types as ty
from tilewright.runtime import measurement as measurement_module
from tilewright.runtime.measurement import Measurement, measure
from tilewright.runtime.peak import measure_peak, register_bits
from tilewright.runtime.pool import BODY, ThreadPool, available_cpus
from tilewright.runtime.processors import confined, pinned, placed, preemptions, quiet_cpus, quietest
from tilewright.runtime.target import Target
from tilewright.util.errors import RuntimeFailure


def spin(n: int) -> None:
    for _ in range(n):
        pass


def test_ratio_of_known_work(tmp_path: Path) -> None:
    m = measure({"one": lambda: spin(2000), "three": lambda: spin(6000)}, repeats=9, min_time=0.001, threads=1)
    assert 2.0 < m.ratio("one", over="three") < 4.5
    assert m["one"].min <= m["one"].median and len(m["one"].samples) == 9 and m["one"].spread >= 0
    assert m["one"].calls > m["three"].calls
    assert m.conditions.threads == 1 and len(m.conditions.cpus) == 1 and m.conditions.processor
    m.save(tmp_path / "m.json")
    assert Measurement.from_json((tmp_path / "m.json").read_text()) == m


def test_contenders_take_turns() -> None:
    order: list[str] = []
    measure({n: lambda n=n: order.append(n) for n in "abc"}, warmup=0, repeats=3, min_time=0.0, threads=1)
    assert order[-9:] == list("abcbcacab")


@pytest.mark.parametrize("options", [{"settle": 0.001}, {"lead": True}])
def test_settling_and_leading_call_once_untimed_before_each_sample(options: dict[str, Any]) -> None:
    order: list[str] = []
    m = measure({n: lambda n=n: order.append(n) for n in "ab"}, warmup=0, repeats=2, min_time=0.0, threads=1, **options)
    assert order[-8:] == list("aabbbbaa") and m.conditions.settle == options.get("settle", 0.0)


@pytest.mark.parametrize(("working", "waits"), [([0.0], 1), ([1.0, 1.0, 0.1], 3), ([1.0] * 99, 25)])
def test_settling_goes_on_while_other_threads_work(monkeypatch: pytest.MonkeyPatch, working: list[float], waits: int) -> None:
    """``working`` says which part of each wait they take; there is an end to it when they never rest."""
    slept: list[float] = []
    monkeypatch.setattr(measurement_module.time, "sleep", slept.append)
    monkeypatch.setattr(measurement_module.time, "process_time", lambda: sum(part * s for part, s in zip(working, slept, strict=False)))
    measurement_module._wait_for_rest(0.02)
    assert slept == [0.02] * waits


def test_samples_that_others_got_into_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others come in between during the first try of the first sample, and all tries of the third."""
    seconds = iter([5.0, 3.0, 4.0, 9.0, 7.0, 8.0, 6.0])
    counts = iter([0, 1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5])
    monkeypatch.setattr(measurement_module, "_calibrate", lambda *_: 1)
    monkeypatch.setattr(measurement_module, "_time", lambda f, calls: next(seconds))
    monkeypatch.setattr(measurement_module, "preemptions", lambda: next(counts))
    assert measure({"a": lambda: None}, repeats=3, retries=2, threads=1)["a"].samples == (3.0, 4.0, 7.0)
    assert measure({"a": lambda: None}, repeats=1, threads=1)["a"].samples == (6.0,), "not unless it is asked for"


def test_preemptions_are_counted() -> None:
    """Two threads that do not let go of one processor have to be made to."""
    before = preemptions()
    child = subprocess.Popen([sys.executable, "-c", f"import os\nos.sched_setaffinity(0, {{{available_cpus()[0]}}})\nwhile True: pass"])
    try:
        with confined(available_cpus()[:1]):
            deadline = time.monotonic() + 20
            while preemptions() == before and time.monotonic() < deadline:
                spin(10_000)
        assert preemptions() > before
    finally:
        child.kill()
        child.wait()


def test_quiet_processors_are_chosen() -> None:
    before = {0: 1000, 1: 2000, 2: 500, 3: 0}
    after = {0: 1001, 1: 2010, 2: 509, 3: 10}
    assert quietest(before, after, (0, 1, 2, 3), 2) == (1, 3)
    assert quietest(before, after, (0, 2), 1) == (2,)
    assert quietest({}, {}, (4, 5, 6), 2) == (4, 5), "the first ones where nothing is known"
    assert quiet_cpus(len(available_cpus())) == available_cpus()
    assert set(quiet_cpus(1)) <= set(available_cpus()) and len(quiet_cpus(1)) == 1


class Helped:
    """A contender whose work is done by a thread of its own, and by the caller as well if ``both``."""

    def __init__(self, both: bool):
        self.both, self.work, self.done = both, queue.SimpleQueue[bool](), queue.SimpleQueue[None]()
        self.seen: set[tuple[int, ...]] = set()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while self.work.get():
            zlib.crc32(BYTES)
            self.done.put(None)

    def __call__(self) -> None:
        mine, other = os.sched_getaffinity(0), os.sched_getaffinity(self.thread.native_id or 0)
        self.seen.add((*sorted(mine), -1, *sorted(other)))
        self.work.put(True)
        if self.both:
            zlib.crc32(BYTES)
        self.done.get()


BYTES = bytes(4_000_000)


@pytest.mark.skipif(len(available_cpus()) < 2, reason="needs two processors")
def test_threads_that_work_together_have_a_processor_each() -> None:
    """The last calls of each contender, those that are timed: a thread beside the caller, one that it waits for, both at once."""
    before = os.sched_getaffinity(0)
    first, second = available_cpus()[:2]
    together, alone = Helped(both=True), Helped(both=False)
    with placed([together, alone], (first, second)):
        assert os.sched_getaffinity(0) == {first}
        assert os.sched_getaffinity(together.thread.native_id or 0) == {second}
        assert os.sched_getaffinity(alone.thread.native_id or 0) == {first}, "the caller sleeps meanwhile"
    assert os.sched_getaffinity(0) == os.sched_getaffinity(together.thread.native_id or 0) == before
    measure({"together": together, "alone": alone}, repeats=2, threads=2)
    assert (first, -1, second) in together.seen and (first, -1, first) in alone.seen
    assert os.sched_getaffinity(alone.thread.native_id or 0) == before
    for helped in (together, alone):
        helped.work.put(False)


@pytest.mark.skipif(len(available_cpus()) < 2, reason="needs two processors")
def test_a_caller_that_collects_garbage_once_is_not_taken_for_a_worker() -> None:
    """Its thread works longer than the contender's in one of the calls, and does nothing in the others."""
    first, second = available_cpus()[:2]
    alone, garbage = Helped(both=False), [True]

    def call() -> None:
        alone()
        for _ in range(10 * len(garbage)):
            zlib.crc32(BYTES)
        garbage.clear()

    with placed([call], (first, second)):
        assert os.sched_getaffinity(alone.thread.native_id or 0) == {first}
    alone.work.put(False)


@pytest.mark.skipif(len(available_cpus()) < 2, reason="needs two processors")
def test_a_thread_that_still_spins_for_another_contender_is_not_taken_for_a_worker() -> None:
    """It is waited for first; counted, it would take the processor of the contender's own thread."""
    first, second = available_cpus()[:2]
    together, tail = Helped(both=True), threading.Event()
    spinner = threading.Thread(target=lambda: [zlib.crc32(BYTES) for _ in iter(tail.is_set, True)], daemon=True)
    spinner.start()

    def rest() -> None:
        tail.set()
        spinner.join()

    with placed([together], (first, second), rest):
        assert os.sched_getaffinity(together.thread.native_id or 0) == {second}
    together.work.put(False)


@pytest.mark.skipif(len(available_cpus()) < 2, reason="needs two processors")
def test_a_caller_that_prepares_what_two_threads_do_leaves_them_both_processors() -> None:
    pair = Helped(both=True), Helped(both=False)

    def call() -> None:
        pair[1].work.put(True)
        pair[0]()
        pair[1].done.get()

    cpus = available_cpus()[:2]
    with placed([call], cpus):
        assert {*os.sched_getaffinity(pair[0].thread.native_id or 0), *os.sched_getaffinity(pair[1].thread.native_id or 0)} == set(cpus)
    for helped in pair:
        helped.work.put(False)


@pytest.mark.skipif(len(available_cpus()) < 2, reason="needs two processors")
def test_workers_of_a_pool_stay_clear_of_their_caller_after_measurements() -> None:
    """Whatever the measurement restored: it is the processor the caller is on now that counts."""
    every, (first, second) = set(available_cpus()), (cpus := available_cpus()[:2])
    with ThreadPool(2) as pool:
        loop = partial(pool.parallel_for, BODY(lambda *_: None), 64)
        others = set(os.listdir("/proc/self/task"))
        loop()
        (worker,) = {int(t) for t in set(os.listdir("/proc/self/task")) - others}
        for here in (first, second, first):
            with pinned(here):
                loop()
                with confined(cpus), placed([loop], cpus):
                    loop()
                    assert os.sched_getaffinity(worker) & os.sched_getaffinity(0) == set()
            with pinned(first):
                loop()
                assert os.sched_getaffinity(worker) == every - {first}


def test_a_narrower_set_of_processors_is_kept() -> None:
    """Workers of a pool keep clear of their caller; widened, they would be woken beside it."""
    first = available_cpus()[:1]
    helped = Helped(both=False)
    os.sched_setaffinity(helped.thread.native_id or 0, first)
    with confined(available_cpus()):
        assert os.sched_getaffinity(helped.thread.native_id or 0) == set(first)
    assert os.sched_getaffinity(helped.thread.native_id or 0) == set(first)
    helped.work.put(False)


def test_affinity_is_confined_and_restored() -> None:
    before, cpus = os.sched_getaffinity(0), available_cpus()
    ready, end, seen = threading.Event(), threading.Event(), []

    def other() -> None:
        ready.set()
        end.wait(10)
        seen.append(os.sched_getaffinity(0))

    thread, late = threading.Thread(target=other), threading.Thread(target=other)
    thread.start()
    ready.wait(10)
    with pytest.raises(ZeroDivisionError), confined(cpus[:1]):
        assert os.sched_getaffinity(0) == os.sched_getaffinity(thread.native_id or 0) == {cpus[0]}
        late.start()
        raise ZeroDivisionError
    end.set()
    thread.join()
    late.join()
    assert os.sched_getaffinity(0) == before and seen == [before, before]


def test_refusals() -> None:
    with pytest.raises(RuntimeFailure, match="0 contenders"):
        measure({})
    with pytest.raises(RuntimeFailure, match=r"with 5000 threads on \d+ processors"):
        measure({"a": lambda: None}, threads=5000)
    with pytest.raises(RuntimeFailure, match=r"no contender 'b' was measured\n.*measured: a"):
        measure({"a": lambda: None}, repeats=1, min_time=0)["b"]
    with pytest.raises(RuntimeFailure, match="peak of i8 cannot be measured"):
        measure_peak(1, ty.i8)


def test_peak_is_plausible_and_cached() -> None:
    peak = measure_peak(1, seconds=0.02)
    assert 1e9 < peak.flops < 1e12 and 1e8 < peak.bandwidth < 1e12
    assert measure_peak(1) == peak
    single, double = peak.flops, measure_peak(1, ty.f64, seconds=0.02).flops
    assert 0.3 < double / single < 0.8
    a = np.random.default_rng(0).random((256, 256), np.float32)
    rate = 2 * 256**3 / measure({"numpy": lambda: a @ a}, repeats=5, threads=1)["numpy"].min
    assert rate < 1.15 * single, "a real kernel is faster than the peak"


def test_register_widths() -> None:
    assert [register_bits(Target("x86_64", "", f)) for f in ("+avx,+avx512f", "+avx,-avx512f", "+sse2", "")] == [512, 256, 128, 128]
