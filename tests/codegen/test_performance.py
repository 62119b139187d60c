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
from tilewright.runtime import jit

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
