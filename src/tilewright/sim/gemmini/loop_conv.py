"""What ``loop_conv_ws`` expands to: a convolution tile in NHWC, weights stationary, with optional max-pooling on the way out.

The input tile lies in the scratchpad by channel block, batch, row, column; its zero padding is loaded from address 0. A run of
up to ``dim`` output columns is one compute for each kernel position and block of input channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.expansion import Expansion, Loops
from tilewright.sim.gemmini.isa import Command, Compute, ConfigLd, ConfigSt, Mvin, Mvout, Preload, Tile
from tilewright.util.errors import ExecutionError

#: The forms of training convolutions and the first-layer and depthwise forms: other loops, which are not modelled.
REFUSED = (
    "wrot180",
    "trans_output_1203",
    "trans_weight_1203",
    "trans_weight_0132",
    "trans_input_3120",
    "depthwise",
    "downsample",
    "input_dilated",
)


@dataclass(frozen=True, slots=True)
class Conv:
    """One tile of a convolution: its configuration and what follows from it (rows of the local memories, starts of A, B, C)."""

    c: Configuration
    run: isa.LoopConvWs
    shape: isa.ConvShape
    tile: isa.ConvTile
    kernel: isa.ConvKernel
    output: isa.ConvOutput
    a_start: int = 0
    b_start: int = 0
    c_start: int = 0

    @property
    def irows(self) -> int:
        """Input rows of the tile, padding included: the hardware counts a whole stride for the last output row."""
        return self.output.orows * self.shape.stride + self.output.dilation * (self.kernel.krows - 1)

    @property
    def icols(self) -> int:
        """Input columns of the tile, padding included."""
        return self.output.ocols * self.shape.stride + self.output.dilation * (self.kernel.kcols - 1)

    @property
    def input_stride(self) -> int:
        """Scratchpad rows of one block of input channels."""
        return self.tile.batches * self.irows * self.icols

    @property
    def output_stride(self) -> int:
        """Accumulator rows of one block of output channels."""
        return self.tile.batches * self.output.orows * self.output.ocols

    @property
    def weight_stride(self) -> int:
        """Scratchpad rows of one block of output channels of the weights."""
        return self.kernel.krows * self.kernel.kcols * self.kernel.kchs

    def result(self, och: int, b: int, orow: int, ocol: int) -> int:
        """Accumulator row of an output position."""
        pixel = (b * self.output.orows + orow) * self.output.ocols + ocol
        return self.c_start + och // self.c.dim * self.output_stride + pixel

    def steps(self, total: int, blocks: int = 1) -> Iterator[tuple[int, int]]:
        """(start, length) of runs of at most ``blocks`` * dim."""
        span = blocks * self.c.dim
        return ((at, min(span, total - at)) for at in range(0, total, span))

    def pixels(self) -> Iterator[tuple[int, int, int, int]]:
        """(batch, row, column, columns) of the runs of output positions."""
        for b in range(self.tile.batches):
            for orow in range(self.output.orows):
                for ocol, cols in self.steps(self.output.ocols):
                    yield b, orow, ocol, cols


def convolution(loops: Loops, run: isa.LoopConvWs) -> Expansion:
    """The primitive commands of one convolution tile."""
    for name in REFUSED:
        if getattr(run, name):
            raise ExecutionError(f"{run}: the {name} form is not modelled", hint="transform the tensors, and use the plain form")
    if run.pixels > 1:
        raise ExecutionError(f"{run}: several pixels a row are not modelled in the loop", hint="use mvins with repeats")
    shape, tile, kernel, output, wo, bi = loops.get(
        isa.ConvShape, isa.ConvTile, isa.ConvKernel, isa.ConvOutput, isa.ConvAddressesWO, isa.ConvAddressesBI
    )
    sizes = (tile.batches, tile.pochs, kernel.krows, kernel.kcols, kernel.kchs, output.orows, output.ocols, output.dilation, shape.stride)
    if min(sizes) < 1:
        raise ExecutionError(
            f"{tile}; {kernel}; {output}: every extent, the stride and the dilation must be at least 1", hint="correct the configuration"
        )
    c = loops.configuration
    conv = Conv(c, run, shape, tile, kernel, output)
    spad = -(-kernel.kchs // c.dim) * conv.input_stride + -(-tile.pochs // c.dim) * conv.weight_stride
    acc = -(-tile.pochs // c.dim) * conv.output_stride
    a, b_end, c_start = loops.halves(run.a_half, run.b_half, spad, acc, bool(wo.output))
    b = b_end - -(-tile.pochs // c.dim) * conv.weight_stride
    conv = Conv(c, run, shape, tile, kernel, output, a, b, c_start)
    bias = tuple(_bias(conv, bi.bias)) if bi.bias else ()
    inputs, weights = tuple(_inputs(conv, bi.input)), tuple(_weights(conv, wo.weights))
    execute = tuple(_execute(conv))
    store = tuple(_store(conv, wo.output)) if wo.output else ()
    needs = ((len(inputs), len(weights)),) * len(execute)
    after = (len(execute),) * len(store)
    return Expansion(bias, inputs, weights, execute, store, needs, after, (1,) * len(inputs), (0,) * len(weights))  # weights first


def _bias(v: Conv, address: int) -> Iterator[Command]:
    """One row of biases for every output position: stride 0 in main memory; zeros where the layer has none."""
    yield ConfigLd(0, 2, v.output_stride)
    for b, orow, ocol, cols in v.pixels():
        for och, chs in v.steps(v.tile.pochs, v.c.blocks(v.c.acc_bytes)):
            source = 0 if v.run.no_bias else address + och * v.c.acc_bytes
            yield Mvin(source, Tile(isa.accumulator(v.result(och, b, orow, ocol)), chs, cols), 2)


def _inputs(v: Conv, address: int) -> Iterator[Command]:
    pixel = v.output.in_stride * v.c.input_bytes
    yield ConfigLd(pixel, 0, v.input_stride)
    if not address:
        return
    rows, cols = v.irows - v.kernel.upad - v.kernel.dpad, v.icols - v.kernel.lpad - v.kernel.rpad
    runs = [(-v.kernel.lpad, v.kernel.lpad), (0, cols), (cols, v.kernel.rpad)]
    for b in range(v.tile.batches):
        for irow in range(-v.kernel.upad, rows + v.kernel.dpad):
            for first, extent in runs:
                for at, count in v.steps(extent):
                    icol = first + at
                    inside = 0 <= irow < rows and 0 <= icol < cols
                    at_pixel = (b * v.shape.in_rows + irow) * v.kernel.in_cols + icol
                    row = (b * v.irows + irow + v.kernel.upad) * v.icols + icol + v.kernel.lpad
                    for ich, chs in v.steps(v.kernel.kchs, v.c.blocks(v.c.input_bytes)):
                        source = address + at_pixel * pixel + ich * v.c.input_bytes if inside else 0
                        yield Mvin(source, Tile(v.a_start + ich // v.c.dim * v.input_stride + row, chs, count), 0)


def _weights(v: Conv, address: int) -> Iterator[Command]:
    pixel = v.output.weight_stride * v.c.input_bytes
    yield ConfigLd(pixel, 1, v.weight_stride)
    if not address:
        return
    for och, ochs in v.steps(v.tile.pochs, v.c.blocks(v.c.input_bytes)):
        for krow in range(v.kernel.krows):
            for kcol in range(v.kernel.kcols):
                for kch, kchs in v.steps(v.kernel.kchs):
                    source = (krow * v.tile.kernel + kcol) * v.shape.in_channels + kch
                    local = Tile(_weight_row(v, och, krow, kcol, kch), ochs, kchs)
                    yield Mvin(address + source * pixel + och * v.c.input_bytes, local, 1)


def _weight_row(v: Conv, och: int, krow: int, kcol: int, kch: int) -> int:
    return v.b_start + och // v.c.dim * v.weight_stride + (krow * v.kernel.kcols + kcol) * v.kernel.kchs + kch


def _execute(v: Conv) -> Iterator[Command]:
    for och, ochs in v.steps(v.tile.pochs):
        for krow in range(v.kernel.krows):
            for kcol in range(v.kernel.kcols):
                for kch, kchs in v.steps(v.kernel.kchs):
                    weights = _weight_row(v, och, krow, kcol, kch)
                    for n, (b, orow, ocol, cols) in enumerate(v.pixels()):
                        irow, icol = orow * v.shape.stride + krow * v.output.dilation, ocol * v.shape.stride + kcol * v.output.dilation
                        a = v.a_start + kch // v.c.dim * v.input_stride + (b * v.irows + irow) * v.icols + icol
                        target = isa.accumulator(v.result(och, b, orow, ocol), accumulate=True)
                        yield Preload(Tile(isa.GARBAGE if n else weights, ochs, kchs), Tile(target, ochs, cols))
                        yield Compute(Tile(a, kchs, cols), Tile(isa.GARBAGE, ochs, cols), n == 0)


def _store(v: Conv, address: int) -> Iterator[Command]:
    pixel = v.output.out_stride * v.c.input_bytes
    if v.run.no_pool:
        for b, orow, ocol, cols in v.pixels():
            source = (b * v.shape.out_rows + orow) * v.shape.out_cols + ocol
            for och, chs in v.steps(v.tile.pochs):
                local = isa.accumulator(v.result(och, b, orow, ocol))
                yield Mvout(address + source * pixel + och * v.c.input_bytes, Tile(local, chs, cols))
        return
    plain = ConfigSt(pixel, v.run.activation, isa.KEEP_SCALE)
    yield ConfigSt(
        pixel,
        v.run.activation,
        isa.KEEP_SCALE,
        v.tile.pool_stride,
        v.tile.pool_size,
        v.output.pupad,
        v.kernel.plpad,
        v.tile.pool_out_cols,
        v.tile.porows,
        v.tile.pocols,
        v.output.orows,
        v.output.ocols,
    )
    for b in range(v.tile.batches):
        base = b * v.shape.pool_out_rows * v.tile.pool_out_cols
        for och, chs in v.steps(v.tile.pochs):
            local = isa.accumulator(v.result(och, b, 0, 0))
            yield Mvout(address + base * pixel + och * v.c.input_bytes, Tile(local, chs, 1))
    yield plain
