"""One contraction under every choice of loop order, loop kinds, guards and placement: always the same numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from tilewright.codegen.llvm import compile_ir, control, emit
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.stmt import Alloc, Block, For, If, Kernel, LoopKind, Stmt, Store, store
from tilewright.lang import parse

ORDERED = (LoopKind.SERIAL, LoopKind.VECTOR, LoopKind.UNROLL)


@hs.composite
def contractions(draw: hs.DrawFn) -> Kernel:
    """c[i, j] op= a[i, k] * b[k, j] (or max) with each loop split in two, in random order.

    Loops of the reduction are not parallel; tails are guarded; an inner scalar may hold the product.
    """
    extents = {name: draw(hs.integers(1, 17)) for name in "ijk"}
    blocks = {name: draw(hs.sampled_from((1, 2, 4, 8, 16))) for name in "ijk"}
    dtype = draw(hs.sampled_from((ty.i8, ty.i32, ty.f64)))
    a = buffer("a", dtype, (extents["i"], extents["k"]))
    b = buffer("b", dtype, (extents["k"], extents["j"]))
    op = draw(hs.sampled_from(("+", "+", "max")))
    # A maximum that wraps when it is narrowed depends on the order: its target holds every product.
    target = ty.f64 if dtype == ty.f64 else ty.i64 if op == "max" else draw(hs.sampled_from((ty.i32, ty.i64)))
    c = buffer("c", target, (extents["i"], extents["j"]))
    at = {n: ex.Var(n + "o") * blocks[n] + ex.Var(n + "i") for n in "ijk"}
    product = a[at["i"], at["k"]] * b[at["k"], at["j"]]
    body: list[Stmt] = []
    value: ex.Expr = product
    if draw(hs.booleans()):
        t = buffer("t", ty.f64 if dtype == ty.f64 else ty.i32, (2,))
        where = ex.Var("ki") % 2
        body += [Alloc(t), store(t[where], product)]
        value = t[where]
    body.append(store(c[at["i"], at["j"]], value, op))
    nest: Stmt = Block(tuple(body))
    names = draw(hs.permutations([n + part for n in "ijk" for part in "oi"]))
    guards = [n for n in "ijk" if extents[n] % blocks[n]]
    hoisted = draw(hs.booleans())  # guards as far out as their variables allow, or innermost
    for depth, name in enumerate(names):
        for n in [g for g in guards if g == name[0] or not hoisted]:
            guards.remove(n)
            nest = Block((If(ex.compare("<", at[n], ex.idx(extents[n])), nest),))  # type: ignore[arg-type]
        n, part = name
        extent = blocks[n] if part == "i" else -(-extents[n] // blocks[n])
        kinds = ORDERED if n == "k" or depth < 5 else (*ORDERED, LoopKind.PARALLEL)
        nest = Block((For(ex.Var(name), ex.idx(0), ex.idx(extent), nest, draw(hs.sampled_from(kinds))),))  # type: ignore[arg-type]
    if draw(hs.booleans()):
        nest = _through_registers(draw, nest, c, extents)
    return Kernel("k", (a, b, c), nest)  # type: ignore[arg-type]


def _through_registers(draw: hs.DrawFn, nest: Stmt, c, extents: dict[str, int]) -> Block:
    """The contraction into a register copy of c, loaded before and stored after."""
    from tilewright.ir.stmt import replace_buffers

    r = c.with_(name="r", memory="reg")
    p, q, u, v = map(ex.Var, "pquv")

    def copy(i: ex.Var, j: ex.Var, s: Store) -> For:
        inner = For(j, ex.idx(0), ex.idx(extents["j"]), Block((s,)), draw(hs.sampled_from(ORDERED)))
        return For(i, ex.idx(0), ex.idx(extents["i"]), Block((inner,)), draw(hs.sampled_from(ORDERED)))

    return Block((Alloc(r), copy(p, q, store(r[p, q], c[p, q])), replace_buffers(nest, {"c": r}), copy(u, v, store(c[u, v], r[u, v]))))


@settings(max_examples=50, deadline=None)
@given(contractions())
def test_contraction_in_any_form(check, kernel):
    check(kernel, tolerance=1e-9 if kernel.args[0].dtype == ty.f64 else 0.0)


@pytest.mark.parametrize("kind,scheduled", [("range", False), ("vector", True), ("unroll", True)])
def test_only_modules_with_plain_loops_go_through_all_of_llvms_passes(host, kind, scheduled):
    text = emit(parse(f"@kernel\ndef k(x: f32[64], y: f32[64]):\n    for i in {kind}(64):\n        y[i] = x[i] + 1.0\n"), host).text
    assert (control.SCHEDULED in text) == scheduled
    vectors = " x float>" in str(compile_ir(text, host.target, emit="ir"))
    assert vectors == (kind != "unroll")  # LLVM vectorises the plain loop; unrolled stores stay as they are
