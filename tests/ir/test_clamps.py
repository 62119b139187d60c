"""Bounds in one place: nothing else changes, and many spellings of one thing become one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.ir import expr as ex
from tilewright.ir.buffer import buffer
from tilewright.ir.clamps import clamped
from tilewright.ir.expr import Expr, Load, Var, binary, cast, compare, const, intrinsic, where
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel, block, loop, store
from tilewright.ir.types import DType, UInt, bf16, f16, f32, i8, i32, u8

N = 64
X = buffer("x", i32, (N,))
SUM = Load(X, (Var("i"),))


def run(e: Expr, x: np.ndarray) -> np.ndarray:
    out = buffer("out", e.dtype, (N,))
    kernel = Kernel("k", (X, out), block(loop("i", 0, N, store(Load(out, (Var("i"),)), e))))
    arrays = {"x": x, "out": np.zeros(N, e.dtype.to_numpy())}
    interpret(kernel, arrays)
    return arrays["out"]


def narrowed(e: Expr, dtype: DType, safe: bool) -> Expr:
    low, high = dtype.range
    return cast(binary("min", binary("max", e, const(low, e.dtype)), const(high, e.dtype)) if safe else e, dtype)


@st.composite
def epilogues(draw: st.DrawFn) -> Expr:
    """What is done to sums: bounds, scales, roundings and conversions in any order."""
    e: Expr = SUM
    for _ in range(draw(st.integers(1, 7))):
        c = const(draw(st.sampled_from([-300, -128, -1, 0, 1, 6, 127, 255, 1000])), e.dtype if e.dtype.is_float else i32)
        if not e.dtype.is_float and not c.dtype.range[0] <= c.value <= c.dtype.range[1]:
            continue
        match draw(st.sampled_from(["min", "max", "where", "scale", "divide", "round", "float", "narrow", "wide"])):
            case "min" | "max" as op:
                e = binary(op, e, c) if draw(st.booleans()) else binary(op, c, e)
            case "where":
                cond = compare(draw(st.sampled_from(["<", "<=", ">", ">=", "=="])), *((e, c) if draw(st.booleans()) else (c, e)))
                bounded = draw(st.sampled_from([e, binary("min", e, const(1, e.dtype)), binary("max", e, const(1, e.dtype))]))
                e = where(cond, bounded, c) if draw(st.booleans()) else where(cond, c, bounded)
            case "scale" if e.dtype.is_float:
                e = binary("*", e, const(draw(st.sampled_from([0.01, 0.5, 3.0, -0.25])), e.dtype))
            case "divide" if e.dtype.is_float:
                e = binary("/", e, const(draw(st.sampled_from([64.0, 3.0, -8.0])), e.dtype))
            case "round" if e.dtype.is_float:
                e = intrinsic(draw(st.sampled_from(["round", "floor", "ceil", "trunc", "abs"])), e)
            case "float":
                e = cast(e, draw(st.sampled_from([f32, f16, bf16])))
            case "narrow":
                e = narrowed(e, draw(st.sampled_from([i8, u8, UInt(3)])), draw(st.booleans()) or e.dtype.is_float)
            case "wide" if not e.dtype.is_float:
                e = cast(e, i32)
    return narrowed(e, i8, True)


@settings(max_examples=80, deadline=None)
@given(epilogues(), st.integers(0, 2**32 - 1))
def test_nothing_but_the_place_of_bounds_changes(e: Expr, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-(2**31), 2**31, N) >> rng.integers(0, 28, N)
    after = clamped(e)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(run(after, x.astype(np.int32)), run(e, x.astype(np.int32)))
    assert clamped(after) == after


FLOAT = cast(SUM, f32)


def scaled(e: Expr) -> Expr:
    return intrinsic("round", binary("*", cast(e, f32), const(0.5, f32)))


@pytest.mark.parametrize(
    "e",
    [
        narrowed(scaled(binary("max", SUM, const(0, i32))), i8, True),
        narrowed(scaled(where(compare(">", SUM, const(0, i32)), SUM, const(0, i32))), i8, True),
        narrowed(scaled(where(compare("<", const(0, i32), SUM), SUM, const(0, i32))), i8, True),
        narrowed(scaled(where(compare("<=", SUM, const(0, i32)), const(0, i32), SUM)), i8, True),
        narrowed(intrinsic("round", binary("max", binary("/", FLOAT, const(2.0, f32)), const(0.0, f32))), i8, True),
        cast(binary("max", binary("min", scaled(SUM), const(127.0, f32)), const(0.0, f32)), i8),
        binary("max", narrowed(scaled(SUM), i8, True), const(0, i8)),
    ],
)
def test_a_relu_is_one_thing_however_it_is_written(e: Expr) -> None:
    assert clamped(e) == cast(binary("min", binary("max", scaled(SUM), const(0.0, f32)), const(127.0, f32)), i8)


@pytest.mark.parametrize(
    "e",
    [
        cast(binary("max", cast(SUM, f16), const(0.0, f16)), f32),  # a float: the sign of a zero would be another
        cast(binary("max", SUM, const(0, i32)), i8),  # wraps
        binary("max", cast(SUM, i8), const(0, i8)),  # wraps before
        narrowed(binary("*", binary("max", FLOAT, const(0.0, f32)), const(-1.0, f32)), i8, True),  # falls
        narrowed(intrinsic("abs", binary("max", FLOAT, const(-5.0, f32))), i8, True),
        where(compare("==", SUM, const(3, i32)), const(3, i32), SUM),
        where(compare(">", SUM, const(3, i32)), const(4, i32), SUM),
        where(compare(">", SUM, const(3, i32)), const(3, i32), binary("max", SUM, const(5, i32))),  # no clamp: 3 above, 5 below
        where(compare(">", SUM, const(3, i32)), const(3, i32), binary("min", SUM, const(1, i32))),  # 1 below, 3 above
        where(compare("<=", SUM, const(3, i32)), const(3, i32), binary("min", SUM, const(1, i32))),  # 3 below, 1 above
    ],
)
def test_what_is_no_bound_stays(e: Expr) -> None:
    assert clamped(e) == e and all(isinstance(x, Expr) for x in ex.walk(e))
