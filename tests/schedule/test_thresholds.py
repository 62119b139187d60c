"""Thresholds of conditions: sound for every iteration inside, and exact where one loop alone decides."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Expr, Var
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Block, For
from tilewright.schedule.thresholds import eliminated, false_from, true_until

I, J, K, N = Var("i"), Var("j"), Var("k"), Var("n")
LOOP = For(I, ex.idx(0), ex.idx(9), Block(()))
INSIDE = [For(J, ex.idx(1), ex.idx(4), Block(())), For(K, ex.idx(0), J, Block(()))]
SCOPE = Simplifier({"i": (0, 8), "j": (1, 3), "k": (0, 2), "n": (0, 6)})
ATOMS = some.sampled_from([I, I // 2, I // 3, J, K, J // 2, J % 3, N, ex.binary("min", J, N), ex.binary("max", K, 2)])
SIDES = some.lists(some.tuples(some.integers(-4, 4), ATOMS), min_size=1, max_size=3)


def linear(terms: list[tuple[int, Expr]], const: int) -> Expr:
    out: Expr = ex.idx(const)
    for factor, atom in terms:
        out = out + atom * factor
    return out


def places(n: int) -> list[dict[str, int]]:
    return [{"i": i, "j": j, "k": k, "n": n} for i in range(9) for j in range(1, 4) for k in range(j)]


@settings(max_examples=150, deadline=None)
@given(
    some.lists(some.tuples(SIDES, some.integers(-9, 9), some.sampled_from(["<", "<=", ">", ">="])), min_size=1, max_size=2),
    some.sampled_from(["and", "or"]),
)
def test_no_threshold_is_too_early(parts: list[tuple[list[tuple[int, Expr]], int, str]], op: str) -> None:
    tests = [ex.compare(c, linear(terms, const), 0) for terms, const, c in parts]
    cond = tests[0] if len(tests) == 1 else ex.Logical(op, tests[0], tests[1])
    late, early = false_from(cond, LOOP, INSIDE, SCOPE), true_until(cond, LOOP, INSIDE, SCOPE)
    for n in range(7):
        first, last = (None if t is None else ex.evaluate(t, {"n": n}) for t in (late, early))
        for at in places(n):
            holds = bool(ex.evaluate(cond, at))
            assert first is None or at["i"] < first or not holds, f"{cond} is false from {late} on"
            assert last is None or at["i"] >= last or holds, f"{cond} is true until {early}"


@pytest.mark.parametrize(("factor", "const", "over"), [*product((1, 2, 5), (-11, 0, 3, 12), (1, 2, 4))])
def test_one_loop_alone_is_solved_exactly(factor: int, const: int, over: int) -> None:
    atom = I // over if over > 1 else I
    rising = ex.compare("<", atom * factor, const)
    found = [(false_from(rising, LOOP, [], SCOPE)), (true_until(rising, LOOP, [], SCOPE))]
    first = next(i for i in range(-99, 99) if (i // over) * factor >= const)
    assert [None if t is None else ex.evaluate(t, {}) for t in found] == [first, first]
    falling = ex.compare(">=", atom * factor, const)
    assert false_from(falling, LOOP, [], SCOPE) is true_until(falling, LOOP, [], SCOPE) is None


def test_what_memory_holds_says_nothing() -> None:
    held = ex.Load(buffer("b", ty.index, (9,)), (I,))
    for cond in (ex.compare("<", I, held), ex.compare("<", held, I), ex.compare("<", ex.cast(I, ty.i32), ex.const(3, ty.i32))):
        assert false_from(cond, LOOP, [], SCOPE) is true_until(cond, LOOP, [], SCOPE) is None


def test_what_both_parts_say_of_a_joined_condition() -> None:
    low, high, never = ex.compare("<", I, 3), ex.compare("<", I, 5), ex.compare(">", I, 2)
    both, either = ex.Logical("and", low, high), ex.Logical("or", low, high)
    assert [ex.evaluate(f(c, LOOP, [], SCOPE), {}) for f in (false_from, true_until) for c in (both, either)] == [3, 5, 3, 5]  # type: ignore[arg-type]
    for other in (never, ex.compare("==", I, 4)):
        for a, b in ((low, other), (other, low)):
            assert false_from(ex.Logical("or", a, b), LOOP, [], SCOPE) is None
            assert ex.evaluate(false_from(ex.Logical("and", a, b), LOOP, [], SCOPE), {}) == 3  # type: ignore[arg-type]
            assert true_until(ex.Logical("and", a, b), LOOP, [], SCOPE) is None
            assert ex.evaluate(true_until(ex.Logical("or", a, b), LOOP, [], SCOPE), {}) == 3  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(SIDES, some.integers(-9, 9), some.booleans())
def test_nothing_inside_is_beyond_its_extreme(terms: list[tuple[int, Expr]], const: int, upper: bool) -> None:
    e = linear(terms, const)
    bound = eliminated(e, INSIDE, upper)
    if bound is None:
        return
    assert not ex.free_vars(bound) & {"j", "k"}
    for at in places(3):
        value, limit = ex.evaluate(e, at), ex.evaluate(bound, {"i": at["i"], "n": 3})
        assert value <= limit if upper else value >= limit


def test_what_grows_without_end_is_not_asked() -> None:
    """The end of each loop has the one around it twice: together 2 ** 24 times."""
    loops: list[For] = []
    around: Var = I
    for n in range(24):
        loops.append(For(Var(f"v{n}"), ex.idx(0), around + around // 2 + 1, Block(())))
        around = loops[-1].var
    assert eliminated(around, loops, True) is None
    few = eliminated(loops[2].var, loops[:3], True)
    assert few is not None and ex.evaluate(few, {"i": 4}) == 13
