"""A Gemmini in plain Python, one element at a time: the oracle of the functional model, written from the public ISA.

It trusts its programs (no checks) and shares nothing with the simulator but the command classes.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from tests.sim.naive_numbers import Floats, Integers

from tilewright.sim.gemmini import isa


class Naive:
    def __init__(self, dim: int, spad_rows: int, acc_rows: int, memory: bytearray, base: int, numbers: Integers | Floats):
        self.dim, self.memory, self.base, self.numbers = dim, memory, base, numbers
        self.unit, self.zero = numbers.input_bytes, numbers.zero
        self.spad = [[self.zero] * dim for _ in range(spad_rows)]
        self.acc = [[self.zero] * dim for _ in range(acc_rows)]
        self.ld: dict[int, isa.ConfigLd] = {}
        self.loop: dict[str, Any] = {}
        self.pe = [[self.zero] * dim for _ in range(dim)]
        self.half = self.acc_half = 0

    def read(self, address: int, size: int) -> Any:
        at = address - self.base
        return self.numbers.decoded(self.memory[at : at + size])

    def write(self, address: int, size: int, value: Any) -> None:
        at = address - self.base
        self.memory[at : at + size] = self.numbers.encoded(value, size)

    def column(self, total: Any, pairs: list[tuple[Any, Any]]) -> Any:
        """What leaves the bottom of a column: ``total`` and the products of its rows in turn, zeros where there is no operand."""
        for a, b in pairs + [(self.zero, self.zero)] * (self.dim - len(pairs)):
            total = self.numbers.mac(total, a, b)
        return total

    def run(self, program: list[isa.Command]) -> None:
        for command in program:
            getattr(self, type(command).__name__.lower())(command)

    def configex(self, x: isa.ConfigEx) -> None:
        self.a_stride, self.c_stride = x.a_stride, x.c_stride
        if not x.strides_only:
            self.ws, self.relu, self.shift = x.dataflow == 1, x.activation == 1, x.shift
            self.at, self.bt = x.a_transpose, x.b_transpose

    def configld(self, x: isa.ConfigLd) -> None:
        self.ld[x.mvin] = x

    def configst(self, x: isa.ConfigSt) -> None:
        self.scale = self.scale if x.acc_scale == 0xFFFFFFFF else x.acc_scale
        self.st = x

    def flush(self, x: isa.Flush) -> None:
        pass

    def fence(self, x: isa.Fence) -> None:
        pass

    def mvin(self, x: isa.Mvin) -> None:
        cfg = self.ld[x.mvin]
        accumulator, add, row0 = x.local.address >> 31 & 1, x.local.address >> 30 & 1, x.local.address & 0x1FFFFFFF
        wide = accumulator and not cfg.shrunk
        size, scaled = (4, self.numbers.loaded_sum) if wide else (self.unit, self.numbers.loaded)
        for row in range(x.local.rows):
            for col in range(x.local.cols):
                value = scaled(self.read(x.address + row * cfg.stride + col * size, size), cfg.scale) if x.address else self.zero
                for pixel in range(max(cfg.repeats, 1)):
                    first = row0 + row + col // self.dim * cfg.block_stride
                    at = first - pixel
                    if at < 0 or (not accumulator and at < len(self.spad) // 2 <= first):
                        continue
                    to = col % self.dim + pixel * x.local.cols
                    if not accumulator:
                        self.spad[at][to] = value
                    else:
                        self.acc[at][to] = self.numbers.add(self.acc[at][to], value) if add else value

    def outgoing(self, address: int, row: int, col: int) -> Any:
        if not address >> 31 & 1:
            return self.spad[row][col]
        value = self.numbers.leaving(self.acc[row][col], self.scale)
        return self.zero if self.st.activation == 1 and value < 0 else value

    def pooled(self, address: int, row0: int, ch: int, local: int = 1 << 31) -> None:
        """The largest of each window of one channel, whose pixels are rows from ``row0`` on."""
        st = self.st
        for prow, pcol in product(range(st.porows), range(st.pocols)):
            best = None
            for wrow, wcol in product(range(st.pool_size), range(st.pool_size)):
                r, c = prow * st.pool_stride + wrow - st.upad, pcol * st.pool_stride + wcol - st.lpad
                inside = 0 <= r < st.orows and 0 <= c < st.ocols
                value = self.outgoing(local, row0 + r * st.ocols + c, ch) if inside else self.zero
                best = value if best is None or value > best else best
            self.write(address + (prow * st.pool_out_cols + pcol) * st.stride, self.unit, best)

    def mvout(self, x: isa.Mvout) -> None:
        st, row0 = self.st, x.local.address & 0x1FFFFFFF
        if st.pool_stride:
            for ch in range(x.local.cols):
                self.pooled(x.address + ch * self.unit, row0, ch, x.local.address)
            return
        full = x.local.address >> 31 & 1 and x.local.address >> 29 & 1
        for row in range(x.local.rows):
            for col in range(x.local.cols):
                at = row0 + row + col // self.dim * self.dim
                if full:
                    self.write(x.address + row * st.stride + 4 * col, 4, self.acc[at][col % self.dim])
                else:
                    value = self.outgoing(x.local.address, at, col % self.dim)
                    self.write(x.address + row * st.stride + col * self.unit, self.unit, value)

    def element(self, t: isa.Tile, i: int, j: int, stride: int = 1, transpose: int = 0) -> Any:
        if i >= t.rows or j >= t.cols or t.address == 0xFFFFFFFF:
            return self.zero
        r, c = (j, i) if transpose else (i, j)
        return self.spad[t.address + stride * r][c]

    def preload(self, x: isa.Preload) -> None:
        n = range(self.dim)
        self.staged = [[self.element(x.bd, i, j, 1, self.ws and self.bt) for j in n] for i in n]
        self.result = x.c

    def compute(self, x: isa.Compute) -> None:
        n = range(self.dim)
        if x.preloaded:
            self.pe = self.staged
        a = [[self.element(x.a, i, k, self.a_stride, self.at) for k in n] for i in n]
        if self.ws:
            out = [[self.column(self.element(x.bd, i, j), [(a[i][k], self.pe[k][j]) for k in n]) for j in n] for i in n]
        else:
            b = [[self.element(x.bd, k, j, 1, self.bt) for j in n] for k in n]
            self.pe = [list(row) for row in self.pe]
            for i, j, k in product(n, n, n):
                self.pe[i][j] = self.numbers.mac_held(self.pe[i][j], a[i][k], b[k][j])
            out = [[self.numbers.shifted(v, self.shift) for v in row] for row in self.pe]
        c = self.result
        if c.address == 0xFFFFFFFF:
            return
        for i in range(c.rows):
            row = (c.address & 0x1FFFFFFF) + i * self.c_stride
            for j in range(c.cols):
                if c.address >> 31:
                    self.acc[row][j] = self.numbers.add(self.acc[row][j], out[i][j]) if c.address >> 30 & 1 else out[i][j]
                else:
                    value = self.numbers.narrowed(out[i][j])
                    self.spad[row][j] = self.zero if self.relu and value < 0 else value

    def loopbounds(self, x: isa.LoopBounds) -> None:
        self.loop["n"] = x

    def loopaddressesab(self, x: isa.LoopAddressesAB) -> None:
        self.loop["ab"] = x

    def loopaddressesdc(self, x: isa.LoopAddressesDC) -> None:
        self.loop["dc"] = x

    def loopstridesab(self, x: isa.LoopStridesAB) -> None:
        self.loop["sab"] = x

    def loopstridesdc(self, x: isa.LoopStridesDC) -> None:
        self.loop["sdc"] = x

    def loopws(self, x: isa.LoopWs) -> None:
        """One block at a time, in the order of the reference simulator: everything a block needs just before it."""
        n, ab, dc, sab, sdc = (self.loop[k] for k in ("n", "ab", "dc", "sab", "sdc"))
        d, half = self.dim, len(self.spad) // 2
        a0 = (x.a_half - 1 if x.a_half else self.half) * half
        b0 = ((x.b_half - 1 if x.b_half else self.half) + 1) * half - n.k * n.j * d
        c0 = self.acc_half * (len(self.acc) // 2)
        self.half ^= 1
        self.acc_half ^= dc.c != 0

        def size(at: int, count: int, pad: int) -> int:
            return d - (pad if at == count - 1 else 0)

        for k in range(n.k):
            for j in range(n.j):
                for i in range(n.i):
                    rows, cols, depth = size(i, n.i, n.pad_i), size(j, n.j, n.pad_j), size(k, n.k, n.pad_k)
                    c = c0 + (i * n.j + j) * d
                    if dc.d and k == 0:
                        at = dc.d + (i * sdc.d + j) * d * (self.unit if x.low_d else 4)
                        self.mvin(isa.Mvin(at, isa.Tile(1 << 31 | c, cols, rows), 2))
                    if x.a_transpose:
                        a, at, extent = a0 + (k * n.i + i) * d, (k * sab.a + i) * d, (rows, depth)
                    else:
                        a, at, extent = a0 + (i * n.k + k) * d, (i * sab.a + k) * d, (depth, rows)
                    if ab.a and j == 0:
                        self.mvin(isa.Mvin(ab.a + at * self.unit, isa.Tile(a, *extent), 0))
                    if x.b_transpose:
                        b, at, extent = b0 + (j * n.k + k) * d, (j * sab.b + k) * d, (depth, cols)
                    else:
                        b, at, extent = b0 + (k * n.j + j) * d, (k * sab.b + j) * d, (cols, depth)
                    if ab.b and i == 0:
                        self.mvin(isa.Mvin(ab.b + at * self.unit, isa.Tile(b, *extent), 1))
                    flags = 1 << 31 | (1 << 30 if x.accumulate or k else 0)
                    self.preload(isa.Preload(isa.Tile(b if i == 0 else 0xFFFFFFFF, cols, depth), isa.Tile(flags | c, cols, rows)))
                    self.compute(isa.Compute(isa.Tile(a, depth, rows), isa.Tile(0xFFFFFFFF, d, d), i == 0))
                    if dc.c and k == n.k - 1:
                        at = dc.c + (i * sdc.c + j) * d * (4 if x.full_c else self.unit)
                        self.mvout(isa.Mvout(at, isa.Tile(1 << 31 | (x.full_c << 29) | c, cols, rows)))

    def convshape(self, x: isa.ConvShape) -> None:
        self.loop["shape"] = x

    def convtile(self, x: isa.ConvTile) -> None:
        self.loop["tile"] = x

    def convkernel(self, x: isa.ConvKernel) -> None:
        self.loop["kernel"] = x

    def convoutput(self, x: isa.ConvOutput) -> None:
        self.loop["output"] = x

    def convaddresseswo(self, x: isa.ConvAddressesWO) -> None:
        self.loop["wo"] = x

    def convaddressesbi(self, x: isa.ConvAddressesBI) -> None:
        self.loop["bi"] = x

    def loopconvws(self, x: isa.LoopConvWs) -> None:
        """One element at a time: what lies where in the scratchpad, each product, each result. The array is left undefined."""
        s, t, k, o, wo, bi = (self.loop[n] for n in ("shape", "tile", "kernel", "output", "wo", "bi"))
        d, half, skip = self.dim, len(self.spad) // 2, x.downsample
        whole = [n * s.stride + o.dilation * (m - 1) for n, m in ((o.orows, k.krows), (o.ocols, k.kcols))]
        apart, lanes = 1 + x.input_dilated, max(x.pixels, 1)
        inside_rows, inside_cols = -(-(whole[0] - k.upad - k.dpad) // apart), -(-(whole[1] - k.lpad - k.rpad) // apart)
        above, left = -(-k.upad // apart), -(-k.lpad // apart)
        height, width = above + inside_rows - (-k.dpad // apart), left + inside_cols - (-k.rpad // apart)
        rows, cols = height >> skip, width >> skip
        outer, inner = (k.kchs, t.pochs) if x.trans_weight_0132 else (t.pochs, k.kchs)
        weight_rows = k.krows * k.kcols * inner
        a0 = (x.a_half - 1 if x.a_half else self.half) * half
        b0 = ((x.b_half - 1 if x.b_half else self.half) + 1) * half - -(-outer // d) * weight_rows
        c0 = self.acc_half * (len(self.acc) // 2)
        self.half ^= 1
        self.acc_half ^= wo.output != 0

        def input_place(b: int, c: int, row: int, col: int) -> tuple[int, int]:
            lane, image, images = (b, c, k.kchs) if x.trans_input_3120 else (c, b, t.batches)
            return a0 + ((lane // d * images + image) * rows + (row >> skip)) * cols + (col >> skip), lane % d

        def weight_place(krow: int, kcol: int, c: int, och: int) -> tuple[int, int]:
            lane, at = (c, och) if x.trans_weight_0132 else (och, c)
            return b0 + lane // d * weight_rows + (krow * k.kcols + kcol) * inner + at, lane % d

        def result_row(b: int, row: int, col: int, och: int) -> int:
            return c0 + ((och // d * t.batches + b) * o.orows + row) * o.ocols + col

        for b, c, row, col in product(range(t.batches), range(k.kchs), range(0, height, 1 + skip), range(0, width, 1 + skip)):
            y, z = row - above, col - left
            inside = 0 <= y < inside_rows and 0 <= z < inside_cols
            at = ((b * s.in_rows + y) * k.in_cols + z) * o.in_stride + c
            if x.trans_input_3120:
                at = ((c * s.in_rows + y) * k.in_cols + z) * s.batch + b
            if bi.input:
                place, lane = input_place(b, c, row, col)
                for pixel in range(lanes):
                    if place - pixel >= place // half * half:
                        self.spad[place - pixel][pixel * k.kchs + lane] = (
                            self.read(bi.input + at * self.unit, self.unit) if inside else self.zero
                        )
        for krow, kcol, c, och in product(range(k.krows), range(k.kcols), range(k.kchs), range(t.pochs)):
            at = ((krow * t.kernel + kcol) * s.in_channels + c) * o.weight_stride + och
            if x.trans_weight_1203:
                at = ((c * t.kernel + krow) * t.kernel + kcol) * o.weight_stride + och
            if x.trans_weight_0132:
                at = ((krow * t.kernel + kcol) * s.out_channels + och) * s.in_channels + c
            if x.depthwise:
                at = krow * t.kernel + kcol
            if wo.weights:
                place, lane = weight_place(krow, kcol, c, och)
                self.spad[place][lane] = self.read(wo.weights + at * self.unit, self.unit)
        for b, row, col, och in product(range(t.batches), range(o.orows), range(o.ocols), range(t.pochs)):
            total = self.acc[result_row(b, row, col, och)][och % d]
            if bi.bias:
                total = self.zero if x.no_bias else self.read(bi.bias + 4 * och, 4)
            for krow, first, block in product(range(k.krows), range(0, k.kcols, lanes), range(0, k.kchs, d)):
                y, z = row * s.stride + krow * o.dilation - k.upad, col * s.stride + first * o.dilation - k.lpad
                if y % apart or z % apart:
                    continue  # a zero between the pixels of a dilated input
                pairs = []
                for pixel, c in product(range(min(lanes, k.kcols - first)), range(block, min(block + d, k.kchs))):
                    place, lane = input_place(b, c, y // apart + above, z // apart + left)
                    turned = (k.krows - 1 - krow, k.kcols - 1 - first) if x.wrot180 else (krow, first + pixel)
                    weight, at = weight_place(*turned, c, och)
                    pairs.append((self.spad[place][lane + pixel * k.kchs], self.spad[weight][at]))
                total = self.numbers.add(total, self.column(self.zero, pairs))
            self.acc[result_row(b, row, col, och)][och % d] = total
        if not wo.output:
            return
        if x.no_pool:
            for b, row, col, och in product(range(t.batches), range(o.orows), range(o.ocols), range(t.pochs)):
                pixel = (row * s.out_cols + col) * s.batch + b if x.trans_output_1203 else (b * s.out_rows + row) * s.out_cols + col
                at = wo.output + (pixel * o.out_stride + och) * self.unit
                self.write(at, self.unit, self.outgoing(1 << 31, result_row(b, row, col, och), och % d))
            return
        pool = (t.pool_stride, t.pool_size, o.pupad, k.plpad, t.pool_out_cols, t.porows, t.pocols, o.orows, o.ocols)
        self.st = isa.ConfigSt(o.out_stride * self.unit, x.activation, 0, *pool)  # a scale of all ones keeps what was set
        for b, och in product(range(t.batches), range(t.pochs)):
            at = wo.output + (b * s.pool_out_rows * t.pool_out_cols * o.out_stride + och) * self.unit
            self.pooled(at, result_row(b, 0, 0, och), och % d)
        self.st = isa.ConfigSt(o.out_stride * self.unit, x.activation)
