"""The vendor library's way to convolve: tiles of its heuristic, one ``loop_conv_ws`` for each.

NHWC inputs and outputs, weights by window row, window column, input channel, output channel; a bias or none, no pooling. Windows of 1 x 1
without stride are matrix products, as in the library's networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.baseline import Gemm, default_ws
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.default_mapping import convolution_tile
from tilewright.sim.gemmini.isa import Command

#: An address that stands for a bias of zeros: the loop then loads from address 0.
_ZEROS = 1


@dataclass(frozen=True, slots=True)
class Convolution:
    """Sizes of a convolution: batch, input rows and columns, channels in and out, a square window, its stride, zeros around the input."""

    batch: int
    rows: int
    cols: int
    channels: int
    kernels: int
    window: int
    stride: int = 1
    padding: int = 0

    @property
    def out_rows(self) -> int:
        """Rows of the output."""
        return (self.rows + 2 * self.padding - self.window) // self.stride + 1

    @property
    def out_cols(self) -> int:
        """Columns of the output."""
        return (self.cols + 2 * self.padding - self.window) // self.stride + 1

    @property
    def apart(self) -> int:
        """Pixels between those that a window of the array reads: of 1 x 1 windows with a stride of 2 the others are not loaded."""
        return self.stride >> self.downsample

    @property
    def downsample(self) -> bool:
        """Whether the library's loop skips every second pixel."""
        return (self.window, self.stride, self.padding, self.rows % 2, self.cols % 2) == (1, 2, 0, 0, 0)

    @property
    def macs(self) -> int:
        """Multiplications of the convolution."""
        return self.batch * self.out_rows * self.out_cols * self.kernels * self.channels * self.window**2


def default_conv(c: Configuration, v: Convolution, x: int, f: int, y: int, bias: int = 0) -> Iterator[Command]:
    """The library's commands for ``v``: input at ``x``, weights at ``f``, output at ``y`` in main memory, ``bias`` there or 0."""
    if v.window == v.stride == 1 and not v.padding:
        yield from default_ws(c, Gemm(v.batch * v.rows * v.cols, v.kernels, v.channels, x, f, y, bias=bias))
        return
    yield isa.Flush()
    yield isa.ConfigSt(v.kernels * c.input_bytes)
    yield isa.ConfigEx(isa.WEIGHT_STATIONARY, a_stride=v.apart)
    yield from _tiles(c, v, (x, f, y, bias))


def default_depthwise(c: Configuration, v: Convolution, x: int, f: int, y: int, bias: int = 0) -> Iterator[Command]:
    """The same for a depthwise convolution: the loops of one channel (with tiles for one) after those of another. Weights by channel."""
    one = replace(v, channels=1, kernels=1)
    yield isa.Flush()
    yield isa.ConfigSt(v.channels * c.input_bytes)
    yield isa.ConfigEx(isa.WEIGHT_STATIONARY, a_stride=v.apart)
    for n in range(v.channels):
        at = (a + n * step * c.input_bytes for a, step in ((x, 1), (f, v.window**2), (y, 1)))
        yield from _tiles(c, one, (*at, bias and bias + n * c.acc_bytes), v.channels)


def _tiles(c: Configuration, v: Convolution, arrays: tuple[int, ...], pitch: int = 0) -> Iterator[Command]:
    """All tiles of ``v``; with a ``pitch`` it is one channel of images that have so many."""
    whole = {"N": v.batch, "P": v.out_rows, "Q": v.out_cols, "K": v.kernels, "R": v.window, "S": v.window, "C": v.channels}
    tile = convolution_tile(c, whole, (v.apart, v.apart))
    for at in product(*(range(0, whole[d], tile[d]) for d in whole)):
        start = dict(zip(whole, at, strict=True))
        yield from _tile(c, v, whole, start, {d: min(tile[d], whole[d] - start[d]) for d in whole}, arrays, pitch)


def _tile(
    c: Configuration,
    v: Convolution,
    whole: dict[str, int],
    start: dict[str, int],
    size: dict[str, int],
    arrays: tuple[int, ...],
    pitch: int,
) -> Iterator[Command]:
    """One tile: ``start`` and ``size`` by dimension. Few channels leave room for those of neighbours in a row."""
    row, col = start["P"] * v.stride + start["R"] - v.padding, start["Q"] * v.stride + start["S"] - v.padding
    rows, cols = size["P"] * v.stride + size["R"] - 1, size["Q"] * v.stride + size["S"] - 1
    up, left = max(0, -row), max(0, -col)
    down, right = max(0, row + rows - v.rows), max(0, col + cols - v.cols)
    first = not any(start[d] for d in "RSC")
    last = all(start[d] + size[d] >= whole[d] for d in "RSC")
    x, f, y, bias = arrays
    between, apart = pitch or v.channels, pitch or v.kernels
    x += (((start["N"] * v.rows + row + up) * v.cols + col + left) * between + start["C"]) * c.input_bytes
    f += (((start["R"] * v.window + start["S"]) * v.channels + start["C"]) * v.kernels + start["K"]) * c.input_bytes
    y += (((start["N"] * v.out_rows + start["P"]) * v.out_cols + start["Q"]) * apart + start["K"]) * c.input_bytes
    out = v.out_rows, v.out_cols
    yield isa.ConvShape(v.kernels, v.channels, v.rows, v.batch, v.padding, v.stride, out[1], out[0], out[0])
    yield isa.ConvTile(v.window, out[1], 1, 1, 0, size["N"], size["P"], size["Q"], size["K"])
    yield isa.ConvKernel(size["R"], size["S"], size["C"], left, right, up, down, 0, v.cols)
    yield isa.ConvOutput(size["P"], 0, 0, 0, 1, between, v.kernels, apart, size["Q"])
    yield isa.ConvAddressesWO(f, y if last else 0)
    yield isa.ConvAddressesBI((bias + start["K"] * c.acc_bytes if bias else _ZEROS) if first else 0, x)
    pixels = max(1, min(c.dim // size["C"], size["S"]))
    forms = {"depthwise": int(pitch > 0), "downsample": int(v.downsample)}
    yield isa.LoopConvWs(no_bias=int(not bias), no_pool=1, pixels=pixels, **forms)
