"""Arm Mali GPUs (Bifrost, Valhall): the four-byte dot product with accumulation in OpenCL."""

# The annotations of instructions are declarations, not Python types.
# mypy: disable-error-code="valid-type,no-untyped-def"
from __future__ import annotations

from tilewright.hw.availability import Requires
from tilewright.hw.axis import axes
from tilewright.hw.constraint import require, stride
from tilewright.hw.emit import CText
from tilewright.hw.instruction import instruction
from tilewright.hw.machine import Machine
from tilewright.hw.memory import Memory
from tilewright.hw.transfer import Transfer
from tilewright.hw.unit import Unit
from tilewright.ir.types import i8, i32

REG = "reg"


@instruction(
    latency=8,
    per_cycle=24,
    unit="core",
    requires=Requires(("cl_arm_integer_dot_product_accumulate_int8",)),
    emit=CText("*{c} = arm_dot_acc(vload4(0, {a}), vload4(0, {b}), *{c});"),
)
def dot(c: i32 @ REG, a: i8[4] @ REG, b: i8[4] @ REG):
    """Four signed byte products added to an int32, in one operation of one thread."""
    k = axes(4)
    require(stride(a, 0) == 1)
    require(stride(b, 0) == 1)
    c += a[k] * b[k]


g76 = Machine(
    "mali.g76",
    memories=[
        Memory("dram", "main", None, level=3, bandwidth=30e9, bandwidth_unit="B/s", latency=300, line=64),
        Memory("l2", "cache", 4 << 20, level=2, parent="dram", bandwidth=256, latency=100, line=64),
        Memory("l1", "cache", 16 << 10, level=1, parent="l2", bandwidth=16, latency=20, line=64, per="core"),
        Memory(REG, "register", 64 * 4 * 24 * 8, level=0, parent="l1", line=4, per="core"),
    ],
    units=[Unit("core", 12, memory="l2"), Unit("warp", 48, "core"), Unit("lane", 8, "warp", per_pass=8)],
    instructions=[dot],
    transfers=[Transfer("l1", REG, 4, 16, latency=20, bandwidth=16), Transfer(REG, "l1", 4, 16, latency=20, bandwidth=16)],
    clock_hz=720e6,
    note="Mali-G76 MP12; three engines of eight lanes per core; bandwidths and latencies are approximate",
)
