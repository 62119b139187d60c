"""Calls of machine instructions: those with LLVM text become that text, others their loops."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.codegen.llvm import compile_ir, emit
from tilewright.hw.instruction import Instruction
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.stmt import Alloc, Block, Call, For, Kernel, LoopKind, Span, Window, store


def instruction_of(host, name: str) -> Instruction:
    found = [i for i in host.instructions if i.name == name]
    if not found:
        pytest.skip(f"this CPU has no {name}")
    return found[0]


def byte_gemm(instr: Instruction, packed: bool) -> Kernel:
    """c[6, 32] = a[6, 24] b[24, 32] of bytes, through an accumulator in registers."""
    layout = "1/16 0/4 1 0" if packed else None
    a, b = buffer("a", ty.u8, (6, 24)), buffer("b", ty.i8, (24, 32), layout=layout)
    c, t = buffer("c", ty.i32, (6, 32)), buffer("t", ty.i32, (16,), memory="reg")
    i, jo, k, z, w = map(ex.Var, ("i", "jo", "k", "z", "w"))
    # b's operand is [16 columns, 4 rows]: a window of the transposed buffer
    bt = buffer("bt", ty.i8, (32, 24), layout="0/16 1/4 0 1" if packed else None)
    four = Span(k * 4, ex.idx(4))
    call = Call(
        instr.kernel,
        (),
        (Window(t, (Span(ex.idx(0), ex.idx(16)),)), Window(a, (i, four)), Window(bt, (Span(jo * 16, ex.idx(16)), four))),
    )
    p, q = ex.Var("p"), ex.Var("q")
    transpose = For(p, ex.idx(0), ex.idx(24), Block((For(q, ex.idx(0), ex.idx(32), Block((store(bt[q, p], b[p, q]),))),)))
    tile = Block(
        (
            Alloc(t),
            For(z, ex.idx(0), ex.idx(16), Block((store(t[z], 0),)), LoopKind.VECTOR),
            For(k, ex.idx(0), ex.idx(6), Block((call,))),
            For(w, ex.idx(0), ex.idx(16), Block((store(c[i, jo * 16 + w], t[w]),)), LoopKind.VECTOR),
        )
    )
    nest = For(i, ex.idx(0), ex.idx(6), Block((For(jo, ex.idx(0), ex.idx(2), tile),)))
    plain = b.with_(layout=None)
    body = Block((Alloc(bt), transpose, nest))
    from tilewright.ir.stmt import replace_buffers

    return Kernel("bytes", (a, plain, c), replace_buffers(body, {"b": plain}))  # type: ignore[arg-type]


@pytest.mark.parametrize("packed", [False, True])
def test_byte_dot_product(check, host, packed):
    kernel = byte_gemm(instruction_of(host, "dpbusd"), packed)
    check(kernel)
    text = compile_ir(emit(kernel, host).text, host.target, emit="asm")
    assert "vpdpbusd" in str(text)


def test_other_instructions_are_their_loops(check, host):
    fma = next(i for i in host.instructions if i.emit is None and i.name == "fma")
    lanes = int(fma.kernel.args[0].static_shape[0])
    a, b, c = buffer("a", ty.f32, (5,)), buffer("b", ty.f32, (5, lanes)), buffer("c", ty.f32, (lanes,))
    k = ex.Var("k")
    whole = Span(ex.idx(0), ex.idx(lanes))
    call = Call(fma.kernel, (), (Window(c, (whole,)), Window(a, (k,)), Window(b, (k, whole))))
    kernel = Kernel("k", (a, b, c), Block((For(k, ex.idx(0), ex.idx(5), Block((call,))),)))
    check(kernel, tolerance=1e-6)
    assert "call" not in emit(kernel, host).text.split("_main(")[1].split("}")[0].replace("call void @k_main", "")


def test_dot_of_bfloats(execute, host):
    """The hardware flushes denormals and may keep more precision than the semantics: near, not equal."""
    dot = instruction_of(host, "dpbf16ps")
    a, b, c = buffer("a", ty.bf16, (2,)), buffer("b", ty.bf16, (16, 2)), buffer("c", ty.f32, (16,))
    windows = tuple(Window(x, tuple(Span(ex.idx(0), e) for e in x.shape)) for x in (c, a, b))
    kernel = Kernel("k", (a, b, c), Block((Call(dot.kernel, (), windows),)))
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(s).astype(np.float32).view(np.uint32) & 0xFFFF0000 for s in ((2,), (16, 2)))
    out = np.zeros(16, np.float32)
    execute(kernel, host, {"a": (x >> 16).astype(np.uint16), "b": (y >> 16).astype(np.uint16), "c": out})
    np.testing.assert_allclose(out, y.view(np.float32) @ x.view(np.float32), rtol=1e-5, atol=1e-5)


def test_operands_of_instructions_keep_their_places(check, host):
    """Two packed operands too large for the frame, read by calls only: they must not share bytes."""
    dot = instruction_of(host, "dpbusd")
    a, b, c = buffer("a", ty.u8, (64, 128)), buffer("b", ty.i8, (128, 128)), buffer("c", ty.i32, (64, 128))
    pa, pb, t = buffer("pa", ty.u8, (64, 128)), buffer("pb", ty.i8, (128, 128)), buffer("t", ty.i32, (16,), memory="reg")
    i, jo, k, z, w = map(ex.Var, ("i", "jo", "k", "z", "w"))

    def nest(loops: list[tuple[ex.Var, int]], body: Block, kind: LoopKind = LoopKind.SERIAL) -> Block:
        for var, extent in reversed(loops):
            body = Block((For(var, ex.idx(0), ex.idx(extent), body, kind),))
        return body

    p, q, x, y = map(ex.Var, ("p", "q", "x", "y"))
    copies = (
        *nest([(p, 64), (q, 128)], Block((store(pa[p, q], a[p, q]),))).stmts,
        *nest([(x, 128), (y, 128)], Block((store(pb[x, y], b[x, y]),))).stmts,
    )
    four = Span(k * 4, ex.idx(4))
    call = Call(
        dot.kernel, (), (Window(t, (Span(ex.idx(0), ex.idx(16)),)), Window(pa, (i, four)), Window(pb, (Span(jo * 16, ex.idx(16)), four)))
    )
    tile = Block(
        (
            Alloc(t),
            *nest([(z, 16)], Block((store(t[z], 0),)), LoopKind.VECTOR).stmts,
            *nest([(k, 32)], Block((call,))).stmts,
            *nest([(w, 16)], Block((store(c[i, jo * 16 + w], t[w]),)), LoopKind.VECTOR).stmts,
        )
    )
    check(Kernel("bytes", (a, b, c), Block((Alloc(pa), Alloc(pb), *copies, *nest([(i, 64), (jo, 8)], tile).stmts))))
