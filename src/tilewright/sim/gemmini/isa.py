"""Gemmini's instructions as values, by the names of the generator's public documentation; :mod:`.words` has their encoding."""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import ClassVar

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
    """Shows a performance counter and, where asked for, resets all, keeps what they show or gives it up, sets what this one counts."""

    index: int = 0
    reset: int = 0
    snapshot_reset: int = 0
    snapshot: int = 0
    configure: int = 0
    event: int = 0
    external: int = 0


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
