"""The C backend: random kernels and the scalar tests of the LLVM backend, compiled and compared with the interpreter."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from tests.codegen import test_scalar
from tests.codegen.compiled_c import agree, call, compilers, load
from tests.codegen.conftest import random_array
from tests.codegen.test_program import GEMM, PREFIX
from tests.ir.arguments import random_arguments
from tests.ir.strategies import runnable_kernels

from tilewright.codegen.c import emit_c, prototype
from tilewright.hw import load_machine
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import INTRINSICS
from tilewright.ir.stmt import Block, For, Kernel, store
from tilewright.lang import parse
from tilewright.mapping.operators import build_operator
from tilewright.space.default import default_schedule
from tilewright.util.errors import CodegenError, ExecutionError, IRTypeError

INTEGER_OPERATORS = ("+", "-", "*", "//", "%", "min", "max", "&", "|", "^", "<<", ">>")


@pytest.fixture
def check() -> Callable[..., None]:
    """What the LLVM tests call, for C."""

    def run(program: str | Kernel, tolerance: float = 0.0, seed: int = 0, **given) -> None:
        kernel = parse(program) if isinstance(program, str) else program
        sizes = {v.name: given.pop(v.name) for v in kernel.sizes}
        rng = np.random.default_rng(seed)
        arrays = {b.name: np.array(given[b.name]) if b.name in given else random_array(rng, b, sizes) for b in kernel.args}
        agree(kernel, arrays, sizes, tolerance=tolerance)

    return run


@settings(max_examples=20, deadline=None)
@given(runnable_kernels())
def test_random_programs(kernel):
    agree(kernel, random_arguments(kernel, 1))


@settings(max_examples=20, deadline=None)
@given(test_scalar.programs(test_scalar.INTEGERS, INTEGER_OPERATORS))
def test_integers_are_exact(kernel):
    defined(kernel)


@settings(max_examples=10, deadline=None)
@given(test_scalar.programs((*test_scalar.FIXED, ty.i16, ty.u8), ("+", "-", "*", "/", "min", "max")))
def test_fixed_point_is_exact(kernel):
    defined(kernel)


@settings(max_examples=10, deadline=None)
@given(test_scalar.programs((ty.f16, ty.bf16, ty.f32, ty.f64, ty.u8, ty.i64), ("+", "-", "*", "min", "max")))
def test_floats_with_integers(kernel):
    defined(kernel)


def defined(kernel: Kernel) -> None:
    """Agreement, unless the program has no meaning (a division by zero), or meets floats with integers that C has no exact form for."""
    try:
        agree(kernel, {b.name: random_array(np.random.default_rng(0), b, {}) for b in kernel.args})
    except ExecutionError:
        return
    except IRTypeError as error:
        assert "not defined" in str(error) or "only integers" in str(error)
    except CodegenError as error:
        assert "Int(" in error.message and "use the llvm backend" in str(error.hint)


test_shifts = test_scalar.test_shifts
test_wide_arithmetic_keeps_every_bit = test_scalar.test_wide_arithmetic_keeps_every_bit
test_integer_against_float_compares_exactly = test_scalar.test_integer_against_float_compares_exactly
test_bitcasts = test_scalar.test_bitcasts


def test_casts_between_all_types():
    i = ex.Var("i")
    for src in test_scalar.CASTS:
        x, outs = buffer("x", src, (40,)), [buffer(f"y{n}", t, (40,)) for n, t in enumerate(test_scalar.CASTS)]
        body = Block(tuple(store(y[i], ex.cast(x[i], y.dtype)) for y in outs))
        kernel = Kernel("k", (x, *outs), Block((For(i, ex.idx(0), ex.idx(40), body),)))
        arrays = {b.name: random_array(np.random.default_rng(1), b, {}) for b in kernel.args}
        if src.is_float and src.bits > 16:
            arrays["x"] = (arrays["x"] * 10.0 ** np.linspace(-8, 18, 40)).astype(src.to_numpy())
        agree(kernel, arrays)


@pytest.mark.parametrize("dtype", [ty.f16, ty.bf16, ty.f32, ty.f64], ids=str)
def test_float_operators_on_special_values(dtype):
    operators = ("+", "-", "*", "/", "//", "%", "min", "max")
    a, b = (buffer(n, dtype, (81,)) for n in "ab")
    outs = [buffer(f"c{n}", dtype, (81,)) for n in range(len(operators))]
    i = ex.Var("i")
    body = Block(tuple(store(c[i], ex.binary(op, a[i], b[i])) for c, op in zip(outs, operators, strict=True)))
    kernel = Kernel("k", (a, b, *outs), Block((For(i, ex.idx(0), ex.idx(81), body),)))
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -2.5, 1e-7, 1 / 3], np.float32)
    arrays = {c.name: np.zeros(81, dtype.to_numpy()) for c in outs}
    for name, values in (("a", np.repeat(special, 9)), ("b", np.tile(special, 9))):
        arrays[name] = (values.view(np.uint32) >> 16).astype(np.uint16) if dtype == ty.bf16 else values.astype(dtype.to_numpy())
    agree(kernel, arrays)


@pytest.mark.parametrize("dtype", [ty.f16, ty.bf16, ty.f32, ty.f64], ids=str)
def test_mathematical_functions(dtype):
    """One ulp: the two mathematical libraries are not bound to agree on the last bit of f64, which one rounding may show."""
    i = ex.Var("i")
    args = [buffer(n, dtype, (64,)) for n in "abc"]
    outs = [buffer(f"y{n}", ty.boolean if f in ex.PREDICATES else dtype, (64,)) for n, f in enumerate(INTRINSICS)]
    calls = (ex.intrinsic(f, *(x[i] for x in args[:count])) for f, count in INTRINSICS.items())
    body = Block(tuple(store(y[i], c) for y, c in zip(outs, calls, strict=True)))
    kernel = Kernel("k", (*args, *outs), Block((For(i, ex.idx(0), ex.idx(64), body),)))
    arrays = {b.name: random_array(np.random.default_rng(3), b, {}) for b in kernel.args}
    agree(kernel, arrays, tolerance={"f16": 1e-3, "bf16": 8e-3, "f32": 1.2e-7, "f64": 1e-13}[str(dtype)])


@pytest.mark.parametrize("openmp", [False, True])
def test_scheduled_gemm_with_layouts(openmp):
    kernel = parse(GEMM.format(kind="parallel"))
    text = agree(
        kernel, random_arguments(kernel, 0), tolerance=1e-6, openmp=openmp, flags=("-fopenmp",) if openmp else ("-Wno-unknown-pragmas",)
    )
    assert text.count("#pragma omp parallel for") == openmp


@pytest.mark.parametrize(
    "name, shape", [("matmul", {"i": 20, "j": 36, "k": 17}), ("conv2d", {"n": 1, "k": 8, "p": 6, "q": 6, "c": 5, "r": 3, "s": 3})]
)
def test_default_schedules_of_operators(name, shape):
    """Instructions of the machine become the loops that define them."""
    kernel = default_schedule(build_operator(name, **shape), load_machine("x86.avx512")).kernel
    agree(kernel, random_arguments(kernel, 2), tolerance=1e-5)


INT8_GEMM = """
@kernel
def gemm(a: i8[21, 40], b: i8[40, 35], c: i8[21, 35]):
    for i in range(21):
        for j in range(35):
            t = alloc(i32)
            t = 0
            for k in range(40):
                t += a[i, k] * b[k, j]
            c[i, j] = cast(min(max(t, -128), 127), i8)
"""


def test_saturating_int8_gemm_reads_as_a_person_would_write_it():
    kernel = parse(INT8_GEMM)
    text = agree(kernel, random_arguments(kernel, 3))
    assert "void gemm(const int8_t *restrict a, const int8_t *restrict b, int8_t *restrict c) {" in text
    assert "t = (int32_t)((int64_t)t + a[i * 40 + k] * b[j + k * 35]);" in text or "a[i * 40 + k] * b[k * 35 + j]" in text


def test_symbolic_sizes_while_and_heap():
    kernel = parse(PREFIX)
    text = agree(kernel, random_arguments(kernel, 0, {"N": 11}), {"N": 11})
    assert "int64_t N, const float *restrict x" in text and "free(t);" in text
    with pytest.raises(CodegenError, match="extent of t is only known when the program runs"):
        emit_c(kernel, heap=False)


def test_large_local_arrays():
    kernel = parse("""
@kernel
def copy(x: i8[20000], y: i8[20000]):
    t = alloc(i8[20000])
    for i in range(20000):
        t[i] = x[i]
    for j in range(20000):
        y[j] = t[j]
""")
    assert "tw_allocate(" in agree(kernel, random_arguments(kernel, 0))
    assert "static _Alignas(64) int8_t t[20000];" in agree(kernel, random_arguments(kernel, 0), heap=False)


def test_names_that_mean_something_in_c():
    kernel = parse("""
@kernel
def register(double: i32[4], int: i32[4], exp: f32[4]):
    for main in range(4):
        int[main] = double[main] + 1
        exp[main] = sqrt(exp[main] * exp[main])
""").with_(name="registers")
    assert "double_[main_]" in agree(kernel, random_arguments(kernel, 0))
    assert prototype(kernel, "f") == "void f(const int32_t *restrict double_, int32_t *restrict int_, float *restrict exp_)"
    with pytest.raises(CodegenError, match="not a C identifier"):
        emit_c(kernel, symbol="a-b")


def test_integers_beyond_128_bits():
    x, y = buffer("x", ty.u64, (5,)), buffer("y", ty.u64, (5,))
    i = ex.Var("i")
    product = x[i] * x[i] * x[i]
    kernel = Kernel("k", (x, y), Block((For(i, ex.idx(0), ex.idx(5), Block((store(y[i], ex.cast(product >> 130, ty.u64)),))),)))
    agree(kernel, {"x": np.array([2**64 - 1, 1, 2**63, 7, 2**50], np.uint64), "y": np.zeros(5, np.uint64)})


def test_both_compilers_agree_with_the_interpreter():
    for compiler in compilers():
        kernel = parse(INT8_GEMM)
        agree(kernel, random_arguments(kernel, 5), compiler=compiler)


def test_undefined_behaviour_is_not_relied_on():
    """Shifts, conversions and overflows of a program full of them, under the compiler's sanitizer."""
    if "gcc" not in compilers():
        pytest.skip("needs gcc's undefined behaviour sanitizer")
    i = ex.Var("i")
    x = buffer("x", ty.i32, (64,))
    outs = [buffer(f"y{n}", t, (64,)) for n, t in enumerate((ty.i8, ty.Int(5), ty.i64, ty.Fixed(12, 4)))]
    value = (x[i] * x[i] - (x[i] << 3)) // (x[i] | 1)
    body = Block(tuple(store(y[i], ex.cast(value, y.dtype)) for y in outs))
    kernel = Kernel("k", (x, *outs), Block((For(i, ex.idx(0), ex.idx(64), body),)))
    arrays = {b.name: random_array(np.random.default_rng(1), b, {}) for b in kernel.args}
    agree(kernel, arrays, compiler="gcc", flags=("-fsanitize=undefined", "-fno-sanitize-recover=all"))


def test_a_function_of_no_arguments():
    library = load(emit_c(parse("@kernel\ndef nothing():\n    t = alloc(i8)\n    t = 1")))
    call(library, parse("@kernel\ndef nothing():\n    t = alloc(i8)\n    t = 1"), {})
    assert re.search(r"void nothing\(void\)", emit_c(parse("@kernel\ndef nothing():\n    t = alloc(i8)\n    t = 1")))


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (lambda x, y: ex.cast(x * x * x, ty.Int(90)), ty.Int(90), "C has no integer of 90 bits to wrap in"),
        (lambda x, y: ex.cast(y, ty.Int(200)), ty.Int(200), r"conversion of a float to Int\(200\)"),
        (lambda x, y: ex.cast(ex.compare("<", ex.cast(x, ty.Fixed(60, 4)), y), ty.i8), ty.i8, r"comparison of f64 with Fixed\(60, 4\)"),
        (lambda x, y: ex.cast(ex.cast(x, ty.Fixed(60, 4)) * ex.const(2**-130, ty.Fixed(8, 130)), ty.f32), ty.f32, "134 fraction bits"),
    ],
)
def test_what_c_cannot_express_is_refused(value, dtype, message):
    x, y, out = buffer("x", ty.i64, (4,)), buffer("y", ty.f64, (4,)), buffer("out", dtype, (4,))
    i = ex.Var("i")
    kernel = Kernel("k", (x, y, out), Block((For(i, ex.idx(0), ex.idx(4), Block((store(out[i], value(x[i], y[i])),))),)))
    with pytest.raises(CodegenError, match=message):
        emit_c(kernel)
