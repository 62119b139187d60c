"""Arm CPUs with the dot-product extension (Cortex-A76 class): sdot on four groups of four bytes."""

# The annotations of instructions are declarations, not Python types.
# mypy: disable-error-code="valid-type,no-untyped-def"
from __future__ import annotations

from dataclasses import replace

from tilewright.hw.availability import cpu
from tilewright.hw.axis import axes, vector
from tilewright.hw.constraint import require, stride
from tilewright.hw.emit import LLVM
from tilewright.hw.host import HostFacts, measured
from tilewright.hw.instruction import instruction
from tilewright.hw.machine import Machine, Target
from tilewright.hw.memory import Memory
from tilewright.hw.transfer import Transfer
from tilewright.hw.unit import Unit
from tilewright.ir.types import f32, i8, i32

REG, L1 = "reg", "l1"
SDOT = "<4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8(<4 x i32>{}, <16 x i8>{}, <16 x i8>{})"
DECLARE = (f"declare {SDOT.format('', '', '')}",)


@instruction(latency=4, per_cycle=2, requires=cpu("neon"))
def fma(c: f32[4] @ REG, a: f32 @ L1, b: f32[4] @ REG):
    j = axes(vector(4))
    require(stride(b, 0) == 1)
    require(stride(c, 0) == 1)
    c[j] += a * b[j]


@instruction(
    latency=4,
    per_cycle=2,
    requires=cpu("neon", "dotprod"),
    emit=LLVM(f"%r = call {SDOT.format(' %c', ' %a', ' %b')}\nret <4 x i32> %r", DECLARE),
)
def sdot(c: i32[4] @ REG, a: i8[4, 4] @ REG, b: i8[4, 4] @ REG):
    j, k = axes(vector(4), 4)
    require(stride(a, 1) == 1)
    require(stride(b, 1) == 1)
    c[j] += a[j, k] * b[j, k]


@instruction(
    latency=4,
    per_cycle=2,
    requires=cpu("neon", "dotprod"),
    emit=LLVM(
        f"""
        %bits = bitcast <4 x i8> %a to i32
        %one = insertelement <4 x i32> poison, i32 %bits, i32 0
        %all = shufflevector <4 x i32> %one, <4 x i32> poison, <4 x i32> zeroinitializer
        %wide = bitcast <4 x i32> %all to <16 x i8>
        %r = call {SDOT.format(" %c", " %wide", " %b")}
        ret <4 x i32> %r""",
        DECLARE,
    ),
)
def sdot_lane(c: i32[4] @ REG, a: i8[4] @ L1, b: i8[4, 4] @ REG):
    """sdot by element: the same four bytes of a for every lane."""
    j, k = axes(vector(4), 4)
    require(stride(a, 0) == 1)
    require(stride(b, 1) == 1)
    c[j] += a[k] * b[j, k]


dotprod = Machine(
    "arm.dotprod",
    memories=[
        Memory("dram", "main", None, level=4, bandwidth=6, latency=200, line=64),
        Memory("l3", "cache", 4 << 20, level=3, parent="dram", bandwidth=16, latency=40, line=64),
        Memory("l2", "cache", 512 << 10, level=2, parent="l3", bandwidth=32, latency=11, line=64, per="core"),
        Memory(L1, "cache", 64 << 10, level=1, parent="l2", bandwidth=32, latency=4, line=64, per="core"),
        Memory(REG, "register", 32 * 16, level=0, parent=L1, line=16, per="core"),
    ],
    units=[Unit("core", 4, memory="l3")],
    instructions=[fma, sdot, sdot_lane],
    transfers=[Transfer(L1, REG, 1, 16, latency=4, bandwidth=32), Transfer(REG, L1, 1, 16, latency=1, bandwidth=16)],
    target=Target("aarch64-unknown-linux-gnu", "cortex-a76", ("neon", "dotprod")),
    clock_hz=2.8e9,
    vector_bits=128,
    note="Cortex-A76 optimisation guide; cache sizes and bandwidths are typical",
)


def on_host(facts: HostFacts) -> Machine | None:
    """This computer if it is a 64-bit Arm: instructions it lacks are left out."""
    if facts.architecture not in ("aarch64", "arm64"):
        return None
    return dotprod.derive(
        name="host",
        memories=measured(dotprod.memories, facts),
        instructions=[i for i in dotprod.instructions if not i.requires.missing(facts.features)],
        units=[replace(dotprod.units[0], count=facts.cores, memory="l3" if facts.cache(3) else "dram")],
        target=Target(facts.triple, facts.cpu, tuple(sorted(facts.features))),
        clock_hz=facts.clock_hz,
    )
