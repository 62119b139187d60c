"""Index expressions in a plain form: equal to what they were in every program, and plain where such a form exists."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some

from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr, Var
from tilewright.lang.block.settled import settled

PID = Var("pid0")
OPERATORS = ("+", "-", "*", "//", "%", "min", "max")


def values(e: Expr, programs: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(ex.evaluate(e, {"pid0": np.arange(programs)})), (programs,))


def stops(tiles: list[int], programs: int) -> tuple[Expr, list[int]]:
    """Where a program that takes every ``programs``-th tile of each problem stops, as the loops say it; and as a person would."""
    tile: Expr = PID
    end = 0
    for n in tiles:
        left = ex.binary("max", (end + n - tile + (programs - 1)) // programs, 0)
        passes = ex.where(ex.compare(">=", tile, end), left, ex.idx(0))
        tile = settled(tile + passes * programs, {"pid0": programs})
        end += n
    return tile, [next(t for t in range(p, end + p + programs, programs) if t >= end) for p in range(programs)]


@settings(max_examples=60, deadline=None)
@given(some.lists(some.integers(1, 40), min_size=1, max_size=12), some.integers(1, 90))
def test_where_loops_stop_stays_plain(tiles: list[int], programs: int) -> None:
    tile, want = stops(tiles, programs)
    assert values(tile, programs).tolist() == want
    assert sum(1 for _ in ex.walk(tile)) <= 9, f"{tile} does not grow with the number of problems"


@settings(max_examples=100, deadline=None)
@given(
    some.integers(1, 60),
    some.lists(some.tuples(some.sampled_from(["+", "-", "*", "//", "%", "min", "max"]), some.integers(1, 9)), max_size=7),
)
def test_a_settled_expression_is_equal(programs: int, steps: list[tuple[str, int]]) -> None:
    e: Expr = PID
    for op, n in steps:
        e = ex.where(ex.compare("<", e, 3 * n), ex.binary(op, e, n), e + PID) if n % 2 else ex.binary(op, e, n)
    np.testing.assert_array_equal(values(settled(e, {"pid0": programs}), programs), values(e, programs))


def test_what_depends_on_more_than_one_number_stays() -> None:
    e = (PID + Var("pid1") * 3) % 7 // 2 * 5 + (PID + 1) * 9
    assert settled(e, {"pid0": 4, "pid1": 5}) is e
    inside = (PID + Var("step")) * 3 % 7 // 2 * 5 + (PID + 1) * 9
    assert settled(inside, {"pid0": 4}) is inside
    zero = PID // (PID - PID) * 3 + 1 + PID * 2 - 7
    assert settled(zero, {"pid0": 4}) is zero, "reported where it is used"
