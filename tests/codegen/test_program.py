"""Whole programs: layouts, workspace, parallel loops, calls, while, symbolic sizes."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.codegen.llvm import compile_ir, emit
from tilewright.codegen.llvm.storage import _vectors_wide
from tilewright.hw import load_machine
from tilewright.lang import parse
from tilewright.runtime import build
from tilewright.runtime.target import of_machine
from tilewright.util.errors import CodegenError

GEMM = """
@kernel
def gemm(a: f32[28, 20], b: f32[20, 64], c: f32[28, 64]):
    ap = alloc(f32[28, 20], "dram", layout="0/14 1 0")
    bp = alloc(f32[20, 64], "dram", layout="1/32 0 1")
    for i in range(28):
        for k in range(20):
            ap[i, k] = a[i, k]
    for k_1 in range(20):
        for j in vector(64):
            bp[k_1, j] = b[k_1, j]
    for io in {kind}(2):
        for jo in range(2):
            acc = alloc(f32[14, 32], "reg")
            for i_1 in unroll(14):
                for j_1 in vector(32):
                    acc[i_1, j_1] = 0.0
            for k_2 in range(20):
                for i_2 in unroll(14):
                    for j_2 in vector(32):
                        acc[i_2, j_2] += ap[io * 14 + i_2, k_2] * bp[k_2, jo * 32 + j_2]
            for i_3 in unroll(14):
                for j_3 in vector(32):
                    c[io * 14 + i_3, jo * 32 + j_3] = acc[i_3, j_3]
"""
#: Symbolic sizes, a while loop, an array whose extent is not known, both sides of a condition.
PREFIX = """
@kernel(params=("N",))
def prefix(x: f32[N], y: f32[N]):
    t = alloc(f32[N])
    left = alloc(i32)
    left = 0
    while left < 1:
        for i in range(N):
            t[i] = x[i] * 2.0
        left += 1
    for j in range(1, N, 3):
        if j % 2 == 0:
            y[N - 1 - j] = t[j]
        else:
            y[j] += 1
"""


@pytest.mark.parametrize("kind", ["range", "parallel"])
def test_packed_register_tiled_gemm(check, kind):
    check(GEMM.format(kind=kind), tolerance=1e-4)


def test_register_tile_stays_in_registers(host):
    """The inner loop has one fused multiply-add for each vector of the tile and touches no stack."""
    emitted = emit(parse(GEMM.format(kind="range")), host)
    text = compile_ir(emitted.text, host.target, emit="asm")
    assert isinstance(text, str)
    if host.vector_bits != 512:
        pytest.skip("the tile is made for 32 registers of 512 bits")
    assert text.count("vfmadd") == 28
    assert "%rsp" not in "".join(line for line in text.splitlines() if "zmm" in line)


@pytest.mark.parametrize("width", [17, 27, 40])
def test_rows_of_no_whole_number_of_vectors_stay_in_registers(width):
    """Rows are padded, so that no vector holds the end of one and the beginning of the next."""
    machine = load_machine("x86.avx512")
    kernel = parse(f"""
@kernel
def tile(a: f32[6, 64], b: f32[64, {width}], c: f32[6, {width}]):
    acc = alloc(f32[6, {width}], "reg")
    for i in unroll(6):
        for j in vector({width}):
            acc[i, j] = 0.0
    for k in range(64):
        for i_1 in unroll(6):
            for j_1 in vector({width}):
                acc[i_1, j_1] += a[i_1, k] * b[k, j_1]
    for i_2 in unroll(6):
        for j_2 in vector({width}):
            c[i_2, j_2] = acc[i_2, j_2]
""")
    text = compile_ir(emit(kernel, machine).text, of_machine(machine), emit="asm")
    assert isinstance(text, str) and "vfmadd" in text
    assert "(%rsp" not in text


@pytest.mark.parametrize(("extent", "padded"), [(0, 0), (1, 1), (3, 4), (16, 16), (17, 17), (24, 24), (27, 32), (40, 40), (43, 48)])
def test_rows_are_padded_to_what_their_vectors_touch_and_no_further(extent, padded):
    """Tails run in the smallest power of two of lanes that holds them."""
    assert _vectors_wide(extent, 16) == padded


def test_layouts_with_padding(check):
    """Rows 0..22 in blocks of 8 and of 3: the last block is partly padding."""
    check("""
@kernel
def f(x: f32[23, 10], y: f32[23, 10]):
    t = alloc(f32[23, 10], "dram", layout="0/8 1 0")
    u = alloc(f32[23, 10], "dram", layout="1/6 0/3 1/2 0 1")
    for i in vector(23):
        for j in range(10):
            t[i, j] = x[i, j] * 2.0
    for i_1 in range(23):
        for j_1 in vector(10):
            u[i_1, j_1] = t[i_1, j_1]
    for i_2 in range(23):
        for j_2 in range(10):
            y[i_2, j_2] = u[i_2, j_2]
""")


def test_arguments_in_a_layout(host, execute):
    k = parse("""
@kernel
def f(x: i32[12, 10], y: i32[12, 10]):
    for i in range(12):
        for j in vector(10):
            y[i, j] = x[i, j] + 1
""")
    x, y = k.args
    from tilewright.ir.buffer import Layout
    from tilewright.ir.stmt import replace_buffers

    packed = x.with_(layout=Layout.parse("1/4 0 1"))
    k = k.with_(args=(packed, y), body=replace_buffers(k.body, {"x": packed}))
    logical = np.arange(120, dtype=np.int32).reshape(12, 10)
    physical = np.zeros((3, 12, 4), np.int32)
    for i in range(12):
        for j in range(10):
            physical[j // 4, i, j % 4] = logical[i, j]
    out = np.zeros((12, 10), np.int32)
    execute(k, host, {"x": physical, "y": out})
    np.testing.assert_array_equal(out, logical + 1)


def test_workspace_is_shared_by_disjoint_lives(host):
    k = parse("""
@kernel
def f(x: f32[4096], y: f32[4096]):
    a = alloc(f32[4096], "dram")
    b = alloc(f32[4096], "dram")
    c = alloc(f32[4096], "dram")
    for i in range(4096):
        a[i] = x[i] + 1.0
    for j in range(4096):
        b[j] = a[j] * 2.0
    for k in range(4096):
        c[k] = b[4095 - k]
    for l in range(4096):
        y[l] = c[l]
""")
    assert emit(k, host).workspace == 2 * 4096 * 4


def test_workspace_lives(check):
    check("""
@kernel
def f(x: f32[2000], y: f32[2000]):
    a = alloc(f32[2000], "dram")
    b = alloc(f32[2000], "dram")
    c = alloc(f32[2000], "dram")
    for i in range(2000):
        a[i] = x[i] + 1.0
    for j in range(2000):
        b[j] = a[j] * 2.0
    for k in range(2000):
        c[k] = b[1999 - k] + x[k]
    for l in range(2000):
        y[l] = c[l]
""")


PARALLEL = """
@kernel(params=("N",))
def f(x: f32[N, 1500], y: f32[N], z: i64[()]):
    z[()] = 3
    for i in parallel(1, N):
        t = alloc(f32[1500], "dram")
        for j in range(1500):
            t[j] = x[i, j] * 2.0
        y[i] = 0.0
        for k in parallel(1500):
            y[i] += t[1499 - k]
"""


@pytest.mark.parametrize("n", [1, 2, 9])
def test_parallel_loop_with_private_workspace(check, n):
    check(PARALLEL, N=n, tolerance=1e-3)


def test_parallel_loop_on_threads():
    module = build(parse(PARALLEL), threads=2, cache=False)
    x = np.random.default_rng(0).standard_normal((64, 1500)).astype(np.float32)
    y, z = np.zeros(64, np.float32), np.zeros((), np.int64)
    for _ in range(20):
        module(x, y, z)
        np.testing.assert_allclose(y[1:], 2 * x[1:].sum(1), atol=1e-2)


def test_bound_loops(check, host):
    program = """
@kernel
def f(x: f32[6, 8], y: f32[6, 8]):
    for i in bind("core", 0, 6):
        for j in bind("lane", 0, 8):
            y[i, j] = x[i, j] + 1.0
"""
    check(program)
    assert emit(parse(program), host).externals == ("tw_parallel_for",)


def test_parallel_captures_scalars_and_outer_variables(check):
    check("""
@kernel
def f(x: i32[6, 8], y: i32[6, 8], n: i32[()]):
    s = alloc(i32)
    s = 5
    for i in range(6):
        for j in parallel(8):
            y[i, j] = x[i, j] * s + n + i
""")


def test_while_and_data_dependent_conditions(check):
    check(
        """
@kernel
def collatz(x: i64[20], steps: i64[20]):
    for i in range(20):
        v = alloc(i64)
        v = x[i]
        steps[i] = 0
        while v != 1 and steps[i] < 500:
            if v % 2 == 0:
                v = v // 2
            else:
                v = 3 * v + 1
            steps[i] += 1
""",
        x=np.arange(1, 21),
    )


def test_calls_are_inlined_with_windows_and_sizes(check):
    from tilewright.ir import expr as ex
    from tilewright.ir.stmt import Block, Call, Kernel, Span, Window, loops

    row = parse("""
@kernel(params=("N",))
def scale(x: f32[N], y: f32[N]):
    t = alloc(f32[N], "dram")
    for j in range(N):
        t[j] = x[j] * 2.0
    for k in vector(N):
        y[k] += t[k]
""")
    outer = parse("""
@kernel
def f(x: f32[8, 40], y: f32[8, 40]):
    for j in range(4):
        y[j, 0] = 1.0
""")
    x, y = outer.args
    twice = [
        Call(
            row,
            (ex.idx(13),),
            (Window(x, (ex.idx(3), Span(ex.idx(1), ex.idx(13), 3))), Window(y, (ex.idx(i), Span(ex.idx(20), ex.idx(13))))),
        )
        for i in (2, 5)
    ]
    first = loops(outer)[0]
    assert first.name == "j"
    check(Kernel("f", (x, y), Block((*twice, *outer.body.stmts))))


def test_recursion_through_symbolic_heap_buffers(check):
    check(
        """
@kernel(params=("N",))
def f(x: f32[N], y: f32[N]):
    for i in range(3):
        t = alloc(f32[N + 5], "dram")
        for j in range(N):
            t[j + i] = x[j]
        for k in range(N):
            y[k] += t[k + i]
""",
        N=50,
    )


NESTS = {
    "lu": """
@kernel
def lu(a: f64[12, 12]):
    for i in range(12):
        for j in range(i):
            for k in range(j):
                a[i, j] += 0.0 - a[i, k] * a[k, j]
            a[i, j] = a[i, j] / a[j, j]
        for j_1 in range(i, 12):
            for k_1 in range(i):
                a[i, j_1] += 0.0 - a[i, k_1] * a[k_1, j_1]
""",
    "seidel": """
@kernel
def seidel(a: f64[14, 14]):
    for t in range(3):
        for i in range(1, 13):
            for j in range(1, 13):
                a[i, j] = (a[i - 1, j] + a[i, j - 1] + a[i, j] + a[i, j + 1] + a[i + 1, j + 1]) / 5.0
""",
    "floyd": """
@kernel
def floyd(p: i32[10, 10]):
    for k in range(10):
        for i in range(10):
            for j in vector(10):
                p[i, j] = p[i, j] if p[i, j] < p[i, k] + p[k, j] else p[i, k] + p[k, j]
""",
}


@pytest.mark.parametrize("name", NESTS)
def test_in_place_nests(check, name):
    given = {"a": np.eye(12) * 20 + np.random.default_rng(0).random((12, 12))} if name == "lu" else {}
    if name == "floyd":
        given = {"p": np.random.default_rng(0).integers(0, 100, (10, 10)).astype(np.int32)}
    check(NESTS[name], tolerance=1e-9, **given)


def test_bad_symbol_is_refused(host):
    with pytest.raises(CodegenError, match="not a C identifier"):
        emit(parse(NESTS["lu"]), host, symbol="not ok")


@pytest.mark.parametrize("name", ["pow", "sin", "memcpy"])
def test_kernel_may_be_called_like_a_library_function_it_uses(check, host, name):
    value = {"pow": "pow(x[i], y[i])", "sin": "sin(x[i])"}.get(name, "x[i]")
    program = f"@kernel\ndef {name}(x: f64[300], y: f64[300], z: f64[300]):\n    for i in range(300):\n        z[i] = {value}\n"
    assert emit(parse(program), host).symbol == f"tw_{name}"
    check(program, tolerance=1e-12, x=np.linspace(0.5, 2, 300), y=np.linspace(-2, 2, 300))


def test_invalid_text_is_an_error_with_llvms_message(host):
    with pytest.raises(CodegenError, match="LLVM rejects"):
        compile_ir("define void @f() { nonsense }", host.target)
