"""What ``loop_conv_ws`` expands to: a convolution tile in NHWC, weights stationary, with optional max-pooling on the way out.

The input tile lies in the scratchpad by channel block, batch, row, column; its zero padding is loaded from address 0. A run of
up to ``dim`` output columns is one compute for each kernel position and block of input channels.

Training uses other orders, with what the array transposes: of the input, channels and batch exchanged (the rows of a compute are then
images, which the loop sets the execute strides for); of the weights, input channels outermost, or output before input channels; of the
output, the batch after the columns. The kernel may be turned by 180 degrees. Downsampling loads every other row and column.

A dilated input has zeros between its rows and columns, as transposed convolutions have: they are not loaded, but passed over, so that
a compute has every other column of results (the ConfigEx before the loop sets the stride of C to 2). A depthwise loop is the
convolution of one channel, whose weights follow each other. With several pixels a row, a row of the scratchpad has the channels of
neighbours in it too, and a compute does as many columns of the kernel at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.expansion import Expansion, Loops
from tilewright.sim.gemmini.isa import Command, Compute, ConfigEx, ConfigLd, ConfigSt, Mvin, Mvout, Preload, Tile
from tilewright.util.errors import ExecutionError

#: Cycles in which the loop passes over a position of a dilated input.
PASSING = 2
#: What several pixels a row are not combined with.
APART = ("wrot180", "trans_output_1203", "trans_weight_1203", "trans_weight_0132", "trans_input_3120", "downsample", "input_dilated")


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

    def stored(self, count: int) -> int:
        """How many of ``count`` neighbouring rows or columns, the first of which is one, are no zeros of a dilated input."""
        return (count + 1) // 2 if self.run.input_dilated else count

    def inner(self, outputs: int, side: int, before: int, after: int) -> int:
        """Input rows, or columns, of the tile: the hardware counts a whole stride for the last output."""
        return self.stored(outputs * self.shape.stride + self.output.dilation * (side - 1) - before - after)

    @property
    def inner_rows(self) -> int:
        """Input rows of the tile without its padding."""
        return self.inner(self.output.orows, self.kernel.krows, self.kernel.upad, self.kernel.dpad)

    @property
    def inner_cols(self) -> int:
        """Input columns of the tile without its padding."""
        return self.inner(self.output.ocols, self.kernel.kcols, self.kernel.lpad, self.kernel.rpad)

    @property
    def irows(self) -> int:
        """Input rows of the tile, padding included."""
        return self.inner_rows + self.stored(self.kernel.upad) + self.stored(self.kernel.dpad)

    @property
    def icols(self) -> int:
        """Input columns of the tile, padding included."""
        return self.inner_cols + self.stored(self.kernel.lpad) + self.stored(self.kernel.rpad)

    @property
    def rows(self) -> int:
        """Input rows that are loaded, padding included."""
        return self.irows >> self.run.downsample

    @property
    def cols(self) -> int:
        """Input columns that are loaded, padding included."""
        return self.icols >> self.run.downsample

    @property
    def input_stride(self) -> int:
        """Scratchpad rows of one block of input channels (of images, where those are what lies in a row)."""
        return (self.kernel.kchs if self.run.trans_input_3120 else self.tile.batches) * self.rows * self.cols

    @property
    def input_blocks(self) -> int:
        return -(-(self.tile.batches if self.run.trans_input_3120 else self.kernel.kchs) // self.c.dim)

    def input_row(self, b: int, ich: int, irow: int, icol: int) -> int:
        """Scratchpad row of an input position; rows and columns count from the padding on."""
        block, image = (b, ich) if self.run.trans_input_3120 else (ich, b)
        d = self.run.downsample
        return self.a_start + block // self.c.dim * self.input_stride + (image * self.rows + (irow >> d)) * self.cols + (icol >> d)

    @property
    def output_stride(self) -> int:
        """Accumulator rows of one block of output channels."""
        return self.tile.batches * self.output.orows * self.output.ocols

    @property
    def weight_stride(self) -> int:
        """Scratchpad rows of one block of output channels of the weights (of input channels, where those lie in a row)."""
        return self.kernel.krows * self.kernel.kcols * (self.tile.pochs if self.run.trans_weight_0132 else self.kernel.kchs)

    @property
    def weight_blocks(self) -> int:
        return -(-(self.kernel.kchs if self.run.trans_weight_0132 else self.tile.pochs) // self.c.dim)

    def weight_row(self, och: int, krow: int, kcol: int, kch: int) -> int:
        """Scratchpad row of weights."""
        block, inside, count = (och, kch, self.kernel.kchs)
        if self.run.trans_weight_0132:
            block, inside, count = (kch, och, self.tile.pochs)
        return self.b_start + block // self.c.dim * self.weight_stride + (krow * self.kernel.kcols + kcol) * count + inside

    def result(self, och: int, b: int, orow: int, ocol: int) -> int:
        """Accumulator row of an output position."""
        pixel = (b * self.output.orows + orow) * self.output.ocols + ocol
        return self.c_start + och // self.c.dim * self.output_stride + pixel

    def steps(self, total: int, blocks: int = 1) -> Iterator[tuple[int, int]]:
        """(start, length) of runs of at most ``blocks`` * dim."""
        span = blocks * self.c.dim
        return ((at, min(span, total - at)) for at in range(0, total, span))

    @property
    def pixels_a_row(self) -> int:
        """Columns of the kernel that one compute does."""
        return max(self.run.pixels, 1)

    def products(self, krow: int, kcol: int) -> Iterator[tuple[int, int, int, int]]:
        """(batch, row, column, rows of A) of the computes for one kernel position; no rows where only zeros of a dilated input meet it."""
        apart = 1 + self.run.input_dilated
        span = 1 if self.run.trans_input_3120 else self.c.dim * apart
        cols = self.output.ocols
        for b, images in self.steps(self.tile.batches) if self.run.trans_input_3120 else ((b, 0) for b in range(self.tile.batches)):
            for orow in range(self.output.orows):
                ocol = 0
                meets = (orow + krow * self.output.dilation - self.kernel.upad) % apart == 0
                while ocol < cols:
                    if meets and (ocol + kcol * self.output.dilation - self.kernel.lpad) % apart == 0:
                        yield b, orow, ocol, images or self.stored(min(span, cols - ocol))
                        ocol += span
                    else:
                        yield b, orow, ocol, 0
                        ocol += 1

    def pixels(self) -> Iterator[tuple[int, int, int, int]]:
        """(batch, row, column, columns) of the runs of output positions."""
        for b in range(self.tile.batches):
            for orow in range(self.output.orows):
                for ocol, cols in self.steps(self.output.ocols):
                    yield b, orow, ocol, cols


def convolution(loops: Loops, run: isa.LoopConvWs) -> Expansion:
    """The primitive commands of one convolution tile."""
    shape, tile, kernel, output, wo, bi = loops.get(
        isa.ConvShape, isa.ConvTile, isa.ConvKernel, isa.ConvOutput, isa.ConvAddressesWO, isa.ConvAddressesBI
    )
    _check(loops.configuration, run, shape, tile, kernel, output)
    c = loops.configuration
    conv = Conv(c, run, shape, tile, kernel, output)
    weights_rows = conv.weight_blocks * conv.weight_stride
    spad = conv.input_blocks * conv.input_stride + weights_rows
    acc = -(-tile.pochs // c.dim) * conv.output_stride
    a, b_end, c_start = loops.halves(run.a_half, run.b_half, spad, acc, bool(wo.output))
    b = b_end - weights_rows
    conv = Conv(c, run, shape, tile, kernel, output, a, b, c_start)
    bias = tuple(_bias(conv, bi.bias)) if bi.bias else ()
    inputs, weights = tuple(_inputs(conv, bi.input)), tuple(_weights(conv, wo.weights))
    execute, idle = _execute(conv)
    store = tuple(_store(conv, wo.output)) if wo.output else ()
    needs = ((len(inputs), len(weights)),) * len(execute)
    after = (len(execute),) * len(store)
    return Expansion(bias, inputs, weights, execute, store, needs, after, (1,) * len(inputs), (0,) * len(weights), idle)  # weights first


def _check(
    c: Configuration, run: isa.LoopConvWs, shape: isa.ConvShape, tile: isa.ConvTile, kernel: isa.ConvKernel, output: isa.ConvOutput
) -> None:
    """ExecutionError for sizes and forms that the hardware gives no meaning."""
    sizes = (tile.batches, tile.pochs, kernel.krows, kernel.kcols, kernel.kchs, output.orows, output.ocols, output.dilation, shape.stride)
    if min(sizes) < 1:
        raise ExecutionError(
            f"{tile}; {kernel}; {output}: every extent, the stride and the dilation must be at least 1", hint="correct the configuration"
        )
    if run.trans_weight_1203 and run.trans_weight_0132:
        raise ExecutionError(f"{run}: weights lie in one order", hint="set one of trans_weight_1203 and trans_weight_0132")
    if run.depthwise and (tile.pochs, kernel.kchs) != (1, 1):
        raise ExecutionError(f"{run}: a depthwise loop is of one channel, not of {kernel.kchs} to {tile.pochs}", hint="one loop a channel")
    if run.input_dilated and (shape.stride != 1 or run.downsample):
        raise ExecutionError(f"{run}: a dilated input is taken with a stride of 1, whole", hint="the stride is what dilates")
    if run.pixels <= 1:
        return
    if forms := [n for n in APART if getattr(run, n)]:
        raise ExecutionError(f"{run}: several pixels a row go with plain operands, not with {forms[0]}", hint="one pixel a row")
    if output.dilation != 1 or run.pixels * kernel.kchs > c.dim:
        raise ExecutionError(
            f"{run}: {run.pixels} neighbouring pixels of {kernel.kchs} channels do not fit a row of {c.dim}, or are no neighbours",
            hint="fewer pixels or channels, and no dilation of the kernel",
        )


def _bias(v: Conv, address: int) -> Iterator[Command]:
    """One row of biases for every output position: stride 0 in main memory; zeros where the layer has none."""
    yield ConfigLd(0, 2, v.output_stride, v.c.unscaled)
    for b, orow, ocol, cols in v.pixels():
        for och, chs in v.steps(v.tile.pochs, v.c.blocks(v.c.acc_bytes)):
            source = 0 if v.run.no_bias else address + och * v.c.acc_bytes
            yield Mvin(source, Tile(isa.accumulator(v.result(och, b, orow, ocol)), chs, cols), 2)


def _inputs(v: Conv, address: int) -> Iterator[Command]:
    swapped, skip = v.run.trans_input_3120, 1 << v.run.downsample
    pixel = (v.shape.batch if swapped else v.output.in_stride) * v.c.input_bytes
    yield ConfigLd(pixel * skip, 0, v.input_stride, v.c.unscaled, repeats=v.pixels_a_row)
    if not address:
        return
    rows, cols = v.inner_rows, v.inner_cols
    up, down, left, right = (v.stored(n) for n in (v.kernel.upad, v.kernel.dpad, v.kernel.lpad, v.kernel.rpad))
    runs = [(-left, left), (0, cols), (cols, right)]
    images, channels = v.tile.batches, v.kernel.kchs
    for one in range(channels if swapped else images):
        for irow in range(-up, rows + down, skip):
            for first, extent in runs:
                for at, count in v.steps(extent, skip):
                    icol = first + at
                    inside = 0 <= irow < rows and 0 <= icol < cols
                    for other, width in v.steps(images if swapped else channels, v.c.blocks(v.c.input_bytes)):
                        b, ich = (other, one) if swapped else (one, other)
                        at_pixel = ((ich if swapped else b) * v.shape.in_rows + irow) * v.kernel.in_cols + icol
                        source = address + at_pixel * pixel + other * v.c.input_bytes if inside else 0
                        row = v.input_row(b, ich, irow + up, icol + left)
                        if count >= skip:
                            yield Mvin(source, Tile(row, width, count // skip), 0)


def _weights(v: Conv, address: int) -> Iterator[Command]:
    side, width = v.tile.kernel, v.output.weight_stride
    apart = side * side * width if v.run.trans_weight_1203 else v.shape.in_channels if v.run.trans_weight_0132 else width
    yield ConfigLd((1 if v.run.depthwise else apart) * v.c.input_bytes, 1, v.weight_stride, v.c.unscaled)
    if not address:
        return
    wide = v.c.blocks(v.c.input_bytes)
    turned = v.run.trans_weight_0132
    for och, ochs in v.steps(v.tile.pochs, 1 if turned else wide):
        for krow in range(v.kernel.krows):
            for kcol in range(v.kernel.kcols):
                for kch, kchs in v.steps(v.kernel.kchs, wide if turned else 1):
                    source = ((krow * side + kcol) * v.shape.in_channels + kch) * width + och
                    if v.run.depthwise:
                        source = krow * side + kcol
                    elif v.run.trans_weight_1203:
                        source = ((kch * side + krow) * side + kcol) * width + och
                    elif turned:
                        source = ((krow * side + kcol) * v.shape.out_channels + och) * v.shape.in_channels + kch
                    extents = (kchs, ochs) if turned else (ochs, kchs)
                    yield Mvin(address + source * v.c.input_bytes, Tile(v.weight_row(och, krow, kcol, kch), *extents), 1)


def _execute(v: Conv) -> tuple[tuple[Command, ...], tuple[int, ...]]:
    """The commands of the execute controller; and where positions are passed over, the cycles that this takes before each command."""
    out: list[Command] = []
    idle: list[int] = []
    waits = 0
    if v.run.trans_input_3120:
        out.append(ConfigEx(strides_only=1, a_stride=v.rows * v.cols, c_stride=v.output.orows * v.output.ocols))
    for och, ochs in v.steps(v.tile.pochs):
        for krow in range(v.kernel.krows):
            for kcol in range(0, v.kernel.kcols, v.pixels_a_row):
                mine = (v.kernel.krows - 1 - krow, v.kernel.kcols - 1 - kcol) if v.run.wrot180 else (krow, kcol)
                for kch, kchs in v.steps(v.kernel.kchs):
                    weights = v.weight_row(och, *mine, kch)
                    depth = kchs * min(v.pixels_a_row, v.kernel.kcols - kcol)
                    for b, orow, ocol, rows in v.products(krow, kcol):
                        if not rows:
                            waits += PASSING
                            continue
                        irow, icol = (
                            v.stored(o * v.shape.stride + k * v.output.dilation) for o, k in zip((orow, ocol), (krow, kcol), strict=True)
                        )
                        target = isa.accumulator(v.result(och, b, orow, ocol), accumulate=True)
                        out.append(Preload(Tile(weights, ochs, depth), Tile(target, ochs, rows)))
                        out.append(
                            Compute(
                                Tile(v.input_row(b, kch, irow, icol), depth, rows), Tile(isa.GARBAGE, ochs, rows), weights != isa.GARBAGE
                            )
                        )
                        weights = isa.GARBAGE
                        idle += [0] * (len(out) - 2 - len(idle)) + [waits, 0]
                        waits = 0
    return tuple(out), tuple(idle) if any(idle) else ()


def _store(v: Conv, address: int) -> Iterator[Command]:
    pixel = v.output.out_stride * v.c.input_bytes
    if v.run.no_pool:
        for b, orow, ocol, cols in v.pixels():
            source = (b * v.shape.out_rows + orow) * v.shape.out_cols + ocol
            if v.run.trans_output_1203:
                source = (orow * v.shape.out_cols + ocol) * v.shape.batch + b
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
