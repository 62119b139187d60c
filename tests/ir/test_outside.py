"""What surely leaves its array: against the interpreter, which sees every access."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as hs

from tilewright.ir.interpreter import interpret
from tilewright.ir.outside import check_inside, surely_outside
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.util.errors import ExecutionError

LOOPS = hs.tuples(hs.integers(-2, 3), hs.integers(-2, 6), hs.integers(1, 3))
FACTORS = hs.tuples(hs.integers(-2, 2), hs.integers(-2, 2), hs.integers(-3, 7))


def nest(
    outer: tuple[int, ...], inner: tuple[int, ...], stored: tuple[int, ...], read: tuple[int, ...], value: str = "x[{read}]"
) -> Kernel:
    """One store and one load at sums of multiples of two loops."""
    places = ("{} * i + {} * j + {}".format(*f) for f in (stored, read))
    return parse(f"""
@kernel
def f(x: f32[6], y: f32[9]):
    for i in range({", ".join(map(str, outer))}):
        for j in range({", ".join(map(str, inner))}):
            y[{next(places)}] = {value.format(read=next(places))}
""")


def fails(kernel: Kernel) -> bool:
    """Whether the interpreter meets an access that is outside."""
    try:
        interpret(kernel, {"x": np.ones(6, np.float32), "y": np.zeros(9, np.float32)})
    except ExecutionError as error:
        assert "is outside" in str(error)
        return True
    return False


@settings(max_examples=150, deadline=None)
@given(LOOPS, LOOPS, FACTORS, FACTORS)
@example((0, 8, 3), (0, 1, 1), (1, 0, 2), (0, 0, 0))  # the last iteration of three steps is the seventh
def test_nests_without_conditions_are_decided(
    outer: tuple[int, ...], inner: tuple[int, ...], stored: tuple[int, ...], read: tuple[int, ...]
) -> None:
    kernel = nest(outer, inner, stored, read)
    assert any(surely_outside(kernel)) == fails(kernel)


@settings(max_examples=50, deadline=None)
@given(LOOPS, LOOPS, FACTORS, hs.sampled_from(["where(i < j, x[{read}], 0.0)", "x[({read}) // 2]", "x[min({read}, i * j)]"]))
def test_what_is_refused_fails(outer: tuple[int, ...], inner: tuple[int, ...], read: tuple[int, ...], value: str) -> None:
    kernel = nest(outer, inner, (0, 0, 0), read, value)
    assert fails(kernel) or not any(surely_outside(kernel))


def test_the_error_names_the_element() -> None:
    kernel = nest((0, 4), (0, 9), (0, 1, 0), (1, 1, 0))
    with pytest.raises(ExecutionError, match=r"f: x\[11\] is outside x, whose shape is \[6\]") as caught:
        check_inside(kernel)
    assert caught.value.location is not None and caught.value.hint == "check the loop bounds, or guard the access"


def test_sizes_and_conditions_may_keep_it_inside() -> None:
    kernel = parse("""
@kernel(params=("N",))
def f(x: f32[N], y: f32[4]):
    for i in range(4):
        y[i] = x[i + 1]
        if N > 9:
            y[i] = x[i - 1]
    for j in range(N):
        y[j] = 0.0
""")
    assert not any(surely_outside(kernel))
    before = parse('@kernel(params=("N",))\ndef f(x: f32[N]):\n    for i in range(4):\n        x[i - 1] = 0.0')
    assert [(o.element, o.stores) for o in surely_outside(before)] == [(-1, True)]
