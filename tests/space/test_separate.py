"""Kernels in parts: run one after the other they do the same; what cannot be moved stays where it is."""

from __future__ import annotations

import numpy as np
import pytest
from tests.ir.arguments import random_arguments

from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.space.separate import contractions, separated

CHAIN = """
@kernel
def chain(a: i8[5, 7], b: i8[7, 6], d: i8[6, 4], bias: i32[4], c: i32[5, 4]):
    t = alloc(i32[5, 6])
    u = alloc(i8[5, 6])
    s = alloc(i32[5, 4])
    for i in range(5):
        for j in range(6):
            t[i, j] = 0
    for i_4 in range(5):
        for j_4 in range(4):
            s[i_4, j_4] = 0
    for i_1 in range(5):
        for j_1 in range(6):
            for k in range(7):
                t[i_1, j_1] += a[i_1, k] * b[k, j_1]
    {before}
    for i_2 in range(5):
        for j_2 in range(6):
            u[i_2, j_2] = i8(min(max(t[i_2, j_2], -128), 127))
    for i_3 in range(5):
        for j_3 in range(4):
            for k_3 in range(6):
                s[i_3, j_3] += u[i_3, k_3] * d[k_3, j_3]
    for i_5 in range(5):
        for j_5 in range(4):
            c[i_5, j_5] = s[i_5, j_5] + bias[j_5]{after}
"""
PLAIN = parse(CHAIN.format(before="", after=""))


def assert_same(kernel: Kernel, alone: frozenset[str] = frozenset()) -> list[Kernel]:
    found = separated(kernel, alone)
    inputs = random_arguments(kernel, 0)
    expected = {n: a.copy() for n, a in inputs.items()}
    interpret(kernel, expected)
    values = inputs | {b.name: np.full(b.static_shape, 99, b.dtype.to_numpy()) for b in found.temporaries}
    for part in found.kernels:
        verify(part)
        interpret(part, {b.name: values[b.name] for b in part.args})
    for b in kernel.args:
        np.testing.assert_array_equal(values[b.name], expected[b.name])
    return list(found.kernels)


def test_each_contraction_takes_its_start_and_its_reader_along() -> None:
    first, second = assert_same(PLAIN)
    assert contractions(first) == ["t"] and contractions(second) == ["s"]
    assert [b.name for b in first.args] == ["a", "b", "u"] and [b.name for b in second.args] == ["d", "bias", "c", "u"]
    assert separated(PLAIN).temporaries[0].name == "u"


def test_readers_may_stay_alone() -> None:
    names = [contractions(k) for k in assert_same(PLAIN, frozenset({"t", "s"}))]
    assert names == [["t"], [], ["s"], []]


def test_a_reader_does_not_pass_what_writes_its_inputs() -> None:
    """The bias is changed between the sums and their reader: the reader stays behind that."""
    kernel = parse(CHAIN.format(before="", after="").replace("    for i_5", "    for z in range(4):\n        bias[z] = 3\n    for i_5"))
    assert [contractions(k) for k in assert_same(kernel)] == [["t"], ["s"], []]


@pytest.mark.parametrize(
    "more",
    [
        "\n    for x in range(5):\n        for y in range(4):\n            c[x, y] += s[x, y]",  # read twice
        "\n    for x in range(4):\n        s[0, x] = 1\n    for y in range(4):\n        c[0, y] += s[0, y]",  # overwritten
    ],
)
def test_sums_that_others_touch_stay_in_memory(more: str) -> None:
    kernel = parse(CHAIN.format(before="", after=more))
    parts = assert_same(kernel)
    assert [contractions(k) for k in parts] == [["t"], ["s"], []] and "s" in {b.name for b in separated(kernel).temporaries}


def test_a_start_that_is_used_in_between_is_not_moved() -> None:
    kernel = parse(CHAIN.format(before="for z in range(4):\n        s[0, z] += bias[z]", after=""))
    parts = assert_same(kernel)
    assert [contractions(k) for k in parts] == [[], ["t"], [], ["s"]]


def test_one_contraction_is_left_as_it_is() -> None:
    kernel = parse("""
@kernel
def one(a: i8[3, 4], b: i8[4, 5], c: i32[3, 5]):
    for i in range(3):
        for j in range(5):
            for k in range(4):
                c[i, j] += a[i, k] * b[k, j]
""")
    assert separated(kernel).kernels == (kernel,) and separated(kernel).temporaries == ()
