"""outline and split_sum: values taken apart stay what they were; what would change them is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel, all_buffers
from tilewright.ir.types import i32
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.schedule import Schedule, replay
from tilewright.util.errors import ScheduleError


def residual(value: str, dtype: str = "i8") -> Kernel:
    return parse(f"""
@kernel
def residual(a: {dtype}[5, 7], b: {dtype}[5, 7], c: {dtype}[5, 7], y: {dtype}[5, 7]):
    for i in range(5):
        for j in range(7):
            y[i, j] = {value}
""")


def numbers(k: Kernel) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    out = {}
    for b in k.args:
        kind = b.dtype.to_numpy()
        out[b.name] = rng.normal(size=(5, 7)).astype(kind) if b.dtype.is_float else rng.integers(-128, 128, (5, 7)).astype(kind)
    return out


def same(k: Kernel, sch: Schedule) -> None:
    verify(sch.kernel)
    before = numbers(k)
    after = {n: a.copy() for n, a in before.items()}
    interpret(k, before)
    interpret(sch.kernel, after)
    np.testing.assert_array_equal(after["y"], before["y"])
    assert before["y"].std() > 0
    assert replay(k, sch.trace).kernel == sch.kernel


def test_a_part_is_computed_before_and_term_by_term() -> None:
    k = residual("i8(min(max(a[i, j] + b[i, j] + c[j - j + i, j], -128), 127))")
    sch = Schedule(k)
    part, first = sch.outline("i", "a[i, j] + b[i, j] + c[j - j + i, j]", "i32")
    assert next(b for b in all_buffers(sch.kernel) if b.name == part).dtype == i32
    same(k, sch)
    roots = sch.split_sum(first)
    assert len(roots) == 3
    same(k, sch)


@pytest.mark.parametrize(
    ("value", "count"), [("(a[i, j] + b[i, j]) + c[i, j]", 3), ("a[i, j] + (b[i, j] + c[i, j])", 2), ("a[i, j] * b[i, j] + c[i, j]", 2)]
)
def test_floats_are_added_in_the_order_in_which_they_were(value: str, count: int) -> None:
    k = residual(f"max({value}, 0.0)", "f32")
    sch = Schedule(k)
    _, first = sch.outline("i", value.replace("(a[i, j] + b[i, j])", "a[i, j] + b[i, j]"), "f32")
    assert len(sch.split_sum(first)) == count
    same(k, sch)


def test_what_is_used_twice_is_read_twice() -> None:
    k = residual("i8(min(max((a[i, j] + b[i, j]) * (a[i, j] + b[i, j]), -128), 127))")
    sch = Schedule(k)
    part, _ = sch.outline("i", "a[i, j] + b[i, j]", "i32")
    assert str(sch.kernel).count(f"{part}[i, j] * {part}[i, j]") == 1
    same(k, sch)


@pytest.mark.parametrize(
    ("part", "dtype", "why"),
    [
        ("a[i, j] + b[i, j]", "i8", r"i8 does not hold all values of a\[i, j\] \+ b\[i, j\], which is Int\(9\)"),
        ("a[i, j] + b[i, j]", "f32", "f32 does not hold all values"),
        ("a[i, j] + c[i, j]", "i32", "has no part"),
        ("i", "i32", "does not hold all values of i, which is index"),
    ],
)
def test_parts_that_cannot_be_outlined(part: str, dtype: str, why: str) -> None:
    sch = Schedule(residual("i8(min(max(a[i, j] + b[i, j], -128), 127))"))
    with pytest.raises(ScheduleError, match=why):
        sch.outline("i", part, dtype)
    assert sch.kernel == residual("i8(min(max(a[i, j] + b[i, j], -128), 127))")


@pytest.mark.parametrize(
    ("value", "guarded", "why"),
    [
        ("where(j > 0, a[i, j - 1], i8(0))", "a[i, j - 1]", "without which it may read outside of a"),
        ("where(b[i, j] != 0, i8(a[i, j] // b[i, j]), i8(0))", "i8(a[i, j] // b[i, j])", "it may divide by zero"),
    ],
)
def test_what_a_condition_guards_is_not_computed_without_it(value: str, guarded: str, why: str) -> None:
    with pytest.raises(ScheduleError, match=why) as caught:
        Schedule(residual(value)).outline("i", guarded, "i8")
    assert caught.value.hint == "take the whole choice"
    whole = residual("i8(min(" + value + " + c[i, j], 100))")
    sch = Schedule(whole)
    sch.outline("i", value, "i8")
    same(whole, sch)


def test_what_has_a_value_everywhere_may_leave_its_condition() -> None:
    k = residual("i8(where(j > 3, a[i, 6 - j] // 2, b[i, j]))")
    sch = Schedule(k)
    sch.outline("i", "a[i, 6 - j] // 2", "i16")
    same(k, sch)


def test_values_that_the_nest_writes_are_not_read_earlier() -> None:
    sch = Schedule(residual("i8(a[i, j] + y[i, (j + 1) % 7] * 0)"))
    with pytest.raises(ScheduleError, match=r"reads y, which the nest writes"):
        sch.outline("i", "a[i, j] + y[i, (j + 1) % 7] * 0", "i32")
    with pytest.raises(ScheduleError, match=r"is no sum|reads y"):
        sch.split_sum("i")


def test_sums_that_cannot_be_split() -> None:
    with pytest.raises(ScheduleError, match=r"is no sum that i8 adds up in the same way"):
        Schedule(residual("i8(a[i, j] * b[i, j])")).split_sum("i")
    twice = parse("""
@kernel
def last(a: i32[4, 3], b: i32[4, 3], y: i32[3]):
    for i in range(4):
        for j in range(3):
            y[j] = a[i, j] + b[i, j]
""")
    with pytest.raises(ScheduleError, match=r"stored to several times"):
        Schedule(twice).split_sum("i")
    with pytest.raises(ScheduleError, match=r"no perfect nest"):
        Schedule(parse("@kernel\ndef f(a: i32[4], y: i32[4]):\n    for i in range(1, 4):\n        y[i] = a[i] + a[i - 1]\n")).outline(
            "i", "a[i] + a[i - 1]", "i32"
        )
