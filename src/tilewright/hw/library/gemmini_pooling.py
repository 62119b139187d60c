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
#: Least number that leaves the accumulator: as saturated, or as rectified (activation 1). Pixels outside the image are zeros to
#: the hardware: they have no part in a maximum of rectified numbers only.
SATURATED, RECTIFIED = -128, 0


def pooled_stores(dim: int, lines: int, st: State, emit: RoCC, cost: dict[str, Any]) -> list[Transfer]:
    """Rows of windows 1 to 3 pixels apart, of an image that takes at most ``lines`` of the accumulator for a window's rows.

    At each distance: saturated; rectified; scaled; both.
    """
    reach = min(COLUMNS, lines // WINDOW)
    steps = (1, 2, 3) if reach >= WINDOW else ()
    shared = {**cost, "emit": emit, "replaces": True}
    pairs = [[_stores(dim, reach, step, least, st, shared) for least in (SATURATED, RECTIFIED)] for step in steps]
    return [t for least in pairs for scaling in zip(*least, strict=True) for t in scaling]


def _stores(dim: int, reach: int, step: int, least: int, st: State, shared: dict[str, Any]) -> tuple[Transfer, Transfer]:
    """As they are, and scaled; rows of an image follow each other in the accumulator."""
    most = (reach - WINDOW) // step + 1
    relu = "_relu" if least == RECTIFIED else ""
    zeros = (("src", 0), ("src", 1)) if least == RECTIFIED else ()

    def needed(scale: int | str) -> Need:
        window: dict[str, int | str] = {"pool_stride": step, "pool_size": "s.extent", "upad": "src.before0", "lpad": "src.before1"}
        pixels: dict[str, int | str] = {"porows": 1, "pocols": "q.extent", "orows": "src.inside0", "ocols": "src.pitch"}
        return needs(st, activation=int(least == RECTIFIED), acc_scale=scale, stride="dst.stride", **window, **pixels)

    @transfer(name=f"mvout_pooled{step}{relu}", **shared, needs=needed(ONE), around=zeros)
    def plain(dst: i8[most, dim] @ DRAM, src: i32[WINDOW, reach, dim] @ ACC):
        q, j, r, s = axes(upto(most), upto(dim), upto(WINDOW), upto(WINDOW))
        require(stride(dst, 1) == 1)
        require(stride(src, 1) == dim)
        require(extent(r) == extent(s))
        dst[q, j] = max(dst[q, j], cast(min(max(src[r, q * step + s, j], least), 127), i8))

    @transfer(name=f"mvout_pooled{step}_scaled{relu}", **shared, needs=needed("scale.bits"), around=zeros)
    def scaled(dst: i8[most, dim] @ DRAM, src: i32[WINDOW, reach, dim] @ ACC, scale: f32 @ DRAM):
        q, j, r, s = axes(upto(most), upto(dim), upto(WINDOW), upto(WINDOW))
        require(stride(dst, 1) == 1)
        require(stride(src, 1) == dim)
        require(extent(r) == extent(s))
        dst[q, j] = max(dst[q, j], cast(min(max(round(cast(src[r, q * step + s, j], f32) * scale), least), 127), i8))

    return plain, scaled


def pooled_finishes(step: int, st: State) -> tuple[Part, ...]:
    """What ``loop_conv_ws`` may do last: windows ``step`` pixels apart of the sums saturated; rectified; scaled; both."""
    pairs = [_finishes(step, least, st) for least in (SATURATED, RECTIFIED)]
    return tuple(p for scaling in zip(*pairs, strict=True) for p in scaling)


def _finishes(step: int, least: int, st: State) -> tuple[Part, Part]:
    """As they are, and scaled. Rows and columns of results around a tile of rectified ones are zeros."""
    most, wide = 1 << 8, 1 << 10
    reach = most * step + WINDOW
    relu, activation = ("_relu", 1) if least == RECTIFIED else ("", 0)
    zeros = (("sums", 1), ("sums", 2)) if least == RECTIFIED else ()

    def needed(scale: int | str) -> Need:
        return needs(st, acc_scale=scale, activation=activation, pool_stride=0, pool_size=0, stride="out.stride")

    @instruction(name=f"pooled{step}{relu}", needs=needed(ONE), replaces=True, around=zeros)
    def plain(out: i8[wide, most, most, wide] @ DRAM, sums: i32[wide, reach, reach, wide] @ ACC):
        n, y, x, k, u, v = axes(upto(wide), upto(most), upto(most), upto(wide), upto(WINDOW), upto(WINDOW))
        require(stride(out, 3) == 1)
        require(extent(u) == extent(v))
        out[n, y, x, k] = max(out[n, y, x, k], cast(min(max(sums[n, y * step + u, x * step + v, k], least), 127), i8))

    @instruction(name=f"pooled{step}_scaled{relu}", needs=needed("scale.bits"), replaces=True, around=zeros)
    def scaled(out: i8[wide, most, most, wide] @ DRAM, sums: i32[wide, reach, reach, wide] @ ACC, scale: f32 @ DRAM):
        n, y, x, k, u, v = axes(upto(wide), upto(most), upto(most), upto(wide), upto(WINDOW), upto(WINDOW))
        require(stride(out, 3) == 1)
        require(extent(u) == extent(v))
        out[n, y, x, k] = max(
            out[n, y, x, k], cast(min(max(round(cast(sums[n, y * step + u, x * step + v, k], f32) * scale), least), 127), i8)
        )

    fields = (("no_pool", 0), ("pool_stride", step), *((("activation", activation),) if activation else ()))
    around = tuple((operand, d, 0) for operand, d in zeros)
    return Part(plain, fields, around), Part(scaled, fields, around)
