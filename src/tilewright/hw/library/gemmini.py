"""Gemmini: a systolic array with a scratchpad and an accumulator behind RISC-V custom instructions.

The encoding follows the generator's public documentation. One array of ``dim`` x ``dim``
multipliers, weights stationary: ``preload`` loads the weights, ``compute`` streams the rows of A.
What is multiplied is int8, unless other :class:`~tilewright.hw.library.gemmini_types.Types` are asked for.
"""

# The annotations of instructions are declarations, not Python types.
# mypy: disable-error-code="valid-type,no-untyped-def,name-defined"
from __future__ import annotations

from functools import partial
from typing import Any

from tilewright.hw.axis import axes, upto
from tilewright.hw.constraint import require, stride
from tilewright.hw.emit import Bits, RoCC, Steps
from tilewright.hw.family import Family, Parameter
from tilewright.hw.hierarchy import STREAMED, Hierarchy, Storage
from tilewright.hw.instruction import Instruction, instruction
from tilewright.hw.library.gemmini_config import files
from tilewright.hw.library.gemmini_control import CONTROL, Control, Lines, check_whole
from tilewright.hw.library.gemmini_costs import RTL_RATES, area
from tilewright.hw.library.gemmini_forms import loop_conv_ws, loop_ws
from tilewright.hw.library.gemmini_pooling import pooled_stores
from tilewright.hw.library.gemmini_types import BF16, FP16, FP32, INT8, Types
from tilewright.hw.machine import Machine, Target
from tilewright.hw.memory import Memory
from tilewright.hw.state import State, needs
from tilewright.hw.transfer import Transfer, transfer
from tilewright.hw.unit import Unit
from tilewright.ir.types import UInt, f32, u8, u16, u32, u64
from tilewright.util.errors import MachineError

DRAM, SPAD, ACC = "dram", "spad", "acc"
#: 1.0 as the bits of an f32: no scaling.
ONE = 0x3F800000

EX = State(
    "ex",
    fields=(
        ("dataflow", UInt(1)),
        ("activation", UInt(2)),
        ("a_transpose", UInt(1)),
        ("b_transpose", UInt(1)),
        ("a_stride", u16),
        ("c_stride", u16),
        ("acc_scale", u32),
        ("shift", u32),
    ),
    setter="config_ex",
    idle=(("a_stride", 1), ("c_stride", 1), ("acc_scale", ONE)),
    note="dataflow 1 is weight stationary; strides are in rows of the local memories",
)
#: Each of mvin, mvin2 and mvin3 has its own.
LD = tuple(
    State(
        f"ld{n}",
        fields=(("shrunk", UInt(1)), ("repeats", u8), ("block_stride", u16), ("scale", u32), ("stride", u64)),
        setter=f"config_ld{n}",
        note="stride in bytes of main memory, block stride in rows of the local memory",
    )
    for n in ("", "2", "3")
)
ST = State(
    "st",
    fields=(
        ("activation", UInt(2)),
        ("pool_stride", UInt(2)),
        ("pool_size", UInt(2)),
        ("upad", UInt(2)),
        ("lpad", UInt(2)),
        ("pool_out_cols", u8),
        ("porows", u8),
        ("pocols", u8),
        ("orows", u8),
        ("ocols", u8),
        ("stride", u32),
        ("acc_scale", u32),
    ),
    setter="config_st",
    note="stride in bytes of main memory; acc_scale as the bits of an f32; pooling where pool_stride is not 0, of orows x ocols pixels",
)


def moved(funct7: int, main: str, local: str, flags: tuple[Bits, ...] = ()) -> RoCC:
    """mvin and mvout: main memory address in rs1; local row, columns and rows in rs2."""
    return RoCC(funct7, rs1=(Bits(0, 64, f"{main}.address"),), rs2=(*tile(local, 29), *flags))


def tile(operand: str, address_bits: int = 32) -> tuple[Bits, ...]:
    """A local address with the extents of the tile there."""
    return Bits(0, address_bits, f"{operand}.address"), Bits(32, 16, f"{operand}.cols"), Bits(48, 16, f"{operand}.rows")


#: Local address bits: accumulator, accumulate on write, read sums as they are; all ones means zero.
IN_ACCUMULATOR, ACCUMULATE, FULL = Bits(31, 1, 1), Bits(30, 1, "accumulate"), Bits(29, 1, 1)
ADDING = Bits(30, 1, 1)


def nothing(extents: str) -> tuple[Bits, ...]:
    """No operand, of the extents of this one."""
    return Bits(0, 32, 0xFFFFFFFF), Bits(32, 16, f"{extents}.cols"), Bits(48, 16, f"{extents}.rows")


def setters() -> list[Instruction]:
    """The config instructions (funct 0), told apart by the low bits of rs1."""
    ex_modes = (Bits(0, 2, 0), Bits(2, 1, "dataflow"), Bits(3, 2, "activation"), Bits(8, 1, "a_transpose"), Bits(9, 1, "b_transpose"))
    ex_rs1 = (*ex_modes, Bits(16, 16, "a_stride"), Bits(32, 32, "acc_scale"))

    @instruction(sets=EX, emit=RoCC(0, ex_rs1, (Bits(0, 32, "shift"), Bits(48, 16, "c_stride"))))
    def config_ex():
        """Dataflow, activation, transposition, strides of the execute controller."""

    def load_setter(state: State, channel: int) -> Instruction:
        modes = (Bits(0, 2, 1), Bits(2, 1, "shrunk"), Bits(3, 2, channel), Bits(8, 8, "repeats"))
        rs1 = (*modes, Bits(16, 16, "block_stride"), Bits(32, 32, "scale"))

        @instruction(name=state.setter, sets=state, emit=RoCC(0, rs1, (Bits(0, 64, "stride"),)))
        def config_ld():
            """Strides and scale of one of the moves of the load controller."""

        return config_ld

    pads = (Bits(8, 2, "upad"), Bits(10, 2, "lpad"))
    pixels = (Bits(24 + 8 * n, 8, name) for n, name in enumerate(("pool_out_cols", "porows", "pocols", "orows", "ocols")))
    st_rs1 = (Bits(0, 2, 2), Bits(2, 2, "activation"), Bits(4, 2, "pool_stride"), Bits(6, 2, "pool_size"), *pads, *pixels)

    @instruction(sets=ST, emit=RoCC(0, st_rs1, (Bits(0, 32, "stride"), Bits(32, 32, "acc_scale"))))
    def config_st():
        """Stride, scale, activation and pooling of the store controller."""

    return [config_ex, *(load_setter(s, n) for n, s in enumerate(LD)), config_st]


def matmul_instruction(dim: int, types: Types) -> Instruction:
    """C += A B: preload of the weights B, then a compute that streams the rows of A and adds nothing else."""
    c = (*tile("c", 30), ACCUMULATE, IN_ACCUMULATOR)
    steps = Steps(
        (RoCC(6, tile("b"), c, name="preload"), RoCC(4, tile("a"), nothing("c"), name="compute_preloaded")),
        (RoCC(6, nothing("b"), c, name="preload_nothing"), RoCC(5, tile("a"), nothing("c"), name="compute_accumulated")),
        held="b",
    )
    element, total = types.inputs, types.sums
    plain = needs(EX, dataflow=1, activation=0, a_transpose=0, b_transpose=0, a_stride="a.stride", c_stride="c.stride")

    @instruction(needs=plain, latency=5 * dim, per_cycle=1 / dim, emit=steps)
    def matmul(c: total[dim, dim] @ ACC, a: element[dim, dim] @ SPAD, b: element[dim, dim] @ SPAD):
        i, j, k = axes(upto(dim), upto(dim), upto(dim))
        require(stride(a, 1) == 1)
        require(stride(b, 1) == 1)
        require(stride(c, 1) == 1)
        c[i, j] += types.product(a[i, k], b[k, j])

    return matmul


def matmul_by_rows(dim: int, types: Types) -> Instruction:
    """C += A B^T: the array transposes the weights on their way in, so that B lies in rows of k."""
    c = (*tile("c", 30), ACCUMULATE, IN_ACCUMULATOR)
    turned = Bits(0, 32, "b.address"), Bits(32, 16, "b.rows"), Bits(48, 16, "b.cols")  # extents as the array sees them
    steps = Steps(
        (RoCC(6, turned, c, name="preload"), RoCC(4, tile("a"), nothing("c"), name="compute_preloaded")),
        (
            RoCC(6, (Bits(0, 32, 0xFFFFFFFF), *turned[1:]), c, name="preload_nothing"),
            RoCC(5, tile("a"), nothing("c"), name="compute_accumulated"),
        ),
        held="b",
    )
    element, total = types.inputs, types.sums
    plain = needs(EX, dataflow=1, activation=0, a_transpose=0, b_transpose=1, a_stride="a.stride", c_stride="c.stride")

    @instruction(needs=plain, latency=5 * dim, per_cycle=1 / dim, emit=steps)
    def matmul_bt(c: total[dim, dim] @ ACC, a: element[dim, dim] @ SPAD, b: element[dim, dim] @ SPAD):
        i, j, k = axes(upto(dim), upto(dim), upto(dim))
        require(stride(a, 1) == 1)
        require(stride(b, 1) == 1)
        require(stride(c, 1) == 1)
        c[i, j] += types.product(a[i, k], b[j, k])

    return matmul_bt


def moves(dim: int, lines: Lines, control: Control, types: Types) -> list[Transfer]:
    """DMA moves of up to dim x dim tiles, from main memory several side by side."""
    # A pooled store names its first pixel: how many there are is state.
    first = RoCC(3, rs1=(Bits(0, 64, "dst.address"),), rs2=(*tile("src", 29)[:2], IN_ACCUMULATOR, Bits(48, 16, 1)))
    pooled = pooled_stores(dim, lines.acc, ST, first, {"granularity": dim * types.inputs.nbytes, **control.dma}, types)
    brought = (t for n, s in enumerate(LD) for t in loads(dim, lines, s, (2, 1, 14)[n], control, types))
    return [*brought, *stores(dim, lines, control, types), *pooled]


def loads(dim: int, lines: Lines, state: State, funct7: int, control: Control, types: Types) -> list[Transfer]:
    """What one of mvin, mvin2 and mvin3 does: copies, broadcasts a row, adds to the accumulator. For scale 1."""
    name = "mvin" + state.name.removeprefix("ld")
    plain = needs(state, scale=types.unscaled, shrunk=0, repeats=1, stride="src.stride", block_stride="dst.block_stride")
    same_row = needs(state, scale=types.unscaled, shrunk=0, repeats=1, stride=0, block_stride="dst.block_stride")
    element, total = types.inputs, types.sums
    size, wider = dim * element.nbytes, dim * total.nbytes
    narrow, wide = control.row(dim, total.nbytes, lines.acc), control.row(dim, element.nbytes, lines.spad)

    @transfer(
        name=name,
        granularity=size,
        most=size * wide,
        **control.dma,
        needs=plain,
        emit=moved(funct7, "src", "dst"),
    )
    def mvin(dst: element[dim, wide] @ SPAD, src: element[dim, wide] @ DRAM):
        i, j = axes(upto(dim), upto(wide))
        require(stride(src, 1) == 1)
        require(stride(dst, 0) == dim)
        dst[i, j] = src[i, j]

    into_acc: dict[str, Any] = {"granularity": wider, "most": wider * narrow, **control.dma}
    in_acc, adding = (moved(funct7, "src", "dst", (IN_ACCUMULATOR, *more)) for more in ((), (ADDING,)))

    @transfer(name=f"{name}_acc", **into_acc, needs=plain, emit=in_acc)
    def mvin_acc(dst: total[dim, narrow] @ ACC, src: total[dim, narrow] @ DRAM):
        i, j = axes(upto(dim), upto(narrow))
        require(stride(src, 1) == 1)
        require(stride(dst, 0) == dim)
        dst[i, j] = src[i, j]

    @transfer(name=f"{name}_acc_row", **into_acc, needs=same_row, emit=in_acc)
    def mvin_acc_row(dst: total[dim, narrow] @ ACC, src: total[narrow] @ DRAM):
        i, j = axes(upto(dim), upto(narrow))
        require(stride(src, 0) == 1)
        require(stride(dst, 0) == dim)
        dst[i, j] = src[j]

    @transfer(name=f"{name}_acc_add", **into_acc, needs=plain, emit=adding)
    def mvin_acc_add(dst: total[dim, narrow] @ ACC, src: total[dim, narrow] @ DRAM):
        i, j = axes(upto(dim), upto(narrow))
        require(stride(src, 1) == 1)
        require(stride(dst, 0) == dim)
        dst[i, j] += src[i, j]

    shrunk = shrunk_loads(dim, lines, state, funct7, name, control, types) if types.mixed else []
    return [mvin, mvin_acc, mvin_acc_row, mvin_acc_add, *shrunk]


def shrunk_loads(dim: int, lines: Lines, state: State, funct7: int, name: str, control: Control, types: Types) -> list[Transfer]:
    """What mvin does from inputs into the accumulator, to be there or to be added: widens as it is, or (integers) scaled."""
    plain = needs(state, scale=types.unscaled, shrunk=1, repeats=1, stride="src.stride", block_stride="dst.block_stride")
    scaled = needs(state, scale="scale.bits", shrunk=1, repeats=1, stride="src.stride", block_stride="dst.block_stride")
    element, total = types.inputs, types.sums
    row, size = control.row(dim, element.nbytes, lines.acc), dim * element.nbytes
    cost: dict[str, Any] = {"granularity": size, "most": size * row, **control.dma}
    in_acc, adding = (moved(funct7, "src", "dst", (IN_ACCUMULATOR, *more)) for more in ((), (ADDING,)))

    @transfer(name=f"{name}_acc_shrunk", **cost, needs=plain, emit=in_acc)
    def mvin_acc_shrunk(dst: total[dim, row] @ ACC, src: element[dim, row] @ DRAM):
        i, j = axes(upto(dim), upto(row))
        require(stride(src, 1) == 1)
        require(stride(dst, 0) == dim)
        dst[i, j] = src[i, j]

    @transfer(name=f"{name}_acc_shrunk_add", **cost, needs=plain, emit=adding)
    def mvin_acc_shrunk_add(dst: total[dim, row] @ ACC, src: element[dim, row] @ DRAM):
        i, j = axes(upto(dim), upto(row))
        require(stride(src, 1) == 1)
        require(stride(dst, 0) == dim)
        dst[i, j] += src[i, j]

    if types.real:  # a scale of floats would be rounded to the type of inputs before it is used
        return [mvin_acc_shrunk, mvin_acc_shrunk_add]

    @transfer(name=f"{name}_acc_shrunk_scaled", **cost, needs=scaled, emit=in_acc)
    def mvin_acc_shrunk_scaled(dst: total[dim, row] @ ACC, src: element[dim, row] @ DRAM, scale: f32 @ DRAM):
        """Scales in f32, rounds to nearest even, saturates to what inputs hold."""
        i, j = axes(upto(dim), upto(row))
        require(stride(src, 1) == 1)
        require(stride(dst, 0) == dim)
        dst[i, j] = types.scaled(src[i, j], scale)

    @transfer(name=f"{name}_acc_shrunk_scaled_add", **cost, needs=scaled, emit=adding)
    def mvin_acc_shrunk_scaled_add(dst: total[dim, row] @ ACC, src: element[dim, row] @ DRAM, scale: f32 @ DRAM):
        """As above, and adds it."""
        i, j = axes(upto(dim), upto(row))
        require(stride(src, 1) == 1)
        require(stride(dst, 0) == dim)
        dst[i, j] += types.scaled(src[i, j], scale)

    return [mvin_acc_shrunk, mvin_acc_shrunk_add, mvin_acc_shrunk_scaled, mvin_acc_shrunk_scaled_add]


def zeros(dim: int, types: Types) -> list[Instruction]:
    """mvin from address 0, which reads as zeros: what is around an image."""
    element = types.inputs
    plain = needs(LD[0], scale=types.unscaled, shrunk=0, repeats=1)

    @instruction(needs=plain, latency=60, emit=RoCC(2, rs1=(Bits(0, 64, 0),), rs2=tile("dst", 29)))
    def mvin_zero(dst: element[dim, dim] @ SPAD):
        i, j = axes(upto(dim), upto(dim))
        require(stride(dst, 0) == dim)
        require(stride(dst, 1) == 1)
        dst[i, j] = 0

    return [mvin_zero]


def stores(dim: int, lines: Lines, control: Control, types: Types) -> list[Transfer]:
    """What mvout does: up to a request's bytes of inputs a row, from blocks of the accumulator that follow each other."""
    plain = needs(ST, acc_scale=ONE, activation=0, pool_stride=0, pool_size=0, stride="dst.stride")
    rectified = needs(ST, acc_scale=ONE, activation=1, pool_stride=0, pool_size=0, stride="dst.stride")
    scaled = needs(ST, acc_scale="scale.bits", activation=0, pool_stride=0, pool_size=0, stride="dst.stride")
    both = needs(ST, acc_scale="scale.bits", activation=1, pool_stride=0, pool_size=0, stride="dst.stride")
    narrowed = moved(3, "dst", "src", (IN_ACCUMULATOR,))
    element, total = types.inputs, types.sums
    row, size = control.row(dim, element.nbytes, lines.acc), dim * element.nbytes
    cost: dict[str, Any] = {"granularity": size, "most": size * row, **control.dma}

    @transfer(**cost, needs=plain, emit=narrowed)
    def mvout(dst: element[dim, row] @ DRAM, src: total[dim, row] @ ACC):
        """Saturates to what inputs hold; floats are rounded."""
        i, j = axes(upto(dim), upto(row))
        require(stride(dst, 1) == 1)
        require(stride(src, 0) == dim)
        dst[i, j] = types.stored(src[i, j])

    @transfer(**cost, needs=rectified, emit=narrowed)
    def mvout_relu(dst: element[dim, row] @ DRAM, src: total[dim, row] @ ACC):
        """The same from 0 on."""
        i, j = axes(upto(dim), upto(row))
        require(stride(dst, 1) == 1)
        require(stride(src, 0) == dim)
        dst[i, j] = types.stored(src[i, j], 1)

    @transfer(**cost, needs=scaled, emit=narrowed)
    def mvout_scaled(dst: element[dim, row] @ DRAM, src: total[dim, row] @ ACC, scale: f32 @ DRAM):
        """Scales in f32, rounds (integers to nearest even) and saturates (integers)."""
        i, j = axes(upto(dim), upto(row))
        require(stride(dst, 1) == 1)
        require(stride(src, 0) == dim)
        dst[i, j] = types.scaled(src[i, j], scale)

    @transfer(**cost, needs=both, emit=narrowed)
    def mvout_scaled_relu(dst: element[dim, row] @ DRAM, src: total[dim, row] @ ACC, scale: f32 @ DRAM):
        """The same from 0 on."""
        i, j = axes(upto(dim), upto(row))
        require(stride(dst, 1) == 1)
        require(stride(src, 0) == dim)
        dst[i, j] = types.scaled(src[i, j], scale, 1)

    @transfer(**cost, needs=plain, emit=moved(3, "dst", "src"))
    def mvout_spad(dst: element[dim, dim] @ DRAM, src: element[dim, dim] @ SPAD):
        i, j = axes(upto(dim), upto(dim))
        require(stride(dst, 1) == 1)
        require(stride(src, 0) == dim)
        dst[i, j] = src[i, j]

    out = [mvout, mvout_relu, mvout_scaled, mvout_scaled_relu, mvout_spad]
    if not types.mixed:
        return out  # what mvout reads is all there is
    full = moved(3, "dst", "src", (IN_ACCUMULATOR, FULL))
    full_cost = {**cost, "granularity": dim * total.nbytes, "most": dim * dim * total.nbytes}

    @transfer(**full_cost, needs=plain, emit=full)
    def mvout_full(dst: total[dim, dim] @ DRAM, src: total[dim, dim] @ ACC):
        i, j = axes(upto(dim), upto(dim))
        require(stride(dst, 1) == 1)
        require(stride(src, 0) == dim)
        dst[i, j] = src[i, j]

    return [*out[:-1], mvout_full, mvout_spad]


def gemmini(
    name: str = "gemmini",
    dim: int = 16,
    scratchpad_bytes: int = 256 << 10,
    accumulator_bytes: int = 64 << 10,
    control: Control = CONTROL,
    types: Types = INT8,
) -> Machine:
    """A Gemmini with a ``dim`` x ``dim`` array of units for ``types``, bus and queues as ``control`` says (default: the generator's
    default configuration).

    Latencies are approximate; energies per byte are those of the co-design model (pJ per access / word bytes). MachineError for a side
    or a memory that is no whole number from 1 on, and for memories that do not hold the operands of one product.
    """
    check_whole(dim=dim, scratchpad_bytes=scratchpad_bytes, accumulator_bytes=accumulator_bytes)
    spad_kb, acc_kb = scratchpad_bytes / 1024, accumulator_bytes / 1024
    row, sums = dim * types.inputs.nbytes, dim * types.sums.nbytes
    for what, size, least in (("scratchpad_bytes", scratchpad_bytes, 2 * dim * row), ("accumulator_bytes", accumulator_bytes, dim * sums)):
        if size < least:
            raise MachineError(
                f"a Gemmini with {what} = {size}: a product on {dim} x {dim} units needs {least}", hint=f"raise {what}, or lower dim"
            )
    return Machine(
        name,
        memories=[
            Memory(DRAM, "main", None, level=2, bandwidth=control.dma_bytes, latency=60, line=64, energy=100),
            Memory(SPAD, "scratchpad", scratchpad_bytes, 1, DRAM, 4 * row, line=row, energy=0.49 + 0.02513 * spad_kb, banks=4, buffers=2),
            Memory(
                ACC,
                "scratchpad",
                accumulator_bytes,
                1,
                DRAM,
                2 * sums,
                line=sums,
                energy=(1.94 + 0.1005 * acc_kb / dim) / 4,
                banks=2,
                buffers=2,
            ),
        ],
        units=[Unit("array", 1), Unit("row", dim, "array"), Unit("column", dim, "row")],
        instructions=[*setters(), matmul_instruction(dim, types), matmul_by_rows(dim, types), *zeros(dim, types)],
        transfers=moves(dim, Lines(scratchpad_bytes // row, accumulator_bytes // sums), control, types),
        states=[EX, *LD, ST],
        target=Target("riscv64-unknown-elf", "generic-rv64", ("m", "a", "f", "d", "c")),
        clock_hz=1e9,
        parameters={
            "dim": dim,
            "scratchpad_bytes": scratchpad_bytes,
            "accumulator_bytes": accumulator_bytes,
            "column_bits": types.column_bits(dim),
            **control.parameters(),
        },
        forms=[loop_ws(dim, EX, LD, ST, types), loop_conv_ws(dim, EX, LD, ST, types)],
    )


default = gemmini()
#: The generator's floating-point configurations, as large as the default.
MORE = {
    f"gemmini.{name}": partial(gemmini, f"gemmini.{name}", types=types) for name, types in (("fp32", FP32), ("bf16", BF16), ("fp16", FP16))
}


def hierarchy(name: str = "gemmini", types: Types = INT8) -> Hierarchy:
    """Its memories at any size, for analytical models: registers L0 (weights), accumulator L1, scratchpad L2, main memory L3.

    ``dim`` columns each own an accumulator of sums with two ports; ``dim`` inputs of the scratchpad are a line.
    Energies (pJ) are those of the co-design model, fitted to Accelergy's for int8: longer words cost as much a byte, a product what one of
    int8 does.
    """
    size, total = types.inputs.nbytes, types.sums.nbytes
    return Hierarchy(
        name,
        (
            Storage("L3", energy=100 * size, words_per_cycle=8 / size, line=64 // size, word_bytes=size),
            Storage(
                "L2",
                energy=lambda m: (0.49 + 0.02513 * m["scratchpad_bytes"] / 1024) * size,
                words_per_cycle=lambda m: m["dim"] * 2,
                words=lambda m: m["scratchpad_bytes"] / size,
                word_bytes=size,
                line=lambda m: m["dim"],
                reuse=STREAMED,
            ),
            Storage(
                "L1",
                energy=lambda m: 1.94 + 0.1005 * m["accumulator_bytes"] / 1024 / m["dim"],
                words_per_cycle=2,
                words=lambda m: m["accumulator_bytes"] / total / m["dim"],
                word_bytes=total,
            ),
            Storage("L0", energy=0.48746 * size, words=1, word_bytes=size),
        ),
        arithmetic=0.5608,
        parameters=("dim", "scratchpad_bytes", "accumulator_bytes"),
    )


#: Loop orders at main memory: the weights stay (a window moves down or across), the inputs stay, the results stay (likewise). No other
#: order moves fewer words: a tensor stays while the innermost loops do not move it, and one loop inside moves a window.
ORDERS = ("KCRSNQP", "KCRSNPQ", "CRSNPQK", "KNPQCSR", "KNPQCRS")


def family(name: str = "gemmini", dim: int = 128, types: Types = INT8) -> Family:
    """Machines of any size up to ``dim`` x ``dim`` units, weights stationary: channels on rows and columns, memories in steps of 1 KB."""
    check_whole(dim=dim)
    return Family(
        name,
        hierarchy(name, types),
        keeps=(("WIO",), ("WI",), ("O",), ("W",)),
        orders=(ORDERS, ("",), ("KCRSNQP",), ("",)),
        spatial=("", "K", "C", ""),
        fanout=(1, dim, dim, 1),
        parameters=(
            Parameter("dim", (lambda u, _: u.units["L2"], lambda u, _: u.units["L1"]), most=dim),
            Parameter("scratchpad_bytes", (lambda u, _: u.held["L2"] * types.inputs.nbytes,), step=1024, least=1024),
            Parameter("accumulator_bytes", (lambda u, m: u.held["L1"] * m["dim"] * types.sums.nbytes,), step=1024, least=1024),
        ),
        area=area,
        files=files(types),
        array_rates=RTL_RATES,
    )
