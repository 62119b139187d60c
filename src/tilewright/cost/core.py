"""One vector core of a declared machine, as the estimates see it."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.hw import Machine
from tilewright.ir.types import DType


@dataclass(frozen=True, slots=True)
class VectorCore:
    """Rates per cycle of one core, for one element type; capacities in bytes."""

    lanes: int
    registers: int
    fma_per_cycle: float
    fma_latency: float
    register_bytes: int
    load_bytes_per_cycle: float
    l1_bytes: int
    l2_bytes: int
    l2_bytes_per_cycle: float
    outer_bytes_per_cycle: float
    #: Parts in which arithmetic takes a register: what fills only some of them costs less.
    parts: int = 1
    #: Elements moved one by one (gathering copies, scattered stores), a shuffle and an access each: 1.4 cycles everywhere we
    #: measured, in cycles of the clock at which multiply-adds run.
    scalar_moves_per_cycle: float = 0.7
    #: Registers shuffled: one port does that.
    shuffles_per_cycle: float = 1.0
    #: Scalar loads that feed a broadcast: two load ports.
    broadcasts_per_cycle: float = 2.0


def vector_core(machine: Machine, dtype: DType) -> VectorCore:
    """Derive the core from the declaration: SIMD width, register memory, multiply-add instruction, caches.

    A machine without vectors counts as one lane; one without caches as having its main memory only.
    """
    lanes = max(machine.vector_bits // max(dtype.bits, 8), 1)
    register = next((m for m in machine.memories if m.kind == "register"), None)
    register_bytes = max(machine.vector_bits // 8, dtype.nbytes)
    registers = (register.bytes or 16 * register_bytes) // register_bytes if register else 16
    fma = [i for i in machine.instructions if i.macs == lanes and len(i.axes) == 1 and all(o.dtype == dtype for o in i.operands)]
    rate = max((i.per_cycle for i in fma), default=1.0)
    latency = min((i.latency for i in fma), default=4.0)
    caches = sorted((m for m in machine.memories if m.kind == "cache"), key=lambda m: m.level)
    own = [m for m in caches if m.per != "chip"] or caches
    l1 = own[0] if own else machine.main_memory
    l2 = own[-1] if own else machine.main_memory
    outside = next((m for m in caches if m.level > l2.level), machine.main_memory)
    return VectorCore(
        lanes=lanes,
        registers=registers,
        fma_per_cycle=rate,
        fma_latency=latency,
        register_bytes=register_bytes,
        load_bytes_per_cycle=_rate(machine, l1.name, register_bytes),
        l1_bytes=l1.bytes or 1 << 30,
        l2_bytes=l2.bytes or 1 << 30,
        l2_bytes_per_cycle=_rate(machine, l2.name, register_bytes),
        outer_bytes_per_cycle=_rate(machine, outside.name, 8),
        parts=register.banks if register and lanes % register.banks == 0 else 1,
    )


def _rate(machine: Machine, memory: str, otherwise: float) -> float:
    return machine.bandwidth(memory) or otherwise
