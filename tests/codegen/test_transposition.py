"""Copies across memory: whole vectors are loaded and turned in registers, whatever the layouts, tails and types."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from tests.codegen.conftest import execute

from tilewright.codegen.llvm import emit
from tilewright.hw import load_machine
from tilewright.ir.interpreter import interpret
from tilewright.lang import parse


def copy_text(rows: int, columns: int, dtype: str = "f32", outer: str = "range", layout: str = "", start: int = 0) -> str:
    stored = f', layout="{layout}"' if layout else ""
    return f"""
@kernel
def turn(x: {dtype}[{rows}, {columns}], y: {dtype}[{columns}, {rows}{stored}]):
    for c in {outer}({columns}):
        for r in vector({start}, {rows}):
            y[c, r] = x[r, c]
"""


def gathers(text: str) -> bool:
    return "masked.gather" in text or "masked.scatter" in text


@pytest.mark.parametrize("outer", ["range", "unroll"])
@pytest.mark.parametrize("rows", [1, 5, 16, 37])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "bf16", "i16"])
def test_square_and_partial_blocks(check, dtype, rows, outer):
    check(copy_text(rows, 32, dtype, outer))


@pytest.mark.parametrize("machine", ["x86.avx512", "x86.avx2"])
def test_nothing_is_gathered(machine):
    kernel = parse(copy_text(21, 32))
    assert not gathers(emit(kernel, load_machine(machine)).text)


def test_a_row_shorter_than_the_lanes_is_gathered():
    kernel = parse(copy_text(32, 11))
    assert gathers(emit(kernel, load_machine("x86.avx512")).text)


@pytest.mark.parametrize("columns", [33, 80, 200])
@pytest.mark.parametrize("outer", ["range", "unroll"])
def test_long_rows_in_a_loop_over_blocks(check, columns, outer):
    check(copy_text(3, columns, "f32", outer))


def test_code_of_a_long_row_is_short():
    machine = load_machine("x86.avx512")
    short, long = (len(emit(parse(copy_text(3, n)), machine).text) for n in (80, 8000))
    assert long < 1.1 * short


@pytest.mark.parametrize(
    "statement",
    [
        "x[c, r + 32] = x[r, c]",  # rows of one buffer: an iteration could read what another wrote
        "y[c, r] += x[r, c]",
        "y[c, r] = x[r, c] + 1.0",
        "y[c, r] = x[r, 2 * c]",
        "y[2 * c, r] = x[r, c]",
        "y[c, r] = x[c, r]",
        "y[r, c] = x[r, c]",
    ],
)
def test_other_loops_stay_as_they_are(check, statement):
    check(f"""
@kernel
def other(x: f32[64, 64], y: f32[64, 64]):
    for c in range(32):
        for r in vector(32):
            {statement}
""")


@settings(max_examples=25, deadline=None)
@given(
    rows=some.integers(1, 70),
    blocks=some.sampled_from([1, 2, 3]),
    panel=some.sampled_from([8, 16, 32, 48, 64]),
    order=some.permutations(["1", "0"]),
    outside=some.booleans(),
)
def test_into_panels(rows, blocks, panel, order, outside):
    """A copy into panels of any width: an oracle of NumPy for the values, by way of a read back through the same layout."""
    machine = load_machine("host")
    columns = 16 * blocks
    whole = rows // 16
    walk = [f"for o in range({whole})", f"for b in range({blocks})"]
    walk = walk if outside else walk[::-1]
    text = f"""
@kernel
def panels(x: f32[{rows}, {columns}], y: f32[{rows}, {columns}]):
    p = alloc(f32[{rows}, {columns}], layout="0/{panel} {" ".join(order)}")
    {walk[0]}:
        {walk[1]}:
            for c in range(16):
                for r in vector(16):
                    p[o * 16 + r, b * 16 + c] = x[o * 16 + r, b * 16 + c]
    for e in range({columns}):
        for t in vector({16 * whole}, {rows}):
            p[t, e] = x[t, e]
    for i in range({rows}):
        for j in range({columns}):
            y[i, j] = p[i, j]
"""
    if not whole:
        text = text.replace(text[text.index("    for o" if outside else "    for b") : text.index("    for e")], "")
    x = np.random.default_rng(rows).standard_normal((rows, columns), dtype=np.float32)
    arrays = {"x": x, "y": np.full((rows, columns), np.nan, np.float32)}
    execute(parse(text), machine, arrays)
    np.testing.assert_array_equal(arrays["y"], x)


@settings(max_examples=40, deadline=None)
@given(block=some.sampled_from([4, 8, 12, 32, 48, 60, 64]), step=some.sampled_from([1, 2, 4, 6, 8, 16]), start=some.integers(0, 40))
def test_places_in_blocked_layouts(block, step, start):
    """Quotients of sums whose small part stays within a step: the interpreter, which knows no layouts, is the oracle."""
    kernel = parse(f"""
@kernel
def f(x: i32[400], y: i32[400]):
    p = alloc(i32[400], layout="0/{block} 0")
    for a in range(400):
        p[a] = x[a]
    for i in range(20):
        for l in vector({step}):
            y[i * {step} + l] = p[i * {step} + l + {start}]
""")
    x = np.random.default_rng(start).integers(-99, 99, 400, dtype=np.int32)
    ours, theirs = ({"x": x.copy(), "y": np.zeros(400, np.int32)} for _ in range(2))
    execute(kernel, load_machine("host"), ours)
    interpret(kernel, theirs)
    np.testing.assert_array_equal(ours["y"], theirs["y"])
