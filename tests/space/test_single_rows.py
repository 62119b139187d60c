"""Products with vectors, written with matrices of one row: the same values in the same memory."""

from __future__ import annotations

import numpy as np
import pytest
from tests.ir.arguments import random_arguments

from tilewright.ir.interpreter import interpret
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.space.single_rows import single_rows

FROM_THE_LEFT = """
@kernel
def left(a: i8[7], b: i8[7, 5], bias: i32[5], s: f32, y: f32[5], row: i8[5]):
    acc = alloc(i32[5])
    for j in range(5):
        acc[j] = bias[j]
    for j_1 in range(5):
        for k in range(7):
            acc[j_1] += a[k] * b[k, j_1]
    for j_2 in range(5):
        y[j_2] = f32(acc[j_2]) * s + row[j_2]
"""
FROM_THE_RIGHT = """
@kernel
def right(b: i8[5, 7], x: i8[7], c: i32[5]):
    for i in range(5):
        for k in range(7):
            c[i] += b[i, k] * x[k]
"""


@pytest.mark.parametrize("text", [FROM_THE_LEFT, FROM_THE_RIGHT])
def test_the_same_values(text: str) -> None:
    kernel = parse(text)
    rows = single_rows(kernel)
    verify(rows)
    arrays = random_arguments(kernel, 0)
    seen = {b.name: arrays[b.name].copy().reshape(b.static_shape) for b in rows.args}
    interpret(kernel, arrays)
    interpret(rows, seen)
    for b in rows.args:
        assert b.rank != 1
        np.testing.assert_array_equal(seen[b.name].reshape(arrays[b.name].shape), arrays[b.name])


@pytest.mark.parametrize(
    "text",
    [
        FROM_THE_RIGHT.replace("c: i32[5]", "c: i32[5, 3]").replace("c[i] +=", "c[i, 0] +="),
        FROM_THE_RIGHT.replace("b[i, k] * x[k]", "x[k]"),
        FROM_THE_LEFT.replace("for j in range(5)", "for j in range(2, 5)"),
    ],
    ids=["matrix", "no product", "not from zero"],
)
def test_others_stay_as_they_are(text: str) -> None:
    kernel = parse(text)
    assert single_rows(kernel) is kernel
