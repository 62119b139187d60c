"""The golden model: exact integers, IEEE floats, undefined data, and errors that say where."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.ir import types as ty
from tilewright.ir import values
from tilewright.ir.interpreter import interpret
from tilewright.lang import parse
from tilewright.util.errors import ExecutionError, IRTypeError


def _scalar(body: str, signature: str, **arrays: object) -> dict[str, np.ndarray]:
    k = parse(f"@kernel\ndef f({signature}):\n    {body}\n")
    args = {b.name: np.array(arrays[b.name], dtype=b.dtype.to_numpy()) for b in k.args}
    interpret(k, args)
    return args


@given(st.integers(-128, 127), st.integers(-(2**31), 2**31 - 1))
def test_integer_arithmetic_is_exact_and_assignment_wraps(x: int, y: int) -> None:
    out = _scalar("w = a * b + a\n    n = a * b", "a: i8, b: i32, w: i64, n: i8", a=x, b=y, w=0, n=0)
    assert out["w"] == x * y + x
    assert out["n"] == (x * y + 128) % 256 - 128


@given(st.integers(-50, 50), st.integers(-9, 9).filter(bool))
def test_floor_division_and_remainder(x: int, y: int) -> None:
    out = _scalar("q = a // b\n    r = a % b", "a: i8, b: i8, q: i8, r: i8", a=x, b=y, q=0, r=0)
    assert (out["q"], out["r"]) == (math.floor(Fraction(x, y)), x - y * math.floor(Fraction(x, y)))


@given(st.integers(0, 2**100 - 1), st.integers(-(2**90), 2**90 - 1))
def test_integers_wider_than_a_machine_word(x: int, y: int) -> None:
    out = _scalar("c = a * b", "a: UInt(100), b: Int(91), c: Int(120)", a=x, b=y, c=0)
    assert int(out["c"][()]) == (x * y + 2**119) % 2**120 - 2**119


@given(st.integers(-(2**15), 2**15 - 1), st.integers(-(2**15), 2**15 - 1))
def test_fixed_point_aligns_fractions_and_drops_low_bits(x: int, y: int) -> None:
    out = _scalar("s = a + b\n    p = a * b", "a: Fixed(16, 8), b: Fixed(16, 4), s: Fixed(32, 8), p: Fixed(40, 6)", a=x, b=y, s=0, p=0)
    assert Fraction(int(out["s"]), 2**8) == Fraction(x, 2**8) + Fraction(y, 2**4)
    assert int(out["p"]) == math.floor(Fraction(x, 2**8) * Fraction(y, 2**4) * 2**6)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_f32_arithmetic_rounds_every_operation(x: float, y: float) -> None:
    with np.errstate(all="ignore"):
        want = np.float32(x) * np.float32(y) + np.float32(x)
    np.testing.assert_array_equal(_scalar("c = a * b + a", "a: f32, b: f32, c: f32", a=x, b=y, c=0)["c"], want)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e38, max_value=1e38))
def test_bf16_is_the_nearest_value_with_ties_to_even(x: float) -> None:
    got = values.to_bf16(np.float64(x))
    bits = int(got.view(np.uint32))
    assert bits & 0xFFFF == 0
    neighbours = [np.uint32(max(bits + d, bits & 0x80000000)).view(np.float32) for d in (-0x10000, 0x10000) if bits & 0x7FFF0000]
    error = abs(Fraction(float(got)) - Fraction(x))
    others = [abs(Fraction(float(n)) - Fraction(x)) for n in neighbours if np.isfinite(n)]
    assert all(error < o or (error == o and not bits >> 16 & 1) for o in others)


@given(st.integers(-(2**200), 2**200))
def test_wide_integers_round_to_floats_once(x: int) -> None:
    assert values.from_int(x, ty.f64) == float(x)
    with np.errstate(over="ignore"):
        got = values.from_int(x, ty.f32)
    if np.isfinite(got):
        around = [np.nextafter(got, np.float32(d)) for d in (-np.inf, np.inf)]
        assert all(abs(Fraction(float(got)) - x) <= abs(Fraction(float(n)) - x) for n in around if np.isfinite(n))


def test_comparisons_are_exact_across_types() -> None:
    big = 2**53 + 1  # not an f64
    assert _scalar("c = a == b", "a: i64, b: f64, c: bool", a=big, b=float(2**53), c=True)["c"] == np.False_
    assert _scalar("c = a > b", "a: i64, b: f32, c: bool", a=2**24 + 1, b=2.0**24, c=False)["c"] == np.True_
    assert _scalar("c = a < b", "a: u8, b: i8, c: bool", a=3, b=-1, c=True)["c"] == np.False_


def test_division_of_floats_follows_ieee_and_min_propagates_nan() -> None:
    out = _scalar("c = a / b\n    d = min(c, a - a / b * b)", "a: f32, b: f32, c: f32, d: f32", a=1, b=0, c=0, d=0)
    assert out["c"] == np.inf
    assert np.isnan(out["d"])


def test_where_guards_a_load() -> None:
    k = parse("@kernel\ndef shift(a: f32[4], b: f32[4]):\n    for i in range(4):\n        b[i] = where(i > 0, a[i - 1], 0.0)\n")
    a, b = np.arange(1, 5, dtype=np.float32), np.zeros(4, np.float32)
    interpret(k, [a, b])
    np.testing.assert_array_equal(b, [0, 1, 2, 3])


def test_undefined_data_propagates_until_it_matters() -> None:
    ignored = "@kernel\ndef f(a: f32[4]):\n    t = alloc(f32[4])\n    t[0] = t[1] * 2.0 + a[0]\n    t[2] = 1.0\n    a[0] = t[2]\n"
    a = np.zeros(4, np.float32)
    interpret(parse(ignored), [a])
    assert a[0] == 1
    with pytest.raises(ExecutionError, match=r"undefined data is stored to a\[0\]"):
        interpret(parse(ignored.replace("a[0] = t[2]", "a[0] = t[0]")), [a])
    with pytest.raises(ExecutionError, match="undefined data decides"):
        interpret(parse("@kernel\ndef f(a: f32):\n    t: f32\n    if t > 0.0:\n        a = 1.0\n"), [np.array(0, np.float32)])


def test_local_buffers_are_undefined_again_in_every_iteration() -> None:
    k = parse(
        "@kernel\ndef f(a: f32[3]):\n    for i in range(3):\n        t: f32\n        if i == 0:\n            t = 1.0\n        a[i] = t\n"
    )
    with pytest.raises(ExecutionError, match=r"a\[1\]"):
        interpret(k, [np.zeros(3, np.float32)])


def test_an_index_out_of_bounds_names_buffer_indices_statement_and_loops() -> None:
    k = parse("@kernel\ndef f(a: f32[4, 5]):\n    for i in range(4):\n        for j in range(6):\n            a[i, j] = 0.0\n")
    a = np.ones((4, 5), np.float32)
    with pytest.raises(ExecutionError) as error:
        interpret(k, [a])
    text = str(error.value)
    assert "a[0, 5] is outside a, whose shape is [4, 5]" in text
    assert "i=0, j=5" in text
    assert "<text>:5" in text
    assert a.all(), "arrays stay as they were when the run fails"


def test_a_negative_index_is_out_of_bounds() -> None:
    with pytest.raises(ExecutionError, match=r"a\[-1\] is outside"):
        interpret(parse("@kernel\ndef f(a: f32[4]):\n    a[-1] = 0.0\n"), [np.ones(4, np.float32)])


@pytest.mark.parametrize("op", ["//", "%"])
def test_integer_division_by_zero_is_an_error(op: str) -> None:
    with pytest.raises(ExecutionError, match="division by zero"):
        _scalar(f"c = a {op} b", "a: i32, b: i32, c: i32", a=1, b=0, c=0)


def test_while_and_calls_with_strided_windows() -> None:
    k = parse(
        """
@kernel(params=("N",))
def double(x: i32[N]):
    for i in range(N):
        x[i] = x[i] * 2

@kernel
def f(a: i32[3, 8]):
    n: i32 = 0
    while n < 3:
        double(4, a[n, 1:9:2])
        n += 1
"""
    )
    a = np.arange(24, dtype=np.int32).reshape(3, 8)
    want = a.copy()
    want[:, 1::2] *= 2
    interpret(k, [a])
    np.testing.assert_array_equal(a, want)


def test_a_window_out_of_bounds_is_an_error_even_if_unused() -> None:
    text = "@kernel\ndef g(x: f32[4]):\n    pass\n\n@kernel\ndef f(a: f32[6]):\n    for i in range(2):\n        g(a[3 * i:3 * i + 4])\n"
    with pytest.raises(ExecutionError, match="dimension 0 of a window on a covers 3 to 6, outside 0 to 5"):
        interpret(parse(text), [np.zeros(6, np.float32)])


def test_deep_nests_run() -> None:
    lines = ["@kernel", "def f(a: i64):"]
    lines += ["    " * (d + 1) + f"for i{d}_ in range({2 if d % 4 == 0 else 1}):" for d in range(40)]
    lines.append("    " * 41 + "a += 1")
    a = np.array(0)
    interpret(parse("\n".join(lines)), [a])
    assert a == 2**10


def test_sizes_are_read_off_the_arguments() -> None:
    k = parse('@kernel(params=("M", "N"))\ndef f(a: f32[M, N], b: f32[N]):\n    for i, j in grid(M, N):\n        b[j] += a[i, j]\n')
    a, b = np.ones((3, 5), np.float32), np.zeros(5, np.float32)
    interpret(k, {"a": a, "b": b})
    assert (b == 3).all()
    with pytest.raises(IRTypeError, match=r"argument b has shape \[4\], but \[5\] is declared"):
        interpret(k, {"a": a, "b": np.zeros(4, np.float32)})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([np.zeros(4)], "array of float64, but f32 is stored as float32"),
        ([np.zeros((2, 2), np.float32)], "has 2 dimensions, but 1 are declared"),
        ([], "takes 1 arguments"),
        ([1.0], "not a NumPy array"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(args: list[np.ndarray], message: str) -> None:
    with pytest.raises(IRTypeError, match=message):
        interpret(parse("@kernel\ndef f(a: f32[4]):\n    pass\n"), args)


def test_values_outside_an_odd_width_are_refused() -> None:
    with pytest.raises(IRTypeError, match="outside Int"):
        interpret(parse("@kernel\ndef f(a: Int(5)[2]):\n    pass\n"), [np.array([1, 16], np.int8)])


def test_fixed_point_becomes_a_float_though_its_raw_integer_would_not_fit() -> None:
    out = _scalar("b = f16(a)", "a: Fixed(40, 30), b: f16", a=3 << 29, b=0)
    assert out["b"] == 1.5
