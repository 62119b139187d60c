"""Index expressions in a plain form: equal to what they were in every program, and plain where such a form exists."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some

from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr, Var
from tilewright.lang.block.settled import decided, settled

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
    diagonal = (PID + Var("pid1")) * 2 + (PID - Var("pid1")) * 3 + (PID + 1) * 4  # plain where both are the same number
    assert settled(diagonal, {"pid0": 4, "pid1": 5}) is settled(diagonal, {"pid1": 4, "pid0": 4}) is diagonal
    inside = (PID + Var("step")) * 3 % 7 // 2 * 5 + (PID + 1) * 9
    assert settled(inside, {"pid0": 4}) is inside
    zero = PID // (PID - PID) * 3 + 1 + PID * 2 - 7
    assert settled(zero, {"pid0": 4}) is zero, "reported where it is used"


CONDITIONS = some.tuples(some.sampled_from(["<", "<=", ">", ">=", "==", "!="]), some.sampled_from(OPERATORS), some.integers(-4, 9))


@settings(max_examples=150, deadline=None)
@given(some.integers(1, 12), some.lists(CONDITIONS, min_size=1, max_size=4), some.sampled_from(["and", "or"]))
def test_what_is_decided_is_equal(programs: int, parts: list[tuple[str, str, int]], joined: str) -> None:
    """Conditions, choices and extrema over ids, beside a loop's variable that stays."""
    at = {"pid0": np.arange(programs)}
    tests = [ex.compare(c, ex.binary(op, PID * 2, n or 1), 3) for c, op, n in parts]
    both = tests[0]
    for t in tests[1:]:
        both = ex.Logical(joined, both, t)
    e = ex.where(both, ex.binary("min", PID, parts[0][2]), ex.binary("max", PID * 3, parts[0][2])) + Var("step")
    for step in (0, 5):
        got, want = (np.broadcast_to(np.asarray(ex.evaluate(x, {**at, "step": step})), (programs,)) for x in (decided(e, at), e))
        np.testing.assert_array_equal(got, want)


def test_choices_that_fall_one_way_are_gone() -> None:
    at = {"pid0": np.arange(6)}
    inside, step = ex.compare("<", PID, 6), Var("step")
    assert decided(ex.where(ex.logical("and", inside, ex.compare("<", step, 3)), PID, step), at) == ex.where(
        ex.compare("<", step, 3), PID, step
    )
    assert decided(ex.binary("min", PID, 5), at) == PID and decided(ex.binary("max", PID, 5), at) == ex.idx(5)
    assert decided(ex.binary("max", PID, 0), at) == PID and decided(ex.binary("min", PID, 0), at) == ex.idx(0)


def test_a_condition_that_divides_by_zero_stays() -> None:
    """It is never decided by what NumPy makes of the quotient: where it is used, the error is reported."""
    at = {"pid0": np.arange(4)}
    for operator in ("//", "%"):
        broken = ex.compare("<", ex.binary(operator, PID, PID - 2), 100)
        assert decided(broken, at) == broken
        assert decided(ex.where(broken, PID, PID + 1), at) == ex.where(broken, PID, PID + 1)
