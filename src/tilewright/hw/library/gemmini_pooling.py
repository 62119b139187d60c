"""Gemmini's pooled stores: what leaves the accumulator is the largest of each window of pixels, one row of them at a time."""

# The annotations of instructions are declarations, not Python types.
# mypy: disable-error-code="valid-type,no-untyped-def,operator,arg-type"
from __future__ import annotations

from typing import Any

from tilewright.hw.axis import axes, upto
from tilewright.hw.constraint import extent, require, stride
from tilewright.hw.emit import RoCC
from tilewright.hw.form import Part
from tilewright.hw.instruction import instruction
from tilewright.hw.state import Need, State, needs
from tilewright.hw.transfer import Transfer, transfer
from tilewright.ir.types import f32, i8, i32
from tilewright.lang import cast

DRAM, ACC = "dram", "acc"
#: 1.0 as the bits of an f32; the largest window, and the largest number of columns, that the fields of the state take.
ONE, WINDOW, COLUMNS = 0x3F800000, 3, 255
#: Pixels outside the image are zeros to the hardware: they have no part in a maximum of numbers that are not negative.
PADDED = (("src", 0), ("src", 1))


def pooled_stores(dim: int, lines: int, st: State, emit: RoCC, cost: dict[str, Any]) -> list[Transfer]:
    """Rows of windows 1 to 3 pixels apart, of an image that takes at most ``lines`` of the accumulator for a window's rows."""
    reach = min(COLUMNS, lines // WINDOW)
    return [t for step in (1, 2, 3) if reach >= WINDOW for t in _pooled(dim, reach, step, st, emit, cost)]


def _needed(st: State, step: int, activation: int, scale: int | str) -> Need:
    window: dict[str, int | str] = {"pool_stride": step, "pool_size": "s.extent", "upad": "src.before0", "lpad": "src.before1"}
    pixels: dict[str, int | str] = {"porows": 1, "pocols": "q.extent", "orows": "src.inside0", "ocols": "src.pitch"}
    return needs(st, activation=activation, acc_scale=scale, stride="dst.stride", **window, **pixels)


def _pooled(dim: int, reach: int, step: int, st: State, emit: RoCC, cost: dict[str, Any]) -> list[Transfer]:
    """Saturated; rectified; scaled; both. Rows of an image follow each other in the accumulator."""
    most = (reach - WINDOW) // step + 1
    plain, rectified = (_needed(st, step, activation, ONE) for activation in (0, 1))
    scaled, both = (_needed(st, step, activation, "scale.bits") for activation in (0, 1))

    @transfer(name=f"mvout_pooled{step}", **cost, needs=plain, emit=emit, replaces=True)
    def mvout_pooled(dst: i8[most, dim] @ DRAM, src: i32[WINDOW, reach, dim] @ ACC):
        q, j, r, s = axes(upto(most), upto(dim), upto(WINDOW), upto(WINDOW))
        require(stride(dst, 1) == 1)
        require(stride(src, 1) == dim)
        require(extent(r) == extent(s))
        dst[q, j] = max(dst[q, j], cast(min(max(src[r, q * step + s, j], -128), 127), i8))

    @transfer(name=f"mvout_pooled{step}_relu", **cost, needs=rectified, emit=emit, replaces=True, around=PADDED)
    def mvout_pooled_relu(dst: i8[most, dim] @ DRAM, src: i32[WINDOW, reach, dim] @ ACC):
        q, j, r, s = axes(upto(most), upto(dim), upto(WINDOW), upto(WINDOW))
        require(stride(dst, 1) == 1)
        require(stride(src, 1) == dim)
        require(extent(r) == extent(s))
        dst[q, j] = max(dst[q, j], cast(min(max(src[r, q * step + s, j], 0), 127), i8))

    @transfer(name=f"mvout_pooled{step}_scaled", **cost, needs=scaled, emit=emit, replaces=True)
    def mvout_pooled_scaled(dst: i8[most, dim] @ DRAM, src: i32[WINDOW, reach, dim] @ ACC, scale: f32 @ DRAM):
        q, j, r, s = axes(upto(most), upto(dim), upto(WINDOW), upto(WINDOW))
        require(stride(dst, 1) == 1)
        require(stride(src, 1) == dim)
        require(extent(r) == extent(s))
        dst[q, j] = max(dst[q, j], cast(min(max(round(cast(src[r, q * step + s, j], f32) * scale), -128), 127), i8))

    @transfer(name=f"mvout_pooled{step}_scaled_relu", **cost, needs=both, emit=emit, replaces=True, around=PADDED)
    def mvout_pooled_scaled_relu(dst: i8[most, dim] @ DRAM, src: i32[WINDOW, reach, dim] @ ACC, scale: f32 @ DRAM):
        q, j, r, s = axes(upto(most), upto(dim), upto(WINDOW), upto(WINDOW))
        require(stride(dst, 1) == 1)
        require(stride(src, 1) == dim)
        require(extent(r) == extent(s))
        dst[q, j] = max(dst[q, j], cast(min(max(round(cast(src[r, q * step + s, j], f32) * scale), 0), 127), i8))

    return [mvout_pooled, mvout_pooled_relu, mvout_pooled_scaled, mvout_pooled_scaled_relu]


#: Of a tile of ``loop_conv_ws``: rows and columns of results around it are zeros.
AROUND_TILE = (("sums", 1, 0), ("sums", 2, 0))


def pooled_finishes(step: int, st: State) -> tuple[Part, ...]:
    """What ``loop_conv_ws`` may do last: windows ``step`` pixels apart of the sums saturated; rectified; scaled; both."""
    most, wide = 1 << 8, 1 << 10
    reach = most * step + WINDOW
    edges = tuple((operand, d) for operand, d, _ in AROUND_TILE)

    def needed(activation: int, scale: int | str) -> Need:
        return needs(st, acc_scale=scale, activation=activation, pool_stride=0, pool_size=0, stride="out.stride")

    @instruction(name=f"pooled{step}", needs=needed(0, ONE), replaces=True)
    def saturated(out: i8[wide, most, most, wide] @ DRAM, sums: i32[wide, reach, reach, wide] @ ACC):
        n, y, x, k, u, v = axes(upto(wide), upto(most), upto(most), upto(wide), upto(WINDOW), upto(WINDOW))
        require(stride(out, 3) == 1)
        require(extent(u) == extent(v))
        out[n, y, x, k] = max(out[n, y, x, k], cast(min(max(sums[n, y * step + u, x * step + v, k], -128), 127), i8))

    @instruction(name=f"pooled{step}_relu", needs=needed(1, ONE), replaces=True, around=edges)
    def rectified(out: i8[wide, most, most, wide] @ DRAM, sums: i32[wide, reach, reach, wide] @ ACC):
        n, y, x, k, u, v = axes(upto(wide), upto(most), upto(most), upto(wide), upto(WINDOW), upto(WINDOW))
        require(stride(out, 3) == 1)
        require(extent(u) == extent(v))
        out[n, y, x, k] = max(out[n, y, x, k], cast(min(max(sums[n, y * step + u, x * step + v, k], 0), 127), i8))

    @instruction(name=f"pooled{step}_scaled", needs=needed(0, "scale.bits"), replaces=True)
    def scaled(out: i8[wide, most, most, wide] @ DRAM, sums: i32[wide, reach, reach, wide] @ ACC, scale: f32 @ DRAM):
        n, y, x, k, u, v = axes(upto(wide), upto(most), upto(most), upto(wide), upto(WINDOW), upto(WINDOW))
        require(stride(out, 3) == 1)
        require(extent(u) == extent(v))
        out[n, y, x, k] = max(
            out[n, y, x, k], cast(min(max(round(cast(sums[n, y * step + u, x * step + v, k], f32) * scale), -128), 127), i8)
        )

    @instruction(name=f"pooled{step}_scaled_relu", needs=needed(1, "scale.bits"), replaces=True, around=edges)
    def scaled_rectified(out: i8[wide, most, most, wide] @ DRAM, sums: i32[wide, reach, reach, wide] @ ACC, scale: f32 @ DRAM):
        n, y, x, k, u, v = axes(upto(wide), upto(most), upto(most), upto(wide), upto(WINDOW), upto(WINDOW))
        require(stride(out, 3) == 1)
        require(extent(u) == extent(v))
        out[n, y, x, k] = max(out[n, y, x, k], cast(min(max(round(cast(sums[n, y * step + u, x * step + v, k], f32) * scale), 0), 127), i8))

    pool = (("no_pool", 0), ("pool_stride", step))
    relu = (*pool, ("activation", 1))
    return (
        Part(saturated, pool),
        Part(rectified, relu, around=AROUND_TILE),
        Part(scaled, pool),
        Part(scaled_rectified, relu, around=AROUND_TILE),
    )
