"""Expression builders, rewriting, and the evaluator over ints and arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Binary, Const, Expr, Var
from tilewright.util.errors import IRTypeError

I, J = Var("i"), Var("j")


@st.composite
def index_exprs(draw: st.DrawFn, depth: int = 4) -> tuple[Expr, str]:
    """An index expression and the Python text of the same formula."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        n = draw(st.integers(-4, 4))
        return draw(st.sampled_from([(I, "i"), (J, "j"), (ex.idx(n), f"({n})")]))
    op = draw(st.sampled_from(["+", "-", "*", "//", "%", "min", "max"]))
    (a, ta) = draw(index_exprs(depth - 1))
    if op in ("//", "%"):
        n = draw(st.integers(1, 5))
        return ex.binary(op, a, n), f"({ta} {op} {n})"
    (b, tb) = draw(index_exprs(depth - 1))
    return ex.binary(op, a, b), f"{op}({ta}, {tb})" if op in ("min", "max") else f"({ta} {op} {tb})"


@given(index_exprs(), st.integers(-9, 9), st.integers(-9, 9))
def test_folding_keeps_the_value(pair: tuple[Expr, str], i: int, j: int) -> None:
    e, text = pair
    want = eval(text, {"i": i, "j": j, "min": min, "max": max})
    assert ex.evaluate(e, {"i": i, "j": j}) == want
    assert ex.evaluate(ex.substitute(e, {"i": ex.idx(i)}), {"j": j}) == want


def test_conditions_of_numbers_and_arrays() -> None:
    e = ex.where(ex.logical("and", ex.compare("<", I, 3), ex.Not(ex.compare("==", I, 1))), I * 2, ex.idx(7))
    e = ex.where(ex.logical("or", ex.compare("<", I, 1), ex.compare(">", I, 3)), e, e + 10)
    want = [(i * 2 if i < 3 and i != 1 else 7) + (0 if i < 1 or i > 3 else 10) for i in range(6)]
    assert [ex.evaluate(e, {"i": i}) for i in range(6)] == want == ex.evaluate(e, {"i": np.arange(6)}).tolist()


@given(index_exprs())
def test_one_evaluator_for_numbers_and_arrays(pair: tuple[Expr, str]) -> None:
    e, _ = pair
    i, j = np.arange(-5, 6)[:, None], np.arange(-3, 4)[None, :]
    together = np.broadcast_to(ex.evaluate(e, {"i": i, "j": j}), (11, 7))
    for a in range(11):
        for b in range(7):
            assert together[a, b] == ex.evaluate(e, {"i": a - 5, "j": b - 3})


def test_literals_take_the_type_of_their_neighbour() -> None:
    x = buffer("x", ty.f64, (4,))
    assert ex.binary("*", x[0], 2).b == Const(2.0, ty.f64)  # type: ignore[attr-defined]
    assert (I + 1).b == Const(1, ty.index)  # type: ignore[attr-defined]
    assert ex.binary("+", buffer("n", ty.i8, ())[()], 3).dtype == ty.Int(9)


def test_neutral_elements_disappear_from_indices_only() -> None:
    x = buffer("x", ty.f32, ())[()]
    assert I + 0 == I == 1 * I
    assert isinstance(x + 0.0, Binary), "adding 0.0 changes -0.0"


def test_equality_is_structural_and_truth_is_refused() -> None:
    assert Var("i") + Var("j") == I + J
    assert len({I + J, I + J, J + I}) == 2
    with pytest.raises(IRTypeError, match="only known when the program runs"):
        bool(I < J)


def test_rewriting_visits_children_first_and_folds_again() -> None:
    e = (I + J) * 2
    assert ex.substitute(e, {"i": ex.idx(1), "j": ex.idx(2)}) == ex.idx(6)
    assert ex.free_vars(e) == {"i", "j"}
    assert ex.transform(e, lambda n: None) is e


def test_casts_of_literals_happen_now() -> None:
    assert ex.cast(300, ty.u8) == Const(44, ty.u8)
    assert ex.cast(I, ty.index) is I
    assert ex.cast(ex.const(1.5), ty.i32) != Const(1, ty.i32), "truncation is left to the program"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ex.logical("and", I, ex.compare("<", I, J)), "has type index"),
        (lambda: ex.where(I, 1, 2), "not bool"),
        (lambda: ex.bitcast(ex.const(1.0), ty.i64), "widths differ"),
        (lambda: ex.intrinsic("gamma", 1.0), "unknown function"),
        (lambda: ex.intrinsic("exp", 1.0, 2.0), "takes 1 arguments"),
        (lambda: ex.idx(3) // 0, "division by zero"),
        (lambda: ex.as_expr("x"), "is not an expression"),  # type: ignore[arg-type]
        (lambda: ex.evaluate(I, {"j": 1}), "has no value"),
        (lambda: ex.evaluate(buffer("x", ty.f32, ())[()], {}), "cannot be evaluated"),
    ],
)
def test_what_builders_refuse(build: object, message: str) -> None:
    with pytest.raises(IRTypeError, match=message):
        build()  # type: ignore[operator]
