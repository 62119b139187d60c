"""Scalar semantics: random expressions of all types against the interpreter, exact for integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.stmt import Block, For, Kernel, LoopKind, store
from tilewright.util.errors import ExecutionError, IRTypeError

INTEGERS = (ty.i8, ty.u8, ty.i16, ty.u16, ty.i32, ty.u32, ty.i64, ty.u64, ty.Int(5), ty.UInt(3), ty.Int(13), ty.UInt(33), ty.boolean)
FIXED = (ty.Fixed(12, 4), ty.UFixed(9, 3), ty.Fixed(20, 11))
FLOATS = (ty.f32, ty.f64)
N = 19


def programs(types: tuple[ty.DType, ...], operators: tuple[str, ...]) -> hs.SearchStrategy[Kernel]:
    """Kernels ``out[i] = random expression of three inputs`` over a serial or vector loop."""

    @hs.composite
    def build(draw: hs.DrawFn) -> Kernel:
        args = [buffer(f"x{n}", draw(hs.sampled_from(types)), (N,)) for n in range(3)]
        i = ex.Var("i")

        def expression(depth: int) -> ex.Expr:
            kind = draw(hs.integers(0, 9)) if depth else 0
            if kind <= 1:
                return args[draw(hs.integers(0, 2))][i]
            if kind == 2:
                target = draw(hs.sampled_from(types))
                return ex.cast(expression(depth - 1), target)
            if kind == 3:
                a, b = expression(depth - 1), expression(depth - 1)
                cond = ex.compare(draw(hs.sampled_from(ex.COMPARISONS)), a, b)
                return ex.where(cond, expression(depth - 1), expression(depth - 1))
            if kind == 4:
                return ex.compare(draw(hs.sampled_from(ex.COMPARISONS)), expression(depth - 1), expression(depth - 1))
            if kind == 5 and not any(t.is_fixed for t in types):
                return ex.binary(draw(hs.sampled_from(operators)), expression(depth - 1), draw(hs.integers(1, 100)))
            return ex.binary(draw(hs.sampled_from(operators)), expression(depth - 1), expression(depth - 1))

        try:
            value = expression(draw(hs.integers(1, 3)))
            out = buffer("out", draw(hs.sampled_from(types)), (N,))
            op = draw(hs.sampled_from((None, None, "+", "min", "max")))
            body = Block((store(out[i], value, op),))
        except IRTypeError:
            body, out = Block(()), buffer("out", ty.i8, (N,))
        kind = draw(hs.sampled_from((LoopKind.SERIAL, LoopKind.VECTOR)))
        return Kernel("k", (*args, out), Block((For(i, ex.idx(0), ex.idx(N), body, kind),)))

    return build()


def agree(check, kernel: Kernel, tolerance: float = 0.0) -> None:
    try:
        check(kernel, tolerance=tolerance)
    except ExecutionError:  # a division by zero or the like: the program has no meaning
        return
    except IRTypeError as error:  # e.g. an operator that these types do not have
        assert "not defined" in str(error) or "only integers" in str(error)


@settings(max_examples=120, deadline=None)
@given(programs(INTEGERS, ("+", "-", "*", "//", "%", "min", "max", "&", "|", "^")))
def test_integers_are_exact(check, kernel):
    agree(check, kernel)


@settings(max_examples=60, deadline=None)
@given(programs((*FIXED, ty.i16, ty.u8), ("+", "-", "*", "min", "max")))
def test_fixed_point_is_exact(check, kernel):
    agree(check, kernel)


@settings(max_examples=60, deadline=None)
@given(programs((ty.f32, ty.f64, ty.i16, ty.u8, ty.i32, ty.i64), ("+", "-", "min", "max")))
def test_floats_with_integers(check, kernel):
    agree(check, kernel)


@pytest.mark.parametrize("op", ["+", "-", "*", "/", "//", "%", "min", "max"])
@pytest.mark.parametrize("dtype", [ty.f16, ty.bf16, ty.f32, ty.f64], ids=str)
def test_one_float_operation_is_exact(check, op, dtype):
    a, b, c = (buffer(n, dtype, (64,)) for n in "abc")
    i = ex.Var("i")
    for kind in (LoopKind.SERIAL, LoopKind.VECTOR):
        loop = For(i, ex.idx(0), ex.idx(64), Block((store(c[i], ex.binary(op, a[i], b[i])),)), kind)
        special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -2.5, 1e-7], np.float32)
        given_a, given_b = np.repeat(special, 8), np.tile(special, 8)
        if dtype == ty.bf16:
            given_a, given_b = ((x.view(np.uint32) >> 16).astype(np.uint16) for x in (given_a, given_b))
        else:
            given_a, given_b = given_a.astype(dtype.to_numpy()), given_b.astype(dtype.to_numpy())
        kernel = Kernel("k", (a, b, c), Block((loop,)))
        check(kernel)
        check(kernel, a=given_a, b=given_b)


@pytest.mark.parametrize("kind", [LoopKind.SERIAL, LoopKind.VECTOR])
@pytest.mark.parametrize("a,b", [(ty.i8, ty.u8), (ty.i32, ty.i8), (ty.Int(5), ty.u16), (ty.u64, ty.u8), (ty.boolean, ty.i8)], ids=str)
def test_shifts(check, kind, a, b):
    x, n, y, z = buffer("x", a, (64,)), buffer("n", b, (64,)), buffer("y", a, (64,)), buffer("z", ty.i64, (64,))
    i = ex.Var("i")
    amounts = np.arange(64).astype(b.to_numpy())
    body = Block((store(y[i], x[i] << n[i]), store(z[i], (x[i] >> n[i]) + (x[i] >> 2))))
    check(Kernel("k", (x, n, y, z), Block((For(i, ex.idx(0), ex.idx(64), body, kind),))), n=amounts)


CASTS = (ty.f16, ty.bf16, ty.f32, ty.f64, ty.i8, ty.u8, ty.i32, ty.u64, ty.Int(11), ty.boolean, ty.Fixed(12, 4))


@pytest.mark.parametrize("src", CASTS, ids=str)
def test_casts(check, src):
    i = ex.Var("i")
    x = buffer("x", src, (40,))
    outs = [buffer(f"y{n}", t, (40,)) for n, t in enumerate(CASTS)]
    for kind in (LoopKind.SERIAL, LoopKind.VECTOR):
        body = Block(tuple(store(y[i], ex.cast(x[i], y.dtype)) for y in outs))
        given = {}
        if src.is_float and src.bits > 16:
            given["x"] = (np.random.default_rng(1).standard_normal(40) * 10.0 ** np.linspace(-8, 18, 40)).astype(src.to_numpy())
        check(Kernel("k", (x, *outs), Block((For(i, ex.idx(0), ex.idx(40), body, kind),))), **given)


def test_wide_arithmetic_keeps_every_bit(check):
    x, y = buffer("x", ty.i64, (9,)), buffer("y", ty.u64, (9,))
    outs = [buffer(f"o{n}", ty.i64, (9,)) for n in range(4)]
    i = ex.Var("i")
    product = x[i] * y[i] * x[i]
    values = (product >> 70, product // (y[i] | 1), product % 1000003, ex.cast(ex.where(product > x[i], product >> 64, 5), ty.i64))
    body = Block(tuple(store(o[i], ex.cast(v, ty.i64)) for o, v in zip(outs, values, strict=True)))
    check(Kernel("k", (x, y, *outs), Block((For(i, ex.idx(0), ex.idx(9), body),))))


def test_integer_against_float_compares_exactly(check):
    x, y = buffer("x", ty.i64, (8,)), buffer("y", ty.f64, (8,))
    outs = [buffer(f"o{n}", ty.boolean, (8,)) for n in range(len(ex.COMPARISONS))]
    i = ex.Var("i")
    for kind in (LoopKind.SERIAL, LoopKind.VECTOR):
        body = Block(tuple(store(o[i], ex.compare(op, x[i], y[i])) for o, op in zip(outs, ex.COMPARISONS, strict=True)))
        check(
            Kernel("k", (x, y, *outs), Block((For(i, ex.idx(0), ex.idx(8), body, kind),))),
            x=np.array([2**53 + 1, 2**53, -(2**63), 2**63 - 1, 0, 5, -5, 7]),
            y=np.array([2.0**53, 2.0**53, -(2.0**63), 2.0**63, -0.5, np.nan, -np.inf, 7.0]),
        )


def test_bitcasts(check):
    x, y, h = buffer("x", ty.f32, (20,)), buffer("y", ty.i64, (20,)), buffer("h", ty.u16, (20,))
    a, b, c, d = buffer("a", ty.u32, (20,)), buffer("b", ty.f64, (20,)), buffer("c", ty.f16, (20,)), buffer("d", ty.u16, (20,))
    i = ex.Var("i")
    for kind in (LoopKind.SERIAL, LoopKind.VECTOR):
        body = Block(
            (
                store(a[i], ex.bitcast(x[i], ty.u32)),
                store(b[i], ex.bitcast(y[i], ty.f64)),
                store(c[i], ex.bitcast(h[i], ty.f16)),
                store(d[i], ex.bitcast(ex.bitcast(h[i], ty.bf16), ty.u16)),
            )
        )
        finite = np.random.default_rng(0).integers(0, 0x7BFF, 20).astype(np.uint16)
        check(Kernel("k", (x, y, h, a, b, c, d), Block((For(i, ex.idx(0), ex.idx(20), body, kind),))), h=finite)


@pytest.mark.parametrize("kind", [LoopKind.SERIAL, LoopKind.VECTOR])
def test_quotients_beyond_64_bits_in_every_lane(check, kind):
    n = 19  # chunks of eight lanes, and a tail of four of which one is off
    x, y, q, r = buffer("x", ty.u64, (n,)), buffer("y", ty.i32, (n,)), buffer("q", ty.i8, (n,)), buffer("r", ty.i64, (n,))
    i = ex.Var("i")
    body = Block((store(q[i], x[i] // y[i]), store(r[i], ex.cast(x[i] % y[i], ty.i64))))
    for seed in range(4):
        check(Kernel("k", (x, y, q, r), Block((For(i, ex.idx(0), ex.idx(n), body, kind),))), seed=seed)
