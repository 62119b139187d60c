"""Three virtual accelerators that exist only as declarations: gemv, axpy, pointwise convolution.

They show that mapping needs nothing but a declaration (AMOS evaluates on the same three kinds).
"""

# The annotations of instructions are declarations, not Python types.
# mypy: disable-error-code="valid-type,no-untyped-def"
from __future__ import annotations

from tilewright.hw.axis import axes, vector
from tilewright.hw.instruction import Instruction, instruction
from tilewright.hw.machine import Machine
from tilewright.hw.memory import Memory
from tilewright.hw.transfer import Transfer
from tilewright.hw.unit import Unit
from tilewright.ir.types import f32

LOCAL = "local"


@instruction(latency=8)
def gemv(y: f32[16] @ LOCAL, a: f32[16, 16] @ LOCAL, x: f32[16] @ LOCAL):
    i, k = axes(16, 16)
    y[i] += x[k] * a[i, k]


@instruction(latency=4)
def axpy(y: f32[32] @ LOCAL, a: f32 @ LOCAL, x: f32[32] @ LOCAL):
    i = axes(vector(32))
    y[i] += a * x[i]


@instruction(latency=16)
def pointwise(o: f32[8, 4, 4] @ LOCAL, w: f32[8, 8] @ LOCAL, x: f32[8, 4, 4] @ LOCAL):
    k, p, q, c = axes(8, 4, 4, 8)
    o[k, p, q] += w[k, c] * x[c, p, q]


def build(i: Instruction) -> Machine:
    """One core with one instruction and one local memory."""
    return Machine(
        f"virtual.{i.name}",
        memories=[
            Memory("dram", "main", None, level=1, bandwidth=16, latency=100),
            Memory(LOCAL, "scratchpad", 64 << 10, level=0, parent="dram", bandwidth=128, per="core"),
        ],
        units=[Unit("core", 4)],
        instructions=[i],
        transfers=[Transfer("dram", LOCAL, 4, None, 100, 16, asynchronous=True), Transfer(LOCAL, "dram", 4, None, 100, 16)],
    )


gemv_machine, axpy_machine, pointwise_machine = build(gemv), build(axpy), build(pointwise)
