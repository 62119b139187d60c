"""The forms of loop_conv_ws, against a convolution that loops over its elements: those of training, transposed and depthwise ones."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.sim.gemmini import Configuration, Functional, MainMemory, isa, simulate
from tilewright.sim.gemmini.expansion import Loops
from tilewright.sim.gemmini.isa import ConfigEx, ConfigSt
from tilewright.sim.gemmini.loop_conv import convolution
from tilewright.util.errors import ExecutionError

SMALL = Configuration(dim=4, spad_rows=4096, acc_rows=1024, max_bytes=8, bus_bytes=4)
FORMS = ("wrot180", "trans_output_1203", "trans_weight_1203", "trans_weight_0132", "trans_input_3120", "downsample")


def convolved(x: np.ndarray, w: np.ndarray, stride: int, dilation: int, pad: int, out: int) -> np.ndarray:
    """NHWC input, weights by row, column, input and output channel."""
    n, size, _, channels = x.shape
    y = np.zeros((n, out, out, w.shape[3]), np.int64)
    for b, p, q, k, r, s, c in product(*map(range, (n, out, out, w.shape[3], w.shape[0], w.shape[1], channels))):
        i, j = p * stride + r * dilation - pad, q * stride + s * dilation - pad
        if 0 <= i < size and 0 <= j < size:
            y[b, p, q, k] += int(x[b, i, j, c]) * int(w[r, s, c, k])
    return np.clip(np.rint(y.astype(np.float32) * np.float32(0.01)), -128, 127).astype(np.int8)


def looped(
    x: np.ndarray, w: np.ndarray, stride: int, dilation: int, pad: int, out: int, forms: frozenset[str], pixels: int = 0
) -> np.ndarray:
    """The same by one loop_conv_ws, from and to the orders that ``forms`` say; its result in NHWC."""
    memory = MainMemory(1 << 18)
    model = Functional(SMALL, memory)
    n, oc = len(x), w.shape[3]
    stored = np.ascontiguousarray(x.transpose(3, 1, 2, 0)) if "trans_input_3120" in forms else x
    order = (2, 0, 1, 3) if "trans_weight_1203" in forms else (0, 1, 3, 2) if "trans_weight_0132" in forms else (0, 1, 2, 3)
    shape = (out, out, n, oc) if "trans_output_1203" in forms else (n, out, out, oc)
    px, pw, po = (memory.place(v) for v in (stored, np.ascontiguousarray(w.transpose(order)), np.zeros(shape, np.int8)))
    transposed = {"a_transpose": int("trans_input_3120" in forms), "b_transpose": int("trans_weight_0132" in forms)}
    model.run(
        [
            ConfigEx(a_stride=stride >> ("downsample" in forms), c_stride=1 + ("input_dilated" in forms), **transposed),
            ConfigSt(oc * (n if "trans_output_1203" in forms else 1), 0, isa.f32_bits(0.01)),
            *loop(x.shape, w.shape, (stride, dilation, pad, out), (px, pw, po), forms, pixels),
        ]
    )
    result = memory.array(po, shape, np.int8)
    return result.transpose(2, 0, 1, 3) if "trans_output_1203" in forms else result


def loop(
    x: tuple[int, ...],
    w: tuple[int, ...],
    how: tuple[int, int, int, int],
    at: tuple[int, int, int],
    forms: frozenset[str],
    pixels: int = 0,
    pitch: tuple[int, int] | None = None,
) -> list[isa.Command]:
    """The loop for an input of shape ``x`` (NHWC) and weights ``w``, of pixels that lie ``pitch`` elements apart (in, out)."""
    stride, dilation, pad, out = how
    n, size, _, ic = x
    kernel, oc = w[0], w[3]
    below = out * stride + dilation * (kernel - 1) - pad - (2 * size - 1 if "input_dilated" in forms else size)
    between = pitch or (ic, oc)
    return [
        isa.ConvShape(oc, ic, size, n, pad, stride, out, out, out),
        isa.ConvTile(kernel, out, 0, 0, 0, n, out, out, oc),
        isa.ConvKernel(kernel, kernel, ic, pad, below, pad, below, 0, size),
        isa.ConvOutput(out, 0, 0, 0, dilation, between[0], oc, between[1], out),
        isa.ConvAddressesWO(at[1], at[2]),
        isa.ConvAddressesBI(at[0], at[0]),
        isa.LoopConvWs(no_bias=1, no_pool=1, pixels=pixels, **dict.fromkeys(forms, 1)),
    ]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(4, 6),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 2),
    st.integers(0, 1),
    st.sets(st.sampled_from(FORMS[:5])),
)
def test_orders_of_training(n: int, size: int, channels: tuple[int, int], dilation: int, pad: int, chosen: set[str]) -> None:
    """Any of them together, but one order of the weights, and one operand that the array transposes."""
    forms = set(chosen)
    if "trans_weight_0132" in forms:
        forms -= {"trans_input_3120", "trans_weight_1203"}
    rng = np.random.default_rng(size)
    (ic, oc), kernel = channels, 2
    x, w = rng.integers(-99, 99, (n, size, size, ic), np.int8), rng.integers(-99, 99, (kernel, kernel, ic, oc), np.int8)
    out = size + 2 * pad - dilation * (kernel - 1)
    turned = w[::-1, ::-1] if "wrot180" in forms else w
    np.testing.assert_array_equal(looped(x, w, 1, dilation, pad, out, frozenset(forms)), convolved(x, turned, 1, dilation, pad, out))


@pytest.mark.parametrize("forms", [("downsample",), ("downsample", "trans_weight_1203"), ("downsample", "trans_input_3120")], ids="+".join)
@pytest.mark.parametrize("size", [4, 8, 12])
def test_downsampling(forms: tuple[str, ...], size: int) -> None:
    rng = np.random.default_rng(size)
    x, w = rng.integers(-99, 99, (3, size, size, 6), np.int8), rng.integers(-99, 99, (1, 1, 6, 5), np.int8)
    np.testing.assert_array_equal(looped(x, w, 2, 1, 0, size // 2, frozenset(forms)), convolved(x, w, 2, 1, 0, size // 2))


def test_weights_lie_in_one_order() -> None:
    x, w = np.zeros((1, 4, 4, 4), np.int8), np.zeros((1, 1, 4, 4), np.int8)
    with pytest.raises(ExecutionError, match="weights lie in one order"):
        looped(x, w, 1, 1, 0, 4, frozenset({"trans_weight_1203", "trans_weight_0132"}))
    with pytest.raises(ExecutionError, match="a dilated input is taken with a stride of 1"):
        looped(x, w, 2, 1, 0, 2, frozenset({"input_dilated"}))
    with pytest.raises(ExecutionError, match="a depthwise loop is of one channel, not of 4 to 4"):
        looped(x, w, 1, 1, 0, 4, frozenset({"depthwise"}))
    with pytest.raises(ExecutionError, match="go with plain operands, not with wrot180"):
        looped(x, w, 1, 1, 0, 4, frozenset({"wrot180"}), pixels=2)
    with pytest.raises(ExecutionError, match="2 neighbouring pixels of 4 channels do not fit a row of 4"):
        looped(x, w, 1, 1, 0, 4, frozenset(), pixels=2)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(2, 4),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 3),
    st.integers(0, 2),
    st.sets(st.sampled_from(FORMS[:5])),
)
def test_dilated_inputs(n: int, size: int, channels: tuple[int, int], kernel: int, pad: int, chosen: set[str]) -> None:
    """A transposed convolution: the input with zeros between its rows and columns, here put there by NumPy."""
    forms = set(chosen)
    if "trans_weight_0132" in forms:
        forms -= {"trans_input_3120", "trans_weight_1203"}
    pad = min(pad, kernel - 1)
    rng = np.random.default_rng(size)
    ic, oc = channels
    x, w = rng.integers(-99, 99, (n, size, size, ic), np.int8), rng.integers(-99, 99, (kernel, kernel, ic, oc), np.int8)
    spread = np.zeros((n, 2 * size - 1, 2 * size - 1, ic), np.int8)
    spread[:, ::2, ::2] = x
    out = 2 * size - 1 + 2 * pad - (kernel - 1)
    turned = w[::-1, ::-1] if "wrot180" in forms else w
    got = looped(x, w, 1, 1, pad, out, frozenset(forms | {"input_dilated"}))
    np.testing.assert_array_equal(got, convolved(spread, turned, 1, 1, pad, out))


@pytest.mark.parametrize(("channels", "kernel", "pixels"), [(1, 3, 3), (1, 3, 2), (1, 5, 4), (2, 3, 2), (3, 3, 1), (2, 2, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_several_pixels_a_row(channels: int, kernel: int, pixels: int, stride: int) -> None:
    """Columns of the kernel share a compute: fewer of them, and the same sums."""
    rng = np.random.default_rng(kernel)
    x, w = rng.integers(-99, 99, (2, 7, 7, channels), np.int8), rng.integers(-99, 99, (kernel, kernel, channels, 5), np.int8)
    out = (7 + 2 - kernel) // stride + 1
    np.testing.assert_array_equal(looped(x, w, stride, 1, 1, out, frozenset(), pixels), convolved(x, w, stride, 1, 1, out))
    each = [
        sum(isinstance(c, isa.Compute) for c in convolution(made, run))
        for made, run in [prepared(x, w, stride, out, n) for n in (0, pixels)]
    ]
    assert each[1] * kernel == each[0] * -(-kernel // pixels)


def prepared(x: np.ndarray, w: np.ndarray, stride: int, out: int, pixels: int) -> tuple[Loops, isa.LoopConvWs]:
    loops = Loops(SMALL)
    *registers, run = loop(x.shape, w.shape, (stride, 1, 1, out), (64, 64, 64), frozenset(), pixels)
    for register in registers:
        loops.configure(register)
    return loops, run


@pytest.mark.parametrize("pixels", [0, 3])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 1, 1), (3, 2, 1), (5, 1, 2), (2, 2, 0)])
def test_depthwise(pixels: int, kernel: int, stride: int, pad: int) -> None:
    """As the library does it: one loop for each channel, of pixels that lie all channels apart; alternating halves keep apart."""
    rng = np.random.default_rng(kernel)
    n, size, channels = 2, 6, 5
    x, w = rng.integers(-99, 99, (n, size, size, channels), np.int8), rng.integers(-99, 99, (channels, kernel, kernel), np.int8)
    out = (size + 2 * pad - kernel) // stride + 1
    memory = MainMemory(1 << 16)
    px, pw, po = memory.place(x), memory.place(w), memory.place(np.zeros((n, out, out, channels), np.int8))
    program = [ConfigEx(a_stride=stride), ConfigSt(channels, 0, isa.f32_bits(0.01))]
    for c in range(channels):
        at = px + c, pw + c * kernel**2, po + c
        sizes = (n, size, size, 1), (kernel, kernel, 1, 1)
        program += loop(*sizes, (stride, 1, pad, out), at, frozenset({"depthwise"}), pixels, (channels, channels))
    Functional(SMALL, memory).run(program)
    want = np.concatenate([convolved(x[..., c : c + 1], w[c, :, :, None, None], stride, 1, pad, out) for c in range(channels)], -1)
    np.testing.assert_array_equal(memory.array(po, want.shape, np.int8), want)


def test_pixels_a_row_shorten_a_depthwise_loop() -> None:
    """A third of the computes; loads take longer, for copies that take the scratchpad's ports."""
    cycles = []
    for pixels in (0, 3):
        sizes = (1, 16, 16, 1), (3, 3, 1, 1)
        program = loop(*sizes, (1, 1, 1, 16), (64, 64, 64), frozenset({"depthwise"}), pixels, (16, 16))
        cycles.append(simulate([ConfigEx(), ConfigSt(16), *program], SMALL).cycles)
    assert cycles[1] < 0.8 * cycles[0]


def test_zeros_of_a_dilated_input_take_no_computes() -> None:
    """A quarter of the products remains; the loop takes two cycles to pass over a position that none of them meets."""
    x, w = np.zeros((1, 8, 8, 4), np.int8), np.zeros((1, 1, 4, 4), np.int8)
    loops = Loops(SMALL)
    *registers, run = loop(x.shape, w.shape, (1, 1, 0, 15), (64, 64, 64), frozenset({"input_dilated"}))
    for register in registers:
        loops.configure(register)
    made = convolution(loops, run)
    assert sum(c.a.rows for c in made.execute if isinstance(c, isa.Compute)) == 8 * 8
    assert sum(made.idle) == 2 * (7 * 15)  # odd rows have none at all
