"""MLIR export: parsed and verified by MLIR itself, lowered and executed by it, compared with the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from tests.codegen.compiled_mlir import agree, verified
from tests.codegen.test_program import GEMM, PREFIX
from tests.ir.arguments import random_arguments
from tests.ir.strategies import runnable_kernels

from tilewright.codegen.mlir import emit_mlir
from tilewright.hw import load_machine
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.stmt import Block, For, Kernel, store
from tilewright.lang import parse
from tilewright.mapping.operators import build_operator
from tilewright.space.default import default_schedule
from tilewright.util.errors import CodegenError

pytest.importorskip("torch_mlir", reason="MLIR is in the package torch-mlir")


@settings(max_examples=60, deadline=None)
@given(runnable_kernels())
def test_random_programs(kernel):
    try:
        agree(kernel, random_arguments(kernel, 1))
    except CodegenError as refused:
        assert "comparison of" in str(refused)


@pytest.mark.parametrize("kind", ["range", "parallel"])
def test_scheduled_gemm_with_layouts(kind):
    kernel = parse(GEMM.format(kind=kind))
    text = agree(kernel, random_arguments(kernel, 0), tolerance=1e-5)
    assert ("scf.parallel (%io)" in text) == (kind == "parallel")
    assert "memref.alloc() : memref<2x20x14xf32>" in text  # the packed panel


def test_default_schedule_of_a_convolution():
    kernel = build_operator("conv2d", n=1, k=8, p=6, q=6, c=5, r=3, s=3)
    scheduled = default_schedule(kernel, load_machine("x86.avx512")).kernel
    agree(scheduled, random_arguments(scheduled, 2), tolerance=1e-5)


def test_symbolic_sizes_while_and_else():
    kernel = parse(PREFIX)
    assert "memref.alloc(%N) : memref<?xf32>" in agree(kernel, random_arguments(kernel, 0, {"N": 11}), {"N": 11})


@pytest.mark.parametrize("op", ["+", "-", "*", "//", "%", "min", "max", "&", "|", "^", "<<", ">>"])
def test_integer_operators_of_mixed_types(op):
    i = ex.Var("i")
    types = (ty.i8, ty.u8, ty.i32, ty.Int(5), ty.UInt(13), ty.u32)
    args = [buffer(f"x{n}", t, (64,)) for n, t in enumerate(types)]
    pairs = [(a, b) for a in args for b in args if op not in ("<<", ">>") or not b.dtype.signed]
    outs = [buffer(f"y{n}", ty.i64, (64,)) for n in range(len(pairs))]

    def right(b):
        return (b[i] | 1) if op in ("//", "%") else b[i]

    body = Block(tuple(store(y[i], ex.cast(ex.binary(op, a[i], right(b)), ty.i64)) for y, (a, b) in zip(outs, pairs, strict=True)))
    kernel = Kernel("k", (*args, *outs), Block((For(i, ex.idx(0), ex.idx(64), body),)))
    agree(kernel, random_arguments(kernel, 4))


def test_fixed_point_and_conversions():
    i = ex.Var("i")
    types = (ty.Fixed(12, 4), ty.UFixed(9, 3), ty.Fixed(20, 11), ty.f32, ty.f64, ty.i8, ty.boolean)
    args = [buffer(f"x{n}", t, (40,)) for n, t in enumerate(types)]
    outs = [(a, buffer(f"y{n}_{m}", t, (40,))) for n, a in enumerate(args) for m, t in enumerate(types)]
    sums = [(a, b, buffer(f"z{n}{m}", ty.Fixed(40, 14), (40,))) for n, a in enumerate(args[:3]) for m, b in enumerate(args[:3])]
    stores = [store(y[i], ex.cast(a[i], y.dtype)) for a, y in outs]
    stores += [store(z[i], a[i] * b[i] + ex.binary("min", a[i], b[i])) for a, b, z in sums]
    results = [*(y for _, y in outs), *(z for *_, z in sums)]
    kernel = Kernel("k", (*args, *results), Block((For(i, ex.idx(0), ex.idx(40), Block(tuple(stores))),)))
    agree(kernel, random_arguments(kernel, 5))


def test_mathematical_functions():
    i = ex.Var("i")
    args = [buffer(n, ty.f32, (64,)) for n in "abc"]
    outs = [buffer(f"y{n}", ty.boolean if f in ex.PREDICATES else ty.f32, (64,)) for n, f in enumerate(ex.INTRINSICS)]
    calls = (ex.intrinsic(f, *(x[i] for x in args[:count])) for f, count in ex.INTRINSICS.items())
    kernel = Kernel(
        "k",
        (*args, *outs),
        Block((For(i, ex.idx(0), ex.idx(64), Block(tuple(store(y[i], c) for y, c in zip(outs, calls, strict=True)))),)),
    )
    agree(kernel, random_arguments(kernel, 3), tolerance=2e-6)


def test_constants_of_every_float_type():
    i = ex.Var("i")
    kinds = (ty.f16, ty.f32, ty.f64)
    values = (0.1, -0.0, float("inf"), float("-inf"), float("nan"), 1e-7, 3.0e38, 65504.0)
    outs = [buffer(f"y{t}", t, (len(values),)) for t in kinds]
    body = [store(y[n], ex.const(v, y.dtype)) for y in outs for n, v in enumerate(values) if not (y.dtype == ty.f16 and v > 1e30)]
    kernel = Kernel("k", tuple(outs), Block(tuple(body)))
    agree(kernel, random_arguments(kernel, 0))
    verified(emit_mlir(Kernel("k", (buffer("y", ty.bf16, (2,)),), Block((store(buffer("y", ty.bf16, (2,))[i * 0], float("inf")),)))))


LAYERS = """
@kernel
def layers(a: i8[6, 9, 9], w: i8[4, 6, 3, 3], bias: i32[4], y: f32[4, 7, 7]):
    t = alloc(i32[4, 7, 7])
    for k in range(4):
        for p in range(7):
            for q in range(7):
                t[k, p, q] = bias[k]
    for k_1 in range(4):
        for p_1 in range(7):
            for q_1 in range(7):
                for c in range(6):
                    for r in range(3):
                        for s in range(3):
                            t[k_1, p_1, q_1] += a[c, p_1 + r, q_1 + s] * w[k_1, c, r, s]
    for k_2 in range(4):
        for p_2 in range(7):
            for q_2 in range(7):
                y[k_2, p_2, q_2] = max(f32(t[k_2, p_2, q_2]) * 0.5, 0.0)
"""


def test_contractions_as_linalg():
    kernel = parse(LAYERS)
    text = agree(kernel, random_arguments(kernel, 1), linalg=True)
    assert text.count("linalg.generic") == 3 and "scf.for" not in text
    assert 'iterator_types = ["parallel", "parallel", "parallel", "reduction", "reduction", "reduction"]' in text
    assert "affine_map<(d0, d1, d2, d3, d4, d5) -> (d3, (d1) + d4, (d2) + d5)>" in text


@pytest.mark.parametrize(
    "body",
    [
        "for i in range(1, 8):\n        x[i] = y[i]",  # does not start at 0
        "for i in range(7):\n        x[i] = y[i]",  # a part of the array
        "for i in range(8):\n        x[i] = y[7 - i]",  # backwards
        "for i in range(8):\n        x[i] = x[i] * 2.0",  # reads what it writes
        "for i in range(8):\n        x[i] = f32(i)",  # the loop as a value
        "for i in range(8):\n        for j in range(8):\n            x[i] = y[j]",  # overwrites
        "for i in range(8):\n        x[y_i[i]] = y[i]",  # data-dependent place
        "for i in range(8):\n        if i < 3:\n            x[i] = y[i]",
    ],
)
def test_nests_that_linalg_cannot_say_stay_loops(body):
    kernel = parse(f"@kernel\ndef part(x: f32[8], y: f32[8], y_i: i32[8]):\n    {body}\n")
    arrays = random_arguments(kernel, 1) | {"y_i": np.arange(8, dtype=np.int32)[::-1].copy()}
    text = agree(kernel, arrays, linalg=True)
    assert "linalg" not in text and "scf.for" in text


def test_floor_division_of_floats_is_refused():
    kernel = parse("@kernel\ndef f(x: f32[8]):\n    for i in range(8):\n        x[i] = x[i] // 2.0\n")
    with pytest.raises(CodegenError, match="operator // on f32 in MLIR"):
        emit_mlir(kernel)
