"""Kernels through ``Offload``: other shapes of the same memory, searched schedules, and what is kept of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.codegen.commands.pooled_conv import Pooled

from tilewright.codegen.commands import Host, walk
from tilewright.hw import load_machine
from tilewright.hw.library.gemmini import gemmini
from tilewright.ir.reference import reference
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.runtime.cache import BuildCache
from tilewright.sim.gemmini import Configuration, simulate
from tilewright.sim.gemmini import offload as module
from tilewright.sim.gemmini.baseline_conv import Convolution, default_conv
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


def layer(v: Convolution) -> Kernel:
    """A convolution with a bias as networks write it, channels first, of images whose channels are last in memory."""
    (p, q), (h, w), k, c = (v.out_rows, v.out_cols), (v.rows + 2 * v.padding, v.cols + 2 * v.padding), v.kernels, v.channels
    inside = f"i >= {v.padding} and i < {v.padding + v.rows} and j >= {v.padding} and j < {v.padding + v.cols}"
    padded = f"""
    pad = alloc(i8[1, {c}, {h}, {w}])
    for n in range(1):
        for c in range({c}):
            for i in range({h}):
                for j in range({w}):
                    pad[n, c, i, j] = where({inside}, x[n, c, i - {v.padding}, j - {v.padding}], i8(0))"""

    def every(mark: str) -> str:
        head = "".join(f"{'    ' * d}for {n}_{mark} in range({e}):\n" for d, n, e in ((1, "n", 1), (2, "k", k), (3, "p", p), (4, "q", q)))
        return f"{head}{'    ' * 5}"

    image = 'buffer(i8[1, {}, {}, {}], "dram", layout="0 2 3 1")'
    return parse(f"""
@kernel
def layer(x: {image.format(c, v.rows, v.cols)}, w: i8[{k}, {c}, {v.window}, {v.window}], bias: i32[{k}], y: {image.format(k, p, q)}):{
        padded if v.padding else ""
    }
    sums = alloc(i32[1, {k}, {p}, {q}])
{every("0")}sums[n_0, k_0, p_0, q_0] = 0
{every("1")}for c_1 in range({c}):
                        for r in range({v.window}):
                            for s in range({v.window}):
                                sums[n_1, k_1, p_1, q_1] += {"pad" if v.padding else "x"}[n_1, c_1, p_1 * {v.stride} + r, q_1 * {
        v.stride
    } + s] * w[k_1, c_1, r, s]
{every("2")}y[n_2, k_2, p_2, q_2] = i8(min(max(round(f32(i32(sums[n_2, k_2, p_2, q_2] + bias[k_2])) * 0.01), -128.0), 127.0))
""")


@pytest.mark.parametrize(
    "v", [Convolution(1, 16, 16, 3, 16, 5, 1, 2), Convolution(1, 12, 12, 32, 32, 1)], ids=["few channels", "one pixel"]
)
def test_one_measured_schedule_is_not_slower_than_the_library(v: Convolution) -> None:
    """Runs of forms are measured from the first: a convolution of few channels is faster by them. Both load the bias."""
    kernel, constants = layer(v), frozenset({"w", "bias"})
    offload = Offload(MACHINE, measured=1, forms=FORMS)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-128, 128, b.static_shape).astype(b.dtype.to_numpy()) for b in kernel.args]
    want = [a.copy() for a in arrays]
    reference(kernel, want)
    offload(kernel, arrays, constants)
    np.testing.assert_array_equal(arrays[-1], want[-1])
    c = Configuration.of(MACHINE)
    library = simulate(default_conv(c, v, *(0x8000_0000 + (n << 20) for n in range(4))), c).cycles
    assert offload.cycles(kernel, constants) <= library
    assert ("loop_conv_ws" in str(offload.programs[kernel, constants])) == (v.channels == 3)


def test_a_program_that_does_not_pass_its_check_is_left_to_the_host() -> None:
    """The last row and column of this convolution are behind the only window of its pool."""
    case = Pooled((7, 7), 2, 1, 2, 2, 0, 3, 3, 1)
    offload, kernel = Offload(gemmini(dim=4)), case.kernel()
    assert offload.prepare(kernel) is None
    assert list(offload.refused.values()) == ["program conv ends with a result in line 2 of acc that nothing has read"]
    arrays = case.arrays(3)
    want = case.result(arrays)
    offload(kernel, [arrays[b.name] for b in kernel.args])
    np.testing.assert_array_equal(arrays["z"], want)
