from __future__ import annotations

import numpy as np
import pytest
from tests.schedule.programs import kernel_of

from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Alloc, Kernel
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError

MATMUL = """
def matmul(a: {0}[5, 9], b: {1}[9, 6], c: i32[5, 6]):
    for i in range(5):
        for j in range(6):
            c[i, j] = 0
    for i_1 in range(5):
        for j_1 in range(6):
            for k in range(9):
                c[i_1, j_1] += i32(a[i_1, k]) * i32(b[k, j_1])
"""


def run(kernel: Kernel) -> dict[str, np.ndarray]:
    """Results with the extremes of every operand's type among its values."""
    rng = np.random.default_rng(0)
    values = {}
    for b in kernel.args:
        low, high = b.dtype.range if b.dtype.bits == 8 else (-1000, 1000)
        values[b.name] = rng.integers(low, high, b.static_shape, endpoint=True).astype(f"{'' if b.dtype.signed else 'u'}int{b.dtype.bits}")
        values[b.name].flat[:2] = low, high
    interpret(kernel, values)
    return values


@pytest.mark.parametrize("operand", ["a", "b"])
@pytest.mark.parametrize("types", [("i8", "i8"), ("u8", "u8"), ("u8", "i8")])
def test_the_sums_stay(types: tuple[str, str], operand: str) -> None:
    kernel = kernel_of(MATMUL.format(*types))
    s = Schedule(kernel)
    copy, sums, parts = s.recenter("k", operand)
    assert (copy, parts) == (f"{operand}_shifted", "c_shifted") and sums == f"{'ab'[operand == 'a']}_sums"
    made = {t.buffer.name: t.buffer for t in s.kernel.body.stmts if isinstance(t, Alloc)}
    assert str(made[copy].dtype) == {"i8": "u8", "u8": "i8"}[types["ab".index(operand)]]
    assert made[sums].static_shape == ((6,) if operand == "a" else (5,))
    assert len([t for t in s.kernel.body.stmts if not isinstance(t, Alloc)]) == 6  # the result's start is part of its end
    np.testing.assert_array_equal(run(kernel)["c"], run(s.kernel)["c"])


def test_added_to_what_is_there() -> None:
    kernel = kernel_of("""
def conv(x: i8[3, 12], w: i8[4, 3, 3], y: i32[4, 10]):
    for o in range(4):
        for q in range(10):
            for c in range(3):
                for s in range(3):
                    y[o, q] += i32(x[c, q + s]) * i32(w[o, c, s])
""")
    s = Schedule(kernel)
    s.recenter("c", "x")
    np.testing.assert_array_equal(run(kernel)["y"], run(s.kernel)["y"])


def test_refusals() -> None:
    kernel = kernel_of(MATMUL.format("i8", "i8"))
    with pytest.raises(ScheduleError, match="not a sum of exact products of c and one other integer"):
        Schedule(kernel).recenter("k", "c")
    floats = kernel_of("""
def dot(a: i8[8], b: f32[8], c: f32[1]):
    for k in range(8):
        c[0] += f32(a[k]) * b[k]
""")
    with pytest.raises(ScheduleError, match="exact products of a"):
        Schedule(floats).recenter("k", "a")
    square = kernel_of("""
def squares(a: i8[8], c: i32[1]):
    for k in range(8):
        c[0] += i32(a[k]) * i32(a[k])
""")
    with pytest.raises(ScheduleError, match="one other integer"):
        Schedule(square).recenter("k", "a")
