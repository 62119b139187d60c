"""Gemmini's pooled stores: what leaves the accumulator is the largest of each window of pixels, one row of them at a time."""

# The annotations of instructions are declarations, not Python types.
# mypy: disable-error-code="valid-type,no-untyped-def,operator,arg-type,name-defined"
from __future__ import annotations

from typing import Any

from tilewright.hw.axis import axes, upto
from tilewright.hw.constraint import extent, require, stride
from tilewright.hw.emit import RoCC
from tilewright.hw.form import Part
from tilewright.hw.instruction import instruction
from tilewright.hw.library.gemmini_types import Types
from tilewright.hw.state import Need, State, needs
from tilewright.hw.transfer import Transfer, transfer
from tilewright.ir.types import f32

DRAM, ACC = "dram", "acc"
#: 1.0 as the bits of an f32; the largest window, and the largest number of columns, that the fields of the state take.
ONE, WINDOW, COLUMNS = 0x3F800000, 3, 255
#: Activations. Pixels outside the image are zeros to the hardware: they have no part in a maximum of rectified numbers only.
PLAIN, RELU = 0, 1


def pooled_stores(dim: int, lines: int, st: State, emit: RoCC, cost: dict[str, Any], types: Types) -> list[Transfer]:
    """Rows of windows 1 to 3 pixels apart, of an image that takes at most ``lines`` of the accumulator for a window's rows.

    At each distance: saturated; rectified; scaled; both.
    """
    reach = min(COLUMNS, lines // WINDOW)
    steps = (1, 2, 3) if reach >= WINDOW else ()
    shared = {**cost, "emit": emit, "replaces": True}
    pairs = [[_stores(dim, reach, step, relu, st, shared, types) for relu in (PLAIN, RELU)] for step in steps]
    return [t for pair in pairs for scaling in zip(*pair, strict=True) for t in scaling]


def _stores(dim: int, reach: int, step: int, relu: int, st: State, shared: dict[str, Any], types: Types) -> tuple[Transfer, Transfer]:
    """As they are, and scaled; rows of an image follow each other in the accumulator."""
    most = (reach - WINDOW) // step + 1
    element, total = types.inputs, types.sums
    suffix, zeros = ("_relu", (("src", 0), ("src", 1))) if relu else ("", ())

    def needed(scale: int | str) -> Need:
        window: dict[str, int | str] = {"pool_stride": step, "pool_size": "s.extent", "upad": "src.before0", "lpad": "src.before1"}
        pixels: dict[str, int | str] = {"porows": 1, "pocols": "q.extent", "orows": "src.inside0", "ocols": "src.pitch"}
        return needs(st, activation=relu, acc_scale=scale, stride="dst.stride", **window, **pixels)

    @transfer(name=f"mvout_pooled{step}{suffix}", **shared, needs=needed(ONE), around=zeros)
    def plain(dst: element[most, dim] @ DRAM, src: total[WINDOW, reach, dim] @ ACC):
        q, j, r, s = axes(upto(most), upto(dim), upto(WINDOW), upto(WINDOW))
        require(stride(dst, 1) == 1)
        require(stride(src, 1) == dim)
        require(extent(r) == extent(s))
        dst[q, j] = max(dst[q, j], types.stored(src[r, q * step + s, j], relu))

    @transfer(name=f"mvout_pooled{step}_scaled{suffix}", **shared, needs=needed("scale.bits"), around=zeros)
    def scaled(dst: element[most, dim] @ DRAM, src: total[WINDOW, reach, dim] @ ACC, scale: f32 @ DRAM):
        q, j, r, s = axes(upto(most), upto(dim), upto(WINDOW), upto(WINDOW))
        require(stride(dst, 1) == 1)
        require(stride(src, 1) == dim)
        require(extent(r) == extent(s))
        dst[q, j] = max(dst[q, j], types.scaled(src[r, q * step + s, j], scale, relu))

    return plain, scaled


def pooled_finishes(step: int, st: State, types: Types) -> tuple[Part, ...]:
    """What ``loop_conv_ws`` may do last: windows ``step`` pixels apart of the sums saturated; rectified; scaled; both."""
    pairs = [_finishes(step, relu, st, types) for relu in (PLAIN, RELU)]
    return tuple(p for scaling in zip(*pairs, strict=True) for p in scaling)


def _finishes(step: int, relu: int, st: State, types: Types) -> tuple[Part, Part]:
    """As they are, and scaled. Rows and columns of results around a tile of rectified ones are zeros."""
    most, wide = 1 << 8, 1 << 10
    reach = most * step + WINDOW
    element, total = types.inputs, types.sums
    suffix, zeros = ("_relu", (("sums", 1), ("sums", 2))) if relu else ("", ())

    def needed(scale: int | str) -> Need:
        return needs(st, acc_scale=scale, activation=relu, pool_stride=0, pool_size=0, stride="out.stride")

    @instruction(name=f"pooled{step}{suffix}", needs=needed(ONE), replaces=True, around=zeros)
    def plain(out: element[wide, most, most, wide] @ DRAM, sums: total[wide, reach, reach, wide] @ ACC):
        n, y, x, k, u, v = axes(upto(wide), upto(most), upto(most), upto(wide), upto(WINDOW), upto(WINDOW))
        require(stride(out, 3) == 1)
        require(extent(u) == extent(v))
        out[n, y, x, k] = max(out[n, y, x, k], types.stored(sums[n, y * step + u, x * step + v, k], relu))

    @instruction(name=f"pooled{step}_scaled{suffix}", needs=needed("scale.bits"), replaces=True, around=zeros)
    def scaled(out: element[wide, most, most, wide] @ DRAM, sums: total[wide, reach, reach, wide] @ ACC, scale: f32 @ DRAM):
        n, y, x, k, u, v = axes(upto(wide), upto(most), upto(most), upto(wide), upto(WINDOW), upto(WINDOW))
        require(stride(out, 3) == 1)
        require(extent(u) == extent(v))
        out[n, y, x, k] = max(out[n, y, x, k], types.scaled(sums[n, y * step + u, x * step + v, k], scale, relu))

    fields = (("no_pool", 0), ("pool_stride", step), *((("activation", relu),) if relu else ()))
    around = tuple((operand, d, 0) for operand, d in zeros)
    return Part(plain, fields, around), Part(scaled, fields, around)
