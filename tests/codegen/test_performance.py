"""The reason for this backend: a scheduled matrix product runs near the machine's peak."""

from __future__ import annotations

import ctypes
import time

import numpy as np
import pytest

from tilewright.codegen.llvm import compile_ir, emit
from tilewright.ir.buffer import Layout
from tilewright.ir.stmt import Kernel, replace_buffers
from tilewright.lang import parse
from tilewright.runtime import build, jit
from tilewright.schedule.schedule import Schedule

M, N, K = 112, 128, 256
KERNEL = f"""
@kernel
def gemm(a: f32[{M}, {K}], b: f32[{K}, {N}], c: f32[{M}, {N}]):
    for io in range({M // 14}):
        for jo in range({N // 32}):
            acc = alloc(f32[14, 32], "reg")
            for i in unroll(14):
                for j in vector(32):
                    acc[i, j] = 0.0
            for k in range({K}):
                for i_1 in unroll(14):
                    for j_1 in vector(32):
                        acc[i_1, j_1] += a[io * 14 + i_1, k] * b[k, jo * 32 + j_1]
            for i_2 in unroll(14):
                for j_2 in vector(32):
                    c[io * 14 + i_2, jo * 32 + j_2] = acc[i_2, j_2]
"""
CHAINS, ROUNDS = 16, 200_000


def packed_gemm() -> Kernel:
    k = parse(KERNEL)
    a, b, c = k.args
    new = {"a": a.with_(layout=Layout.parse("0/14 1 0")), "b": b.with_(layout=Layout.parse("1/32 0 1"))}
    return k.with_(args=(*new.values(), c), body=replace_buffers(k.body, new))


def entry(text: str, symbol: str, host):
    library = jit.load(compile_ir(text, host.target), [symbol], {})
    return library, library.function(symbol, None, *[ctypes.c_void_p] * 4)


def peak_text(lanes: int) -> str:
    """Independent multiply-add chains: as many as hide the latency."""
    vec = f"<{lanes} x float>"
    phis = [f"%x{n} = phi {vec} [ zeroinitializer, %entry ], [ %y{n}, %l ]" for n in range(CHAINS)]
    steps = [
        f"%y{n} = call {vec} @llvm.fma.v{lanes}f32({vec} %x{n}, {vec} splat (float 0.5), {vec} splat (float 1.0))" for n in range(CHAINS)
    ]
    sums = [f"%s{n} = fadd {vec} %{f's{n - 1}' if n else 'y0'}, %y{n}" for n in range(CHAINS)]
    return "\n".join(
        [
            "define void @peak(ptr %a, ptr %s, ptr %w, ptr %p) {\nentry:\n  br label %l\nl:",
            "%i = phi i64 [ 0, %entry ], [ %n, %l ]",
            *phis,
            *steps,
            f"%n = add i64 %i, 1\n%c = icmp slt i64 %n, {ROUNDS}\nbr i1 %c, label %l, label %e\ne:",
            *sums,
            f"store {vec} %s{CHAINS - 1}, ptr %w, align 4\nret void\n}}",
        ]
    )


@pytest.mark.slow
def test_packed_product_reaches_the_peak(host):
    lanes = host.vector_bits // 32
    if lanes != 16:
        pytest.skip("the tile is made for 32 registers of 512 bits")
    kernel = packed_gemm()
    emitted = emit(kernel, host)
    keep, gemm = entry(emitted.text, emitted.symbol, host)
    keep_peak, peak = entry(peak_text(lanes), "peak", host)
    rng = np.random.default_rng(0)
    a, b = rng.random((M // 14, K, 14), np.float32), rng.random((N // 32, K, 32), np.float32)
    c = np.empty((M, N), np.float32)
    memory = np.zeros(256, np.float32)
    pointers = (ctypes.c_void_p * 3)(a.ctypes.data, b.ctypes.data, c.ctypes.data)
    best = {"gemm": 1e9, "peak": 1e9}
    for _ in range(300):  # interleaved, so that both see the same clock and neighbours
        for name, call in (("gemm", lambda: gemm(ctypes.addressof(pointers), None, memory.ctypes.data, None)), ("peak", None)):
            start = time.perf_counter()
            if call:
                call()
            else:
                peak(None, None, memory.ctypes.data, None)
            best[name] = min(best[name], time.perf_counter() - start)
    share = (2 * M * N * K / best["gemm"]) / (2 * lanes * CHAINS * ROUNDS / best["peak"])
    assert share >= 0.85, f"{share:.2f} of the peak"
    assert keep and keep_peak


BYTES = """
@kernel
def byte_gemm(a: u8[512, 512], b: i8[512, 512], c: i32[512, 512]):
    for i in range(512):
        for j in range(512):
            c[i, j] = 0
    for i_1 in range(512):
        for j_1 in range(512):
            for k in range(512):
                c[i_1, j_1] += a[i_1, k] * b[j_1, k]
"""


def scheduled_bytes(host) -> Kernel:
    """Eight rows by two vectors in registers, b packed in groups of four along k, as the dot product instruction takes it."""
    s = Schedule(parse(BYTES), host)
    io, ii = s.split("i_1", 8)
    jo, jr = s.split("j_1", 32)
    jv, ji = s.split(jr, 16)
    ko, ki = s.split("k", 4)
    s.reorder(jo, io, ko, ii, jv, ji, ki)
    s.cache_write("c", io, "reg")
    s.layout("b", "0/32 1/4 0 1")
    s.cache_read("b", ko, "reg")
    s.tensorize(ji, "dpbusd")
    for loop in (ii, jv, "c_reg_0", "c_reg_out0"):
        s.unroll(loop)
    for loop in ("c_reg_1", "c_reg_out1"):
        s.vectorize(loop)
    return s.kernel


@pytest.mark.slow
def test_products_of_bytes_through_the_dot_product_instruction(host):
    if "dpbusd" not in (i.name for i in host.instructions):
        pytest.skip("this CPU has no dpbusd")
    module = build(scheduled_bytes(host), threads=1, cache=False)
    keep_peak, peak = entry(peak_text(16), "peak", host)
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (512, 512), dtype=np.uint8), rng.integers(-128, 128, (512, 512), dtype=np.int8)
    c, memory = np.empty((512, 512), np.int32), np.zeros(256, np.float32)
    call = module.bind(a, module.pack("b", b), out=c)
    best = {"bytes": 1e9, "peak": 1e9}
    for _ in range(100):
        for name, run in (("bytes", call), ("peak", lambda: peak(None, None, memory.ctypes.data, None))):
            start = time.thread_time()
            run()
            best[name] = min(best[name], time.thread_time() - start)
    np.testing.assert_array_equal(c, a.astype(np.int32) @ b.astype(np.int32).T)
    times = (2 * 512**3 / best["bytes"]) / (2 * 16 * CHAINS * ROUNDS / best["peak"])
    assert times >= 2.5, f"{times:.2f} times the peak of f32, of four that the instruction allows"
    assert keep_peak


def test_compiling_is_quick(host):
    kernel = packed_gemm()
    emitting, compiling = [], []
    for _ in range(3):
        start = time.perf_counter()
        text = emit(kernel, host).text
        middle = time.perf_counter()
        compile_ir(text, host.target)
        emitting.append(middle - start)
        compiling.append(time.perf_counter() - middle)
    assert min(emitting) < 0.04 and min(compiling) < 0.3, (emitting, compiling)
