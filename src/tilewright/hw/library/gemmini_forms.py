"""Gemmini's loop commands as forms: what ``loop_ws`` and ``loop_conv_ws`` compute, their words, and the lines that they take."""

# The annotations of instructions are declarations, not Python types.
# mypy: disable-error-code="valid-type,no-untyped-def,operator,name-defined"
from __future__ import annotations

from collections.abc import Mapping

from tilewright.hw.axis import axes, upto
from tilewright.hw.constraint import require, stride
from tilewright.hw.emit import Bits, RoCC
from tilewright.hw.form import LoopForm, Part
from tilewright.hw.instruction import instruction
from tilewright.hw.library.gemmini_pooling import pooled_finishes
from tilewright.hw.library.gemmini_types import Types
from tilewright.hw.state import Need, State, needs
from tilewright.ir.types import f32

DRAM, ACC = "dram", "acc"
#: 1.0 as the bits of an f32, and the largest number in a 16-bit field.
ONE, MOST = 0x3F800000, 0xFFFF


def loop_ws(dim: int, ex: State, ld: tuple[State, ...], st: State, types: Types) -> LoopForm:
    """C = A B + D on blocks of ``dim``: A and B in the scratchpad, sums in the accumulator; funct 8 to 13."""

    def loading(channel: int, pitch: str | int) -> Need:
        return needs(ld[channel], stride=pitch, block_stride=dim, scale=types.unscaled, shrunk=0, repeats=1)

    def multiplying(transposed: int) -> tuple[Need, ...]:
        modes = needs(ex, dataflow=1, activation=0, a_transpose=0, b_transpose=transposed, a_stride=1, c_stride=1)
        return modes, loading(0, "a.stride"), loading(1, "b.stride")

    def blocks(n: int) -> int:
        return -(-n // dim)

    most, element, total = MOST * dim, types.inputs, types.sums

    @instruction(needs=multiplying(0))
    def product(sums: total[most, most] @ ACC, a: element[most, most] @ DRAM, b: element[most, most] @ DRAM):
        i, j, k = axes(upto(most), upto(most), upto(most))
        require(stride(a, 1) == 1)
        require(stride(b, 1) == 1)
        sums[i, j] += types.product(a[i, k], b[k, j])

    @instruction(needs=multiplying(1))
    def product_by_rows(sums: total[most, most] @ ACC, a: element[most, most] @ DRAM, b: element[most, most] @ DRAM):
        i, j, k = axes(upto(most), upto(most), upto(most))
        require(stride(a, 1) == 1)
        require(stride(b, 1) == 1)
        sums[i, j] += types.product(a[i, k], b[j, k])

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
        _starts(most, dim, ld[2], types),
        (Part(product), Part(product_by_rows, (("b_transpose", 1),))),
        _finishes(most, st, types),
        words,
        block=(("i", dim), ("j", dim), ("k", dim)),
        lines=(
            ("spad", lambda n: (blocks(n["i"]) + blocks(n["j"])) * blocks(n["k"]) * dim),
            ("acc", lambda n: blocks(n["i"]) * blocks(n["j"]) * dim),
        ),
        idle=(("accumulate", 1), ("b_transpose", 0), *((n, 0) for n in ("d", "d_pitch", "c", "c_pitch", "full_c", "activation"))),
    )


def _three(*names: str) -> tuple[Bits, ...]:
    return tuple(Bits(16 * n, 16, name) for n, name in enumerate(names))


def _starts(most: int, dim: int, ld: State, types: Types) -> tuple[Part, ...]:
    """Zeros; a row of D for all rows; D."""
    total = types.sums

    @instruction()
    def zeros(sums: total[most, most] @ ACC):
        i, j = axes(upto(most), upto(most))
        sums[i, j] = 0

    @instruction(needs=needs(ld, stride=0, block_stride=dim, scale=types.unscaled, shrunk=0, repeats=1))
    def row(sums: total[most, most] @ ACC, d: total[most] @ DRAM):
        i, j = axes(upto(most), upto(most))
        require(stride(d, 0) == 1)
        sums[i, j] = d[j]

    @instruction(needs=needs(ld, stride="d.stride", block_stride=dim, scale=types.unscaled, shrunk=0, repeats=1))
    def rows(sums: total[most, most] @ ACC, d: total[most, most] @ DRAM):
        i, j = axes(upto(most), upto(most))
        require(stride(d, 1) == 1)
        sums[i, j] = d[i, j]

    return Part(zeros, (("accumulate", 0),)), Part(row), Part(rows)


def _finishes(most: int, st: State, types: Types) -> tuple[Part, ...]:
    """Saturated; rectified; scaled; both; and, where they are wider than inputs, sums as they are."""
    element, total = types.inputs, types.sums

    @instruction(needs=needs(st, acc_scale=ONE, activation=0, pool_stride=0, pool_size=0, stride="c.stride"))
    def saturated(c: element[most, most] @ DRAM, sums: total[most, most] @ ACC):
        i, j = axes(upto(most), upto(most))
        require(stride(c, 1) == 1)
        c[i, j] = types.stored(sums[i, j])

    @instruction(needs=needs(st, acc_scale=ONE, activation=1, pool_stride=0, pool_size=0, stride="c.stride"))
    def rectified(c: element[most, most] @ DRAM, sums: total[most, most] @ ACC):
        i, j = axes(upto(most), upto(most))
        require(stride(c, 1) == 1)
        c[i, j] = types.stored(sums[i, j], 1)

    @instruction(needs=needs(st, acc_scale="scale.bits", activation=0, pool_stride=0, pool_size=0, stride="c.stride"))
    def scaled(c: element[most, most] @ DRAM, sums: total[most, most] @ ACC, scale: f32 @ DRAM):
        i, j = axes(upto(most), upto(most))
        require(stride(c, 1) == 1)
        c[i, j] = types.scaled(sums[i, j], scale)

    @instruction(needs=needs(st, acc_scale="scale.bits", activation=1, pool_stride=0, pool_size=0, stride="c.stride"))
    def scaled_rectified(c: element[most, most] @ DRAM, sums: total[most, most] @ ACC, scale: f32 @ DRAM):
        i, j = axes(upto(most), upto(most))
        require(stride(c, 1) == 1)
        c[i, j] = types.scaled(sums[i, j], scale, 1)

    @instruction(needs=needs(st, acc_scale=ONE, activation=0, pool_stride=0, pool_size=0, stride="c.stride"))
    def full(c: total[most, most] @ DRAM, sums: total[most, most] @ ACC):
        i, j = axes(upto(most), upto(most))
        require(stride(c, 1) == 1)
        c[i, j] = sums[i, j]

    relu = (("activation", 1),)
    narrow = Part(saturated), Part(rectified, relu), Part(scaled), Part(scaled_rectified, relu)
    return (*narrow, Part(full, (("full_c", 1),))) if types.mixed else narrow


def loop_conv_ws(dim: int, ex: State, ld: tuple[State, ...], st: State, types: Types) -> LoopForm:
    """A convolution of images with the channels last, zeros around them, strides of 1 to 3, pooled or not; funct 15 to 21."""
    most = 1 << 10

    def inputs(extent: int, kernel: int, stride: int) -> int:
        return extent * stride + kernel - 1

    def rows(n: Mapping[str, int]) -> int:
        image = n["n"] * inputs(n["p"], n["r"], n["stride"]) * inputs(n["q"], n["s"], n["stride"])
        return -(-n["c"] // dim) * image + -(-n["k"] // dim) * n["r"] * n["s"] * n["c"]

    beyond = (Bits(10, 11, "sums_after1"), Bits(21, 11, "sums_before1"), Bits(32, 16, "sums_after2"))
    fixed = (("shape", 16), ("tile", 17), ("kernel", 18), ("output", 19), ("weights", 20), ("images", 21), ("run", 15))
    registers = (
        (_four("n_extent", "x_size1", "w_size2", "w_pitch"), (*_three("out_size1", "out_size1", "out_size2"), Bits(48, 8, "stride"))),
        (
            (Bits(8, 8, "pool_stride"), Bits(16, 16, "v_extent"), Bits(32, 16, "out_size2"), Bits(48, 16, "w_size1")),
            _four("k_extent", "out_extent2", "out_extent1", "n_extent"),
        ),
        (
            _four("x_before2", "c_extent", "s_extent", "r_extent"),
            (
                Bits(0, 16, "x_size2"),
                Bits(16, 8, "sums_before2"),
                Bits(24, 8, "x_after1"),
                Bits(32, 16, "x_before1"),
                Bits(48, 16, "x_after2"),
            ),
        ),
        ((Bits(0, 10, 1), *beyond, Bits(48, 16, "p_extent")), _four("q_extent", "out_pitch", "w_pitch", "x_pitch")),
        ((Bits(0, 64, "w.address"),), (Bits(0, 64, "out.address"),)),
        ((Bits(0, 64, "d.address"),), (Bits(0, 64, "x.address"),)),
        ((Bits(0, 1, "no_bias"), Bits(8, 8, "pixels")), (Bits(0, 1, "no_pool"), Bits(3, 2, "activation"))),
    )
    words = tuple(RoCC(funct, *r, name=name) for (name, funct), r in zip(fixed, registers, strict=True))
    return LoopForm(
        "loop_conv_ws",
        "sums",
        _conv_starts(most, types),
        tuple(_convolution(most, stride, ex, types) for stride in (1, 2, 3)),
        (*_conv_finishes(most, st, types), *(p for step in (1, 2, 3) for p in pooled_finishes(step, st, types))),
        words,
        block=(),
        lines=(("spad", rows), ("acc", lambda n: -(-n["k"] // dim) * n["n"] * n["p"] * n["q"])),
        idle=(
            ("stride", 1),
            ("no_pool", 1),
            ("pool_stride", 0),
            *((n, 0) for n in ("no_bias", "d", "out", "out_pitch", "out_size1", "out_size2", "activation")),
        ),
        # A row of the scratchpad has the channels of as many neighbours as fit.
        ways=(("pixels", lambda n: max(1, min(dim // n.get("c", dim), n.get("s", 1)))),),
        clobbers=tuple(s.name for s in ld),
    )


def _four(*names: str) -> tuple[Bits, ...]:
    return tuple(Bits(16 * n, 16, name) for n, name in enumerate(names))


def _convolution(most: int, step: int, ex: State, types: Types) -> Part:
    """Images move by ``step`` for each output; the array reads every ``step``-th of their columns."""
    element, total = types.inputs, types.sums
    reach = most * step + most
    modes = needs(ex, dataflow=1, activation=0, a_transpose=0, b_transpose=0, a_stride=step, c_stride=1)

    @instruction(name=f"convolution.{step}", needs=modes)
    def convolution(
        sums: total[most, most, most, most] @ ACC, x: element[most, reach, reach, most] @ DRAM, w: element[most, most, most, most] @ DRAM
    ):
        n, p, q, k, r, s, c = axes(upto(most), upto(most), upto(most), upto(most), upto(most), upto(most), upto(most))
        require(stride(x, 3) == 1)
        require(stride(w, 3) == 1)
        sums[n, p, q, k] += types.product(x[n, p * step + r, q * step + s, c], w[r, s, c, k])

    return Part(convolution, (("stride", step),), around=(("x", 1, step - 1), ("x", 2, step - 1)))


def _conv_starts(most: int, types: Types) -> tuple[Part, ...]:
    """Zeros: no bias, from an address that is not 0. Or one bias for each channel."""
    total = types.sums

    @instruction()
    def zeros(sums: total[most, most, most, most] @ ACC):
        n, p, q, k = axes(upto(most), upto(most), upto(most), upto(most))
        sums[n, p, q, k] = 0

    @instruction()
    def biases(sums: total[most, most, most, most] @ ACC, d: total[most] @ DRAM):
        n, p, q, k = axes(upto(most), upto(most), upto(most), upto(most))
        require(stride(d, 0) == 1)
        sums[n, p, q, k] = d[k]

    return Part(zeros, (("no_bias", 1), ("d", 1))), Part(biases)


def _conv_finishes(most: int, st: State, types: Types) -> tuple[Part, ...]:
    """Saturated; rectified; scaled; both."""
    element, total = types.inputs, types.sums

    @instruction(needs=needs(st, acc_scale=ONE, activation=0, pool_stride=0, pool_size=0, stride="out.stride"))
    def saturated(out: element[most, most, most, most] @ DRAM, sums: total[most, most, most, most] @ ACC):
        n, p, q, k = axes(upto(most), upto(most), upto(most), upto(most))
        require(stride(out, 3) == 1)
        out[n, p, q, k] = types.stored(sums[n, p, q, k])

    @instruction(needs=needs(st, acc_scale=ONE, activation=1, pool_stride=0, pool_size=0, stride="out.stride"))
    def rectified(out: element[most, most, most, most] @ DRAM, sums: total[most, most, most, most] @ ACC):
        n, p, q, k = axes(upto(most), upto(most), upto(most), upto(most))
        require(stride(out, 3) == 1)
        out[n, p, q, k] = types.stored(sums[n, p, q, k], 1)

    @instruction(needs=needs(st, acc_scale="scale.bits", activation=0, pool_stride=0, pool_size=0, stride="out.stride"))
    def scaled(out: element[most, most, most, most] @ DRAM, sums: total[most, most, most, most] @ ACC, scale: f32 @ DRAM):
        n, p, q, k = axes(upto(most), upto(most), upto(most), upto(most))
        require(stride(out, 3) == 1)
        out[n, p, q, k] = types.scaled(sums[n, p, q, k], scale)

    @instruction(needs=needs(st, acc_scale="scale.bits", activation=1, pool_stride=0, pool_size=0, stride="out.stride"))
    def scaled_rectified(out: element[most, most, most, most] @ DRAM, sums: total[most, most, most, most] @ ACC, scale: f32 @ DRAM):
        n, p, q, k = axes(upto(most), upto(most), upto(most), upto(most))
        require(stride(out, 3) == 1)
        out[n, p, q, k] = types.scaled(sums[n, p, q, k], scale, 1)

    relu = (("activation", 1),)
    return Part(saturated), Part(rectified, relu), Part(scaled), Part(scaled_rectified, relu)
