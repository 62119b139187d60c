"""Gemminis for floats: what the array and the moves make of numbers chosen for their roundings."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tilewright.ir.types import DType, bf16, f16, f32
from tilewright.sim.gemmini import Configuration, Functional, MainMemory, isa, simulate
from tilewright.sim.gemmini.baseline import Gemm, default_os, default_ws
from tilewright.sim.gemmini.baseline_conv import Convolution, default_conv
from tilewright.sim.gemmini.isa import Compute, ConfigEx, ConfigLd, ConfigSt, Mvin, Mvout, Preload, Tile
from tilewright.util.errors import ExecutionError

NONE = Tile(isa.GARBAGE, 4, 4)
KINDS = {f32: np.float32, f16: np.float16, bf16: ml_dtypes.bfloat16}


def machine(inputs: DType, column: DType) -> tuple[Functional, MainMemory]:
    memory = MainMemory(1 << 12)
    configuration = Configuration(4, 64, 32, inputs=inputs, sums=f32, array_bits=column.bits)
    return Functional(configuration, memory), memory


def product(inputs: DType, column: DType, a: list[float], b: list[float], addend: float = 0.0) -> np.float32:
    """One element of A B + D."""
    f, _ = machine(inputs, column)

    def stored(values: list[float]) -> np.ndarray:
        return np.array(values).astype(KINDS[inputs]).view(f.spad.dtype)

    f.spad[0, : len(a)], f.spad[4 : 4 + len(b), 0], f.spad[8, 0] = stored(a), stored(b), stored([addend])[0]
    result = Tile(isa.accumulator(0), 1, 1)
    f.run([ConfigEx(), Preload(Tile(4, 1, len(b)), result), Compute(Tile(0, len(a), 1), Tile(8, 1, 1))])
    return f.acc[0, 0]


def test_a_product_is_added_with_one_rounding() -> None:
    """1 + 2^-23 + (2^-24 - 2^-54): just below half way, which f64 does not see."""
    assert product(f32, f32, [2.0**-24 * (1 + 2.0**-15)], [1 - 2.0**-15], 1 + 2.0**-23) == np.float32(1 + 2.0**-23)
    assert product(f32, f32, [2.0**-24 * (1 + 2.0**-15)], [1 + 2.0**-15], 1 + 2.0**-23) == np.float32(1 + 2.0**-22)
    # 1 + 2^-3 + 2^-8 in bf16 is half way, to even; with 2^-60 it is above, which f64 does not see either
    assert product(bf16, bf16, [1 + 2.0**-4], [1 + 2.0**-4]) == 1.125
    assert product(bf16, bf16, [1 + 2.0**-4], [1 + 2.0**-4], 2.0**-60) == np.float32(1.1328125)


def test_sums_go_down_the_column_in_its_type() -> None:
    ones, small = [1.0] * 3, [1.0, 2.0**-9, 2.0**-9]
    assert product(bf16, f32, ones, small) == np.float32(1 + 2.0**-8)
    assert product(bf16, bf16, ones, small) == 1.0
    assert product(bf16, bf16, ones, small[::-1]) == 1.0  # 2^-8 + 1 is half way: to even
    assert product(bf16, bf16, [1.0, 2.0**-8, 2.0**-8, 1.0], [1.0, 1.0, 1.0, 2.0**-7]) == np.float32(1 + 2.0**-7)
    assert product(bf16, bf16, [1.0, 1.0, 1.0, 1.0], [2.0**-7, 2.0**-8, 2.0**-8, 1.0]) == np.float32(1 + 2.0**-6)
    assert np.isinf(product(f16, f16, [60000.0, 60000.0], [1.0, 1.0])) and product(f16, f32, [60000.0] * 2, [1.0] * 2) == 120000


def test_subnormal_numbers_and_what_is_no_number() -> None:
    assert product(f32, f32, [2.0**-75], [2.0**-75]) == 0 and product(f32, f32, [2.0**-75], [2.0**-74]) == np.float32(2.0**-149)
    assert product(f32, f32, [2.0**-75, 2.0**-100], [2.0**-75, 2.0**-100]) == 0  # half the least number, to even, then less than half
    assert product(f32, f32, [2.0**-100, 2.0**-75 * (1 + 2.0**-20)], [2.0**-100, 2.0**-75]) == np.float32(2.0**-149)
    infinite = product(f32, f32, [np.inf, 1.0], [0.0, 1.0])
    assert infinite.view(np.uint32) == 0x7FC00000  # without sign, whatever the host makes of inf times 0


@pytest.mark.parametrize("inputs", [f32, bf16, f16], ids=str)
def test_scales_of_loads_and_stores(inputs: DType) -> None:
    f, memory = machine(inputs, f32)
    kind, size = KINDS[inputs], inputs.nbytes
    one = 0x3C00 if inputs == f16 else isa.ONE
    assert f.configuration.unscaled == one
    half = 0x3800 if inputs == f16 else isa.f32_bits(0.5)
    x = np.array([[1.0, -3.5, 1e-3, 300.0]]).astype(kind)
    source, out = memory.place(x.view(f.spad.dtype)), memory.place(np.zeros((1, 4), f.spad.dtype))
    f.run([ConfigLd(4 * size, scale=half, shrunk=1), Mvin(source, Tile(isa.accumulator(0), 4, 1))])
    np.testing.assert_array_equal(f.acc[0], (x * kind(0.5)).astype(np.float32)[0])
    f.run([ConfigLd(4 * size, scale=one, shrunk=1), Mvin(source, Tile(isa.accumulator(0, accumulate=True), 4, 1))])
    total = x.astype(np.float32)[0] + (x * kind(0.5)).astype(np.float32)[0]
    np.testing.assert_array_equal(f.acc[0], total)
    f.run([ConfigSt(64, isa.RELU, isa.f32_bits(1.7)), Mvout(out, Tile(isa.accumulator(0), 4, 1))])
    want = np.maximum(total * np.float32(1.7), 0).astype(kind)
    np.testing.assert_array_equal(memory.array(out, (4,), f.spad.dtype), want.view(f.spad.dtype))


def test_the_scale_of_bf16_loads_is_rounded_first() -> None:
    f, memory = machine(bf16, bf16)
    source = memory.place(np.array([[3.0, 1.0]]).astype(ml_dtypes.bfloat16).view(np.uint16))
    f.run([ConfigLd(4, scale=isa.f32_bits(1 + 2.0**-7 + 2.0**-9)), Mvin(source, Tile(0, 2, 1))])
    scale = ml_dtypes.bfloat16(1 + 2.0**-7)
    np.testing.assert_array_equal(f.spad[0, :2].view(ml_dtypes.bfloat16), np.array([3.0, 1.0]).astype(ml_dtypes.bfloat16) * scale)


def test_scales_that_are_none() -> None:
    f, memory = machine(f16, f16)
    address = memory.place(np.ones((1, 4), np.float16))
    for scale, message in ((isa.ONE, "more than the 16 bits"), (0x7C00, "is the f16 inf, not a finite number")):
        with pytest.raises(ExecutionError, match=message):
            f.run([ConfigLd(8, scale=scale), Mvin(address, Tile(0, 4, 1))])
    with pytest.raises(ExecutionError, match="f32 nan"):
        f.run([ConfigSt(8, acc_scale=0x7FC00000), Mvout(address, Tile(isa.accumulator(0), 4, 1))])


@pytest.mark.parametrize("inputs", [f32, bf16, f16], ids=str)
@pytest.mark.parametrize("stream", [default_ws, default_os])
def test_the_library_s_streams_on_floats(inputs: DType, stream) -> None:  # type: ignore[no-untyped-def]
    """Addresses and strides in bytes of the inputs; whole numbers are exact in every type."""
    memory = MainMemory(1 << 14)
    c = Configuration(4, 512, 128, inputs=inputs, sums=f32, array_bits=32)
    f, rng = Functional(c, memory), np.random.default_rng(0)
    a, b = (rng.integers(-2, 3, shape).astype(KINDS[inputs]) for shape in ((11, 9), (9, 13)))
    out = np.zeros((11, 13), KINDS[inputs])
    g = Gemm(11, 13, 9, *(memory.place(x.view(f.spad.dtype)) for x in (a, b, out)))
    f.run(stream(c, g))
    got = memory.array(g.c, (11, 13), f.spad.dtype).view(KINDS[inputs])
    np.testing.assert_array_equal(got.astype(np.float32), a.astype(np.float32) @ b.astype(np.float32))
    wide, narrow = (simulate(stream(k, g), k).cycles for k in (c, Configuration(4, 512, 128)))
    assert wide >= narrow


def test_the_library_convolves_floats() -> None:
    memory = MainMemory(1 << 15)
    c = Configuration(4, 256, 64, inputs=f32, sums=f32, array_bits=32)
    f, rng = Functional(c, memory), np.random.default_rng(1)
    v = Convolution(2, 6, 7, 5, 6, 3, 2, 1)
    x, w = (rng.integers(-3, 4, shape).astype(np.float32) for shape in ((2, 6, 7, 5), (3, 3, 5, 6)))
    y = memory.place(np.zeros((2, v.out_rows, v.out_cols, 6), np.float32))
    f.run(default_conv(c, v, memory.place(x), memory.place(w), y))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    want = np.einsum("npqcrs,rsck->npqk", windows, w)
    np.testing.assert_array_equal(memory.array(y, want.shape, np.float32), want)
