"""Sequences: chains of kernels over a planned arena give what the calls one by one give."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.runtime import memory
from tilewright.runtime.module import Module
from tilewright.runtime.sequence import Sequence, Step
from tilewright.util.errors import RuntimeFailure


@pytest.fixture(scope="module")
def axpy(hand: SimpleNamespace) -> Module:
    return hand.axpy(threads=2)


def chain(axpy: Module, n: int = 100, length: int = 5, **options: Any) -> Sequence:
    """``length`` times t = 2 t + z, alternating between two arena slots; x in, y out."""
    names = ["x", *(f"t{i}" for i in range(length - 1)), "y"]
    steps = [Step(axpy, ("alpha", a, "z", b), {"N": n}, f"step {i}") for i, (a, b) in enumerate(itertools.pairwise(names))]
    slot = -(-n * 4 // 64) * 64
    plan = {f"t{i}": (i % 2) * slot for i in range(length - 1)}
    constants = {"alpha": np.array(2, np.float32), "z": np.ones(n, np.float32)}
    return Sequence(steps, options.pop("plan", plan), options.pop("arena", 2 * slot), constants=constants, external=["x", "y"], **options)


@pytest.mark.parametrize("threads", [1, 2])
def test_chain(axpy: Module, threads: int) -> None:
    net = chain(axpy, threads=threads)
    x, y = np.random.default_rng(0).random(100, np.float32), np.empty(100, np.float32)
    net.run(x=x, y=y)
    expected = x
    for _ in range(5):
        expected = 2 * expected + 1
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    x[:] = 0
    net.run()
    np.testing.assert_array_equal(y, np.full(100, 31, np.float32))
    np.testing.assert_array_equal(net.value("t3"), np.full(100, 15, np.float32))
    assert net.value("y") is y


def test_constants_begin_at_cache_lines(axpy: Module) -> None:
    raw = np.ones(101, np.float32)
    start = 1 if not raw.ctypes.data % 64 else 0
    shifted = raw[start : start + 100]
    assert shifted.ctypes.data % 64
    slot = -(-100 * 4 // 64) * 64
    given = {"alpha": np.array(2, np.float32), "z": shifted}
    net = Sequence([Step(axpy, ("alpha", "x", "z", "y"), {"N": 100})], {}, slot, constants=given, external=["x", "y"])
    x, y = np.ones(100, np.float32), np.empty(100, np.float32)
    net.run(x=x, y=y)
    assert (y == 3).all() and net.value("z").ctypes.data % 64 == 0


def test_profile_times_every_step(axpy: Module) -> None:
    net = chain(axpy, n=100_000, threads=1)
    net.bind(x=np.zeros(100_000, np.float32), y=np.empty(100_000, np.float32))
    times = net.profile(repeats=3)
    assert [t.label for t in times] == [f"step {i}" for i in range(5)]
    assert all(1e-6 < t.seconds < 1 for t in times)
    assert (net.value("y") == 31).all()
    with pytest.raises(RuntimeFailure, match="at least 1"):
        net.profile(0)


def test_concurrent_runs_take_turns(axpy: Module) -> None:
    """Each run binds its own arrays and sees only its own result."""
    net = chain(axpy, n=5000, threads=2)

    def caller(seed: int) -> None:
        x, y = np.full(5000, seed, np.float32), np.empty(5000, np.float32)
        for _ in range(50):
            y[:] = np.nan
            net.run(x=x, y=y)
            np.testing.assert_array_equal(y, np.float32(32 * seed + 31))

    with ThreadPoolExecutor(3) as callers:
        list(callers.map(caller, range(3)))


def test_layouts_stay_packed_between_steps(hand: SimpleNamespace) -> None:
    plain, packed = buffer("x", ty.f32, (4, 4), layout="1/2 0 1"), buffer("y", ty.f32, (4, 4), layout="1/2 0 1")
    module = hand.scale(plain, packed, 16)
    net = Sequence([Step(module, ("a", "b")), Step(module, ("b", "c"))], {"b": 0}, 64, external=["a", "c"], threads=1)
    a = np.arange(16, dtype=np.float32).reshape(4, 4)
    c = module.pack("y", np.zeros((4, 4), np.float32))
    net.run(a=module.pack("x", a), c=c)
    np.testing.assert_array_equal(c.data, 4 * module.pack("x", a).data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": {"t0": 0, "t1": 448, "t2": 0}}, "value 't3' has no place"),
        ({"plan": {"t0": 0, "t1": 448, "t2": 0, "t3": 8}}, "'t3' .*at offset 8 does not fit"),
        ({"plan": {"t0": 0, "t1": 448, "t2": 0, "t3": 512}}, "'t3' .*400 bytes.* does not fit the arena of 896 bytes"),
        ({"plan": {"t0": 0, "t1": 384, "t2": 0, "t3": 448}}, "step 1 .*writes 't1', which overlaps its argument 't0'"),
        ({"plan": {"t0": 0, "t1": 448, "t2": 0, "t3": 448, "x": 0}}, "given more than once: x"),
    ],
)
def test_bad_plans(axpy: Module, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeFailure, match=message):
        chain(axpy, arena=896, **change)


def test_bad_steps_and_arrays(axpy: Module) -> None:
    with pytest.raises(RuntimeFailure, match=r"step 0 \(axpy\) passes 2 arguments"):
        Sequence([Step(axpy, ("x", "y"))], {}, 0)
    with pytest.raises(RuntimeFailure, match="leaves size N open"):
        Sequence([Step(axpy, ("alpha", "x", "z", "y"))], {}, 0)
    mixed = [Step(axpy, ("alpha", "x", "z", "y"), {"N": 4}), Step(axpy, ("alpha", "y", "z2", "w"), {"N": 5})]
    with pytest.raises(RuntimeFailure, match=r"takes 'y' as float32\[5\], but step 0 has it as float32\[4\]"):
        Sequence(mixed, {}, 0)
    net = chain(axpy)
    x, y = np.zeros(100, np.float32), np.zeros(100, np.float32)
    with pytest.raises(RuntimeFailure, match="without an array: x, y"):
        net.run()
    with pytest.raises(RuntimeFailure, match=r"value 'x' is float64\[100\], expected float32\[100\]"):
        net.bind(x=x.astype(float))
    with pytest.raises(RuntimeFailure, match="value 'x' is not C-contiguous"):
        net.bind(x=np.zeros(200, np.float32)[::2])
    with pytest.raises(RuntimeFailure, match="'t0' is not an external value"):
        net.bind(t0=x)
    with pytest.raises(RuntimeFailure, match="'y', which is written, overlaps value 'x'"):
        net.run(x=x, y=x)
    y.flags.writeable = False
    with pytest.raises(RuntimeFailure, match="value 'y' is read-only"):
        net.bind(y=y)
    with pytest.raises(RuntimeFailure, match="external value 'x' is not bound"):
        net.value("x")


@settings(max_examples=30, deadline=None)
@given(some.lists(some.integers(0, 5000), min_size=1, max_size=6))
def test_arrays_of_one_block_are_aligned_and_apart(sizes: list[int]) -> None:
    arrays = memory.together(sizes)
    assert [len(a) for a in arrays] == sizes
    assert all(a.ctypes.data % memory.ALIGNMENT == 0 for a in arrays if len(a))
    assert not len(arrays[0]) or arrays[0].ctypes.data % memory.LARGE_PAGE == 0
    for n, a in enumerate(arrays):
        a[:] = n
    assert all((a == n).all() for n, a in enumerate(arrays))
