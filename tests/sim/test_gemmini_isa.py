"""Gemmini's words: round trips, the machine's own declarations, and values worked out by hand."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.hw import Bits, RoCC, Steps, load_machine
from tilewright.sim.gemmini import isa, words
from tilewright.util.errors import ExecutionError, MachineError

MACHINE = load_machine("gemmini")


def widths(f: words.Encoding) -> dict[str, int]:
    return {b.value: b.width for b in (*f.word.rs1, *f.word.rs2) if isinstance(b.value, str)}


@st.composite
def commands(draw: st.DrawFn) -> isa.Command:
    f = draw(st.sampled_from(words.ENCODINGS))
    bits = {n: draw(st.integers(0, 2**w - 1)) for n, w in widths(f).items()}
    values = {}
    for field in fields(f.command):
        if field.name in dict(f.fixed):
            values[field.name] = dict(f.fixed)[field.name]
        elif field.name in bits:
            values[field.name] = bits[field.name]
        else:
            values[field.name] = isa.Tile(*(bits[f"{field.name}.{n}"] for n in ("address", "cols", "rows")))
    return f.command(**values)


@given(commands())
def test_decode_undoes_encode(command: isa.Command) -> None:
    assert words.decode(*words.encode(command)) == command


@given(st.sampled_from([f.word.funct7 for f in words.ENCODINGS]), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_what_decodes_encodes_to_the_same_word(funct: int, rs1: int, rs2: int) -> None:
    try:
        command = words.decode(funct, rs1, rs2)
    except ExecutionError as error:
        assert "reserved bits" in str(error)
    else:
        assert words.encode(command) == (funct, rs1, rs2)


def test_no_two_encodings_claim_the_same_word() -> None:
    constants = [(f.word.funct7, tuple((b.lo, b.value) for b in f.word.rs1 if isinstance(b.value, int))) for f in words.ENCODINGS]
    assert len(set(constants)) == len(constants)
    for f in words.ENCODINGS:
        for register in (f.word.rs1, f.word.rs2):
            covered = [i for b in register for i in range(b.lo, b.lo + b.width)]
            assert len(covered) == len(set(covered)) and max(covered, default=0) < 64


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (isa.Mvin(0x8000_1000, isa.Tile(0x20, 16, 7)), (2, 0x8000_1000, 7 << 48 | 16 << 32 | 0x20)),
        (isa.Mvin(0, isa.Tile(isa.accumulator(3, accumulate=True), 16, 16), 2), (14, 0, 16 << 48 | 16 << 32 | 3 << 30 | 3)),
        (isa.Mvout(64, isa.Tile(isa.accumulator(3, full=True), 4, 2)), (3, 64, 2 << 48 | 4 << 32 | 0b101 << 29 | 3)),
        (isa.ConfigLd(512, mvin=1, block_stride=16), (0, 0x3F800000 << 32 | 16 << 16 | 1 << 8 | 1 << 3 | 1, 512)),
        (isa.ConfigEx(activation=1, a_stride=2, c_stride=3, shift=4), (0, 0x3F800000 << 32 | 2 << 16 | 1 << 3 | 1 << 2, 3 << 48 | 4)),
        (isa.ConfigSt(64, activation=1, acc_scale=isa.f32_bits(0.5)), (0, 1 << 2 | 2, 0x3F000000 << 32 | 64)),
        (isa.LoopBounds(2, 3, 4, 5, 6, 7), (9, 7 << 32 | 6 << 16 | 5, 4 << 32 | 3 << 16 | 2)),
        (isa.LoopWs(accumulate=1, low_d=1, b_transpose=1), (8, 0b101, 0b10)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_words_by_hand(command: isa.Command, word: tuple[int, int, int]) -> None:
    assert words.encode(command) == word


#: Distinct values that fit the widths, for the quantities of the machine's declared words.
EX = {"dataflow": 1, "activation": 1, "a_transpose": 1, "b_transpose": 0, "a_stride": 5, "c_stride": 6, "acc_scale": isa.ONE, "shift": 7}
LD = {"shrunk": 1, "repeats": 3, "block_stride": 4, "scale": 5, "stride": 6}
POOL = {"pool_stride": 2, "pool_size": 3, "upad": 1, "lpad": 3, "pool_out_cols": 9, "porows": 10, "pocols": 11, "orows": 12, "ocols": 255}
ST = {"stride": 9, "activation": 1, "acc_scale": 8, **POOL}
TILES = {f"{o}.{n}": 7 * i + j for i, o in enumerate(("src", "dst", "a", "b", "c")) for j, n in enumerate(("address", "cols", "rows"))}


def declared(name: str) -> tuple[RoCC, ...]:
    item = next(i for i in (*MACHINE.instructions, *MACHINE.transfers) if i.name == name)
    emit = getattr(item, "instruction", item).emit
    return emit.steps if isinstance(emit, Steps) else (emit,)  # type: ignore[return-value]


def tile(operand: str, flags: int = 0) -> isa.Tile:
    return isa.Tile(*(TILES[f"{operand}.{n}"] + (flags if n == "address" else 0) for n in ("address", "cols", "rows")))


@pytest.mark.parametrize(
    ("name", "quantities", "expected"),
    [
        ("config_ex", EX, [isa.ConfigEx(**EX)]),
        ("config_ld", LD, [isa.ConfigLd(**LD)]),
        ("config_ld3", LD, [isa.ConfigLd(**LD, mvin=2)]),
        ("config_st", ST, [isa.ConfigSt(**ST)]),
        ("mvin", TILES, [isa.Mvin(TILES["src.address"], tile("dst"))]),
        ("mvin_acc", TILES, [isa.Mvin(TILES["src.address"], tile("dst", isa.ACCUMULATOR))]),
        ("mvout", TILES, [isa.Mvout(TILES["dst.address"], tile("src", isa.ACCUMULATOR))]),
        ("mvout_full", TILES, [isa.Mvout(TILES["dst.address"], tile("src", isa.ACCUMULATOR | isa.FULL))]),
        ("mvout_spad", TILES, [isa.Mvout(TILES["dst.address"], tile("src"))]),
        (
            "matmul",
            {**TILES, "accumulate": 1},
            [
                isa.Preload(tile("b"), tile("c", isa.ACCUMULATOR | isa.ACCUMULATE)),
                isa.Compute(tile("a"), isa.Tile(isa.GARBAGE, TILES["c.cols"], TILES["c.rows"])),
            ],
        ),
    ],
)
def test_the_declared_machine_emits_these_words(name: str, quantities: dict[str, int], expected: list[isa.Command]) -> None:
    assert [words.decode(w.funct7, *w.registers(quantities)) for w in declared(name)] == expected


def test_what_has_no_word_is_refused() -> None:
    with pytest.raises(MachineError, match="no custom-3 word"):
        words.encode(isa.Fence())
    with pytest.raises(MachineError, match=r"i = 65536 does not fit bits \[15:0\]"):
        words.encode(isa.LoopBounds(1 << 16, 1, 1))
    with pytest.raises(ExecutionError, match="funct 33 with rs1 0x0 is no Gemmini command"):
        words.decode(33, 0, 0)
    with pytest.raises(ExecutionError, match=r"LoopWs \(funct 8\) has reserved bits set: rs1 0x0, rs2 0x4"):
        words.decode(8, 0, 4)


def test_commands_print_their_fields() -> None:
    mvin = isa.Mvin(0x1000, isa.Tile(isa.accumulator(32, accumulate=True), 16, 4), 1)
    assert str(mvin) == "Mvin address=0x1000 local=acc+[32] 4x16 mvin=1"
    assert str(isa.Preload(isa.Tile(isa.GARBAGE, 16, 16), isa.Tile(5, 1, 2))) == "Preload bd=none 16x16 c=spad[5] 2x1"
    assert isinstance(words.ENCODINGS[0].word.rs1[0], Bits)
