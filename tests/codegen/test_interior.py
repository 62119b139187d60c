"""Loops divided where guards change: the same values, with nothing asked in the interior."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from tests.codegen.conftest import execute

from tilewright.codegen.interior import divided
from tilewright.codegen.llvm import emit
from tilewright.hw import load_machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.interpreter import interpret
from tilewright.ir.verify import verify
from tilewright.lang import parse


def padding(size: int, channels: int, before: int, behind: int, kind: str = "range") -> str:
    whole = before + size + behind
    last = before + size
    inside = f"i >= {before} and i < {last} and j >= {before} and j < {last}"
    return f"""
@kernel
def pad(x: f32[{channels}, {size}, {size}], y: f32[{whole}, {whole}, {channels}]):
    for i in {kind}({whole}):
        for j in range({whole}):
            for c in vector({channels}):
                y[i, j, c] = where({inside}, x[c, i - {before}, j - {before}], -1.0)
"""


def guarded(text: str, *rest: str) -> st.Kernel:
    """The kernel whose innermost statement is ``text``."""
    lines = "\n".join(f"            {line}" for line in (text, *rest))
    return parse(f"@kernel\ndef k(x: f32[40, 40], y: f32[40, 40]):\n    for i in range(40):\n        for j in range(40):\n{lines}\n")


def wheres(kernel: st.Kernel) -> int:
    values = (s.value for s in st.walk(kernel.body) if isinstance(s, st.Store))
    return sum(isinstance(e, ex.Where) for v in values for e in ex.walk(v))


@settings(max_examples=25, deadline=None)
@given(some.integers(2, 40), some.integers(1, 18), some.integers(0, 3), some.integers(0, 3), some.sampled_from(["range", "parallel"]))
def test_padding_is_what_the_interpreter_says(size, channels, before, behind, kind):
    kernel = parse(padding(size, channels, before, behind, kind))
    rng = np.random.default_rng(size)
    x = rng.standard_normal((channels, size, size)).astype(np.float32)
    whole = before + size + behind
    found, expected = (np.zeros((whole, whole, channels), np.float32) for _ in range(2))
    execute(kernel, load_machine("host"), {"x": x, "y": found})
    interpret(kernel, {"x": x, "y": expected})
    np.testing.assert_array_equal(found, expected)


def test_no_question_is_left():
    kernel = divided(parse(padding(30, 16, 1, 1)))
    verify(kernel)
    assert wheres(kernel) == 0
    assert sum(isinstance(s, st.If) for s in st.walk(kernel.body)) == 1  # one a row


def test_the_interior_of_three_channels_is_transposed_in_registers():
    text = emit(parse(padding(224, 3, 3, 3)), load_machine("x86.avx512")).text
    assert "masked.gather" not in text


def test_conditions_on_both_loops_stay():
    kernel = divided(guarded("y[i, j] = where(i + j < 40 and j >= 3, x[i, j], 0.0)"))
    verify(kernel)
    assert wheres(kernel) == 1  # behind the cut; before it nothing is asked


@pytest.mark.parametrize(
    "text",
    [
        "y[i, j] += where(j >= 3, x[i, j], 0.0)",  # sums are left to the tiles they belong to
        "y[i, j] = where(j % 2 == 0, x[i, j], 0.0)",  # too many parts
        "y[i, j] = where(x[i, j] > 0.0, x[i, j], 0.0)",
        "y[i, j] = x[i, j]",
    ],
)
def test_other_loops_are_left_alone(text):
    kernel = guarded(text)
    assert wheres(divided(kernel)) == wheres(kernel)
    assert len(st.loops(divided(kernel))) == len(st.loops(kernel))


def test_several_stores_with_guards_of_their_own():
    kernel = guarded("y[i, j] = where(j >= 3 and i < 7, x[i, j], 0.0)", "y[i, j] = where(j < 30, y[i, j], 2.0)")
    verify(divided(kernel))
    x = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)
    found, expected = (np.zeros((40, 40), np.float32) for _ in range(2))
    interpret(divided(kernel), {"x": x, "y": found})
    interpret(kernel, {"x": x, "y": expected})
    np.testing.assert_array_equal(found, expected)


def test_loops_too_long_to_ask_each_iteration_are_left_alone():
    kernel = parse(f"@kernel\ndef f(y: f32[64]):\n    for i in range({1 << 40}):\n        y[i % 64] = where(i >= 3, 1.0, 0.0)\n")
    assert divided(kernel) is kernel
