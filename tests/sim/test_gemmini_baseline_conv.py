"""The vendor library's convolutions: tiles that fit, results right to the bit."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from tilewright.sim.gemmini import Configuration, isa, simulate
from tilewright.sim.gemmini.baseline_conv import Convolution, default_conv, default_depthwise
from tilewright.sim.gemmini.functional import Functional
from tilewright.sim.gemmini.memory import MainMemory

#: Small memories, so that every loop over tiles has several.
SMALL = Configuration(dim=4, spad_rows=128, acc_rows=32, max_bytes=8, bus_bytes=4)


def convolved(x: NDArray[np.int8], f: NDArray[np.int8], v: Convolution, bias: NDArray[np.int32] | int = 0) -> NDArray[np.int8]:
    padded = np.pad(x, ((0, 0), (v.padding,) * 2, (v.padding,) * 2, (0, 0))).astype(np.int64)
    out = np.zeros((v.batch, v.out_rows, v.out_cols, v.kernels), np.int64)
    for r, s in product(range(v.window), repeat=2):
        rows, cols = (slice(at, at + v.stride * (n - 1) + 1, v.stride) for at, n in ((r, v.out_rows), (s, v.out_cols)))
        out += padded[:, rows, cols] @ f[r, s].astype(np.int64)
    return np.clip(out + bias, -128, 127).astype(np.int8)


@pytest.mark.parametrize(
    ("v", "loops"),
    [
        (Convolution(2, 6, 7, 5, 6, 3, 1, 1), isa.LoopConvWs),
        (Convolution(1, 9, 8, 9, 5, 3, 2, 1), isa.LoopConvWs),
        (Convolution(1, 11, 11, 3, 7, 5, 2, 2), isa.LoopConvWs),
        (Convolution(1, 7, 7, 6, 9, 1, 2, 0), isa.LoopConvWs),
        (Convolution(2, 8, 6, 6, 9, 1, 2, 0), isa.LoopConvWs),
        (Convolution(2, 5, 4, 9, 10, 1, 1, 0), isa.LoopWs),
    ],
)
@pytest.mark.parametrize("biased", [False, True], ids=["", "bias"])
def test_default_convolutions_are_right(v: Convolution, loops: type[isa.Command], biased: bool) -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(-9, 9, (v.batch, v.rows, v.cols, v.channels)).astype(np.int8)
    f = rng.integers(-9, 9, (v.window, v.window, v.channels, v.kernels)).astype(np.int8)
    bias = rng.integers(-99, 99, v.kernels).astype(np.int32) * biased
    memory = MainMemory(1 << 16)
    shape = (v.batch, v.out_rows, v.out_cols, v.kernels)
    at = [memory.place(a) for a in (x, f, np.zeros(shape, np.int8))]
    commands = list(default_conv(SMALL, v, *at, memory.place(bias) if biased else 0))
    assert sum(isinstance(c, loops) for c in commands) > 1
    Functional(SMALL, memory).run(commands)
    np.testing.assert_array_equal(memory.array(at[2], shape, np.int8), convolved(x, f, v, bias))


def test_pixels_between_those_that_are_read_are_not_loaded() -> None:
    """1 x 1 windows with a stride of 2 on even images: as many rows come as are used."""
    even, odd = Convolution(1, 8, 8, 4, 4, 1, 2), Convolution(1, 7, 7, 4, 4, 1, 2)
    rows = []
    for v in (even, odd):
        assert (v.out_rows, v.out_cols) == (4, 4)
        run = simulate(default_conv(SMALL, v, 1 << 12, 2 << 12, 3 << 12), SMALL)
        rows.append(sum(e.command.local.rows for e in run.events if isinstance(e.command, isa.Mvin) and e.command.mvin == 0))
    assert rows[0] == 4 * 4 < rows[1]


@pytest.mark.parametrize("v", [Convolution(2, 6, 7, 5, 5, 3, 1, 1), Convolution(1, 11, 9, 3, 3, 3, 2, 1), Convolution(1, 6, 6, 4, 4, 2, 1)])
@pytest.mark.parametrize("biased", [False, True], ids=["", "bias"])
def test_default_depthwise_convolutions_are_right(v: Convolution, biased: bool) -> None:
    """Against dense ones whose weights between channels are zero."""
    rng = np.random.default_rng(3)
    x = rng.integers(-9, 9, (v.batch, v.rows, v.cols, v.channels)).astype(np.int8)
    f = rng.integers(-9, 9, (v.channels, v.window, v.window)).astype(np.int8)
    dense = np.zeros((v.window, v.window, v.channels, v.channels), np.int8)
    dense[:, :, range(v.channels), range(v.channels)] = f.transpose(1, 2, 0)
    bias = rng.integers(-99, 99, v.channels).astype(np.int32) * biased
    memory = MainMemory(1 << 16)
    shape = (v.batch, v.out_rows, v.out_cols, v.channels)
    at = [memory.place(a) for a in (x, f, np.zeros(shape, np.int8))]
    Functional(SMALL, memory).run(default_depthwise(SMALL, v, *at, memory.place(bias) if biased else 0))
    np.testing.assert_array_equal(memory.array(at[2], shape, np.int8), convolved(x, dense, v, bias))
