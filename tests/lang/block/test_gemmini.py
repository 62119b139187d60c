"""Block programs on a simulated accelerator: bit for bit what this host computes, on the array wherever its words can do it."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from examples.block_gemmini import attention, quantised
from examples.block_matmul import grouped_matmul, matmul
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lang.block.programs import integer_matmul, requantised

import tilewright as tw
import tilewright.language as tl
from tilewright.hw import load_machine
from tilewright.runtime.accelerated import Accelerated
from tilewright.util.errors import MachineError, RuntimeFailure


def ints(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-128, 128, shape).astype(np.int8)


def on_array(module: Any) -> list[str]:
    return [k.name for k, p in zip(module.kernels, module.programs, strict=True) if p is not None]


@settings(max_examples=4, deadline=None)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from([(16, 32, 16), (32, 16, 64)]),
    st.booleans(),
    st.integers(1, 3),
)
def test_quantised_products_in_grouped_order(sizes: tuple[int, int, int], blocks: tuple[int, int, int], relu: bool, group: int) -> None:
    rng = np.random.default_rng(sum(sizes))
    (m, n, k), (bm, bn, bk) = sizes, blocks
    a, b = ints(rng, m, k), ints(rng, k, n)
    there, here = np.zeros((2, m, n), np.int8)
    options = {"SCALE": 1 / (40 * math.sqrt(k)), "RELU": relu, "BM": bm, "BN": bn, "BK": bk, "GROUP": group}
    launch = quantised[(tw.cdiv(m, bm) * tw.cdiv(n, bn),)]
    launch(a, b, there, m, n, k, **options, machine="gemmini")
    launch(a, b, here, m, n, k, **options)
    np.testing.assert_array_equal(there, here)
    scaled = np.rint((a.astype(np.int32) @ b).astype(np.float32) * np.float32(options["SCALE"]))
    np.testing.assert_array_equal(there, np.clip(scaled, 0 if relu else -128, 127))


def test_the_epilogue_leaves_with_the_moves() -> None:
    a, b, c = np.zeros((64, 32), np.int8), np.zeros((32, 48), np.int8), np.zeros((64, 48), np.int8)
    options = {"SCALE": 0.25, "RELU": True, "BM": 32, "BN": 16, "BK": 32, "GROUP": 2}
    module = quantised.module((6,), a, b, c, 64, 48, 32, **options, machine="gemmini")
    assert isinstance(module, Accelerated) and on_array(module) == ["quantised"]
    assert "mvout_scaled_relu(" in str(module.programs[0]) and 0 < module.seconds < 1e-3


@pytest.mark.parametrize("relu", ["sums", "chosen", "scaled", "divided", "narrowed"])
def test_a_relu_leaves_with_the_moves_wherever_it_is_written(relu: str) -> None:
    rng = np.random.default_rng(4)
    a, b = ints(rng, 32, 32), ints(rng, 32, 32)
    there, here = np.zeros((2, 32, 32), np.int8)
    options = {"RELU": relu, "BM": 16, "BN": 16, "BK": 32}
    requantised[2, 2](a, b, there, 32, 32, 32, **options, machine="gemmini")
    requantised[2, 2](a, b, here, 32, 32, 32, **options)
    np.testing.assert_array_equal(there, here)
    assert here.min() == 0 and here.max() == 127
    program = str(requantised.module((2, 2), a, b, there, 32, 32, 32, **options, machine="gemmini").programs[0])
    assert "mvout_scaled_relu(" in program and "host" not in program


def test_several_products_in_one_launch() -> None:
    rng = np.random.default_rng(0)
    shapes = ((20, 40, 33), (64, 16, 16), (1, 50, 70))
    left, right = tuple(ints(rng, m, k) for m, _, k in shapes), tuple(ints(rng, k, n) for _, n, k in shapes)
    out = tuple(np.zeros((m, n), np.int32) for m, n, _ in shapes)
    arguments = ((3,), left, right, out, shapes)
    options = {"PROGRAMS": 3, "BM": 16, "BN": 32, "BK": 16, "SUMS": tl.int32, "machine": "gemmini"}
    grouped_matmul[arguments[0]](*arguments[1:], **options)
    for o, x, y in zip(out, left, right, strict=True):
        np.testing.assert_array_equal(o, x.astype(np.int32) @ y)
    module = grouped_matmul.module(*arguments, **options)
    assert on_array(module) == ["grouped_matmul_1", "grouped_matmul_2", "grouped_matmul_3"]


def test_attention_leaves_its_softmax_to_the_host() -> None:
    rng = np.random.default_rng(1)
    n, width = 40, 16
    q, k, v = (ints(rng, n, width) for _ in range(3))
    there, here = np.zeros((2, n, width), np.int32)
    options = {"WIDTH": width, "BM": 16, "KEYS": 64}
    attention[(3,)](q, k, v, there, 0.01, n, **options, machine="gemmini")
    attention[(3,)](q, k, v, here, 0.01, n, **options)
    assert np.abs(there - here).max() <= np.abs(v).astype(int).sum(0).max()  # a weight may be rounded the other way: exp differs
    scores = (q.astype(np.int32) @ k.T).astype(np.float32) * np.float32(0.01)
    powers = np.exp(scores - scores.max(1, keepdims=True))
    np.testing.assert_array_equal(there, np.rint(powers / powers.sum(1, keepdims=True) * 127).astype(np.int32) @ v)
    module = attention.module((3,), q, k, v, here, 0.01, n, **options, machine="gemmini")
    assert on_array(module) == ["attention_1", "attention_3"]
    assert list(module.refused) == ["attention_2"] and "nothing in it is work for the array" in module.refused["attention_2"]
    assert "matmul_bt.preload(" in str(module.programs[0])  # the keys are transposed by the array


@tw.jit
def centred(a_ptr, b_ptr, c_ptr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    row, col, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    acc = tl.dot(tl.load(a_ptr + row[:, None] * K + k[None, :]), tl.load(b_ptr + k[:, None] * N + col[None, :]))
    tl.store(c_ptr + row[:, None] * N + col[None, :], tl.exp(acc.to(tl.float32) * 0.0001) + acc)


def test_what_no_move_does_on_the_way_out_is_the_hosts() -> None:
    rng = np.random.default_rng(2)
    a, b, c = ints(rng, 32, 64), ints(rng, 64, 16), np.zeros((32, 16), np.float32)
    centred[(1,)](a, b, c, M=32, N=16, K=64, machine="gemmini")
    product = (a.astype(np.int32) @ b).astype(np.float32)
    np.testing.assert_allclose(c, np.exp(product * np.float32(0.0001)) + product, rtol=1e-6)
    assert on_array(centred.module((1,), a, b, c, M=32, N=16, K=64, machine="gemmini")) == ["centred"]


def test_floats_are_the_hosts() -> None:
    x = np.random.default_rng(3).standard_normal((16, 16)).astype(np.float32)
    c = np.zeros_like(x)
    strides = (16, 1) * 3
    arguments = (x, x, c, 16, 16, 16, *strides)
    why = "nothing in it is work for the array: it sums products of f32 and f32 in f32, gemmini products of i8 and i8 in i32"
    with pytest.warns(UserWarning, match=f"the host of gemmini does matmul_1 alone: {why} .gemmini.fp32 does"):
        matmul.function[(1,)](*arguments, BM=16, BN=16, BK=16, GROUP=1, machine="gemmini")
    np.testing.assert_allclose(c, x @ x, rtol=1e-4, atol=1e-5)
    module = matmul.function.module((1,), *arguments, BM=16, BN=16, BK=16, GROUP=1, machine="gemmini")
    assert on_array(module) == [] and set(module.refused) == {k.name for k in module.kernels}


@pytest.mark.parametrize("kind", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_public_matmul_on_an_array_for_floats(kind: type) -> None:
    """The tutorial as it is, in groups of tiles with masks at the edges; the array sums f16 in f16 before it adds in f32."""
    m, n, k = 40, 50, 70
    name = {np.float32: "gemmini.fp32", np.float16: "gemmini.fp16", ml_dtypes.bfloat16: "gemmini.bf16"}[kind]
    rng = np.random.default_rng(5)
    a, b, c = (rng.standard_normal(shape).astype(kind) for shape in ((m, k), (k, n), (m, n)))
    arguments = (a, b, c, m, n, k, k, 1, n, 1, n, 1)
    options = {"BM": 16, "BN": 32, "BK": 32, "GROUP": 2, "machine": name}
    matmul.function[(tw.cdiv(m, 16) * tw.cdiv(n, 32),)](*arguments, **options)
    exact, size = a.astype(float) @ b.astype(float), np.abs(a.astype(float)) @ np.abs(b.astype(float))
    digits = {np.float32: 24, np.float16: 11, ml_dtypes.bfloat16: 8}[kind]
    assert (np.abs(c.astype(float) - exact) <= 20 * 2.0**-digits * size).all()
    module = matmul.function.module((6,), *arguments, **options)
    assert on_array(module) == [k.name for k in module.kernels] and not module.refused


def test_tuned_by_cycles_on_a_machine_passed_itself() -> None:
    rng = np.random.default_rng(4)
    a, b, c = ints(rng, 40, 40), ints(rng, 40, 40), np.zeros((40, 40), np.int32)
    configs = [tw.Config({"BM": 16, "BN": 16, "BK": 16}), tw.Config({"BM": 32, "BN": 32, "BK": 32})]
    tuned = tw.autotune(configs=configs, key=["m"])(integer_matmul)
    tuned[lambda meta: (tw.cdiv(40, meta["BM"]), tw.cdiv(40, meta["BN"]))](a, b, c, 40, 40, 40, machine=load_machine("gemmini"))
    np.testing.assert_array_equal(c, a.astype(np.int32) @ b)


def test_machines_by_name_on_this_host_and_those_without_a_simulator() -> None:
    x = np.zeros((16, 16), np.int8)
    arguments = (x, x, np.zeros((16, 16), np.int32), 16, 16, 16)
    blocks = {"BM": 16, "BN": 16, "BK": 16}
    for name in ("vta", "cuda"):
        with pytest.raises(RuntimeFailure, match=f"{name}.* is neither a processor nor simulated here"):
            integer_matmul[(1, 1)](*arguments, **blocks, machine=name)
    with pytest.raises(MachineError, match="nowhere"):
        integer_matmul[(1, 1)](*arguments, **blocks, machine="nowhere")
    with pytest.raises(RuntimeFailure, match="3 is no machine") as caught:
        integer_matmul[(1, 1)](*arguments, **blocks, machine=3)
    assert 'machine="gemmini"' in str(caught.value.hint)
