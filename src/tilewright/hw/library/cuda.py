"""NVIDIA GPUs with tensor cores: wmma, mma.sync and wgmma shapes of sm_70, sm_80 and sm_90.

Shapes, types and fragment sizes follow the PTX ISA's tables (9.7.14 and 9.7.15 in PTX 8). A
fragment is spread over the 32 lanes of a warp (128 of a warp group), so its memory is the
register file of the SM. Rates are dense rates of the whole SM from the vendor's white papers;
latencies are approximate.
"""

# The annotations of instructions are declarations, not Python types.
# mypy: disable-error-code="valid-type,no-untyped-def,name-defined"
# ruff: noqa: F821  (m, n, k are bound by shapes=)
from __future__ import annotations

from dataclasses import dataclass

from tilewright.hw.availability import gpu
from tilewright.hw.axis import axes
from tilewright.hw.constraint import base, mantissa, require
from tilewright.hw.emit import PTX, Fragment
from tilewright.hw.instruction import InstructionFamily, instruction
from tilewright.hw.machine import Machine, Target
from tilewright.hw.memory import Memory
from tilewright.hw.transfer import Transfer
from tilewright.hw.unit import Unit
from tilewright.ir.types import DType, Int, UInt, bf16, f16, f32, f64, i8, i32
from tilewright.lang import cast

REG, SMEM = "reg", "smem"
WARP_SHAPES = [(16, 16, 16), (32, 8, 16), (8, 32, 16)]


@dataclass(frozen=True, slots=True)
class Rates:
    """Dense multiply-accumulates per cycle of one SM, by PTX element type."""

    f16: int
    bf16: int = 0
    tf32: int = 0
    f64: int = 0
    s8: int = 0
    s4: int = 0
    b1: int = 0


def registers(operand: str, dtype: DType, elements: int, lanes: int = 32) -> Fragment:
    """The part of ``elements`` in one lane: accumulators in typed registers, inputs packed in 32 bits (f64: typed)."""
    kind = {"f32": "f32", "f64": "f64", "i32": "s32"}.get(str(dtype), "b32") if operand == "c" or dtype == f64 else "b32"
    return Fragment(operand, elements * dtype.bits // lanes // (64 if dtype == f64 else 32), kind)


def warp_matrix(operation: str, shape: tuple[int, int, int], word: str, dtype: DType, acc: DType) -> PTX:
    """wmma.mma or mma.sync on one shape; A is row-major, B column-major."""
    m, n, k = shape
    out = "s32" if acc == i32 else str(acc)
    types = f"{out}.{word}.{word}.{out}"
    size = f"m{m}n{n}k{k}"
    a, b = (registers(x, dtype, e) for x, e in (("a", m * k), ("b", k * n)))
    if operation == "wmma":
        if word == "f16":  # each element is held by two lanes, and the type names only the accumulators
            a, b, types = Fragment("a", 8, "b32"), Fragment("b", 8, "b32"), f"{out}.{out}"
        binary = ".xor.popc" if word == "b1" else ""
        text = f"wmma.mma{binary}.sync.aligned.row.col.{size}.{types} {{c}}, {{a}}, {{b}}, {{c}};"
    else:
        text = f"mma.sync.aligned.{size}.row.col.{types}{'.xor.popc' if word == 'b1' else ''} {{c}}, {{a}}, {{b}}, {{c}};"
    return PTX(text, (registers("c", acc, m * n), a, b), since="sm_70" if (operation, word) == ("wmma", "f16") else "sm_80")


def float_family(operation: str, word: str, shapes: list[tuple[int, int, int]], dtype: DType, acc: DType, rate: int) -> InstructionFamily:
    """c += a * b with products and sums in the accumulator's type; tf32 reads f32 rounded to 10 bits."""

    def emit(m: int, n: int, k: int) -> PTX:
        return warp_matrix(operation, (m, n, k), word, dtype, acc)

    def per_cycle(m: int, n: int, k: int) -> float:
        return rate / (m * n * k)

    name = f"{operation}_{word}" + (f"_{acc}" if acc != dtype and word == "f16" else "")
    declare = instruction(
        name=name,
        shapes=shapes,
        latency=33,
        per_cycle=per_cycle,
        requires=gpu("sm_70" if name.startswith("wmma_f16") else "sm_80"),
        emit=emit,
    )
    if word == "tf32":

        @declare
        def mma_tf32(c: acc[m, n] @ REG, a: dtype[m, k] @ REG, b: dtype[k, n] @ REG):
            i, j, k = axes(m, n, k)
            mantissa(a, 10)
            mantissa(b, 10)
            c[i, j] += a[i, k] * b[k, j]

        return mma_tf32

    @declare
    def mma(c: acc[m, n] @ REG, a: dtype[m, k] @ REG, b: dtype[k, n] @ REG):
        i, j, k = axes(m, n, k)
        c[i, j] += cast(a[i, k], acc) * cast(b[k, j], acc)

    return mma


def integer_family(operation: str, word: str, shapes: list[tuple[int, int, int]], dtype: DType, rate: int) -> InstructionFamily:
    """c += a * b in int32; for single bits c += popcount(a xor b)."""

    def emit(m: int, n: int, k: int) -> PTX:
        return warp_matrix(operation, (m, n, k), word, dtype, i32)

    def per_cycle(m: int, n: int, k: int) -> float:
        return rate / (m * n * k)

    declare = instruction(name=f"{operation}_{word}", shapes=shapes, latency=33, per_cycle=per_cycle, requires=gpu("sm_80"), emit=emit)
    if word == "b1":

        @declare
        def mma_b1(c: i32[m, n] @ REG, a: dtype[m, k] @ REG, b: dtype[k, n] @ REG):
            i, j, k = axes(m, n, k)
            c[i, j] += a[i, k] ^ b[k, j]

        return mma_b1

    @declare
    def mma(c: i32[m, n] @ REG, a: dtype[m, k] @ REG, b: dtype[k, n] @ REG):
        i, j, k = axes(m, n, k)
        c[i, j] += a[i, k] * b[k, j]

    return mma


def wgmma_family(word: str, dtype: DType, rate: int) -> InstructionFamily:
    """wgmma.mma_async of a warp group: 64 x n x 16, operands in shared memory behind descriptors."""

    def emit(m: int, n: int, k: int) -> PTX:
        size = f"m{m}n{n}k{k}"
        text = f"wgmma.mma_async.sync.aligned.{size}.f32.{word}.{word} {{c}}, {{a}}, {{b}}, 1, 1, 1, 0, 0;"
        return PTX(text, (registers("c", f32, m * n, lanes=128),), since="sm_90a")

    def per_cycle(m: int, n: int, k: int) -> float:
        return rate / (m * n * k)

    @instruction(
        name=f"wgmma_{word}",
        shapes=[(64, n, 16) for n in range(8, 257, 8)],
        latency=128,
        per_cycle=per_cycle,
        requires=gpu("sm_90a"),
        emit=emit,
        note="asynchronous: c is in use until wgmma.wait_group",
    )
    def wgmma(c: f32[m, n] @ REG, a: dtype[m, k] @ SMEM, b: dtype[k, n] @ SMEM):
        i, j, k = axes(m, n, k)
        require(base(a) % 16 == 0)
        require(base(b) % 16 == 0)
        c[i, j] += cast(a[i, k], f32) * cast(b[k, j], f32)

    return wgmma


def volta(r: Rates) -> list[InstructionFamily]:
    """wmma with half inputs and half or single accumulators."""
    return [float_family("wmma", "f16", WARP_SHAPES, f16, acc, r.f16) for acc in (f16, f32)]


def ampere(r: Rates) -> list[InstructionFamily]:
    """All wmma types, and mma.sync in its m16n8 shapes (m8n8k4 for f64)."""
    return [
        *volta(r),
        float_family("wmma", "bf16", WARP_SHAPES, bf16, f32, r.bf16),
        float_family("wmma", "tf32", [(16, 16, 8)], f32, f32, r.tf32),
        float_family("wmma", "f64", [(8, 8, 4)], f64, f64, r.f64),
        integer_family("wmma", "s8", WARP_SHAPES, i8, r.s8),
        integer_family("wmma", "s4", [(8, 8, 32)], Int(4), r.s4),
        integer_family("wmma", "b1", [(8, 8, 128)], UInt(1), r.b1),
        float_family("mma", "f16", [(16, 8, 8), (16, 8, 16)], f16, f16, r.f16),
        float_family("mma", "f16", [(16, 8, 8), (16, 8, 16)], f16, f32, r.f16),
        float_family("mma", "bf16", [(16, 8, 8), (16, 8, 16)], bf16, f32, r.bf16),
        float_family("mma", "tf32", [(16, 8, 4), (16, 8, 8)], f32, f32, r.tf32),
        float_family("mma", "f64", [(8, 8, 4)], f64, f64, r.f64),
        integer_family("mma", "s8", [(16, 8, 16), (16, 8, 32)], i8, r.s8),
        integer_family("mma", "s4", [(16, 8, 32), (16, 8, 64)], Int(4), r.s4),
    ]


def hopper(r: Rates) -> list[InstructionFamily]:
    """Ampere's instructions and wgmma."""
    return [*ampere(r), wgmma_family("f16", f16, r.f16), wgmma_family("bf16", bf16, r.bf16)]


def build(
    name: str, families: list[InstructionFamily], *, sms: int, clock_hz: float, smem: int, l2: int, dram: int, dram_rate: float, warps: int
) -> Machine:
    """A GPU; ``smem`` is the shared memory one SM can give to blocks, ``dram_rate`` in bytes/s."""
    sm = name.rpartition("sm")[2]
    copy = [Transfer("dram", SMEM, 16, 16, latency=500, asynchronous=True, note="cp.async")] if int(sm) >= 80 else []
    bulk = [Transfer("dram", SMEM, 16, None, latency=600, asynchronous=True, note="TMA (cp.async.bulk.tensor)")] if int(sm) >= 90 else []
    return Machine(
        name,
        memories=[
            Memory("dram", "main", dram, level=3, bandwidth=dram_rate, bandwidth_unit="B/s", latency=500, line=32),
            Memory("l2", "cache", l2, level=2, parent="dram", bandwidth=64 * sms, latency=220, line=32),
            Memory(SMEM, "scratchpad", smem, level=1, parent="l2", bandwidth=128, latency=25, alignment=16, per="sm", banks=32),
            Memory(REG, "register", 256 << 10, level=0, parent=SMEM, line=4, per="sm"),
        ],
        units=[Unit("sm", sms, memory="l2"), Unit("warp", warps, "sm", memory=SMEM), Unit("lane", 32, "warp", memory=REG, per_pass=32)],
        instructions=families,
        transfers=[
            Transfer("dram", REG, 4, 16, latency=500, note="ld.global"),
            Transfer(REG, "dram", 4, 16, latency=500, note="st.global"),
            Transfer(REG, SMEM, 4, 16, latency=25, note="st.shared"),
            Transfer(SMEM, REG, 16, 512, latency=29, note="ldmatrix and ld.shared"),
            *copy,
            *bulk,
        ],
        target=Target("nvptx64-nvidia-cuda", f"sm_{sm}" + ("a" if int(sm) >= 90 else "")),
        clock_hz=clock_hz,
    )


sm70 = build(
    "cuda.sm70", volta(Rates(f16=512)), sms=80, clock_hz=1.53e9, smem=96 << 10, l2=6 << 20, dram=16 << 30, dram_rate=900e9, warps=64
)
sm80 = build(
    "cuda.sm80",
    ampere(Rates(f16=1024, bf16=1024, tf32=512, f64=64, s8=2048, s4=4096, b1=16384)),
    sms=108,
    clock_hz=1.41e9,
    smem=164 << 10,
    l2=40 << 20,
    dram=40 << 30,
    dram_rate=1555e9,
    warps=64,
)
sm90 = build(
    "cuda.sm90",
    hopper(Rates(f16=2048, bf16=2048, tf32=1024, f64=128, s8=4096, s4=4096, b1=16384)),
    sms=132,
    clock_hz=1.83e9,
    smem=228 << 10,
    l2=50 << 20,
    dram=80 << 30,
    dram_rate=3350e9,
    warps=64,
)
