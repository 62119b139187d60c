"""Element types: text form, and typing rules that leave room for every exact result."""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tilewright.ir import types as ty
from tilewright.ir import values
from tilewright.ir.types import DType, Fixed, Int, UFixed, UInt, arithmetic_type, from_numpy, parse_dtype
from tilewright.util.errors import IRTypeError

WIDTHS = st.integers(1, 70)
INTEGERS = st.one_of(st.builds(Int, WIDTHS), st.builds(UInt, WIDTHS))
FIXED = st.one_of(st.builds(Fixed, st.integers(1, 30), st.integers(-3, 30)), st.builds(UFixed, st.integers(1, 30), st.integers(-3, 30)))
FLOATS = st.sampled_from([ty.f16, ty.bf16, ty.f32, ty.f64])


@given(st.one_of(INTEGERS, FIXED, FLOATS, st.sampled_from([ty.boolean, ty.index])))
def test_text_form_parses_back(t: DType) -> None:
    assert parse_dtype(str(t)) == t


@given(INTEGERS, INTEGERS, st.sampled_from(["+", "-", "*", "//", "%", "min", "max"]), st.data())
def test_integer_results_never_overflow(a: DType, b: DType, op: str, data: st.DataObject) -> None:
    x, y = (data.draw(st.one_of(st.sampled_from(t.range), st.integers(*t.range))) for t in (a, b))
    assume(op not in ("//", "%") or y)
    exact = {"+": x + y, "-": x - y, "*": x * y, "//": x // (y or 1), "%": x % (y or 1), "min": min(x, y), "max": max(x, y)}[op]
    lo, hi = arithmetic_type(op, a, b).range
    assert lo <= exact <= hi


@given(FIXED, FIXED, st.sampled_from(["+", "-", "*", "min", "max"]), st.data())
def test_fixed_point_results_are_exact(a: DType, b: DType, op: str, data: st.DataObject) -> None:
    x, y = (data.draw(st.one_of(st.sampled_from(t.range), st.integers(*t.range))) for t in (a, b))
    t = arithmetic_type(op, a, b)
    fx, fy = (Fraction(v) / Fraction(2) ** s.frac for v, s in ((x, a), (y, b)))
    raw = values.fixed_operation(op, a, b)(x, y)
    assert Fraction(raw) / Fraction(2) ** t.frac == {"+": fx + fy, "-": fx - fy, "*": fx * fy, "min": min(fx, fy), "max": max(fx, fy)}[op]
    assert t.range[0] <= raw <= t.range[1]


@given(FIXED, FIXED, st.data())
def test_fixed_point_quotients_fit_and_round_down(a: DType, b: DType, data: st.DataObject) -> None:
    assume(b.frac >= 0 and a.frac >= 0)
    x, y = (data.draw(st.one_of(st.sampled_from(t.range), st.integers(*t.range))) for t in (a, b))
    assume(y)
    t = arithmetic_type("/", a, b)
    raw = values.fixed_operation("/", a, b)(x, y)
    exact = (Fraction(x) / Fraction(2) ** a.frac) / (Fraction(y) / Fraction(2) ** b.frac)
    assert raw <= exact * Fraction(2) ** t.frac < raw + 1
    assert t.range[0] <= raw <= t.range[1]


@given(FLOATS, st.one_of(INTEGERS, FLOATS, FIXED))
def test_a_float_operand_makes_the_result_a_float_that_is_no_narrower(a: DType, b: DType) -> None:
    t = arithmetic_type("+", a, b)
    assert t == arithmetic_type("+", b, a)
    assert t.is_float
    assert t.bits >= max(a.bits, b.bits if b.is_float else 0)


def test_half_and_bfloat_meet_in_single() -> None:
    assert arithmetic_type("*", ty.f16, ty.bf16) == ty.f32


@pytest.mark.parametrize(
    ("op", "a", "b", "message"),
    [("/", ty.i8, ty.i8, "ambiguous"), ("&", ty.f32, ty.i8, "only integers have bits"), ("%", Fixed(8, 4), ty.i8, "not defined on fixed")],
)
def test_operations_without_a_meaning_are_refused(op: str, a: DType, b: DType, message: str) -> None:
    with pytest.raises(IRTypeError, match=message):
        arithmetic_type(op, a, b)


def test_storage_types() -> None:
    assert [t.to_numpy() for t in (ty.f16, ty.bf16, ty.boolean, Int(5), UInt(33))] == [np.float16, np.uint16, np.bool_, np.int8, np.uint64]
    assert UInt(65).to_numpy() == np.dtype(object)
    assert all(from_numpy(t.to_numpy()) == t for t in (ty.f16, ty.f32, ty.f64, ty.i8, ty.u64, ty.boolean))
    with pytest.raises(IRTypeError, match="no element type"):
        from_numpy(np.complex64)


def test_wrong_types_are_refused() -> None:
    with pytest.raises(IRTypeError, match="unknown element type"):
        parse_dtype("f33")
    with pytest.raises(IRTypeError, match="bit width"):
        Int(0)


def test_annotations_in_python() -> None:
    t = ty.f32[4, 16] @ "reg"
    assert (t.dtype, t.shape, t.memory) == (ty.f32, (4, 16), "reg")
    with pytest.raises(IRTypeError, match="not a memory"):
        ty.f32[4] @ 3


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_ranges_are_those_of_numpy(bits: int) -> None:
    for t, name in ((Int(bits), f"int{bits}"), (UInt(bits), f"uint{bits}")):
        assert t.range == (np.iinfo(name).min, np.iinfo(name).max)


def test_ranges_of_narrow_and_fixed_types_are_of_raw_integers() -> None:
    found = [t.range for t in (ty.boolean, Int(4), UInt(4), Int(1), UInt(1), Fixed(8, 3), UFixed(6, 2))]
    assert found == [(0, 1), (-8, 7), (0, 15), (-1, 0), (0, 1), (-128, 127), (0, 63)]
    with pytest.raises(IRTypeError, match="f32 has no integer range"):
        _ = ty.f32.range


OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {"+": operator.add, "*": operator.mul, "min": min, "max": max}
BITWISE: dict[str, Callable[[Any, Any], Any]] = {"&": operator.and_, "|": operator.or_, "^": operator.xor}


@given(st.one_of(INTEGERS, FIXED, st.just(ty.boolean)), st.sampled_from([*OPERATIONS, *BITWISE]), st.data())
def test_a_neutral_number_leaves_every_other_unchanged(t: DType, op: str, data: st.DataObject) -> None:
    assume(op in OPERATIONS or not t.is_fixed)
    raw = data.draw(st.one_of(st.sampled_from(t.range), st.integers(*t.range)))
    value = Fraction(raw) / Fraction(2) ** t.frac if t.is_fixed else raw
    neutral = t.neutral(op)
    assert isinstance(neutral, int) or t.is_fixed
    assert (OPERATIONS | BITWISE)[op](Fraction(neutral) if t.is_fixed else neutral, value) == value
    assert op not in ("min", "max") or neutral in [Fraction(n) / Fraction(2) ** t.frac if t.is_fixed else n for n in t.range]


@pytest.mark.parametrize("value", [-float("inf"), -1.5, 0.0, 2.0, float("inf")])
@pytest.mark.parametrize("op", list(OPERATIONS))
def test_neutral_floats(op: str, value: float) -> None:
    assert OPERATIONS[op](ty.f32.neutral(op), value) == value
