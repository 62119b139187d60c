"""Gemmini's loop commands as forms: what ``loop_ws`` computes, its words, and the halves of the memories that it takes."""

# The annotations of instructions are declarations, not Python types.
# mypy: disable-error-code="valid-type,no-untyped-def"
from __future__ import annotations

from tilewright.hw.axis import axes, upto
from tilewright.hw.constraint import require, stride
from tilewright.hw.emit import Bits, RoCC
from tilewright.hw.form import LoopForm, Part
from tilewright.hw.instruction import instruction
from tilewright.hw.state import Need, State, needs
from tilewright.ir.types import f32, i8, i32
from tilewright.lang import cast

DRAM, ACC = "dram", "acc"
#: 1.0 as the bits of an f32, and the largest number in a 16-bit field.
ONE, MOST = 0x3F800000, 0xFFFF


def loop_ws(dim: int, ex: State, ld: tuple[State, ...], st: State) -> LoopForm:
    """C = A B + D on blocks of ``dim``: A and B in the scratchpad, sums in the accumulator; funct 8 to 13."""

    def loading(channel: int, pitch: str | int) -> Need:
        return needs(ld[channel], stride=pitch, block_stride=dim, scale=ONE, shrunk=0, repeats=1)

    def multiplying(transposed: int) -> tuple[Need, ...]:
        modes = needs(ex, dataflow=1, activation=0, a_transpose=0, b_transpose=transposed, a_stride=1, c_stride=1)
        return modes, loading(0, "a.stride"), loading(1, "b.stride")

    most = MOST * dim

    @instruction(needs=multiplying(0))
    def product(sums: i32[most, most] @ ACC, a: i8[most, most] @ DRAM, b: i8[most, most] @ DRAM):
        i, j, k = axes(upto(most), upto(most), upto(most))
        require(stride(a, 1) == 1)
        require(stride(b, 1) == 1)
        sums[i, j] += a[i, k] * b[k, j]

    @instruction(needs=multiplying(1))
    def product_by_rows(sums: i32[most, most] @ ACC, a: i8[most, most] @ DRAM, b: i8[most, most] @ DRAM):
        i, j, k = axes(upto(most), upto(most), upto(most))
        require(stride(a, 1) == 1)
        require(stride(b, 1) == 1)
        sums[i, j] += a[i, k] * b[j, k]

    words = (
        RoCC(9, _three("i_pad", "j_pad", "k_pad"), _three("i_blocks", "j_blocks", "k_blocks"), name="bounds"),
        RoCC(10, (Bits(0, 64, "a.address"),), (Bits(0, 64, "b.address"),), name="inputs"),
        RoCC(11, (Bits(0, 64, "d.address"),), (Bits(0, 64, "c.address"),), name="results"),
        RoCC(12, (Bits(0, 64, "a_pitch"),), (Bits(0, 64, "b_pitch"),), name="input_pitches"),
        RoCC(13, (Bits(0, 64, "d_pitch"),), (Bits(0, 64, "c_pitch"),), name="result_pitches"),
        RoCC(8, (Bits(0, 1, "accumulate"), Bits(1, 1, "full_c"), Bits(8, 3, "activation")), (Bits(1, 1, "b_transpose"),), name="run"),
    )
    return LoopForm(
        "loop_ws",
        "sums",
        _starts(most, dim, ld[2]),
        (Part(product), Part(product_by_rows, (("b_transpose", 1),))),
        _finishes(most, st),
        words,
        block=(("i", dim), ("j", dim), ("k", dim)),
        lines=(
            ("spad", lambda n: (n["i"] * n["k"] + n["k"] * n["j"]) * dim),
            ("acc", lambda n: n["i"] * n["j"] * dim),
        ),
        idle=(("accumulate", 1), ("b_transpose", 0), *((n, 0) for n in ("d", "d_pitch", "c", "c_pitch", "full_c", "activation"))),
    )


def _three(*names: str) -> tuple[Bits, ...]:
    return tuple(Bits(16 * n, 16, name) for n, name in enumerate(names))


def _starts(most: int, dim: int, ld: State) -> tuple[Part, ...]:
    """Zeros; a row of D for all rows; D."""

    @instruction()
    def zeros(sums: i32[most, most] @ ACC):
        i, j = axes(upto(most), upto(most))
        sums[i, j] = 0

    @instruction(needs=needs(ld, stride=0, block_stride=dim, scale=ONE, shrunk=0, repeats=1))
    def row(sums: i32[most, most] @ ACC, d: i32[most] @ DRAM):
        i, j = axes(upto(most), upto(most))
        require(stride(d, 0) == 1)
        sums[i, j] = d[j]

    @instruction(needs=needs(ld, stride="d.stride", block_stride=dim, scale=ONE, shrunk=0, repeats=1))
    def rows(sums: i32[most, most] @ ACC, d: i32[most, most] @ DRAM):
        i, j = axes(upto(most), upto(most))
        require(stride(d, 1) == 1)
        sums[i, j] = d[i, j]

    return Part(zeros, (("accumulate", 0),)), Part(row), Part(rows)


def _finishes(most: int, st: State) -> tuple[Part, ...]:
    """Saturated; rectified; scaled; both; all 32 bits."""

    @instruction(needs=needs(st, acc_scale=ONE, activation=0, pool=0, stride="c.stride"))
    def saturated(c: i8[most, most] @ DRAM, sums: i32[most, most] @ ACC):
        i, j = axes(upto(most), upto(most))
        require(stride(c, 1) == 1)
        c[i, j] = cast(min(max(sums[i, j], -128), 127), i8)

    @instruction(needs=needs(st, acc_scale=ONE, activation=1, pool=0, stride="c.stride"))
    def rectified(c: i8[most, most] @ DRAM, sums: i32[most, most] @ ACC):
        i, j = axes(upto(most), upto(most))
        require(stride(c, 1) == 1)
        c[i, j] = cast(min(max(sums[i, j], 0), 127), i8)

    @instruction(needs=needs(st, acc_scale="scale.bits", activation=0, pool=0, stride="c.stride"))
    def scaled(c: i8[most, most] @ DRAM, sums: i32[most, most] @ ACC, scale: f32 @ DRAM):
        i, j = axes(upto(most), upto(most))
        require(stride(c, 1) == 1)
        c[i, j] = cast(min(max(round(cast(sums[i, j], f32) * scale), -128), 127), i8)

    @instruction(needs=needs(st, acc_scale="scale.bits", activation=1, pool=0, stride="c.stride"))
    def scaled_rectified(c: i8[most, most] @ DRAM, sums: i32[most, most] @ ACC, scale: f32 @ DRAM):
        i, j = axes(upto(most), upto(most))
        require(stride(c, 1) == 1)
        c[i, j] = cast(min(max(round(cast(sums[i, j], f32) * scale), 0), 127), i8)

    @instruction(needs=needs(st, acc_scale=ONE, activation=0, pool=0, stride="c.stride"))
    def full(c: i32[most, most] @ DRAM, sums: i32[most, most] @ ACC):
        i, j = axes(upto(most), upto(most))
        require(stride(c, 1) == 1)
        c[i, j] = sums[i, j]

    relu = (("activation", 1),)
    return Part(saturated), Part(rectified, relu), Part(scaled), Part(scaled_rectified, relu), Part(full, (("full_c", 1),))
