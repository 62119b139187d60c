"""The forms of loop_conv_ws that training uses, against a convolution that loops over its elements."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.sim.gemmini import Configuration, Functional, MainMemory, isa
from tilewright.sim.gemmini.isa import ConfigEx, ConfigSt
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


def looped(x: np.ndarray, w: np.ndarray, stride: int, dilation: int, pad: int, out: int, forms: frozenset[str]) -> np.ndarray:
    """The same by one loop_conv_ws, from and to the orders that ``forms`` say; its result in NHWC."""
    memory = MainMemory(1 << 18)
    model = Functional(SMALL, memory)
    n, size, _, ic = x.shape
    kernel, oc = len(w), w.shape[3]
    stored = np.ascontiguousarray(x.transpose(3, 1, 2, 0)) if "trans_input_3120" in forms else x
    order = (2, 0, 1, 3) if "trans_weight_1203" in forms else (0, 1, 3, 2) if "trans_weight_0132" in forms else (0, 1, 2, 3)
    shape = (out, out, n, oc) if "trans_output_1203" in forms else (n, out, out, oc)
    px, pw, po = (memory.place(v) for v in (stored, np.ascontiguousarray(w.transpose(order)), np.zeros(shape, np.int8)))
    below = out * stride + dilation * (kernel - 1) - pad - size
    transposed = {"a_transpose": int("trans_input_3120" in forms), "b_transpose": int("trans_weight_0132" in forms)}
    model.run(
        [
            ConfigEx(a_stride=stride >> ("downsample" in forms), **transposed),
            ConfigSt(oc * (n if "trans_output_1203" in forms else 1), 0, isa.f32_bits(0.01)),
            isa.ConvShape(oc, ic, size, n, pad, stride, out, out, out),
            isa.ConvTile(kernel, out, 0, 0, 0, n, out, out, oc),
            isa.ConvKernel(kernel, kernel, ic, pad, below, pad, below, 0, size),
            isa.ConvOutput(out, 0, 0, 0, dilation, ic, oc, oc, out),
            isa.ConvAddressesWO(pw, po),
            isa.ConvAddressesBI(px, px),
            isa.LoopConvWs(no_bias=1, no_pool=1, **dict.fromkeys(forms, 1)),
        ]
    )
    result = memory.array(po, shape, np.int8)
    return result.transpose(2, 0, 1, 3) if "trans_output_1203" in forms else result


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
    with pytest.raises(ExecutionError, match="the input_dilated form is not modelled"):
        looped(x, w, 1, 1, 0, 4, frozenset({"input_dilated"}))
