"""Gemmini's instructions as values, and their custom-3 words: ``encode`` and ``decode`` between them and (funct, rs1, rs2).

The bit fields are those of the generator's public documentation. Each format is a :class:`tilewright.hw.RoCC`, the same
declaration the machine's own instructions are made of; a dotted field name is an attribute of an operand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from tilewright.hw import Bits, RoCC
from tilewright.util.errors import ExecutionError, MachineError

ROWS = 0x1FFF_FFFF
ACCUMULATOR, ACCUMULATE, FULL = 1 << 31, 1 << 30, 1 << 29
#: A local address of all ones: read as zeros, written nowhere.
GARBAGE = 0xFFFF_FFFF
WEIGHT_STATIONARY, OUTPUT_STATIONARY = 1, 0
NO_ACTIVATION, RELU, LAYERNORM, IGELU, SOFTMAX = 0, 1, 2, 3, 4
#: What a store does on a machine with a normalisation unit; in bits 26 to 28 of its local address.
STORE, SUM, MEAN, VARIANCE, INV_STDDEV, MAX, SUM_EXP, INV_SUM_EXP = range(8)
COMMAND = 26


def f32_bits(value: float) -> int:
    """The 32 bits of ``value`` rounded to an f32: the form in which scales travel in registers."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def f32(bits: int) -> float:
    """The value of an f32 given by its bits."""
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


#: No scaling; and, in a ConfigSt, the scale set before (all ones, no number).
ONE, KEEP_SCALE = f32_bits(1.0), 0xFFFF_FFFF


def accumulator(row: int, *, accumulate: bool = False, full: bool = False) -> int:
    """The local address of an accumulator row: add to it on a write, read it as int32 without scale or activation."""
    return ACCUMULATOR | (ACCUMULATE if accumulate else 0) | (FULL if full else 0) | row


@dataclass(frozen=True, slots=True)
class Tile:
    """A local address (:func:`accumulator`, or a scratchpad row as it is) and the extents of the matrix there."""

    address: int
    cols: int
    rows: int

    @property
    def garbage(self) -> bool:
        """Whether the address stands for zeros (an operand) or for nowhere (a result)."""
        return self.address == GARBAGE

    @property
    def row(self) -> int:
        """The first row in its memory."""
        return self.address & ROWS

    def __str__(self) -> str:
        if self.garbage:
            return f"none {self.rows}x{self.cols}"
        flags = ("+" if self.address & ACCUMULATE else "") + ("!" if self.address & FULL else "")
        return f"{'acc' if self.address & ACCUMULATOR else 'spad'}{flags}[{self.row}] {self.rows}x{self.cols}"


class Command:
    """What the accelerator executes. ``str`` is one line with all fields that are not zero."""

    __slots__ = ()
    addresses: ClassVar[frozenset[str]] = frozenset()

    def __str__(self) -> str:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        shown = (f"{n}={v:#x}" if n in self.addresses else f"{n}={v}" for n, v in values.items() if v)
        return " ".join((type(self).__name__, *shown))


@dataclass(frozen=True, slots=True)
class ConfigEx(Command):
    """Dataflow, activation, shift, transpositions, and the strides (in rows) of A and C of the execute controller."""

    dataflow: int = WEIGHT_STATIONARY
    activation: int = NO_ACTIVATION
    strides_only: int = 0
    a_transpose: int = 0
    b_transpose: int = 0
    a_stride: int = 1
    acc_scale: int = ONE
    shift: int = 0
    c_stride: int = 1


@dataclass(frozen=True, slots=True)
class ConfigLd(Command):
    """How mvin number ``mvin`` + 1 loads: stride in bytes of main memory, rows between its blocks, scale, shrunk, repeats."""

    stride: int
    mvin: int = 0
    block_stride: int = 0
    scale: int = ONE
    shrunk: int = 0
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class ConfigSt(Command):
    """How mvout stores: stride in bytes, activation, scale (f32 bits), max-pooling (off when ``pool_stride`` is 0)."""

    stride: int
    activation: int = NO_ACTIVATION
    acc_scale: int = ONE
    pool_stride: int = 0
    pool_size: int = 0
    upad: int = 0
    lpad: int = 0
    pool_out_cols: int = 0
    porows: int = 0
    pocols: int = 0
    orows: int = 0
    ocols: int = 0


@dataclass(frozen=True, slots=True)
class ConfigNorm(Command):
    """Which statistics stores use and, unless ``stats_only``, constants of the normalisation unit.

    ``q`` is ln 2, or with ``inverse`` its inverse; ``act_msb`` is the third bit of the activation: softmax, where the ConfigSt before
    said none. Constants are 32 bits, signed.
    """

    stats_id: int = 0
    act_msb: int = 0
    stats_only: int = 0
    inverse: int = 0
    q: int = 0
    qb: int = 0
    qc: int = 0


@dataclass(frozen=True, slots=True)
class Mvin(Command):
    """Main memory at ``address`` to a local tile, by one of three mvins (0, 1, 2) with a configuration of its own."""

    addresses: ClassVar[frozenset[str]] = frozenset({"address"})
    address: int
    local: Tile
    mvin: int = 0


@dataclass(frozen=True, slots=True)
class Mvout(Command):
    """A local tile to main memory at ``address``."""

    addresses: ClassVar[frozenset[str]] = frozenset({"address"})
    address: int
    local: Tile


@dataclass(frozen=True, slots=True)
class Preload(Command):
    """Names the result C and brings ``bd`` into the array: the weights B (weight stationary) or D (output stationary)."""

    bd: Tile
    c: Tile


@dataclass(frozen=True, slots=True)
class Compute(Command):
    """Multiplies A. ``bd``: D (weight stationary) or B. ``preloaded``: with the operand of the preload, else what the array holds."""

    a: Tile
    bd: Tile
    preloaded: bool = True


@dataclass(frozen=True, slots=True)
class Flush(Command):
    """Flushes the TLB; computes nothing."""

    skip: int = 0


@dataclass(frozen=True, slots=True)
class LoopBounds(Command):
    """Blocks of the next ``LoopWs`` along i, j, k, and by how many elements the last block of each is short."""

    i: int
    j: int
    k: int
    pad_i: int = 0
    pad_j: int = 0
    pad_k: int = 0


@dataclass(frozen=True, slots=True)
class LoopAddressesAB(Command):
    """Where A and B are in main memory (0: already in the scratchpad)."""

    addresses: ClassVar[frozenset[str]] = frozenset({"a", "b"})
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class LoopAddressesDC(Command):
    """Where D and C are in main memory (0: no bias, no store)."""

    addresses: ClassVar[frozenset[str]] = frozenset({"d", "c"})
    d: int
    c: int


@dataclass(frozen=True, slots=True)
class LoopStridesAB(Command):
    """Elements between rows of A and of B."""

    a: int
    b: int


@dataclass(frozen=True, slots=True)
class LoopStridesDC(Command):
    """Elements between rows of D and of C."""

    d: int
    c: int


@dataclass(frozen=True, slots=True)
class LoopWs(Command):
    """C = A B + D over blocks, weights stationary. ``a_half``, ``b_half``: 1 or 2 pin the scratchpad half, 0 alternates."""

    accumulate: int = 0
    full_c: int = 0
    low_d: int = 0
    activation: int = 0
    b_half: int = 0
    a_half: int = 0
    a_transpose: int = 0
    b_transpose: int = 0


@dataclass(frozen=True, slots=True)
class ConvShape(Command):
    """First configuration of a convolution: sizes of the whole problem."""

    out_channels: int
    in_channels: int
    in_rows: int
    batch: int
    padding: int
    stride: int
    out_cols: int
    pool_out_rows: int
    out_rows: int


@dataclass(frozen=True, slots=True)
class ConvTile(Command):
    """Second: kernel and pooling of the whole problem; batches, pooled rows, columns, channels of this tile."""

    kernel: int
    pool_out_cols: int
    pool_size: int
    pool_stride: int
    pool_padding: int
    batches: int
    porows: int
    pocols: int
    pochs: int


@dataclass(frozen=True, slots=True)
class ConvKernel(Command):
    """Third: kernel rows, columns, channels of this tile and its paddings; columns of the whole input."""

    krows: int
    kcols: int
    kchs: int
    lpad: int
    rpad: int
    upad: int
    dpad: int
    plpad: int
    in_cols: int


@dataclass(frozen=True, slots=True)
class ConvOutput(Command):
    """Fourth: output rows and columns of this tile, pooling paddings, dilation, strides (elements) of a pixel in main memory."""

    orows: int
    prpad: int
    pupad: int
    pdpad: int
    dilation: int
    in_stride: int
    weight_stride: int
    out_stride: int
    ocols: int


@dataclass(frozen=True, slots=True)
class ConvAddressesWO(Command):
    """Fifth: weights and output in main memory (output 0: no store)."""

    addresses: ClassVar[frozenset[str]] = frozenset({"weights", "output"})
    weights: int
    output: int


@dataclass(frozen=True, slots=True)
class ConvAddressesBI(Command):
    """Sixth: bias and input in main memory (bias 0: accumulate on what is there)."""

    addresses: ClassVar[frozenset[str]] = frozenset({"bias", "input"})
    bias: int
    input: int


@dataclass(frozen=True, slots=True)
class LoopConvWs(Command):
    """The convolution. ``pixels``: columns of the kernel that one compute does (0 and 1: one)."""

    no_bias: int = 0
    wrot180: int = 0
    trans_output_1203: int = 0
    trans_weight_1203: int = 0
    trans_weight_0132: int = 0
    trans_input_3120: int = 0
    depthwise: int = 0
    pixels: int = 0
    b_half: int = 0
    a_half: int = 0
    no_pool: int = 1
    downsample: int = 0
    input_dilated: int = 0
    activation: int = 0


@dataclass(frozen=True, slots=True)
class Counter(Command):
    """Reads or configures a performance counter."""

    operation: int


@dataclass(frozen=True, slots=True)
class Fence(Command):
    """The host waits for everything issued so far. A RISC-V instruction of its own: it has no custom-3 word."""


#: Commands that only set the registers of the loop machines.
LOOP_REGISTERS = (
    LoopBounds,
    LoopAddressesAB,
    LoopAddressesDC,
    LoopStridesAB,
    LoopStridesDC,
    ConvShape,
    ConvTile,
    ConvKernel,
    ConvOutput,
    ConvAddressesWO,
    ConvAddressesBI,
)


@dataclass(frozen=True, slots=True)
class Format:
    """One encoding: the class it stands for, the attributes the opcode fixes, the layout of the registers."""

    command: type[Any]
    word: RoCC
    fixed: tuple[tuple[str, int], ...] = ()


def _packed(text: str) -> tuple[Bits, ...]:
    """Fields of one register as ``name@lo:width``, in any order; a number instead of a name is a constant."""
    out = []
    for item in text.split():
        name, place = item.split("@")
        lo, width = place.split(":")
        out.append(Bits(int(lo), int(width), int(name) if name.isdigit() else name))
    return tuple(out)


def _word(funct: int, rs1: str = "", rs2: str = "") -> RoCC:
    return RoCC(funct, _packed(rs1), _packed(rs2))


def _tile(name: str) -> str:
    return f"{name}.address@0:32 {name}.cols@32:16 {name}.rows@48:16"


_EX = "0@0:2 dataflow@2:1 activation@3:2 strides_only@7:1 a_transpose@8:1 b_transpose@9:1 a_stride@16:16 acc_scale@32:32"
_LD = "1@0:2 shrunk@2:1 mvin@3:2 repeats@8:8 block_stride@16:16 scale@32:32"
_POOL = "upad@8:2 lpad@10:2 pool_out_cols@24:8 porows@32:8 pocols@40:8 orows@48:8 ocols@56:8"
_ST = f"2@0:2 activation@2:2 pool_stride@4:2 pool_size@6:2 {_POOL}"
_CONV = "no_bias@0:1 wrot180@1:1 trans_output_1203@2:1 trans_weight_1203@3:1 trans_weight_0132@4:1 trans_input_3120@5:1 depthwise@6:1"

FORMATS = (
    Format(ConfigEx, _word(0, _EX, "shift@0:32 c_stride@48:16")),
    Format(ConfigLd, _word(0, _LD, "stride@0:64")),
    Format(ConfigSt, _word(0, _ST, "stride@0:32 acc_scale@32:32")),
    Format(ConfigNorm, _word(0, "3@0:2 stats_id@8:8 act_msb@16:1 stats_only@17:1 inverse@18:1 q@32:32", "qb@0:32 qc@32:32")),
    Format(Mvin, _word(2, "address@0:64", _tile("local")), (("mvin", 0),)),
    Format(Mvin, _word(1, "address@0:64", _tile("local")), (("mvin", 1),)),
    Format(Mvin, _word(14, "address@0:64", _tile("local")), (("mvin", 2),)),
    Format(Mvout, _word(3, "address@0:64", _tile("local"))),
    Format(Compute, _word(4, _tile("a"), _tile("bd")), (("preloaded", True),)),
    Format(Compute, _word(5, _tile("a"), _tile("bd")), (("preloaded", False),)),
    Format(Preload, _word(6, _tile("bd"), _tile("c"))),
    Format(Flush, _word(7, "skip@0:64")),
    Format(
        LoopWs,
        _word(8, "accumulate@0:1 full_c@1:1 low_d@2:1 activation@8:3 b_half@16:2 a_half@18:2", "a_transpose@0:1 b_transpose@1:1"),
    ),
    Format(LoopBounds, _word(9, "pad_i@0:16 pad_j@16:16 pad_k@32:16", "i@0:16 j@16:16 k@32:16")),
    Format(LoopAddressesAB, _word(10, "a@0:64", "b@0:64")),
    Format(LoopAddressesDC, _word(11, "d@0:64", "c@0:64")),
    Format(LoopStridesAB, _word(12, "a@0:64", "b@0:64")),
    Format(LoopStridesDC, _word(13, "d@0:64", "c@0:64")),
    Format(
        LoopConvWs,
        _word(15, f"{_CONV} pixels@8:8 b_half@16:2 a_half@18:2", "no_pool@0:1 downsample@1:1 input_dilated@2:1 activation@3:2"),
    ),
    Format(
        ConvShape,
        _word(
            16,
            "batch@0:16 in_rows@16:16 in_channels@32:16 out_channels@48:16",
            "out_rows@0:16 pool_out_rows@16:16 out_cols@32:16 stride@48:8 padding@56:8",
        ),
    ),
    Format(
        ConvTile,
        _word(
            17,
            "pool_padding@0:8 pool_stride@8:8 pool_size@16:16 pool_out_cols@32:16 kernel@48:16",
            "pochs@0:16 pocols@16:16 porows@32:16 batches@48:16",
        ),
    ),
    Format(
        ConvKernel,
        _word(18, "lpad@0:16 kchs@16:16 kcols@32:16 krows@48:16", "in_cols@0:16 plpad@16:8 dpad@24:8 upad@32:16 rpad@48:16"),
    ),
    Format(
        ConvOutput,
        _word(
            19,
            "dilation@0:10 pdpad@10:11 pupad@21:11 prpad@32:16 orows@48:16",
            "ocols@0:16 out_stride@16:16 weight_stride@32:16 in_stride@48:16",
        ),
    ),
    Format(ConvAddressesWO, _word(20, "weights@0:64", "output@0:64")),
    Format(ConvAddressesBI, _word(21, "bias@0:64", "input@0:64")),
    Format(Counter, _word(126, "operation@0:64")),
)


def encode(command: Command) -> tuple[int, int, int]:
    """``(funct, rs1, rs2)`` of a command; MachineError if a field does not fit, or for ``Fence``, which has no word."""
    word = format_of(command).word
    return word.funct7, *word.registers(quantities(command))


def format_of(command: Command) -> Format:
    """The format that encodes ``command``; MachineError for ``Fence``, which has none."""
    for f in FORMATS:
        if type(command) is f.command and all(getattr(command, n) == v for n, v in f.fixed):
            return f
    raise MachineError(f"{command} has no custom-3 word", hint="a fence is the RISC-V instruction `fence`; mvins are 0, 1 and 2")


def quantities(command: Command) -> dict[str, int]:
    """What the fields of the command's registers hold, by the names that its format uses (``"local.rows"``)."""
    out: dict[str, int] = {}
    for field in fields(command):  # type: ignore[arg-type]
        value = getattr(command, field.name)
        if isinstance(value, Tile):
            out |= {f"{field.name}.{n}": getattr(value, n) for n in ("address", "cols", "rows")}
        else:
            out[field.name] = int(value)
    return out


def decode(funct: int, rs1: int, rs2: int) -> Command:
    """The command of a custom-3 word; ExecutionError if no format has these opcode and constants, or a reserved bit is set."""
    for f in FORMATS:
        if f.word.funct7 != funct:
            continue
        values, spare1 = _extract(f.word.rs1, rs1)
        more, spare2 = _extract(f.word.rs2, rs2)
        if values is None or more is None:
            continue
        if spare1 or spare2:
            raise ExecutionError(
                f"{f.command.__name__} (funct {funct}) has reserved bits set: rs1 {spare1:#x}, rs2 {spare2:#x}",
                hint="clear them; the fields of each word are listed in sim/gemmini/isa.py",
            )
        command: Command = f.command(**_attributes({**values, **more, **dict(f.fixed)}))
        return command
    raise ExecutionError(f"funct {funct} with rs1 {rs1:#x} is no Gemmini command", hint="0 to 21 and 126 are")


def _extract(layout: Iterable[Bits], register: int) -> tuple[dict[str, int] | None, int]:
    """Named fields (None when a constant differs) and the bits that no field covers."""
    values: dict[str, int] = {}
    for b in layout:
        mask = (1 << b.width) - 1
        value = register >> b.lo & mask
        register &= ~(mask << b.lo)
        if isinstance(b.value, str):
            values[b.value] = value
        elif value != b.value:
            return None, 0
    return values, register


def _attributes(values: dict[str, int]) -> dict[str, Any]:
    tiles = {n.split(".")[0] for n in values if "." in n}
    out: dict[str, Any] = {n: v for n, v in values.items() if "." not in n}
    return out | {t: Tile(values[f"{t}.address"], values[f"{t}.cols"], values[f"{t}.rows"]) for t in tiles}
