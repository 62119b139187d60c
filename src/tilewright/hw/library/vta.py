"""VTA: the open tensor accelerator of the TVM project, default configuration.

A GEMM core multiplies a vector of 16 int8 inputs by a 16 x 16 weight tile into int32 each cycle;
a vector ALU works on the accumulator. Buffer sizes are those of the default configuration
(vta_config: 32 KiB inputs, 256 KiB weights, 128 KiB accumulators). Code generation of its 128-bit instruction
words is not declared.
"""

# The annotations of instructions are declarations, not Python types.
# mypy: disable-error-code="valid-type,no-untyped-def"
from __future__ import annotations

from tilewright.hw.axis import axes, vector
from tilewright.hw.instruction import instruction
from tilewright.hw.machine import Machine
from tilewright.hw.memory import Memory
from tilewright.hw.transfer import transfer
from tilewright.hw.unit import Unit
from tilewright.ir.types import i8, i32
from tilewright.lang import cast

DRAM, INP, WGT, ACC, OUT = "dram", "inp", "wgt", "acc", "out"
LANES = 16


@instruction(latency=4, per_cycle=1)
def gemm(c: i32[1, LANES] @ ACC, a: i8[1, LANES] @ INP, b: i8[LANES, LANES] @ WGT):
    i, j, k = axes(1, LANES, LANES)
    c[i, j] += a[i, k] * b[j, k]


@instruction(latency=4, per_cycle=1)
def alu_add(c: i32[LANES] @ ACC, a: i32[LANES] @ ACC):
    j = axes(vector(LANES))
    c[j] = c[j] + a[j]


@instruction(latency=4, per_cycle=1)
def alu_max(c: i32[LANES] @ ACC, a: i32[LANES] @ ACC):
    j = axes(vector(LANES))
    c[j] = max(c[j], a[j])


@instruction(latency=4, per_cycle=1)
def alu_min(c: i32[LANES] @ ACC, a: i32[LANES] @ ACC):
    j = axes(vector(LANES))
    c[j] = min(c[j], a[j])


@transfer(granularity=LANES, latency=100, bandwidth=8, asynchronous=True)
def load_inp(dst: i8[1, LANES] @ INP, src: i8[1, LANES] @ DRAM):
    i, j = axes(1, LANES)
    dst[i, j] = src[i, j]


@transfer(granularity=LANES * LANES, latency=100, bandwidth=8, asynchronous=True)
def load_wgt(dst: i8[LANES, LANES] @ WGT, src: i8[LANES, LANES] @ DRAM):
    i, j = axes(LANES, LANES)
    dst[i, j] = src[i, j]


@transfer(granularity=4 * LANES, latency=100, bandwidth=8, asynchronous=True)
def load_acc(dst: i32[1, LANES] @ ACC, src: i32[1, LANES] @ DRAM):
    i, j = axes(1, LANES)
    dst[i, j] = src[i, j]


@transfer(granularity=LANES, latency=1, bandwidth=16)
def narrow(dst: i8[1, LANES] @ OUT, src: i32[1, LANES] @ ACC):
    """Every write to the accumulator also leaves its low bytes in the output buffer."""
    i, j = axes(1, LANES)
    dst[i, j] = cast(src[i, j], i8)


@transfer(granularity=LANES, latency=100, bandwidth=8, asynchronous=True)
def store(dst: i8[1, LANES] @ DRAM, src: i8[1, LANES] @ OUT):
    i, j = axes(1, LANES)
    dst[i, j] = src[i, j]


pynq = Machine(
    "vta.pynq",
    memories=[
        Memory(DRAM, "main", 512 << 20, level=2, bandwidth=8, latency=100),
        Memory(INP, "scratchpad", 32 << 10, level=0, parent=DRAM, bandwidth=LANES, line=LANES),
        Memory(WGT, "scratchpad", 256 << 10, level=0, parent=DRAM, bandwidth=LANES * LANES, line=LANES * LANES),
        Memory(ACC, "scratchpad", 128 << 10, level=0, parent=DRAM, bandwidth=8 * LANES, line=4 * LANES),
        Memory(OUT, "scratchpad", 32 << 10, level=1, parent=DRAM, bandwidth=LANES, line=LANES),
    ],
    units=[Unit("core", 1), Unit("output", LANES, "core"), Unit("input", LANES, "output")],
    instructions=[gemm, alu_add, alu_max, alu_min],
    transfers=[load_inp, load_wgt, load_acc, narrow, store],
    clock_hz=100e6,
    note="latencies are approximate",
)
