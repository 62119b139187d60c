"""Convolutions with windows of one pixel as products of matrices: the same values in the same memory."""

from __future__ import annotations

import numpy as np
import pytest
from tests.ir.arguments import random_arguments

from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.space.joined import joined


def pointwise(batch: int, rows: int, cols: int, bias: str = "bias[k_3]", stride: int = 1) -> Kernel:
    """A convolution with windows of one pixel."""
    return parse(f"""
@kernel
def conv(x: i8[{batch}, {rows * stride}, {cols * stride}, 3], w: i8[1, 1, 3, 6], bias: i32[6], y: i8[{batch}, {rows}, {cols}, 6]):
    sums = alloc(i32[{batch}, {rows}, {cols}, 6])
    for n_1 in range({batch}):
        for p_1 in range({rows}):
            for q_1 in range({cols}):
                for k_1 in range(6):
                    sums[n_1, p_1, q_1, k_1] = 0
    for n_2 in range({batch}):
        for p_2 in range({rows}):
            for q_2 in range({cols}):
                for k_2 in range(6):
                    for r in range(1):
                        for s in range(1):
                            for c in range(3):
                                sums[n_2, p_2, q_2, k_2] += x[n_2, p_2 * {stride} + r, q_2 * {stride} + s, c] * w[r, s, c, k_2]
    for n_3 in range({batch}):
        for p_3 in range({rows}):
            for q_3 in range({cols}):
                for k_3 in range(6):
                    y[n_3, p_3, q_3, k_3] = i8(min(max(sums[n_3, p_3, q_3, k_3] + {bias}, -128), 127))
""")


@pytest.mark.parametrize(
    ("sizes", "shapes"),
    [
        ((2, 5, 4), [(40, 3), (3, 6), (6,), (40, 6)]),
        ((1, 5, 4), [(20, 3), (3, 6), (6,), (20, 6)]),
        ((1, 1, 7), [(7, 3), (3, 6), (6,), (7, 6)]),
        ((1, 1, 1), [(3,), (3, 6), (6,), (6,)]),
    ],
    ids=str,
)
def test_pixels_are_rows(sizes: tuple[int, int, int], shapes: list[tuple[int, ...]]) -> None:
    kernel = pointwise(*sizes)
    product = joined(kernel)
    verify(product)
    assert [b.static_shape for b in product.args] == shapes
    arrays = random_arguments(kernel, 0)
    seen = [arrays[b.name].reshape(shape).copy() for b, shape in zip(kernel.args, shapes, strict=True)]
    interpret(kernel, arrays)
    interpret(product, seen)
    np.testing.assert_array_equal(seen[-1].reshape(kernel.args[-1].static_shape), arrays["y"])


def test_leading_dimensions_of_a_product() -> None:
    product = joined(
        parse("""
@kernel
def products(x: i8[3, 4, 5], w: i8[5, 6], y: i32[3, 4, 6]):
    for b in range(3):
        for i in range(4):
            for j in range(6):
                y[b, i, j] = 0
    for b_1 in range(3):
        for i_1 in range(4):
            for j_1 in range(6):
                for k in range(5):
                    y[b_1, i_1, j_1] += x[b_1, i_1, k] * w[k, j_1]
""")
    )
    assert [b.static_shape for b in product.args] == [(12, 5), (5, 6), (12, 6)]


@pytest.mark.parametrize(
    "kernel",
    [
        pointwise(1, 5, 4, stride=2),
        pointwise(1, 5, 4, "bias[p_3]"),
        pointwise(1, 5, 4, "i32(where(q_3 > 1, 1, 0))"),
        parse("""
@kernel
def product(x: i8[1, 5], w: i8[5, 6], y: i32[1, 6]):
    for i in range(1):
        for j in range(6):
            y[i, j] = 0
    for i_1 in range(1):
        for j_1 in range(6):
            for k in range(5):
                y[i_1, j_1] += x[i_1, k] * w[k, j_1]
"""),
        parse("""
@kernel
def sums(x: i8[1, 4, 5], y: i8[1, 4, 5]):
    for n in range(1):
        for i in range(4):
            for j in range(5):
                y[n, i, j] = x[n, i, j]
"""),
    ],
    ids=["pixels are left out", "a bias for each row", "columns differ", "a product", "no sums"],
)
def test_others_stay_as_they_are(kernel: Kernel) -> None:
    assert joined(kernel) is kernel
