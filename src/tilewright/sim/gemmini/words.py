"""Gemmini's custom-3 words: ``encode`` and ``decode`` between commands and (funct, rs1, rs2).

The bit fields are those of the generator's public documentation. Each encoding is a :class:`tilewright.hw.RoCC`, the same
declaration the machine's own instructions are made of; a dotted field name is an attribute of an operand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from tilewright.hw import Bits, RoCC
from tilewright.sim.gemmini.isa import (
    Command,
    Compute,
    ConfigEx,
    ConfigLd,
    ConfigNorm,
    ConfigSt,
    ConvAddressesBI,
    ConvAddressesWO,
    ConvKernel,
    ConvOutput,
    ConvShape,
    ConvTile,
    Counter,
    Flush,
    LoopAddressesAB,
    LoopAddressesDC,
    LoopBounds,
    LoopConvWs,
    LoopStridesAB,
    LoopStridesDC,
    LoopWs,
    Mvin,
    Mvout,
    Preload,
    Tile,
)
from tilewright.util.errors import ExecutionError, MachineError


@dataclass(frozen=True, slots=True)
class Encoding:
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

ENCODINGS = (
    Encoding(ConfigEx, _word(0, _EX, "shift@0:32 c_stride@48:16")),
    Encoding(ConfigLd, _word(0, _LD, "stride@0:64")),
    Encoding(ConfigSt, _word(0, _ST, "stride@0:32 acc_scale@32:32")),
    Encoding(ConfigNorm, _word(0, "3@0:2 stats_id@8:8 act_msb@16:1 stats_only@17:1 inverse@18:1 q@32:32", "qb@0:32 qc@32:32")),
    Encoding(Mvin, _word(2, "address@0:64", _tile("local")), (("mvin", 0),)),
    Encoding(Mvin, _word(1, "address@0:64", _tile("local")), (("mvin", 1),)),
    Encoding(Mvin, _word(14, "address@0:64", _tile("local")), (("mvin", 2),)),
    Encoding(Mvout, _word(3, "address@0:64", _tile("local"))),
    Encoding(Compute, _word(4, _tile("a"), _tile("bd")), (("preloaded", True),)),
    Encoding(Compute, _word(5, _tile("a"), _tile("bd")), (("preloaded", False),)),
    Encoding(Preload, _word(6, _tile("bd"), _tile("c"))),
    Encoding(Flush, _word(7, "skip@0:64")),
    Encoding(
        LoopWs,
        _word(8, "accumulate@0:1 full_c@1:1 low_d@2:1 activation@8:3 b_half@16:2 a_half@18:2", "a_transpose@0:1 b_transpose@1:1"),
    ),
    Encoding(LoopBounds, _word(9, "pad_i@0:16 pad_j@16:16 pad_k@32:16", "i@0:16 j@16:16 k@32:16")),
    Encoding(LoopAddressesAB, _word(10, "a@0:64", "b@0:64")),
    Encoding(LoopAddressesDC, _word(11, "d@0:64", "c@0:64")),
    Encoding(LoopStridesAB, _word(12, "a@0:64", "b@0:64")),
    Encoding(LoopStridesDC, _word(13, "d@0:64", "c@0:64")),
    Encoding(
        LoopConvWs,
        _word(15, f"{_CONV} pixels@8:8 b_half@16:2 a_half@18:2", "no_pool@0:1 downsample@1:1 input_dilated@2:1 activation@3:2"),
    ),
    Encoding(
        ConvShape,
        _word(
            16,
            "batch@0:16 in_rows@16:16 in_channels@32:16 out_channels@48:16",
            "out_rows@0:16 pool_out_rows@16:16 out_cols@32:16 stride@48:8 padding@56:8",
        ),
    ),
    Encoding(
        ConvTile,
        _word(
            17,
            "pool_padding@0:8 pool_stride@8:8 pool_size@16:16 pool_out_cols@32:16 kernel@48:16",
            "pochs@0:16 pocols@16:16 porows@32:16 batches@48:16",
        ),
    ),
    Encoding(
        ConvKernel,
        _word(18, "lpad@0:16 kchs@16:16 kcols@32:16 krows@48:16", "in_cols@0:16 plpad@16:8 dpad@24:8 upad@32:16 rpad@48:16"),
    ),
    Encoding(
        ConvOutput,
        _word(
            19,
            "dilation@0:10 pdpad@10:11 pupad@21:11 prpad@32:16 orows@48:16",
            "ocols@0:16 out_stride@16:16 weight_stride@32:16 in_stride@48:16",
        ),
    ),
    Encoding(ConvAddressesWO, _word(20, "weights@0:64", "output@0:64")),
    Encoding(ConvAddressesBI, _word(21, "bias@0:64", "input@0:64")),
    Encoding(Counter, _word(126, "reset@0:1 snapshot_reset@1:1 snapshot@2:1 configure@3:1 index@4:3 event@12:6 external@31:1")),
)


def encode(command: Command) -> tuple[int, int, int]:
    """``(funct, rs1, rs2)`` of a command; MachineError if a field does not fit, or for ``Fence``, which has no word."""
    word = encoding_of(command).word
    return word.funct7, *word.registers(quantities(command))


def encoding_of(command: Command) -> Encoding:
    """The encoding of ``command``; MachineError for ``Fence``, which has none."""
    for f in ENCODINGS:
        if type(command) is f.command and all(getattr(command, n) == v for n, v in f.fixed):
            return f
    raise MachineError(f"{command} has no custom-3 word", hint="a fence is the RISC-V instruction `fence`; mvins are 0, 1 and 2")


def quantities(command: Command) -> dict[str, int]:
    """What the fields of the command's registers hold, by the names that its encoding uses (``"local.rows"``)."""
    out: dict[str, int] = {}
    for field in fields(command):  # type: ignore[arg-type]
        value = getattr(command, field.name)
        if isinstance(value, Tile):
            out |= {f"{field.name}.{n}": getattr(value, n) for n in ("address", "cols", "rows")}
        else:
            out[field.name] = int(value)
    return out


def decode(funct: int, rs1: int, rs2: int) -> Command:
    """The command of a custom-3 word; ExecutionError if no encoding has these opcode and constants, or a reserved bit is set."""
    for f in ENCODINGS:
        if f.word.funct7 != funct:
            continue
        values, spare1 = _extract(f.word.rs1, rs1)
        more, spare2 = _extract(f.word.rs2, rs2)
        if values is None or more is None:
            continue
        if spare1 or spare2:
            raise ExecutionError(
                f"{f.command.__name__} (funct {funct}) has reserved bits set: rs1 {spare1:#x}, rs2 {spare2:#x}",
                hint="clear them; the fields of each word are listed in sim/gemmini/words.py",
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
