"""Index arithmetic: polynomials with ranges agree with the interpreter, in every kind of loop and layout."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as hs

from tilewright.codegen.llvm import emit
from tilewright.codegen.llvm.index import Atom, Poly
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Layout, buffer
from tilewright.ir.stmt import Alloc, Block, For, If, Kernel, LoopKind, store
from tilewright.util.errors import ExecutionError, IRTypeError

KINDS = (LoopKind.SERIAL, LoopKind.VECTOR, LoopKind.UNROLL, LoopKind.PARALLEL)
EXTENTS = {"i": 3, "j": 21}


@hs.composite
def index_programs(draw: hs.DrawFn) -> Kernel:
    """``out[i, j] = random index expression of i, j and a size``, under a random guard."""
    names = [*EXTENTS, "N"]

    def expression(depth: int) -> ex.Expr:
        if not depth or draw(hs.booleans()):
            return ex.Var(draw(hs.sampled_from(names))) if draw(hs.integers(0, 3)) else ex.idx(draw(hs.integers(-5, 20)))
        op = draw(hs.sampled_from(("+", "-", "*", "//", "%", "min", "max")))
        right = ex.idx(draw(hs.sampled_from((1, 2, 3, 7, 16, -3)))) if op in ("//", "%") and draw(hs.booleans()) else expression(depth - 1)
        return ex.binary(op, expression(depth - 1), right)

    i, j = ex.Var("i"), ex.Var("j")
    out = buffer("out", ty.i64, tuple(EXTENTS.values()))
    try:
        body: Block = Block((store(out[i, j], expression(4)),))
        if draw(hs.booleans()):
            cond = ex.compare(draw(hs.sampled_from(ex.COMPARISONS)), expression(2), expression(2))
            body = Block((If(cond, body, Block((store(out[i, j], ex.cast(expression(2), ty.i32)),))),))
    except IRTypeError:  # a constant division by zero
        body = Block((store(out[i, j], 1),))
    inner = For(j, ex.idx(0), ex.idx(EXTENTS["j"]), body, draw(hs.sampled_from(KINDS)))
    outer = For(i, ex.idx(0), ex.idx(EXTENTS["i"]), Block((inner,)), draw(hs.sampled_from(KINDS)))
    return Kernel("k", (out,), Block((outer,)), (ex.Var("N"),))


@settings(max_examples=150, deadline=None)
@given(index_programs(), hs.integers(0, 40))
def test_index_expressions(check, kernel, n):
    try:
        check(kernel, N=n)
    except ExecutionError:  # division by zero
        return


LAYOUTS = ("0 1", "1 0", "0/4 1 0", "1/16 0 1", "0/3 1/8 0 1", "1/6 0/4 1/2 0 1", "1/21 0 1", "0/2 1/5 1 0")


@settings(max_examples=60, deadline=None)
@given(
    hs.sampled_from(LAYOUTS),
    hs.sampled_from(LAYOUTS),
    hs.tuples(hs.integers(1, 13), hs.integers(1, 40)),
    hs.tuples(*[hs.sampled_from(KINDS)] * 4),
    hs.sampled_from((4, 8, 16)),
    hs.sampled_from((ty.f32, ty.i8, ty.f64)),
)
def test_layouts_are_invisible(check, first, second, shape, kinds, block, dtype):
    """Copying through two packed buffers, the second in guarded tiles, changes nothing."""
    m, n = shape
    x, y = buffer("x", dtype, shape), buffer("y", dtype, shape)
    t = buffer("t", dtype, shape, layout=Layout.parse(first))
    u = buffer("u", dtype, shape, layout=Layout.parse(second))

    def nest(a: str, b: str, target, source, kind: tuple[LoopKind, LoopKind]) -> For:
        p, q = ex.Var(a), ex.Var(b)
        inner = For(q, ex.idx(0), ex.idx(n), Block((store(target[p, q], source[p, q]),)), kind[1])
        return For(p, ex.idx(0), ex.idx(m), Block((inner,)), kind[0])

    p, o, q = ex.Var("p"), ex.Var("o"), ex.Var("q")
    column = o * block + q
    guarded = If(ex.compare("<", column, ex.idx(n)), Block((store(u[p, column], t[p, column]),)))
    tiles = For(o, ex.idx(0), ex.idx(-(-n // block)), Block((For(q, ex.idx(0), ex.idx(block), Block((guarded,)), kinds[1]),)))
    middle = For(p, ex.idx(0), ex.idx(m), Block((tiles,)), kinds[0])
    check(Kernel("k", (x, y), Block((Alloc(t), Alloc(u), nest("a", "b", t, x, kinds[:2]), middle, nest("c", "d", y, u, kinds[2:])))))


@given(hs.lists(hs.tuples(hs.integers(-6, 6), hs.integers(-6, 6)), min_size=1, max_size=4), hs.integers(2, 9))
def test_split_multiples_is_an_identity(coefficients, c):
    a, b = Atom("%a", 1, 0, 7), Atom("%b", 2, -3, 3)
    p = Poly(5)
    for x, y in coefficients:
        p = p + Poly.of(a).scaled(x) * Poly.of(b).scaled(y) + Poly.of(a).scaled(y)
    q, r = p.split_multiples(c)
    assert (q.scaled(c) + r).key == p.key
    lo, hi = p.range()
    values = [
        sum((k * np.prod([{"%a": u, "%b": v}[t.ref] for t in m]) for m, k in p.terms.items()), p.const)
        for u in range(8)
        for v in range(-3, 4)
    ]
    assert lo is not None and hi is not None and lo <= min(values) and max(values) <= hi


def test_quotients_and_remainders_of_one_division_are_put_together(check, host) -> None:
    """A fused loop over the rows of an image walks memory contiguously: its vectors are loaded, not gathered."""
    p = ex.Var("p")
    x, y = buffer("x", ty.f32, (6, 7, 5)), buffer("y", ty.f32, (210,))
    for last, gathers in ((p % 5, False), ((p + 1) % 5, True)):
        body = Block((store(y[p], x[p // 35, p // 5 % 7, last]),))
        kernel = Kernel("k", (x, y), Block((For(p, ex.idx(0), ex.idx(210), body, LoopKind.VECTOR),)))
        assert ("gather" in emit(kernel, host).text) == gathers
        check(kernel)


@given(hs.integers(1, 40), hs.integers(-3, 3), hs.integers(-50, 50))
def test_recombination_keeps_the_value(c: int, k: int, v: int) -> None:
    x, q, r = Atom("x", 0), Atom("q", 1), Atom("r", 2)
    q.quotient_of = r.remainder_of = Poly.of(x) + Poly(2), c
    whole = Poly.of(q).scaled(c * k) + Poly.of(r).scaled(k) + Poly.of(x)
    expected = Poly.of(x).scaled(k + 1) + Poly(2 * k)
    assert whole.recombined().key == expected.key
    alone = Poly.of(q).scaled(c * k + 1) + Poly.of(r).scaled(k)
    assert k == 0 or alone.recombined().key == alone.key
