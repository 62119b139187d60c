"""What this host can do at most, measured by small kernels: FLOP/s and bytes per second."""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from tilewright.ir.types import DType, f32
from tilewright.runtime import jit
from tilewright.runtime.cache import build_cache
from tilewright.runtime.measurement import processor_name
from tilewright.runtime.memory import aligned_empty
from tilewright.runtime.native import compiled
from tilewright.runtime.pool import ThreadPool, available_cpus, parallel_for_address
from tilewright.runtime.processors import pinned
from tilewright.runtime.target import Target, host
from tilewright.util.errors import RuntimeFailure

#: Independent accumulators: more than latency x issue width of any fused multiply-add unit in use.
CHAINS = 12
_LLVM_TYPES = {32: "float", 64: "double"}


@dataclass(frozen=True, slots=True)
class Peak:
    """Measured limits of the host on ``threads`` threads.

    ``flops``: fused multiply-adds on registers, two operations each, per second.
    ``bandwidth``: bytes per second read from a block far larger than the caches.
    """

    threads: int
    dtype: str
    vector_bits: int
    flops: float
    bandwidth: float


def measure_peak(threads: int | None = None, dtype: DType = f32, *, seconds: float = 0.15, cache: bool = True) -> Peak:
    """Measure the host's peak on ``threads`` threads (default: all processors), or take it from the cache.

    ``dtype`` is f32 or f64. Each figure is the best of many runs within ``seconds``. Vectors are as
    wide as the processor's registers.
    """
    if not dtype.is_float or dtype.bits not in _LLVM_TYPES or dtype.kind != "float":
        raise RuntimeFailure(f"peak of {dtype} cannot be measured", hint="use f32 or f64")
    count = len(available_cpus()) if threads is None else threads
    bits = register_bits(host())
    store = build_cache()
    key = store.key("peak", host(), processor_name(), count, dtype, bits)
    if cache and (entry := store.load(key)) is not None:
        return Peak(**json.loads(entry))
    text = kernel_text(dtype, bits)
    library = jit.load(compiled(text, host()), ["peak_flops", "peak_read"], {"tw_parallel_for": parallel_for_address()})
    # Every thread has a processor of its own: a caller that shares one with a pinned worker would halve the figure.
    with ThreadPool(count, pin=True) as pool, pinned(available_cpus()[0]):
        peak = Peak(count, str(dtype), bits, _flops(library, pool, dtype, bits, seconds), _bandwidth(library, pool, seconds))
    if cache:
        store.store(key, json.dumps(asdict(peak)).encode())
    return peak


def register_bits(target: Target) -> int:
    """Width of the widest vector registers of ``target``."""
    features = set(target.features.split(","))
    widths = {"+avx512f": 512, "+avx": 256}
    return max((bits for feature, bits in widths.items() if feature in features), default=128)


def _best(run: Callable[[], object], seconds: float) -> float:
    """Shortest time of ``run`` among those that fit in ``seconds`` (at least 5 of them)."""
    run()
    best, runs, deadline = float("inf"), 0, time.perf_counter() + seconds
    while runs < 5 or time.perf_counter() < deadline:
        start = time.perf_counter()
        run()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best


def _flops(library: jit.Library, pool: ThreadPool, dtype: DType, bits: int, seconds: float) -> float:
    turns = 100_000
    function = library.function("peak_flops", None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    sink = aligned_empty((pool.threads * 64,), np.dtype(np.uint8), zero=True)
    best = _best(lambda: function(pool.handle, pool.threads, turns, sink.ctypes.data), seconds)
    return 2.0 * (bits // dtype.bits) * CHAINS * turns * pool.threads / best


def _bandwidth(library: jit.Library, pool: ThreadPool, seconds: float) -> float:
    nbytes = 256 << 20
    block = aligned_empty((nbytes,), np.dtype(np.uint8))
    block[:] = 1  # touch every page
    function = library.function("peak_read", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    sink = aligned_empty((pool.threads * 64,), np.dtype(np.uint8), zero=True)
    return nbytes / _best(lambda: function(pool.handle, block.ctypes.data, nbytes, sink.ctypes.data), seconds)


def kernel_text(dtype: DType, bits: int) -> str:
    """LLVM IR of ``peak_flops(pool, threads, turns, sink)`` and ``peak_read(pool, block, bytes, sink)``.

    Results go to the thread's 64 bytes of ``sink``, so that nothing can be left out.
    """
    return (
        f"declare void @tw_parallel_for(ptr, ptr, ptr, i64)\n%ctx = type {{ i64, ptr, ptr }}\n{_flops_text(dtype, bits)}{_read_text(bits)}"
    )


def _flops_text(dtype: DType, bits: int) -> str:
    """Each thread keeps CHAINS vectors in registers and multiplies and adds them in place."""
    element = _LLVM_TYPES[dtype.bits]
    vector = f"<{bits // dtype.bits} x {element}>"
    fma = f"@llvm.fma.v{bits // dtype.bits}f{dtype.bits}"
    chains = range(CHAINS)
    phis = "\n".join(f"  %a{n} = phi {vector} [ %start, %0 ], [ %b{n}, %loop ]" for n in chains)
    # x * 0.5 + start converges: no overflow, no denormals, whatever the number of turns.
    fmas = "\n".join(f"  %b{n} = call {vector} {fma}({vector} %a{n}, {vector} splat ({element} 0.5), {vector} %start)" for n in chains)
    sums = "\n".join(f"  %s{n + 1} = fadd {vector} {'%b0' if n == 0 else f'%s{n}'}, %b{n + 1}" for n in range(CHAINS - 1))
    return f"""
declare {vector} {fma}({vector}, {vector}, {vector})

define void @peak_flops(ptr %pool, i64 %threads, i64 %turns, ptr %sink) {{
  %ctx = alloca %ctx
  store i64 %turns, ptr %ctx
  %sink.p = getelementptr %ctx, ptr %ctx, i64 0, i32 1
  store ptr %sink, ptr %sink.p
  call void @tw_parallel_for(ptr %pool, ptr @flops, ptr %ctx, i64 %threads)
  ret void
}}

define internal void @flops(ptr %ctx, i64 %begin, i64 %end, i64 %thread) {{
  %turns1 = load i64, ptr %ctx
  %share = sub i64 %end, %begin
  %turns = mul i64 %turns1, %share
  %sink.p = getelementptr %ctx, ptr %ctx, i64 0, i32 1
  %sink = load ptr, ptr %sink.p
  %mine = getelementptr [64 x i8], ptr %sink, i64 %thread
  %start = load volatile {vector}, ptr %mine
  br label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %next, %loop ]
{phis}
{fmas}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %turns
  br i1 %more, label %loop, label %done
done:
{sums}
  store volatile {vector} %s{CHAINS - 1}, ptr %mine
  ret void
}}
"""


def _read_text(bits: int) -> str:
    """Each thread sums 64-bit words of the pages that are its share."""
    words = bits // 64
    streams = range(8)
    word = f"<{words} x i64>"
    read_phis = "\n".join(f"  %r{n} = phi {word} [ zeroinitializer, %0 ], [ %t{n}, %loop ]" for n in streams)
    reads = "\n".join(
        f"  %o{n} = add i64 %i, {n * bits // 8}\n  %p{n} = getelementptr i8, ptr %block, i64 %o{n}\n"
        f"  %v{n} = load {word}, ptr %p{n}, align {bits // 8}\n  %t{n} = add {word} %r{n}, %v{n}"
        for n in streams
    )
    totals = "\n".join(f"  %u{n + 1} = add {word} {'%t0' if n == 0 else f'%u{n}'}, %t{n + 1}" for n in range(7))
    return f"""
define void @peak_read(ptr %pool, ptr %block, i64 %bytes, ptr %sink) {{
  %ctx = alloca %ctx
  store i64 %bytes, ptr %ctx
  %sink.p = getelementptr %ctx, ptr %ctx, i64 0, i32 1
  store ptr %sink, ptr %sink.p
  %block.p = getelementptr %ctx, ptr %ctx, i64 0, i32 2
  store ptr %block, ptr %block.p
  %pages = sdiv i64 %bytes, 65536
  call void @tw_parallel_for(ptr %pool, ptr @read, ptr %ctx, i64 %pages)
  ret void
}}

define internal void @read(ptr %ctx, i64 %begin, i64 %end, i64 %thread) {{
  %sink.p = getelementptr %ctx, ptr %ctx, i64 0, i32 1
  %sink = load ptr, ptr %sink.p
  %mine = getelementptr [64 x i8], ptr %sink, i64 %thread
  %block.p = getelementptr %ctx, ptr %ctx, i64 0, i32 2
  %block = load ptr, ptr %block.p
  %from = mul i64 %begin, 65536
  %to = mul i64 %end, 65536
  br label %loop
loop:
  %i = phi i64 [ %from, %0 ], [ %next, %loop ]
{read_phis}
{reads}
  %next = add i64 %i, {8 * bits // 8}
  %more = icmp slt i64 %next, %to
  br i1 %more, label %loop, label %done
done:
{totals}
  store volatile {word} %u7, ptr %mine
  ret void
}}
"""
