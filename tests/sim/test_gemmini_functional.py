"""The functional model: each instruction by hand-computed values, loops against plain products and convolutions, refusals."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
import pytest

from tilewright.hw import load_machine
from tilewright.hw.library.gemmini import gemmini
from tilewright.sim.gemmini import Configuration, Functional, MainMemory, isa
from tilewright.sim.gemmini.baseline import Gemm, default_os, default_tiles, default_ws, tiled_ws
from tilewright.sim.gemmini.isa import Compute, ConfigEx, ConfigLd, ConfigSt, Mvin, Mvout, Preload, Tile
from tilewright.sim.gemmini.words import encode
from tilewright.util.errors import ExecutionError, MachineError

SMALL = Configuration(dim=4, spad_rows=64, acc_rows=32, max_bytes=16)
NONE = Tile(isa.GARBAGE, 4, 4)


def machine(size: int = 1 << 16, configuration: Configuration = SMALL) -> tuple[Functional, MainMemory]:
    memory = MainMemory(size)
    return Functional(configuration, memory), memory


def rescaled(acc: np.ndarray, scale: float, relu: bool = False) -> np.ndarray:
    out = np.clip(np.round((acc.astype(np.float32) * np.float32(scale)).astype(np.float64)), -128, 127).astype(np.int8)
    return np.maximum(out, 0) if relu else out


def test_configuration_follows_the_declared_machine() -> None:
    c = Configuration.of(load_machine("gemmini"))
    assert (c.dim, c.spad_rows, c.acc_rows, c.spad_banks, c.bus_bytes, c.max_bytes) == (16, 16384, 1024, 4, 16, 64)
    assert (c.load_queue, c.store_queue, c.execute_queue, c.array_bits) == (8, 2, 8, 20)
    big = Configuration.of(gemmini("gemmini.32", 32, 512 << 10, 128 << 10))
    assert (big.dim, big.spad_rows, big.acc_rows, big.blocks(1), big.array_bits) == (32, 16384, 1024, 2, 21)
    with pytest.raises(MachineError, match="bus of 16 bytes, requests of at most 8"):
        Configuration(4, 64, 32, max_bytes=8)
    with pytest.raises(MachineError, match="is not a Gemmini"):
        Configuration.of(load_machine("x86.avx2"))


def test_mvin_splits_wide_rows_into_blocks() -> None:
    f, memory = machine()
    a = np.arange(3 * 10, dtype=np.int8).reshape(3, 10)
    f.run([ConfigLd(10, 0, 8), Mvin(memory.place(a), Tile(5, 10, 3))])
    np.testing.assert_array_equal(f.spad[5:8], a[:, :4])
    np.testing.assert_array_equal(f.spad[13:16], a[:, 4:8])
    np.testing.assert_array_equal(f.spad[21:24, :2], a[:, 8:])
    assert not f.spad[8:13].any() and not f.spad[24:].any()


def test_mvin_scales_int8_to_nearest_even_and_saturates() -> None:
    f, memory = machine()
    address = memory.place(np.array([[1, 3, 5, 127]], np.int8))
    f.run([ConfigLd(4, 2, scale=isa.f32_bits(0.5)), Mvin(address, Tile(0, 4, 1), 2)])
    assert f.spad[0].tolist() == [0, 2, 2, 64]  # 0.5, 1.5, 2.5, 63.5: ties go to even
    f.run([ConfigLd(4, 2, scale=isa.f32_bits(-2.0), shrunk=1), Mvin(address, Tile(isa.accumulator(1), 4, 1), 2)])
    assert f.acc[1].tolist() == [-2, -6, -10, -128]


def test_mvin_to_the_accumulator_adds_wraps_and_ignores_the_scale() -> None:
    f, memory = machine()
    address = memory.place(np.array([[2**31 - 1, -1, 7, 0]], np.int32))
    load = Mvin(address, Tile(isa.accumulator(0, accumulate=True), 4, 1))
    f.run([ConfigLd(16, scale=isa.f32_bits(3.0)), load, load])
    assert f.acc[0].tolist() == [-2, -2, 14, 0]


def test_mvin_of_address_zero_is_zeros() -> None:
    f, _ = machine()
    f.spad[:], f.acc[:] = 9, 9
    f.run([ConfigLd(4), Mvin(0, Tile(2, 3, 2)), Mvin(0, Tile(isa.accumulator(0), 4, 1))])
    assert f.spad[1:5].tolist() == [[9] * 4, [0, 0, 0, 9], [0, 0, 0, 9], [9] * 4]
    assert f.acc[:2].tolist() == [[0] * 4, [9] * 4]


def test_repeated_pixels_land_beside_each_other_in_earlier_rows() -> None:
    f, memory = machine()
    a = np.array([[1, 2], [3, 4], [5, 6]], np.int8)
    f.run([ConfigLd(2, repeats=2), Mvin(memory.place(a), Tile(0, 2, 3))])
    assert f.spad[:3].tolist() == [[1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 0, 0]]  # what would be row -1 is dropped


def test_mvout_rounds_saturates_then_activates_or_reads_in_full() -> None:
    f, memory = machine()
    f.acc[3] = [5, -5, 1000, 2**31 - 1]
    small, full = memory.place(np.zeros((1, 4), np.int8)), memory.place(np.zeros((1, 4), np.int32))
    f.run([ConfigSt(16, acc_scale=isa.f32_bits(0.5)), Mvout(small, Tile(isa.accumulator(3), 4, 1))])
    assert memory.array(small, (4,), np.int8).tolist() == [2, -2, 127, 127]
    f.run([ConfigSt(16, isa.RELU, isa.KEEP_SCALE), Mvout(small, Tile(isa.accumulator(3), 4, 1))])
    assert memory.array(small, (4,), np.int8).tolist() == [2, 0, 127, 127]
    f.run([Mvout(full, Tile(isa.accumulator(3, full=True), 4, 1))])
    assert memory.array(full, (4,), np.int32).tolist() == [5, -5, 1000, 2**31 - 1]


@pytest.mark.parametrize("pad", [0, 1])
def test_mvout_pools(pad: int) -> None:
    f, memory = machine()
    rng = np.random.default_rng(pad)
    image = rng.integers(-300, 300, (5, 4, 3), np.int32)
    f.acc[2:22, :3] = image.reshape(20, 3)
    out = memory.place(np.zeros((2, 8, 8), np.int8))
    pooled = (2 + pad, 2)
    st = ConfigSt(8, 0, isa.f32_bits(0.25), 2, 2, pad, pad, 8, *pooled, 5, 4)
    f.run([st, Mvout(out, Tile(isa.accumulator(2), 3, 1))])
    padded = np.pad(rescaled(image, 0.25), ((pad, 2), (pad, 2), (0, 0)))
    got = memory.array(out, (*pooled, 8), np.int8) if pooled[1] == 8 else memory.array(out, (pooled[0], 8, 8), np.int8)[:, : pooled[1]]
    for r, c in product(range(pooled[0]), range(pooled[1])):
        np.testing.assert_array_equal(got[r, c, :3], padded[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].max((0, 1)))


@pytest.mark.parametrize(("at", "bt"), [(0, 0), (1, 0), (0, 1)])
def test_weight_stationary_products(at: int, bt: int) -> None:
    f, _ = machine()
    rng = np.random.default_rng(0)
    f.spad[:] = rng.integers(-128, 128, f.spad.shape, np.int8)
    a, b, d = f.spad[0:8:2].astype(int), f.spad[20:24].astype(int), f.spad[30:34].astype(int)
    expected = (a.T if at else a) @ (b.T if bt else b)
    f.run(
        [
            ConfigEx(a_transpose=at, b_transpose=bt, a_stride=2, c_stride=3),
            Preload(Tile(20, 4, 4), Tile(isa.accumulator(1), 4, 4)),
            Compute(Tile(0, 4, 4), Tile(30, 4, 4)),
            Preload(NONE, Tile(isa.accumulator(1, accumulate=True), 4, 4)),
            Compute(Tile(0, 4, 4), NONE, preloaded=False),
        ]
    )
    np.testing.assert_array_equal(f.acc[1:13:3], 2 * expected + d)
    assert not f.acc[2:4].any()


@pytest.mark.parametrize(("at", "bt"), [(0, 0), (1, 0), (1, 1)])
def test_output_stationary_products_stay_in_the_array_until_written(at: int, bt: int) -> None:
    f, _ = machine()
    rng = np.random.default_rng(1)
    f.spad[:] = rng.integers(-128, 128, f.spad.shape, np.int8)
    a, b, d = (f.spad[n : n + 4].astype(int) for n in (0, 20, 30))
    sums = d + 2 * (a.T if at else a) @ (b.T if bt else b)
    operands = Tile(0, 4, 4), Tile(20, 4, 4)
    f.run(
        [
            ConfigEx(0, isa.RELU, a_transpose=at, b_transpose=bt, shift=3),
            Preload(Tile(30, 4, 4), NONE),
            Compute(*operands),
            Preload(NONE, Tile(isa.accumulator(0), 4, 4)),
            Compute(*operands, preloaded=False),
            Preload(NONE, Tile(40, 3, 2)),
            Compute(NONE, NONE, preloaded=False),
        ]
    )
    np.testing.assert_array_equal(f.acc[:4], np.round(sums / 8))
    np.testing.assert_array_equal(f.spad[40:42, :3], np.clip(np.round(sums / 8), 0, 127)[:2, :3])


def test_output_stationary_results_saturate_at_the_width_of_the_array() -> None:
    f, _ = machine()
    f.spad[:4], f.spad[4:8] = -128, 127
    compute = [Preload(NONE, Tile(isa.accumulator(0), 4, 4)), Compute(Tile(0, 4, 4), Tile(4, 4, 4), preloaded=False)]
    f.run([ConfigEx(0), Preload(NONE, NONE), Compute(NONE, NONE), *compute * 9])
    assert (f.acc[:4] == -(2**19)).all()  # 9 * 4 * 16256 is beyond


@pytest.mark.parametrize("stream", ["default_ws", "default_os", "tiled_ws"])
@pytest.mark.parametrize(("m", "n", "k"), [(16, 16, 16), (40, 23, 65), (128, 100, 96)])
def test_vendor_streams_multiply(stream: str, m: int, n: int, k: int) -> None:
    c = Configuration.of(load_machine("gemmini"))
    f, memory = machine(1 << 17, c)
    rng = np.random.default_rng(m)
    a, b = rng.integers(-20, 20, (m, k), np.int8), rng.integers(-20, 20, (k, n), np.int8)
    g = Gemm(m, n, k, memory.place(a), memory.place(b), memory.place(np.zeros((m, n), np.int8)), isa.f32_bits(0.125))
    f.run(tiled_ws(c, g, (2, 1, 3)) if stream == "tiled_ws" else {"default_ws": default_ws, "default_os": default_os}[stream](c, g))
    np.testing.assert_array_equal(memory.array(g.c, (m, n), np.int8), rescaled(a.astype(np.int32) @ b, 0.125))


def test_vendor_stream_with_a_bias() -> None:
    c = Configuration.of(load_machine("gemmini"))
    f, memory = machine(1 << 17, c)
    rng = np.random.default_rng(1)
    a, b = rng.integers(-20, 20, (40, 65), np.int8), rng.integers(-20, 20, (65, 23), np.int8)
    bias = rng.integers(-2000, 2000, 23).astype(np.int32)
    at = (memory.place(x) for x in (a, b, np.zeros((40, 23), np.int8)))
    g = Gemm(40, 23, 65, *at, isa.f32_bits(0.125), bias=memory.place(bias))
    f.run(tiled_ws(c, g, (2, 1, 3)))
    np.testing.assert_array_equal(memory.array(g.c, (40, 23), np.int8), rescaled(a.astype(np.int32) @ b + bias, 0.125))
    with pytest.raises(ExecutionError, match="has no bias"):
        f.run(default_os(c, g))


def test_default_tiles_fill_the_halves() -> None:
    c = Configuration.of(load_machine("gemmini"))
    assert default_tiles(c, 512, 512, 512) == (5, 6, 32)
    assert default_tiles(c, 128, 128, 320) == (5, 6, 20)
    assert default_tiles(c, 16, 320, 64) == (1, 20, 4)
    assert default_tiles(c, 2048, 2048, 2048) == (5, 5, 51)
    assert default_tiles(c, 128, 128, 128, double_buffered=False) == (8, 8, 8)


@pytest.mark.parametrize(("at", "bt", "low", "full"), [(0, 0, 0, 0), (1, 0, 1, 0), (0, 1, 0, 1)])
def test_loop_ws_multiplies_and_adds(at: int, bt: int, low: int, full: int) -> None:
    f, memory = machine(configuration=Configuration(dim=4, spad_rows=128, acc_rows=64, max_bytes=8, bus_bytes=4))
    rng = np.random.default_rng(5)
    m, n, k = 7, 10, 11
    a, b = rng.integers(-99, 99, (k, m) if at else (m, k), np.int8), rng.integers(-99, 99, (n, k) if bt else (k, n), np.int8)
    d = rng.integers(-99, 99, (m, n)).astype(np.int8 if low else np.int32)
    kind, size = (np.int32, 4) if full else (np.int8, 1)
    pa, pb, pd, pc = (memory.place(x) for x in (a, b, d, np.zeros((m, n), kind)))
    f.run(
        [
            ConfigEx(a_transpose=at, b_transpose=bt),
            ConfigSt(n * size, isa.RELU, isa.f32_bits(0.01)),
            ConfigLd(a.shape[1], 0, 4),
            ConfigLd(b.shape[1], 1, 4),
            ConfigLd(n * d.itemsize, 2, 4, shrunk=low),
            isa.LoopBounds(2, 3, 3, 1, 2, 1),
            isa.LoopAddressesAB(pa, pb),
            isa.LoopAddressesDC(pd, pc),
            isa.LoopStridesAB(a.shape[1], b.shape[1]),
            isa.LoopStridesDC(n, n),
            isa.LoopWs(1, full, low, a_transpose=at, b_transpose=bt),
        ]
    )
    exact = (a.T if at else a).astype(np.int32) @ (b.T if bt else b).astype(np.int32) + d
    np.testing.assert_array_equal(memory.array(pc, (m, n), kind), exact if full else rescaled(exact, 0.01, relu=True))


@pytest.mark.parametrize(
    ("stride", "dilation", "pad", "pool", "bias", "chs"),
    [
        (1, 1, 0, 0, True, (3, 5)),
        (1, 1, 1, 0, False, (9, 6)),
        (2, 1, 1, 0, True, (4, 4)),
        (1, 2, 2, 0, True, (5, 3)),
        (1, 1, 1, 2, True, (6, 9)),
    ],
)
def test_loop_conv_ws_convolves(stride: int, dilation: int, pad: int, pool: int, bias: bool, chs: tuple[int, int]) -> None:
    f, memory = machine(configuration=Configuration(dim=4, spad_rows=2048, acc_rows=512, max_bytes=8, bus_bytes=4))
    rng = np.random.default_rng(7)
    (ic, oc), batch, size, kernel = chs, 2, 6, 3
    x, w = rng.integers(-99, 99, (batch, size, size, ic), np.int8), rng.integers(-99, 99, (kernel, kernel, ic, oc), np.int8)
    d = rng.integers(-9999, 9999, oc, np.int32)
    reach = dilation * (kernel - 1) + 1
    out = (size + 2 * pad - reach) // stride + 1
    pout = (out - 2) // 2 + 1
    shape = (batch, pout, pout, oc) if pool else (batch, out, out, oc)
    px, pw, pd, po = (memory.place(v) for v in (x, w, d, np.zeros(shape, np.int8)))
    below = out * stride + reach - 1 - pad - size  # the hardware's input tile has a whole stride for the last output
    f.run(
        [
            ConfigEx(a_stride=stride),
            ConfigSt(oc, isa.RELU, isa.f32_bits(0.003)),
            isa.ConvShape(oc, ic, size, batch, pad, stride, out, pout, out),
            isa.ConvTile(kernel, pout, pool, pool, 0, batch, pout, pout, oc),
            isa.ConvKernel(kernel, kernel, ic, pad, below, pad, below, 0, size),
            isa.ConvOutput(out, 0, 0, 0, dilation, ic, oc, oc, out),
            isa.ConvAddressesWO(pw, po),
            isa.ConvAddressesBI(pd, px),
            isa.LoopConvWs(no_bias=int(not bias), no_pool=int(not pool), activation=isa.RELU),
        ]
    )
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))).astype(np.int64)
    exact = np.zeros((batch, out, out, oc), np.int64) + (d if bias else 0)
    for r, s, p, q in product(range(kernel), range(kernel), range(out), range(out)):
        exact[:, p, q] += padded[:, p * stride + r * dilation, q * stride + s * dilation] @ w[r, s].astype(np.int64)
    expected = rescaled(exact, 0.003, relu=True)
    if pool:
        expected = expected[:, : 2 * pout, : 2 * pout].reshape(batch, pout, 2, pout, 2, oc).max((2, 4))
    np.testing.assert_array_equal(memory.array(po, shape, np.int8), expected)


def test_successive_loops_alternate_between_the_halves() -> None:
    f, memory = machine()
    one = memory.place(np.ones((4, 4), np.int8))
    out = memory.place(np.zeros((4, 4), np.int8))
    setup = [ConfigEx(), ConfigSt(4), *(ConfigLd(4, m, 4) for m in range(3)), isa.LoopBounds(1, 1, 1)]
    loop = [isa.LoopAddressesAB(one, one), isa.LoopStridesAB(4, 4), isa.LoopStridesDC(4, 4)]
    f.run([*setup, *loop, isa.LoopAddressesDC(0, 0), isa.LoopWs()])
    assert f.spad[:4].all() and f.spad[28:32].all() and not f.spad[32:].any()
    f.run([isa.LoopAddressesDC(0, out), isa.LoopWs(accumulate=1)])
    assert f.spad[32:36].all() and f.spad[60:64].all() and (f.acc[:4] == 8).all() and not f.acc[4:].any()
    f.run([isa.LoopWs()])
    assert (f.acc[16:20] == 4).all() and (memory.array(out, (4, 4), np.int8) == 4).all()


BIND = [ConfigEx(), ConfigLd(4), ConfigSt(4)]
LOOP = [isa.LoopAddressesAB(1, 1), isa.LoopAddressesDC(0, 0), isa.LoopStridesAB(4, 4), isa.LoopStridesDC(4, 4)]
HOME = 0x8000_0000


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ([Mvin(HOME, Tile(0, 4, 4), 1)], r"instruction 0, Mvin .*mvin 1 was never configured\n.*ConfigLd\(stride, mvin=1\)"),
        ([Mvout(HOME, Tile(0, 4, 4))], "mvout was never configured"),
        ([Preload(NONE, NONE)], "execute controller was never configured"),
        ([*BIND, Compute(NONE, NONE)], r"instruction 3, Compute .*no preload came before it\n  hint: each compute follows a preload"),
        ([*BIND, Preload(NONE, NONE), Preload(NONE, NONE)], "replaces a preload that no compute has used"),
        ([*BIND, Preload(NONE, NONE), Compute(NONE, NONE, False)], "continues with what the array holds, which is nothing"),
        ([*BIND, Mvin(HOME, Tile(62, 4, 4))], "rows 62 to 65 lie outside the scratchpad of 64 rows"),
        ([*BIND, Mvout(HOME, Tile(isa.accumulator(32), 4, 1))], "rows 32 to 32 lie outside the accumulator of 32 rows"),
        ([*BIND, Preload(Tile(61, 4, 4), NONE)], "rows 61 to 64 lie outside"),
        ([*BIND, Preload(NONE, Tile(isa.accumulator(30), 4, 4))], "rows 30 to 33 lie outside the accumulator"),
        ([*BIND, Preload(Tile(isa.accumulator(0), 4, 4), NONE)], "lies in the accumulator"),
        ([*BIND, Preload(Tile(0, 5, 4), NONE)], "larger than the array of 4"),
        ([*BIND, Mvin(HOME, Tile(0, 4, 5))], "5 rows of 4 columns: at most 4 rows of 16"),
        ([*BIND, Mvin(HOME, Tile(isa.accumulator(0), 5, 1))], "1 rows of 5 columns: at most 4 rows of 4"),
        ([*BIND, Mvin(HOME, Tile(0, 8, 2))], "blocks of 2 rows overlap at a block stride of 0"),
        ([*BIND, Mvin(HOME - 4, Tile(0, 4, 4))], "bytes 0x7ffffffc to 0x8000000c lie outside main memory"),
        ([*BIND, Mvin(HOME + 1, Tile(isa.accumulator(0), 4, 4))], "0x80000001 with stride 4 is not aligned to the 4 bytes"),
        ([ConfigSt(2), Mvout(HOME, Tile(0, 4, 2))], "rows of 4 bytes at a stride of 2 overlap in main memory"),
        ([ConfigLd(4, repeats=3), Mvin(HOME, Tile(0, 2, 1))], "3 pixels of 2 columns do not fit a row of 4"),
        ([ConfigLd(4, scale=isa.KEEP_SCALE), Mvin(HOME, Tile(0, 2, 1))], "scale 0xffffffff is the f32 nan"),
        ([ConfigSt(4, acc_scale=isa.KEEP_SCALE)], "keeps a scale that was never set"),
        ([ConfigSt(4, pool_stride=1)], "pooling needs a window"),
        ([ConfigSt(4, pool_size=2)], "a window without a stride: one-dimensional stores"),
        ([ConfigEx(a_transpose=1, b_transpose=1)], "transposes A or B, not both"),
        ([ConfigEx(0, b_transpose=1)], "transposes B only together with A"),
        ([ConfigEx(activation=2)], "activation 2 needs a unit the declared machine lacks"),
        ([ConfigEx(a_stride=0)], "must be at least 1 row"),
        ([ConfigEx(strides_only=1)], "strides_only keeps a dataflow that was never set"),
        ([isa.ConfigNorm(0, 0)], "normalisation unit is not part of the declared machine"),
        ([isa.LoopWs()], "the loop starts before any LoopBounds"),
        ([isa.LoopBounds(3, 3, 2), *LOOP, isa.LoopWs()], "takes 48 rows of the scratchpad, of which double buffering leaves 32"),
        ([isa.LoopBounds(1, 1, 0), *LOOP, isa.LoopWs()], "each extent must be at least 1 block"),
        ([ConfigEx(), isa.LoopBounds(1, 1, 1), *LOOP, isa.LoopWs()], r"LoopWs: in its expansion, Mvin .*mvin 0 was never configured"),
        ([isa.LoopConvWs(depthwise=1)], "the loop starts before any ConvShape"),
    ],
)
def test_illegal_programs_name_instruction_rule_and_way_out(program: list[isa.Command], message: str) -> None:
    with pytest.raises(ExecutionError, match=message) as caught:
        machine()[0].run(program)
    assert str(caught.value).startswith(f"instruction {len(program) - 1}, ") and caught.value.hint


def test_a_change_of_dataflow_forgets_what_the_array_holds() -> None:
    held = [ConfigEx(), Preload(NONE, NONE), Compute(NONE, NONE)]
    f, _ = machine()
    f.run([*held, ConfigEx(), Preload(NONE, NONE), Compute(NONE, NONE, False)])
    with pytest.raises(ExecutionError, match=r"instruction 8, .*continues with what the array holds"):
        f.run([ConfigEx(0), Preload(NONE, NONE), Compute(NONE, NONE, False)])


def test_words_run_like_the_commands_they_encode() -> None:
    f, memory = machine()
    address = memory.place(np.arange(4, dtype=np.int8))
    f.run([encode(x) for x in (ConfigLd(4), Mvin(address, Tile(7, 4, 1)))])
    assert f.spad[7].tolist() == [0, 1, 2, 3] and f.executed == 2


def test_a_product_of_1024_cubed_takes_seconds() -> None:
    c = Configuration.of(load_machine("gemmini"))
    f, memory = machine(4 << 20, c)
    rng = np.random.default_rng(0)
    a, b = rng.integers(-128, 128, (1024, 1024), np.int8), rng.integers(-128, 128, (1024, 1024), np.int8)
    g = Gemm(1024, 1024, 1024, memory.place(a), memory.place(b), memory.place(np.zeros((1024, 1024), np.int8)), isa.f32_bits(1e-3))
    start = time.thread_time()
    f.run(default_ws(c, g))
    assert time.thread_time() - start < 10
    exact = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int32)
    np.testing.assert_array_equal(memory.array(g.c, (1024, 1024), np.int8), rescaled(exact, 1e-3))
