"""Kernels through ``Offload``: other shapes of the same memory, searched schedules, and what is kept of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tilewright.codegen.commands import Host, walk
from tilewright.hw import load_machine
from tilewright.hw.library.gemmini import gemmini
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.runtime.cache import BuildCache
from tilewright.sim.gemmini import offload as module
from tilewright.sim.gemmini.offload import Offload

MACHINE = load_machine("gemmini")
FORMS = ("loop_ws", "loop_conv_ws")


def dense(depth: int, width: int) -> Kernel:
    return parse(f"""
@kernel
def dense(x: i8[{depth}], w: i8[{width}, {depth}], b: i32[{width}], y: i8[{width}]):
    s = alloc(i32[{width}])
    for j in range({width}):
        s[j] = 0
    for j_1 in range({width}):
        for k in range({depth}):
            s[j_1] += x[k] * w[j_1, k]
    for j_2 in range({width}):
        y[j_2] = i8(min(max(round(f32(i32(s[j_2] + b[j_2])) * 0.01), -128.0), 127.0))
""")


RESIDUAL = parse("""
@kernel
def residual(a: buffer(i8[1, 8, 7, 6], "dram", layout="0 2 3 1"), b: buffer(i8[1, 8, 7, 6], "dram", layout="0 2 3 1"),
             y: buffer(i8[1, 8, 7, 6], "dram", layout="0 2 3 1")):
    for n in range(1):
        for c in range(8):
            for h in range(7):
                for w in range(6):
                    y[n, c, h, w] = i8(min(max(a[n, c, h, w] + b[n, c, h, w], -128), 127))
""")
ON_THE_HOST = parse("""
@kernel
def products(a: i8[9], y: i8[9]):
    for i in range(9):
        y[i] = i8(min(max(a[i] * a[i], -128), 127))
""")


def run(offload: Offload, kernel: Kernel) -> np.ndarray:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-128, 128, b.static_shape).astype(b.dtype.to_numpy()) for b in kernel.args]
    before = [a.copy() for a in arrays]
    offload(kernel, arrays, frozenset("w"))
    for a, b in zip(arrays[:-1], before[:-1], strict=True):
        np.testing.assert_array_equal(a, b)
    if kernel is RESIDUAL:
        want = np.clip(arrays[0].astype(np.int32) + arrays[1], -128, 127)
    elif kernel is ON_THE_HOST:
        want = np.clip(arrays[0].astype(np.int32) ** 2, -128, 127)
    else:
        total = arrays[1].astype(np.int32) @ arrays[0].astype(np.int32) + arrays[2]
        want = np.clip(np.rint(total.astype(np.float32) * np.float32(0.01)), -128, 127)
    np.testing.assert_array_equal(arrays[-1], want.astype(np.int8))
    return arrays[-1]


@pytest.mark.parametrize("kernel", [dense(64, 40), dense(33, 17), RESIDUAL], ids=["vector", "odd vector", "image"])
def test_shapes_that_the_array_takes_otherwise(kernel: Kernel) -> None:
    offload = Offload(MACHINE)
    assert run(offload, kernel).std() > 10
    program = offload.programs[kernel, frozenset("w")]
    assert not any(isinstance(i, Host) for i in walk(program.body))
    assert all(b.rank == 2 for b in program.args)
    assert offload.cycles(kernel, frozenset("w")) > 0


def test_the_same_kernel_with_other_constants_is_other_work() -> None:
    """Weights that arrive with a call cannot be laid out ahead of time."""
    kernel, offload = dense(64, 40), Offload(MACHINE)
    known, arriving = offload.prepare(kernel, frozenset("w")), offload.prepare(kernel)
    assert known is not None and arriving is not None and str(known) != str(arriving)
    assert offload.prepare(kernel, frozenset("w")) is known and offload.searched == 2
    assert arriving == Offload(MACHINE).prepare(kernel), "whichever was asked for first"


def test_what_was_searched_is_kept(tmp_path: Path) -> None:
    kernels = (dense(64, 40), RESIDUAL, ON_THE_HOST)
    store = BuildCache(tmp_path)
    first, again, otherwise, smaller = (
        Offload(m, measured=n, forms=FORMS if n else (), store=store)
        for m, n in ((MACHINE, 3), (MACHINE, 3), (MACHINE, 0), (gemmini(scratchpad_bytes=128 << 10), 3))
    )
    for offload in (first, again):
        for k in kernels:
            run(offload, k)
    assert (first.searched, again.searched) == (3, 0)
    for k in kernels:
        work = k, frozenset("w")
        assert again.cycles(*work) == first.cycles(*work)
        assert again.programs.get(work) == first.programs.get(work) and again.refused.get(work) == first.refused.get(work)
    assert first.refused.keys() == {(ON_THE_HOST, frozenset("w"))}
    for offload in (otherwise, smaller):
        run(offload, kernels[0])
        assert offload.searched == 1, "another search, another machine"


def test_what_another_version_chose_is_searched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules, estimates, declarations and the cycle model: whatever was edited."""
    store = BuildCache(tmp_path)
    run(Offload(MACHINE, store=store), RESIDUAL)
    for edited in ("deciding", "_version"):
        with monkeypatch.context() as patch:
            patch.setattr(module, edited, lambda: "edited")
            offload = Offload(MACHINE, store=store)
            run(offload, RESIDUAL)
            assert offload.searched == 1


def test_a_damaged_entry_is_searched_again(tmp_path: Path) -> None:
    store = BuildCache(tmp_path)
    run(Offload(MACHINE, store=store), RESIDUAL)
    for path in tmp_path.rglob("*.entry"):
        path.write_bytes(path.read_bytes()[:-3])
    offload = Offload(MACHINE, store=store)
    run(offload, RESIDUAL)
    assert offload.searched == 1


def test_searched_schedules_are_not_slower() -> None:
    kernel = dense(256, 128)
    default, best = Offload(MACHINE), Offload(MACHINE, measured=6, forms=FORMS)
    for offload in (default, best):
        run(offload, kernel)
    assert best.cycles(kernel, frozenset("w")) <= default.cycles(kernel, frozenset("w"))
