"""Kernels on arrays with layouts as kernels on plain arrays in the order of memory: the same values in the same memory."""

from __future__ import annotations

import numpy as np
import pytest
from tests.ir.arguments import random_arguments

from tilewright.ir.interpreter import interpret
from tilewright.ir.packing import physical_shape, to_physical
from tilewright.ir.stmt import Kernel, loops
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.space.memory_order import memory_order

IMAGES = 'buffer(i8[2, 3, 5, 4], "dram", layout="0 2 3 1")'
RESULTS = 'buffer(i8[2, 6, 5, 4], "dram", layout="0 2 3 1")'


def convolution(images: str = IMAGES, results: str = RESULTS) -> Kernel:
    """Images and results with channels last in memory, a padded copy, sums and a bias, all written with channels first."""
    return parse(f"""
@kernel
def conv(x: {images}, w: i8[6, 3, 3, 3], bias: i32[6], y: {results}):
    pad = alloc(i8[2, 3, 7, 6])
    for n in range(2):
        for c in range(3):
            for i in range(7):
                for j in range(6):
                    pad[n, c, i, j] = where(i >= 1 and i < 6 and j >= 1 and j < 5, x[n, c, i - 1, j - 1], i8(0))
    sums = alloc(i32[2, 6, 5, 4])
    for n_1 in range(2):
        for k_1 in range(6):
            for p_1 in range(5):
                for q_1 in range(4):
                    sums[n_1, k_1, p_1, q_1] = 0
    for n_2 in range(2):
        for k_2 in range(6):
            for p_2 in range(5):
                for q_2 in range(4):
                    for c_2 in range(3):
                        for r in range(3):
                            for s in range(3):
                                sums[n_2, k_2, p_2, q_2] += pad[n_2, c_2, p_2 + r, q_2 + s] * w[k_2, c_2, r, s]
    for n_3 in range(2):
        for k_3 in range(6):
            for p_3 in range(5):
                for q_3 in range(4):
                    y[n_3, k_3, p_3, q_3] = i8(min(max(sums[n_3, k_3, p_3, q_3] + bias[k_3], -128), 127))
""")


def test_images_with_channels_last() -> None:
    kernel = convolution()
    found = memory_order(kernel, {"w", "bias"})
    verify(found.kernel)
    assert {n: str(layout) for n, layout in found.layouts.items()} == {"x": "0 2 3 1", "w": "2 3 1 0", "y": "0 2 3 1"}
    shapes = {b.name: b.static_shape for b in found.kernel.args}
    assert shapes == {"x": (2, 5, 4, 3), "w": (3, 3, 3, 6), "bias": (6,), "y": (2, 5, 4, 6)}
    text = str(found.kernel)
    assert "pad = alloc(i8[2, 7, 6, 3])" in text and "sums = alloc(i32[2, 5, 4, 6])" in text and "layout" not in text
    assert [f.name for f in loops(found.kernel)][8:15] == ["n_2", "p_2", "q_2", "k_2", "r", "s", "c_2"]
    arrays = random_arguments(kernel, 0)
    seen = {}
    for b in kernel.args:
        layout = found.layouts.get(b.name)
        seen[b.name] = np.empty(physical_shape(layout, b.static_shape), arrays[b.name].dtype) if layout else arrays[b.name].copy()
        if layout:
            to_physical(arrays[b.name], layout, seen[b.name])
    interpret(kernel, arrays)
    interpret(found.kernel, seen)
    np.testing.assert_array_equal(seen["y"], arrays["y"].transpose(0, 2, 3, 1))


def test_arguments_that_arrive_with_a_call_stay_as_they_are() -> None:
    found = memory_order(convolution())
    assert found.layouts.keys() == {"x", "y"} and found.kernel.arg("w").static_shape == (6, 3, 3, 3)


@pytest.mark.parametrize(
    "kernel",
    [
        convolution("i8[2, 3, 5, 4]", "i8[2, 6, 5, 4]"),
        convolution(results='buffer(i8[2, 6, 5, 4], "dram", layout="1/2 0 2 3 1")'),
        parse("""
@kernel
def triangle(x: buffer(i8[4, 4], "dram", layout="1 0"), y: buffer(i8[4, 4], "dram", layout="1 0")):
    for i in range(4):
        for j in range(i, 4):
            y[i, j] = x[i, j]
"""),
    ],
    ids=["as written", "divided", "no plain nest"],
)
def test_others_stay(kernel: Kernel) -> None:
    found = memory_order(kernel, {"w"})
    assert found.kernel is kernel and not found.layouts


@pytest.mark.parametrize(
    "body",
    ["y[i + 1, j] = y[i, j + 1] + x[i, j]", "y[i + 1, j] += y[i, j + 1]", "y[0, i + j] = x[i, j]", "y[0, j] = 2 * y[0, j] + x[i, j]"],
)
@pytest.mark.parametrize("outer, inner", [("i in range(5)", "j in range(6)"), ("j in range(6)", "i in range(5)")])
def test_loops_whose_order_matters_keep_it(outer: str, inner: str, body: str) -> None:
    kernel = parse(f"""
@kernel
def walk(x: buffer(i64[5, 6], "dram", layout="1 0"), y: buffer(i64[6, 11], "dram", layout="1 0")):
    for {outer}:
        for {inner}:
            {body}
""")
    assert_same(kernel)


def test_indices_that_are_loaded() -> None:
    kernel = parse("""
@kernel
def chosen(x: buffer(i64[3, 4], "dram", layout="1 0"), z: buffer(i64[3, 4], "dram", layout="1 0"), y: i64[3, 4]):
    for i in range(3):
        for j in range(4):
            y[i, j] = x[i, z[i, j] % 4]
""")
    assert_same(kernel)


def assert_same(kernel: Kernel) -> None:
    """What :func:`memory_order` makes of a kernel computes the same."""
    rng = np.random.default_rng(0)
    before = {b.name: rng.integers(-5, 5, b.static_shape) for b in kernel.args}
    found = memory_order(kernel)
    axes = {b.name: [d for d, _ in found.layouts[b.name].dims] if b.name in found.layouts else [*range(b.rank)] for b in kernel.args}
    after = {n: np.ascontiguousarray(a.transpose(axes[n])) for n, a in before.items()}
    interpret(kernel, before)
    interpret(found.kernel, after)
    for n, a in before.items():
        np.testing.assert_array_equal(after[n], a.transpose(axes[n]))
