"""Element-wise kernels as kernels on matrices of long rows: the same values in the same memory."""

from __future__ import annotations

import numpy as np
import pytest
from tests.ir.arguments import random_arguments

from tilewright.hw import load_machine
from tilewright.ir.interpreter import interpret
from tilewright.ir.packing import physical_shape, to_physical
from tilewright.ir.stmt import Kernel
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.space.long_rows import long_rows

MACHINE = load_machine("gemmini")


def image(channels: int, rows: int, cols: int, layout: str = "0 2 3 1", value: str = "a[n, c, h, w] + b[n, c, h, w]") -> Kernel:
    kind = f'buffer(i8[1, {channels}, {rows}, {cols}], "dram", layout="{layout}")'
    return parse(f"""
@kernel
def residual(a: {kind}, b: {kind}, y: {kind}):
    for n in range(1):
        for c in range({channels}):
            for h in range({rows}):
                for w in range({cols}):
                    y[n, c, h, w] = i8(min(max({value}, -128), 127))
""")


@pytest.mark.parametrize(
    ("kernel", "shape"),
    [
        (image(8, 6, 4), (3, 64)),
        (image(8, 7, 7), (7, 56)),  # 392 elements: no row of 64
        (image(20, 3, 5, "0 1 2 3"), (5, 60)),
        (image(3, 5, 7, "0 2 3 1"), (3, 35)),
        (image(128, 2, 2), (8, 64)),
        (image(100, 3, 2), (10, 60)),
    ],
)
def test_the_same_values(kernel: Kernel, shape: tuple[int, int]) -> None:
    rows = long_rows(kernel, MACHINE)
    verify(rows)
    assert [b.static_shape for b in rows.args] == [shape] * 3 and all(b.layout is None for b in rows.args)
    arrays = random_arguments(kernel, 0)

    def stored() -> list[np.ndarray]:
        out = []
        for b in kernel.args:
            assert b.layout is not None
            out.append(np.empty(physical_shape(b.layout, b.static_shape), np.int8))
            to_physical(arrays[b.name], b.layout, out[-1])
        return out

    seen = [a.reshape(shape) for a in stored()]
    interpret(kernel, arrays)
    interpret(rows, seen)
    for got, want in zip(seen, stored(), strict=True):
        np.testing.assert_array_equal(got, want.reshape(shape))


@pytest.mark.parametrize(
    "kernel",
    [
        image(64, 3, 1),  # a matrix with rows of 64 already
        image(101, 3, 3),  # no row is as long as a transfer
        image(1, 1, 37),  # one row
        image(8, 6, 6, value="a[n, c, h, w] + b[n, c, w, h]"),
        image(8, 6, 4, value="a[n, c, h, w] + b[n, c, 0, w]"),
    ],
    ids=["long enough", "odd", "one row", "transposed", "spread"],
)
def test_others_stay_as_they_are(kernel: Kernel) -> None:
    assert long_rows(kernel, MACHINE) is kernel


def test_arrays_that_lie_otherwise_stay() -> None:
    kernel = image(8, 6, 4)
    other = kernel.args[1].with_(layout=None)
    text = str(kernel).replace(str(kernel.args[1].layout), "0 1 2 3", 1)
    assert other.layout is None and long_rows(parse(text), MACHINE) == parse(text)
