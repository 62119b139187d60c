"""x86 CPUs: AVX2 and AVX-512, and their dot-product extensions.

Register tiles of outer products are declared as macro instructions: they are what one unrolled
iteration of a matrix kernel does, and LLVM generates them from the plain loops.
"""

# The annotations of instructions are declarations, not Python types.
# mypy: disable-error-code="valid-type,no-untyped-def"
from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from tilewright.hw.availability import cpu
from tilewright.hw.axis import axes, step, upto, vector
from tilewright.hw.constraint import require, stride
from tilewright.hw.host import HostFacts
from tilewright.hw.instruction import Instruction, instruction
from tilewright.hw.machine import Machine, Target
from tilewright.hw.memory import Memory
from tilewright.hw.transfer import Transfer
from tilewright.hw.unit import Unit
from tilewright.ir.types import DType, f32, f64

REG, L1 = "reg", "l1"
AVX2 = ("avx", "avx2", "fma", "f16c")
AVX512 = (*AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")


@dataclass(frozen=True, slots=True)
class Cost:
    """Per core: latency in cycles and fused multiply-adds issued per cycle at full register width."""

    latency: float
    fma_per_cycle: float


#: Two 256-bit FMA ports since Haswell and Zen 2; two 512-bit ones on Xeon servers and Zen 5.
TWO_PORTS = Cost(4, 2)
#: Zen 4 executes a 512-bit FMA as two halves.
ONE_PORT = Cost(4, 1)


def fma_instructions(dtype: DType, bits: int, rows: int, features: tuple[str, ...], cost: Cost) -> list[Instruction]:
    """fma (register times broadcast element), fma_lanes (three registers), fma_outer (tile of ``rows`` x two registers)."""
    lanes = bits // dtype.bits
    suffix = "" if dtype == f32 else f"_{dtype}"
    needed = cpu(*features)

    @instruction(name="fma" + suffix, latency=cost.latency, per_cycle=cost.fma_per_cycle, requires=needed)
    def fma(c: dtype[lanes] @ REG, a: dtype[()] @ L1, b: dtype[lanes] @ REG):
        j = axes(vector(lanes))
        require(stride(b, 0) == 1)
        require(stride(c, 0) == 1)
        c[j] += a[()] * b[j]

    @instruction(name="fma_lanes" + suffix, latency=cost.latency, per_cycle=cost.fma_per_cycle, requires=needed)
    def fma_lanes(c: dtype[lanes] @ REG, a: dtype[lanes] @ REG, b: dtype[lanes] @ REG):
        j = axes(vector(lanes))
        require(stride(a, 0) == 1)
        require(stride(b, 0) == 1)
        require(stride(c, 0) == 1)
        c[j] += a[j] * b[j]

    wide = 2 * lanes

    @instruction(name="fma_outer" + suffix, latency=cost.latency, per_cycle=cost.fma_per_cycle / (2 * rows), requires=needed)
    def fma_outer(c: dtype[rows, wide] @ REG, a: dtype[rows] @ L1, b: dtype[wide] @ REG):
        i, j = axes(upto(rows), step(lanes, wide))
        require(stride(b, 0) == 1)
        require(stride(c, 1) == 1)
        c[i, j] += a[i] * b[j]

    return [fma, fma_lanes, fma_outer]


def memories(register_bytes: int, line: int) -> list[Memory]:
    """Typical server sizes; ``host`` replaces them by what is found. Bandwidths are of one core."""
    return [
        Memory("dram", "main", None, level=4, bandwidth=8, latency=250, line=64, note="per core, approximate"),
        Memory("l3", "cache", 32 << 20, level=3, parent="dram", bandwidth=16, latency=50, line=64, note="per core, approximate"),
        Memory("l2", "cache", 1 << 20, level=2, parent="l3", bandwidth=64, latency=14, line=64, per="core"),
        Memory("l1", "cache", 32 << 10, level=1, parent="l2", bandwidth=2 * line, latency=5, line=64, per="core"),
        Memory("reg", "register", register_bytes, level=0, parent="l1", line=line, per="core"),
    ]


def transfers(line: int) -> list[Transfer]:
    """Hardware moves lines between caches; loads and stores move registers."""
    chain = ["dram", "l3", "l2", "l1"]
    lines = [t for a, b in pairwise(chain) for t in (Transfer(a, b, 64), Transfer(b, a, 64))]
    return [
        *lines,
        Transfer("l1", "reg", 1, line, latency=5, bandwidth=2 * line),
        Transfer("reg", "l1", 1, line, latency=1, bandwidth=line),
    ]


def build(name: str, level: str, cost: Cost, features: tuple[str, ...], cpu_name: str, cores: int = 8, clock_hz: float = 3e9) -> Machine:
    """A machine with the instructions of ``level`` ("avx2" or "avx512") whose features are present."""
    bits, rows, registers = (256, 6, 16) if level == "avx2" else (512, 14, 32)
    needed = AVX2 if level == "avx2" else AVX512
    instructions = [i for t in (f32, f64) for i in fma_instructions(t, bits, rows, needed, cost)]
    return Machine(
        name,
        memories=memories(registers * bits // 8, bits // 8),
        units=[Unit("core", cores, memory="l3")],
        instructions=[i for i in instructions if not i.requires.missing(frozenset(features))],
        transfers=transfers(bits // 8),
        target=Target("x86_64-unknown-linux-gnu", cpu_name, features),
        clock_hz=clock_hz,
        vector_bits=bits,
    )


avx2 = build("x86.avx2", "avx2", TWO_PORTS, AVX2, "haswell")
avx512 = build("x86.avx512", "avx512", TWO_PORTS, AVX512, "skylake-avx512")


def on_host(facts: HostFacts) -> Machine | None:
    """This computer if it is an x86 with AVX2 at least; None otherwise."""
    if facts.architecture not in ("x86_64", "AMD64") or set(AVX2) - facts.features:
        return None
    level = "avx2" if set(AVX512) - facts.features else "avx512"
    cost = ONE_PORT if level == "avx512" and (facts.vendor, facts.family) == ("AuthenticAMD", 25) else TWO_PORTS
    m = build("host", level, cost, tuple(sorted(facts.features)), facts.cpu, facts.cores, facts.clock_hz)
    guessed = f"; guessed: {', '.join(facts.guessed)}" if facts.guessed else ""
    return m.derive(
        memories=_measured(m.memories, facts),
        transfers=m.transfers if facts.cache(3) else [t for t in m.transfers if "l3" not in (t.src, t.dst)],
        units=[replace(m.units[0], memory="l3" if facts.cache(3) else "dram")],
        target=Target(facts.triple, facts.cpu, m.target.features),
        note=f"{facts.vendor} family {facts.family} model {facts.model} ({facts.cpu}){guessed}",
    )


def _measured(declared: tuple[Memory, ...], facts: HostFacts) -> list[Memory]:
    """The memories with the sizes, lines and sharing that were found; without an L3 where there is none."""
    out = []
    for mem in declared:
        if mem.kind == "cache":
            if (found := facts.cache(mem.level)) is None:
                continue
            mem = replace(mem, bytes=found.bytes, line=found.line, per="core" if found.shared_by == 1 else "chip")
        elif mem.kind == "main":
            mem = replace(mem, bytes=facts.memory_bytes)
        out.append(mem)
    names = {mem.name for mem in out}
    return [replace(mem, parent="dram") if mem.parent and mem.parent not in names else mem for mem in out]
