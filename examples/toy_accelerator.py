"""Toy-3: a made-up accelerator with three levels of memory, declared in one file.

Main memory feeds a 64 KiB scratchpad by DMA; an 8 x 8 array multiplies bytes out of it into
int32 accumulator registers. Run it to see the declared machine, or name it to the tools:
``tilewright map gemm --machine examples/toy_accelerator.py``.
"""

from __future__ import annotations

from tilewright.hw import Machine, Memory, State, Unit, axes, instruction, needs, require, step, stride, transfer, upto
from tilewright.ir.types import i8, i32, u16

DRAM = Memory("dram", "main", None, level=2, bandwidth=8, latency=80, line=64)
SPAD = Memory("spad", "scratchpad", 64 << 10, level=1, parent="dram", bandwidth=32, latency=2, alignment=8)
ACC = Memory("acc", "register", 4 << 10, level=0, parent="spad", bandwidth=64)

DMA = State("dma", fields=(("stride", u16),), setter="dma_config")


@instruction(sets=DMA)
def dma_config():
    """Bytes between the rows of a tile in main memory."""


@transfer(granularity=8, latency=80, bandwidth=8, asynchronous=True, needs=DMA)
def load(dst: i8[32, 32] @ SPAD, src: i8[32, 32] @ DRAM):
    i, j = axes(upto(32), step(8, 32))
    require(stride(src, 1) == 1)
    dst[i, j] = src[i, j]


@transfer(granularity=4, latency=80, bandwidth=8, needs=DMA)
def store(dst: i32[8, 8] @ DRAM, src: i32[8, 8] @ ACC):
    i, j = axes(upto(8), 8)
    require(stride(dst, 1) == 1)
    dst[i, j] = src[i, j]


@instruction(latency=12, per_cycle=1 / 8, energy=90, needs=needs(DMA))
def multiply(c: i32[8, 8] @ ACC, a: i8[8, 16] @ SPAD, b: i8[16, 8] @ SPAD):
    i, j, k = axes(upto(8), 8, step(4, 16))
    require(stride(a, 1) == 1)
    c[i, j] += a[i, k] * b[k, j]


toy = Machine(
    "toy3",
    memories=[DRAM, SPAD, ACC],
    units=[Unit("array", 1), Unit("row", 8, "array"), Unit("column", 8, "row")],
    instructions=[dma_config, multiply],
    transfers=[load, store],
    states=[DMA],
    clock_hz=500e6,
)

if __name__ == "__main__":
    print(toy.describe())
    print(multiply.kernel_for({"i": 3, "k": 8}))
