"""The verifier accepts what the front end makes and names what a broken pass did."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from tests.ir.strategies import SCALE, kernels

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Binary, Const, Var, Where
from tilewright.ir.stmt import Alloc, Block, Call, For, If, Kernel, LoopKind, Span, Stmt, Store, Window
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.util.errors import IRTypeError, Location

A = buffer("a", ty.f32, (4, 8))
S = buffer("s", ty.f32, ())
I = Var("i")
ZERO = ex.idx(0)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(kernels())
def test_random_kernels_are_well_formed(k: Kernel) -> None:
    verify(k)


def _loop(body: Stmt, name: str = "i", **changes: object) -> For:
    return replace(For(Var(name), ZERO, ex.idx(4), Block((body,))), **changes)


def _set(value: ex.Expr, *indices: ex.Expr) -> Store:
    return Store(A, indices or (ZERO, ZERO), value)


BROKEN: list[tuple[Stmt, str]] = [
    (_set(ex.const(1.0), I, ZERO), "variable 'i' is not in scope"),
    (_set(ex.const(1.0), ZERO), "a has 2 dimensions but is indexed with 1"),
    (_set(ex.const(1.0), ZERO, ex.const(1, ty.i32)), r"index 1 of a is `i32\(1\)` of type i32"),
    (Store(S, (), ex.const(1.0)), "buffer 's' is not in scope"),
    (Block((Block((Alloc(S),)), Store(S, (), ex.const(1.0)))), "buffer 's' is not in scope"),
    (Store(A.with_(memory="l1"), (ZERO, ZERO), ex.const(1.0)), "buffer 'a' differs from its declaration"),
    (_loop(_loop(_set(ex.const(1.0)))), "name 'i' is declared twice"),
    (_loop(_set(ex.const(1.0)), name="a"), "name 'a' is declared twice"),
    (_loop(_set(ex.const(1.0)), name="for"), "'for' cannot be a name"),
    (_loop(_set(ex.const(1.0)), step=0), "step 0 of loop i is not positive"),
    (_loop(_set(ex.const(1.0)), kind=LoopKind.BIND), "bind loops name a unit"),
    (_loop(_set(ex.const(1.0)), hi=ex.const(4, ty.i32)), "upper bound of loop i"),
    (If(A[0, 0], Block(())), "has type f32, not bool"),
    (_set(Binary("+", ex.const(1.0), ex.const(2), ty.f64)), "is marked f64, but its operands make it f32"),
    (_set(Where(ex.const(True), ex.const(1.0), ex.const(1), ty.f32)), "selects by bool from f32 and"),
    (_set(Const(300, ty.i8)), "literal 300 is not a value of i8"),
    (_set(Const(1, ty.f32)), "is not a float"),
    (Store(A, (ZERO, ZERO), ex.const(1.0), "-"), "-= is not a reduction"),
    (Call(SCALE, (), ()), "scale takes 1 sizes, got 0"),
    (Call(SCALE, (ex.idx(4),), (Window(A, (ZERO, ZERO)),) * 2), "parameter x of scale has 1 dimensions, got 0"),
    (Call(SCALE, (ex.idx(4),), (Window(A, (ZERO, Span(ZERO, ex.idx(3)))),) * 2), "has 4 elements"),
]


@pytest.mark.parametrize(("stmt", "message"), BROKEN, ids=[m for _, m in BROKEN])
def test_broken_programs_are_named(stmt: Stmt, message: str) -> None:
    with pytest.raises(IRTypeError, match=message):
        verify(Kernel("k", (A,), Block((stmt,))))


def test_the_error_says_where() -> None:
    loc = Location("model.py", 12, "a[0, i] = 1.0")
    with pytest.raises(IRTypeError, match=r"model.py:12: a\[0, i\] = 1.0"):
        verify(Kernel("k", (A,), Block((replace(_set(ex.const(1.0), ZERO, I), loc=loc),))))
    with pytest.raises(IRTypeError, match=r"in `a\[0, i\] = f32\(1.0\)`|in `a\[0, i\] = 1.0`"):
        verify(Kernel("k", (A,), Block((_set(ex.const(1.0), ZERO, I),))))


def test_callees_are_verified_too() -> None:
    inner = Kernel("inner", (A,), Block((_set(ex.const(1.0), I, ZERO),)))
    with pytest.raises(IRTypeError, match="inner: variable 'i'"):
        verify(Kernel("k", (A,), Block((Call(inner, (), (Window(A, (Span(ZERO, ex.idx(4)), Span(ZERO, ex.idx(8)))),)),))))


def test_parsed_kernels_are_well_formed() -> None:
    verify(parse("@kernel\ndef f(a: i8[4], b: i32):\n    for i in range(4):\n        b += a[i] * a[i] + i\n"))
