"""The text of single nodes (whole kernels: tests/lang/test_roundtrip.py)."""

from __future__ import annotations

import pytest

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Const, Expr, Var
from tilewright.ir.printer import module_text
from tilewright.ir.stmt import Block, Call, Kernel, Span, Stmt, Window, loop, store
from tilewright.util.errors import IRTypeError

X = buffer("x", ty.f32, (8, 8))
N = buffer("n", ty.i8, ())
I, J = Var("i"), Var("j")


@pytest.mark.parametrize(
    ("e", "text"),
    [
        (ex.idx(4), "4"),
        (I * 4 + J % 3, "i * 4 + j % 3"),
        ((I + J) * (I - (J - 1)), "(i + j) * (i - (j - 1))"),
        (ex.binary("min", I, 3), "min(i, 3)"),
        (X[I, 0] * 2 - 1.5, "x[i, 0] * 2.0 - 1.5"),
        (-X[I, 0] * X[0, I], "-x[i, 0] * x[0, i]"),
        (N[()] + Const(3, ty.i32), "n + i32(3)"),
        (N[()] + 3, "n + 3"),
        (ex.const(1.0) + ex.const(2.0), "f32(1.0) + 2.0"),
        (ex.logical("or", ex.logical("and", I < J, J < 3), ex.Not(I < 2)), "i < j and j < 3 or not i < 2"),
        (ex.logical("and", I < J, ex.logical("or", J < 3, I < 2)), "i < j and (j < 3 or i < 2)"),
        (ex.where(I < J, X[I, J], 0.0), "where(i < j, x[i, j], 0.0)"),
        (ex.cast(ex.bitcast(X[I, J], ty.u32) >> 3, ty.UInt(13)), "UInt(13)(bitcast(x[i, j], u32) >> 3)"),
        (ex.intrinsic("pow", X[I, J], 2), "pow(x[i, j], 2.0)"),
    ],
)
def test_expressions(e: Expr, text: str) -> None:
    assert str(e) == text


@pytest.mark.parametrize(
    ("s", "text"),
    [
        (store(X[I, J], 0), "x[i, j] = 0.0"),
        (store(X[I, J], X[J, I], "max"), "x[i, j] = max(x[i, j], x[j, i])"),
        (store(N[()], N[()], "*"), "n *= n"),
        (loop("i", 0, 8, step=2), "for i in range(0, 8, 2):\n    pass"),
        (Block(()), "with block():\n    pass"),
    ],
)
def test_statements(s: Stmt, text: str) -> None:
    assert str(s) == text


@pytest.mark.parametrize(
    ("w", "text"),
    [
        (Window(X, (I, Span(ex.idx(0), ex.idx(4)))), "x[i, :4]"),
        (Window(X, (Span(I * 2, ex.idx(2)), Span(J, ex.idx(3), 2))), "x[i * 2:i * 2 + 2, j:j + 6:2]"),
        (Window(N, ()), "n"),
    ],
)
def test_windows(w: Window, text: str) -> None:
    assert str(w) == text


def test_two_kernels_of_one_name_cannot_share_a_text() -> None:
    first, second = Kernel("g", (N,), Block(())), Kernel("g", (N,), Block((store(N[()], 1),)))
    calls = tuple(Call(g, (), (Window(N, ()),)) for g in (first, second))
    with pytest.raises(IRTypeError, match="two different kernels called 'g'"):
        module_text(Kernel("f", (N,), Block(calls)))
