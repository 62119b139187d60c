"""x86 CPUs: AVX2 and AVX-512, and their dot-product extensions.

Register tiles of outer products are declared as macro instructions: they are what one unrolled
iteration of a matrix kernel does, and LLVM generates them from the plain loops.
"""

# The annotations of instructions are declarations, not Python types.
# mypy: disable-error-code="valid-type,no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from tilewright.hw.availability import cpu
from tilewright.hw.axis import axes, step, upto, vector
from tilewright.hw.constraint import require, stride, value_range
from tilewright.hw.emit import LLVM
from tilewright.hw.host import HostFacts, measured
from tilewright.hw.instruction import Instruction, instruction
from tilewright.hw.machine import Machine, Target
from tilewright.hw.memory import Memory
from tilewright.hw.state import State, needs
from tilewright.hw.transfer import Transfer
from tilewright.hw.unit import Unit
from tilewright.ir.types import DType, bf16, f32, f64, i8, i32, u8, u16
from tilewright.lang import cast

REG, TMM, L1 = "reg", "tmm", "l1"
AVX2 = ("avx", "avx2", "fma", "f16c")
AVX512 = (*AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
VNNI = (*AVX512, "avx512vnni")


@dataclass(frozen=True, slots=True)
class Cost:
    """Per core: latency in cycles, fused multiply-adds issued per cycle at full register width, and the parts they are done in."""

    latency: float
    fma_per_cycle: float
    parts: int = 1


#: Two 256-bit FMA ports since Haswell and Zen 2; two 512-bit ones on Xeon servers and Zen 5.
TWO_PORTS = Cost(4, 2)
#: Zen 4 executes a 512-bit FMA as two halves.
ONE_PORT = Cost(4, 1, parts=2)


@cache
def fma_instructions(dtype: DType, bits: int, rows: int, features: tuple[str, ...], cost: Cost) -> tuple[Instruction, ...]:
    """fma (register times broadcast element), fma_lanes (three registers), fma_outer (tile of ``rows`` x two registers)."""
    lanes = bits // dtype.bits
    suffix = "" if dtype == f32 else f"_{dtype}"
    needed = cpu(*features)

    @instruction(name="fma" + suffix, latency=cost.latency, per_cycle=cost.fma_per_cycle, requires=needed)
    def fma(c: dtype[lanes] @ REG, a: dtype @ L1, b: dtype[lanes] @ REG):
        j = axes(vector(lanes))
        require(stride(b, 0) == 1)
        require(stride(c, 0) == 1)
        c[j] += a * b[j]

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

    return (fma, fma_lanes, fma_outer)


def _splat(operand: str, source: str, lanes: int, vector_type: str) -> str:
    """LLVM text: ``%wide`` = the 32 bits of ``operand`` (type ``source``) in every lane, as ``vector_type``."""
    return f"""
        %bits = bitcast {source} %{operand} to i32
        %one = insertelement <{lanes} x i32> poison, i32 %bits, i32 0
        %all = shufflevector <{lanes} x i32> %one, <{lanes} x i32> poison, <{lanes} x i32> zeroinitializer
        %wide = bitcast <{lanes} x i32> %all to {vector_type}"""


@cache
def saturating_dots(cost: Cost) -> tuple[Instruction, ...]:
    """u8 x s8 dot products from vpmaddubsw + vpmaddwd + vpaddd.

    vpmaddubsw adds two products in a saturating int16, so it is only the dot product where two
    products stay within -32768..32767: 2 * 255 * 64 does, and so does 2 * 128 * -128.
    """
    emit = LLVM(
        _splat("a", "<4 x i8>", 16, "<64 x i8>")
        + """
        %pairs = call <32 x i16> @llvm.x86.avx512.pmaddubs.w.512(<64 x i8> %wide, <64 x i8> %b)
        %quads = call <16 x i32> @llvm.x86.avx512.pmaddw.d.512(<32 x i16> %pairs, <32 x i16> splat (i16 1))
        %sum = add <16 x i32> %c, %quads
        ret <16 x i32> %sum""",
        (
            "declare <32 x i16> @llvm.x86.avx512.pmaddubs.w.512(<64 x i8>, <64 x i8>)",
            "declare <16 x i32> @llvm.x86.avx512.pmaddw.d.512(<32 x i16>, <32 x i16>)",
        ),
    )
    rate = cost.fma_per_cycle / 2  # two multiplies on the FMA ports, the addition elsewhere

    @instruction(latency=11, per_cycle=rate, requires=cpu(*AVX512), emit=emit)
    def maddubs(c: i32[16] @ REG, a: u8[4] @ L1, b: i8[16, 4] @ REG):
        j, k = axes(vector(16), 4)
        require(stride(a, 0) == 1)
        require(stride(b, 1) == 1)
        value_range(b, -64, 64)
        c[j] += a[k] * b[j, k]

    @instruction(latency=11, per_cycle=rate, requires=cpu(*AVX512), emit=emit)
    def maddubs_u7(c: i32[16] @ REG, a: u8[4] @ L1, b: i8[16, 4] @ REG):
        j, k = axes(vector(16), 4)
        require(stride(a, 0) == 1)
        require(stride(b, 1) == 1)
        value_range(a, 0, 128)
        c[j] += a[k] * b[j, k]

    return (maddubs, maddubs_u7)


@cache
def dots(cost: Cost) -> tuple[Instruction, ...]:
    """AVX-512 VNNI vpdpbusd (exact) and BF16 vdpbf16ps (f32 sums, subnormals flushed)."""
    busd = "<16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>{}, <64 x i8>{}, <64 x i8>{})"
    bf16ps = "<16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>{}, <32 x bfloat>{}, <32 x bfloat>{})"

    @instruction(
        latency=5,
        per_cycle=cost.fma_per_cycle,
        requires=cpu(*AVX512, "avx512vnni"),
        emit=LLVM(
            _splat("a", "<4 x i8>", 16, "<64 x i8>") + f"\n%r = call {busd.format(' %c', ' %wide', ' %b')}\nret <16 x i32> %r",
            (f"declare {busd.format('', '', '')}",),
        ),
    )
    def dpbusd(c: i32[16] @ REG, a: u8[4] @ L1, b: i8[16, 4] @ REG):
        j, k = axes(vector(16), 4)
        require(stride(a, 0) == 1)
        require(stride(b, 1) == 1)
        c[j] += a[k] * b[j, k]

    @instruction(
        latency=6,
        per_cycle=cost.fma_per_cycle,
        requires=cpu(*AVX512, "avx512bf16"),
        emit=LLVM(
            _splat("a", "<2 x bfloat>", 16, "<32 x bfloat>") + f"\n%r = call {bf16ps.format(' %c', ' %wide', ' %b')}\nret <16 x float> %r",
            (f"declare {bf16ps.format('', '', '')}",),
        ),
    )
    def dpbf16ps(c: f32[16] @ REG, a: bf16[2] @ L1, b: bf16[16, 2] @ REG):
        j, k = axes(vector(16), 2)
        require(stride(a, 0) == 1)
        require(stride(b, 1) == 1)
        c[j] += cast(a[k], f32) * cast(b[j, k], f32)

    return (dpbusd, dpbf16ps)


TILECFG = State(
    "tilecfg",
    fields=(("palette", u8), ("rows", u8), ("colsb", u16)),
    setter="ldtilecfg",
    reset=(("palette", 0),),
    note="rows and bytes per row of each tile; LLVM places ldtilecfg for the emission below. Linux lends tiles on request: arch_prctl",
)


@cache
def amx_instructions() -> tuple[Instruction, ...]:
    """AMX: 16 x 64-byte tiles; b is packed so that one row holds the 4 bytes of consecutive k together."""

    @instruction(sets=TILECFG, requires=cpu("amx-tile"), latency=20, per_cycle=1 / 20)
    def ldtilecfg():
        """Loads the shapes of all tile registers from 64 bytes of memory."""

    needed = needs(TILECFG, palette=1)

    @instruction(
        needs=needed, requires=cpu("amx-tile", "amx-int8"), latency=52, per_cycle=1 / 16, emit=_tile_emit("tdpbssd", "i32", "i8", 1024)
    )
    def tdpbssd(c: i32[16, 16] @ TMM, a: i8[16, 16, 4] @ TMM, b: i8[16, 16, 4] @ TMM):
        i, j, k, l = axes(upto(16), upto(16), upto(16), 4)
        c[i, j] += a[i, k, l] * b[k, j, l]

    @instruction(
        needs=needed,
        requires=cpu("amx-tile", "amx-bf16"),
        latency=52,
        per_cycle=1 / 16,
        emit=_tile_emit("tdpbf16ps", "float", "bfloat", 512),
    )
    def tdpbf16ps(c: f32[16, 16] @ TMM, a: bf16[16, 16, 2] @ TMM, b: bf16[16, 16, 2] @ TMM):
        i, j, k, l = axes(upto(16), upto(16), upto(16), 2)
        c[i, j] += cast(a[i, k, l], f32) * cast(b[k, j, l], f32)

    return (ldtilecfg, tdpbssd, tdpbf16ps)


def _tile_emit(intrinsic: str, acc: str, element: str, elements: int) -> LLVM:
    """Full tiles through LLVM's tile type: it allocates tile registers and configures them."""
    tile, cast_in, cast_out = "x86_amx", "@llvm.x86.cast.vector.to.tile.v256i32", "@llvm.x86.cast.tile.to.vector.v256i32"
    return LLVM(
        f"""
        %ci = bitcast <256 x {acc}> %c to <256 x i32>
        %ai = bitcast <{elements} x {element}> %a to <256 x i32>
        %bi = bitcast <{elements} x {element}> %b to <256 x i32>
        %ct = call {tile} {cast_in}(<256 x i32> %ci)
        %at = call {tile} {cast_in}(<256 x i32> %ai)
        %bt = call {tile} {cast_in}(<256 x i32> %bi)
        %rt = call {tile} @llvm.x86.{intrinsic}.internal(i16 16, i16 64, i16 64, {tile} %ct, {tile} %at, {tile} %bt)
        %ri = call <256 x i32> {cast_out}({tile} %rt)
        %r = bitcast <256 x i32> %ri to <256 x {acc}>
        ret <256 x {acc}> %r""",
        (
            f"declare {tile} {cast_in}(<256 x i32>)",
            f"declare <256 x i32> {cast_out}({tile})",
            f"declare {tile} @llvm.x86.{intrinsic}.internal(i16, i16, i16, {tile}, {tile}, {tile})",
        ),
    )


def memories(register_bytes: int, line: int, cost: Cost) -> list[Memory]:
    """Typical server sizes; ``host`` replaces them by what is found. Bandwidths are of one core.

    A core loads as many registers a cycle as it has multiply-add ports.
    """
    return [
        Memory("dram", "main", None, level=4, bandwidth=8, latency=250, line=64, note="per core, approximate"),
        Memory("l3", "cache", 32 << 20, level=3, parent="dram", bandwidth=32, latency=50, line=64, note="per core, approximate"),
        Memory("l2", "cache", 1 << 20, level=2, parent="l3", bandwidth=64, latency=14, line=64, per="core"),
        Memory("l1", "cache", 32 << 10, level=1, parent="l2", bandwidth=cost.fma_per_cycle * line, latency=5, line=64, per="core"),
        Memory("reg", "register", register_bytes, level=0, parent="l1", line=line, per="core", banks=cost.parts),
    ]


def line_moves(levels: Sequence[Memory]) -> list[Transfer]:
    """Hardware moves lines between each cache and what it is filled from."""
    pairs = [(m.parent, m.name, m.line) for m in levels if m.kind == "cache" and m.parent]
    return [t for outer, inner, line in pairs for t in (Transfer(outer, inner, line), Transfer(inner, outer, line))]


def register_moves(line: int, cost: Cost) -> list[Transfer]:
    """Loads and stores of vector registers."""
    load = Transfer(L1, REG, 1, line, latency=5, bandwidth=cost.fma_per_cycle * line)
    return [load, Transfer(REG, L1, 1, line, latency=1, bandwidth=line)]


def build(name: str, cost: Cost, features: tuple[str, ...], cpu_name: str, cores: int = 8, clock_hz: float = 3e9) -> Machine:
    """The x86 machine with ``features``: 512-bit where AVX-512 is complete, and the instructions they allow."""
    present = frozenset(features)
    wide = present.issuperset(AVX512)
    bits, rows, registers = (512, 14, 32) if wide else (256, 6, 16)
    instructions = [i for t in (f32, f64) for i in fma_instructions(t, bits, rows, AVX512 if wide else AVX2, cost)]
    instructions += [i for i in (*saturating_dots(cost), *dots(cost)) if not i.requires.missing(present)]
    amx = [i for i in amx_instructions() if not i.requires.missing(present)]
    tiles = [Memory(TMM, "register", 8 * 1024, level=0, parent=L1, line=64, per="core", note="8 tiles of 16 x 64 bytes")] if amx else []
    moves = [Transfer(L1, TMM, 64, 1024, latency=16, bandwidth=64), Transfer(TMM, L1, 64, 1024, latency=16, bandwidth=64)] if amx else []
    levels = memories(registers * bits // 8, bits // 8, cost)
    return Machine(
        name,
        memories=[*levels, *tiles],
        units=[Unit("core", cores, memory="l3")],
        instructions=[*instructions, *amx],
        transfers=[*line_moves(levels), *register_moves(bits // 8, cost), *moves],
        states=[TILECFG] if amx else [],
        target=Target("x86_64-unknown-linux-gnu", cpu_name, features),
        clock_hz=clock_hz,
        vector_bits=bits,
    )


avx2 = build("x86.avx2", TWO_PORTS, AVX2, "haswell")
avx512 = build("x86.avx512", TWO_PORTS, AVX512, "skylake-avx512")
vnni = build("x86.vnni", TWO_PORTS, VNNI, "cascadelake")
zen4 = build("x86.zen4", ONE_PORT, (*VNNI, "avx512bf16"), "znver4")
amx = build("x86.amx", TWO_PORTS, (*VNNI, "avx512bf16", "amx-tile", "amx-int8", "amx-bf16"), "sapphirerapids")


def on_host(facts: HostFacts) -> Machine | None:
    """This computer if it is an x86 with AVX2 at least; None otherwise."""
    if facts.architecture not in ("x86_64", "AMD64") or set(AVX2) - facts.features:
        return None
    cost = ONE_PORT if facts.features.issuperset(AVX512) and (facts.vendor, facts.family) == ("AuthenticAMD", 25) else TWO_PORTS
    m = build("host", cost, tuple(sorted(facts.features)), facts.cpu, facts.cores, facts.clock_hz)
    guessed = f"; guessed: {', '.join(facts.guessed)}" if facts.guessed else ""
    found = measured(m.memories, facts)
    return m.derive(
        memories=found,
        transfers=[*line_moves(found), *(t for t in m.transfers if {t.src, t.dst} & {REG, TMM})],
        units=[replace(m.units[0], memory="l3" if facts.cache(3) else "dram")],
        target=Target(facts.triple, facts.cpu, m.target.features),
        note=f"{facts.vendor} family {facts.family} model {facts.model} ({facts.cpu}){guessed}",
    )
