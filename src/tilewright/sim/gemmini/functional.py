"""What a Gemmini program computes, to the bit: one NumPy operation for each move or compute.

A program that depends on what the hardware leaves open (state never set, a compute without its preload, rows outside a memory)
is refused with the number of the instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.arithmetic import Array, arithmetic
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.expansion import Loops
from tilewright.sim.gemmini.isa import Command, Compute, ConfigEx, ConfigLd, ConfigSt, Mvin, Mvout, Preload, Tile
from tilewright.sim.gemmini.loop_conv import convolution
from tilewright.sim.gemmini.loop_ws import matmul
from tilewright.sim.gemmini.memory import MainMemory
from tilewright.sim.gemmini.normalisation import UNFINISHED, Normaliser
from tilewright.sim.gemmini.words import decode
from tilewright.util.errors import ExecutionError


class Functional:
    """The architectural state of one Gemmini and its main memory.

    ``spad`` [rows, dim] and ``acc`` [rows, dim], of the configuration's types (bf16 by its bits), are open to inspection. ``executed``
    counts the instructions run.
    """

    def __init__(self, configuration: Configuration, memory: MainMemory):
        c = configuration
        self.configuration, self.memory = c, memory
        self.numbers = arithmetic(c)
        self.spad = np.zeros((c.spad_rows, c.dim), self.numbers.inputs)
        self.acc = np.zeros((c.acc_rows, c.dim), self.numbers.sums)
        self.executed = 0
        self.ex: ConfigEx | None = None
        self.st: ConfigSt | None = None
        self.ld: dict[int, ConfigLd] = {}
        self.loops = Loops(c)
        self.norm = Normaliser(c.norm_stats) if c.norm_stats else None
        #: Weights (as factors) or partial sums held by the array; None while undefined.
        self.held: Array | None = None
        self.pending: tuple[Array, Tile] | None = None
        self._do: dict[type, Callable[[Any], None]] = {
            ConfigEx: self._config_ex,
            ConfigLd: lambda x: self.ld.__setitem__(x.mvin, x),
            ConfigSt: self._config_st,
            Mvin: self._mvin,
            Mvout: self._mvout,
            Preload: self._preload,
            Compute: self._compute,
            isa.Flush: lambda x: None,
            isa.Fence: lambda x: None,
            isa.LoopWs: lambda x: self._loop(matmul(self.loops, x)),
            isa.LoopConvWs: lambda x: self._loop(convolution(self.loops, x)),
            isa.ConfigNorm: self._config_norm,
            isa.Counter: _refuse("performance counters belong to the cycle model"),
        }
        self._do |= dict.fromkeys(isa.LOOP_REGISTERS, self.loops.configure)

    def run(self, program: Iterable[Command | tuple[int, int, int]]) -> None:
        """Executes commands or (funct, rs1, rs2) words; ExecutionError names the instruction, the rule and the way out."""
        for item in program:
            command = decode(*item) if isinstance(item, tuple) else item
            try:
                self._do[type(command)](command)
            except ExecutionError as error:
                raise ExecutionError(f"instruction {self.executed}, {command}: {error.message}", hint=error.hint) from None
            self.executed += 1

    def _loop(self, expansion: Iterable[Command]) -> None:
        for command in expansion:
            try:
                self._do[type(command)](command)
            except ExecutionError as error:
                raise ExecutionError(f"in its expansion, {command}: {error.message}", hint=error.hint) from None

    # Configuration

    def _config_ex(self, x: ConfigEx) -> None:
        if min(x.a_stride, x.c_stride) < 1:
            raise ExecutionError("the strides of A and C must be at least 1 row", hint="1 is the dense layout")
        old = self.ex
        if x.strides_only:
            if old is None:
                raise ExecutionError("strides_only keeps a dataflow that was never set", hint="issue a whole ConfigEx first")
            self.ex = ConfigEx(
                old.dataflow, old.activation, 0, old.a_transpose, old.b_transpose, x.a_stride, old.acc_scale, old.shift, x.c_stride
            )
            return
        _activation(x.activation)
        if x.shift > 31:
            raise ExecutionError(f"a shift by {x.shift} leaves nothing of 32 bits", hint="0 to 31")
        if x.dataflow == isa.WEIGHT_STATIONARY and x.a_transpose and x.b_transpose:
            raise ExecutionError("weight stationary transposes A or B, not both", hint="use output stationary")
        if x.dataflow == isa.OUTPUT_STATIONARY and x.b_transpose and not x.a_transpose:
            raise ExecutionError("output stationary transposes B only together with A", hint="use weight stationary")
        if old is None or old.dataflow != x.dataflow:
            self.held = self.pending = None
        self.ex = x

    def _config_st(self, x: ConfigSt) -> None:
        if self.norm is None:
            _activation(x.activation)
        if x.acc_scale == isa.KEEP_SCALE:
            if self.st is None:
                raise ExecutionError("keeps a scale that was never set", hint="issue a ConfigSt with a scale first")
            scale = self.st.acc_scale
            pool = (x.pool_stride, x.pool_size, x.upad, x.lpad, x.pool_out_cols, x.porows, x.pocols, x.orows, x.ocols)
            x = ConfigSt(x.stride, x.activation, scale, *pool)
        if x.pool_size and not x.pool_stride:
            raise ExecutionError("a window without a stride: one-dimensional stores are not modelled", hint="set pool_size to 0")
        if x.pool_stride and min(x.pool_size, x.porows, x.pocols, x.orows, x.ocols) < 1:
            raise ExecutionError("pooling needs a window, and pooled and unpooled rows and columns", hint="pool_stride 0 turns it off")
        self.st = x

    def _config_norm(self, x: isa.ConfigNorm) -> None:
        if self.norm is None:
            raise ExecutionError("the normalisation unit is not part of the declared machine", hint="declare it: norm_stats")
        self.norm.configure(x)
        if x.stats_only:
            return
        if self.st is None or (x.act_msb and self.st.activation & 3):
            raise ExecutionError("softmax is set after a ConfigSt without activation", hint="issue ConfigSt(stride) first")
        self.st = replace(self.st, activation=self.st.activation & 3 | x.act_msb << 2)

    # Moves

    def _local(self, tile: Tile, rows: int) -> Array:
        """The memory of a tile, after checking that ``rows`` rows from its address on exist."""
        in_acc = tile.address & isa.ACCUMULATOR
        memory = self.acc if in_acc else self.spad
        if tile.garbage:
            raise ExecutionError("moves need a local address, not the garbage one", hint="name a row")
        if tile.row + rows > len(memory):
            name = "accumulator" if in_acc else "scratchpad"
            raise ExecutionError(
                f"rows {tile.row} to {tile.row + rows - 1} lie outside the {name} of {len(memory)} rows",
                hint="check the address, and the strides set before",
            )
        return memory

    def _extent(self, tile: Tile, most_cols: int) -> None:
        if not (1 <= tile.rows <= self.configuration.dim and 1 <= tile.cols <= most_cols):
            raise ExecutionError(
                f"{tile.rows} rows of {tile.cols} columns: at most {self.configuration.dim} rows of {most_cols}, at least one of each",
                hint="split the move",
            )

    def _mvin(self, x: Mvin) -> None:
        c, tile = self.configuration, x.local
        setting = self.ld.get(x.mvin)
        if setting is None:
            raise ExecutionError(f"mvin {x.mvin} was never configured", hint=f"issue ConfigLd(stride, mvin={x.mvin}) first")
        in_acc = bool(tile.address & isa.ACCUMULATOR)
        wide = in_acc and not setting.shrunk
        self._extent(tile, c.dim * c.blocks(c.acc_bytes if wide else c.input_bytes))
        repeats = max(setting.repeats, 1)
        if repeats > 1 and tile.cols * repeats > c.dim:
            raise ExecutionError(f"{repeats} pixels of {tile.cols} columns do not fit a row of {c.dim}", hint="fewer repeats or columns")
        blocks = -(-tile.cols // c.dim)
        if blocks > 1 and setting.block_stride < tile.rows:
            raise ExecutionError(
                f"blocks of {tile.rows} rows overlap at a block stride of {setting.block_stride}", hint="set block_stride in ConfigLd"
            )
        local = self._local(tile, (blocks - 1) * setting.block_stride + tile.rows)
        data: Array
        if x.address == 0:
            data = np.zeros((tile.rows, tile.cols), local.dtype)
        else:
            kind = self.numbers.sums if wide else self.numbers.inputs
            data = self.memory.rows(x.address, tile.rows, tile.cols, setting.stride, kind)
            data = self.numbers.loaded(data, setting.scale, wide, in_acc)
        add = in_acc and tile.address & isa.ACCUMULATE
        for n in range(blocks):
            part = data[:, n * c.dim : (n + 1) * c.dim]
            row = tile.row + n * setting.block_stride
            self._put(local, slice(row, row + tile.rows), slice(0, part.shape[1]), part, add)
        if repeats > 1:
            # Copies for the pixels before stay in their half of the scratchpad, where a loop's operands begin.
            rows = np.arange(tile.row, tile.row + tile.rows)
            lowest = np.where((rows >= c.spad_rows // 2) & (not in_acc), c.spad_rows // 2, 0)
            for pixel in range(1, repeats):
                kept = rows - pixel >= lowest
                self._put(local, rows[kept] - pixel, slice(pixel * tile.cols, (pixel + 1) * tile.cols), data[kept], add)

    def _put(self, memory: Array, rows: slice | Array, cols: slice, data: Array, add: int) -> None:
        memory[rows, cols] = self.numbers.added(memory[rows, cols], data) if add else data

    def _mvout(self, x: Mvout) -> None:
        c, tile = self.configuration, x.local
        if self.st is None:
            raise ExecutionError("mvout was never configured", hint="issue ConfigSt(stride) first")
        if self.norm is not None and tile.address & isa.ACCUMULATOR and (command := tile.address >> isa.COMMAND & 7):
            self._gather(tile, command, self.norm)
            return
        if self.st.pool_stride:
            if self.st.activation > isa.RELU:
                raise ExecutionError("pooling does not go with normalisation", hint="clear the activation or the pooling")
            self._pool(x, self.st)
            return
        full = bool(tile.address & isa.ACCUMULATOR and tile.address & isa.FULL)
        self._extent(tile, c.dim * c.blocks(c.acc_bytes if full else c.input_bytes))
        blocks = -(-tile.cols // c.dim)
        self._local(tile, (blocks - 1) * c.dim + tile.rows)
        out = self._destination(x.address, tile.rows, tile.cols, self.st.stride, self.numbers.sums if full else self.numbers.inputs)
        for n in range(blocks):
            cols = min(c.dim, tile.cols - n * c.dim)
            first = tile.row + n * c.dim
            out[:, n * c.dim : n * c.dim + cols] = self._outgoing(tile, slice(first, first + tile.rows), cols, self.st)

    def _gather(self, tile: Tile, command: int, norm: Normaliser) -> None:
        """A store that writes nothing but statistics, row by row, block by block."""
        if tile.address & isa.FULL:
            raise ExecutionError("statistics are not read in full", hint="clear the full bit")
        dim = self.configuration.dim
        tile = Tile(tile.address & ~(7 << isa.COMMAND), tile.cols, tile.rows)
        self._extent(tile, dim * self.configuration.blocks(self.configuration.input_bytes))
        last = (tile.cols - 1) // dim
        self._local(tile, last * dim + tile.rows)
        for row in range(tile.row, tile.row + tile.rows):
            for n in range(last + 1):
                block = self.acc[row + n * dim, : min(dim, tile.cols - n * dim)]
                norm.gather(block, command if n == last else UNFINISHED.get(command, command))

    def _destination(self, address: int, rows: int, cols: int, stride: int, kind: np.dtype[Any]) -> Array:
        if rows > 1 and stride < cols * kind.itemsize:
            raise ExecutionError(
                f"rows of {cols * kind.itemsize} bytes at a stride of {stride} overlap in main memory", hint="widen the stride of ConfigSt"
            )
        return self.memory.rows(address, rows, cols, stride, kind)

    def _outgoing(self, tile: Tile, rows: slice, cols: int, st: ConfigSt) -> Array:
        """What leaves for main memory: scaled, narrowed and activated unless it is of the scratchpad or read in full."""
        if not tile.address & isa.ACCUMULATOR:
            return self.spad[rows, :cols]
        data = self.acc[rows, :cols]
        if self.norm is not None:
            self.norm.drop()
        if tile.address & isa.FULL:
            return data
        if self.norm is not None and st.activation > isa.RELU:
            return self.norm.stored(data, st)
        out = self.numbers.leaving(data, st.acc_scale)
        return self._activated(out, st.activation)

    def _activated(self, data: Array, activation: int) -> Array:
        """Inputs as they are, or 0 where they are negative."""
        return np.where(self.numbers.values(data) < 0, data.dtype.type(0), data) if activation == isa.RELU else data

    def _pool(self, x: Mvout, st: ConfigSt) -> None:
        """Max-pooling of orows x ocols pixels, a row each; outside them is zero."""
        tile = x.local
        if tile.address & isa.ACCUMULATOR and tile.address & isa.FULL:
            raise ExecutionError("pooling works on inputs, not on a full read", hint="clear the full bit or the pooling")
        self._extent(Tile(tile.address, tile.cols, 1), self.configuration.dim)
        self._local(tile, st.orows * st.ocols)
        pixels = self.numbers.values(self._outgoing(tile, slice(tile.row, tile.row + st.orows * st.ocols), tile.cols, st))
        height = max((st.porows - 1) * st.pool_stride + st.pool_size, st.upad + st.orows)
        width = max((st.pocols - 1) * st.pool_stride + st.pool_size, st.lpad + st.ocols)
        padded = np.zeros((height, width, tile.cols), pixels.dtype)
        padded[st.upad : st.upad + st.orows, st.lpad : st.lpad + st.ocols] = pixels.reshape(st.orows, st.ocols, tile.cols)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (st.pool_size, st.pool_size), (0, 1))
        windows = windows[:: st.pool_stride, :: st.pool_stride][: st.porows, : st.pocols].reshape(st.porows, st.pocols, tile.cols, -1)
        pooled = windows[..., 0]
        for n in range(1, windows.shape[-1]):  # one after the other: what is no number is greater than nothing
            pooled = np.where(windows[..., n] > pooled, windows[..., n], pooled)
        for row in range(st.porows):
            address = x.address + row * st.pool_out_cols * st.stride
            self._destination(address, st.pocols, tile.cols, st.stride, self.numbers.inputs)[...] = self.numbers.elements(pooled[row])

    # The array

    def _operand(self, tile: Tile, stride: int, transpose: int) -> Array:
        """A matrix of the scratchpad, as ``tile.rows`` x ``tile.cols`` after the transposition."""
        if tile.rows > self.configuration.dim or tile.cols > self.configuration.dim:
            raise ExecutionError(f"operand {tile} is larger than the array of {self.configuration.dim}", hint="split it into blocks")
        if tile.garbage:
            return np.zeros((tile.rows, tile.cols), self.numbers.inputs)
        if tile.address & isa.ACCUMULATOR:
            raise ExecutionError(f"operand {tile} lies in the accumulator", hint="move it to the scratchpad: the array reads only there")
        rows, cols = (tile.cols, tile.rows) if transpose else (tile.rows, tile.cols)
        end = tile.row + (rows - 1) * stride + 1
        if end > self.configuration.spad_rows:
            self._local(tile, end - tile.row)
        data = self.spad[tile.row : end : stride, :cols]
        return data.T if transpose else data

    def _preload(self, x: Preload) -> None:
        ex = self._configured()
        if self.pending is not None:
            raise ExecutionError("replaces a preload that no compute has used", hint="alternate preload and compute")
        dim = self.configuration.dim
        weights = ex.dataflow == isa.WEIGHT_STATIONARY
        operand = self._operand(x.bd, 1, weights and ex.b_transpose)
        operand = self.numbers.factor(operand) if weights else self.numbers.addend(operand)
        if operand.shape != (dim, dim):
            whole = np.zeros((dim, dim), operand.dtype)
            whole[: operand.shape[0], : operand.shape[1]] = operand
            operand = whole
        if not x.c.garbage:
            if x.c.rows > dim or x.c.cols > dim:
                raise ExecutionError(f"result {x.c} is larger than the array of {dim}", hint="split it into blocks")
            self._local(x.c, max(x.c.rows - 1, 0) * ex.c_stride + 1)
        self.pending = operand, x.c

    def _configured(self) -> ConfigEx:
        if self.ex is None:
            raise ExecutionError("the execute controller was never configured", hint="issue ConfigEx first")
        return self.ex

    def _compute(self, x: Compute) -> None:
        ex = self._configured()
        if self.pending is None:
            raise ExecutionError("no preload came before it", hint="each compute follows a preload, which names its result")
        operand, c = self.pending
        if x.preloaded:
            held: Array | None = operand
        else:
            held = self.held
        if held is None:
            raise ExecutionError("continues with what the array holds, which is nothing", hint="start with a preloaded compute")
        a = self.numbers.factor(self._operand(x.a, ex.a_stride, ex.a_transpose))
        if ex.dataflow == isa.WEIGHT_STATIONARY:
            self.held = held
            result = self._columns(a, held, x.bd, c)
        else:
            b = self.numbers.factor(self._operand(x.bd, 1, ex.b_transpose))
            result = self.held = self.numbers.stationary(held, a, b)
        self.pending = None
        if not c.garbage:
            self._write(result[: c.rows, : c.cols], c, ex)

    def _columns(self, a: Array, held: Array, d: Tile, c: Tile) -> Array:
        """Weight stationary: A B + D, with the rows that A lacks taken as zeros."""
        if d.garbage and len(a) >= c.rows:
            return self.numbers.columns(a, held, None)
        dim = self.configuration.dim
        operand = self.numbers.addend(self._operand(d, 1, 0))
        addend, whole = np.zeros((dim, dim), operand.dtype), np.zeros((dim, a.shape[1]), a.dtype)
        addend[: operand.shape[0], : operand.shape[1]], whole[: len(a)] = operand, a
        return self.numbers.columns(whole, held, addend)

    def _write(self, result: Array, c: Tile, ex: ConfigEx) -> None:
        rows = slice(c.row, c.row + (c.rows - 1) * ex.c_stride + 1, ex.c_stride) if c.rows else slice(0, 0)
        if ex.dataflow == isa.OUTPUT_STATIONARY:
            result = self.numbers.shifted(result, ex.shift)
        if c.address & isa.ACCUMULATOR:
            target = self.acc[rows, : c.cols]
            target[...] = self.numbers.added(target, result) if c.address & isa.ACCUMULATE else result
            return
        self.spad[rows, : c.cols] = self._activated(self.numbers.narrowed(result), ex.activation)


def _activation(activation: int) -> None:
    if activation not in (isa.NO_ACTIVATION, isa.RELU):
        raise ExecutionError(f"activation {activation} needs a unit the declared machine lacks", hint="0 is none, 1 is relu")


def _refuse(rule: str) -> Callable[[Command], None]:
    def refuse(command: Command) -> None:
        raise ExecutionError(rule, hint="leave it out")

    return refuse
