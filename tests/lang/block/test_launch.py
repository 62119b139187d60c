"""Launching: compiled results on several kinds of arrays, caching, configurations, what the scheduler makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from examples.block_attention import attention
from examples.block_matmul import matmul
from examples.block_vectors import add, layer_norm, softmax

import tilewright as tw
import tilewright.language as tl


def test_compiled_on_numpy_and_strided_arrays() -> None:
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((33, 70)).astype(np.float32)
    x, out = wide[:, :50], np.zeros((33, 50), np.float32)
    softmax[(4,)](out, x, 50, 70, 33, 50, PROGRAMS=4, BLOCK=64)
    powers = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(out, powers / powers.sum(1, keepdims=True), rtol=1e-5)


def test_compiled_layer_norm_keeps_statistics() -> None:
    rng = np.random.default_rng(1)
    x, (weight, bias) = rng.standard_normal((9, 100)).astype(np.float32), rng.standard_normal((2, 100)).astype(np.float32)
    y, mean, rstd = np.zeros_like(x), np.zeros(9, np.float32), np.zeros(9, np.float32)
    layer_norm[(9,)](x, y, weight, bias, mean, rstd, 100, 100, 1e-5, BLOCK=32)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(x.var(1) + 1e-5), rtol=1e-4)
    np.testing.assert_allclose(y, (x - mean[:, None]) * rstd[:, None] * weight + bias, rtol=1e-4, atol=1e-5)


def test_torch_tensors_in_half_precision() -> None:
    torch = pytest.importorskip("torch")
    a, b = torch.randn(40, 24).to(torch.bfloat16), torch.randn(24, 56).to(torch.bfloat16)
    c = torch.zeros(40, 56, dtype=torch.float16)
    function = matmul.function
    function[(4,)](a, b, c, 40, 56, 24, *a.stride(), *b.stride(), *c.stride(), BM=32, BN=32, BK=16, GROUP=2)
    torch.testing.assert_close(c.float(), a.float() @ b.float(), rtol=2e-3, atol=2e-2)


def test_more_programs_than_work_divide_by_zero() -> None:
    a, c = np.zeros((32, 32), np.float32), np.zeros((32, 32), np.float32)
    with pytest.raises(tw.TilewrightError, match="divides by zero in some programs") as caught:
        matmul.function[(6,)](a, a, c, 32, 32, 32, 32, 1, 32, 1, 32, 1, BM=16, BN=32, BK=16, GROUP=2)
    assert caught.value.location is not None


def test_the_same_array_twice_is_updated_in_place() -> None:
    x, y = np.arange(20, dtype=np.float32), np.ones(20, np.float32)
    add[(3,)](x, y, x, 20, BLOCK=8)
    assert (x == np.arange(20) + 1).all()
    add[(3,)](x, x, x, 20, BLOCK=8)
    assert (x == 2 * (np.arange(20) + 1)).all()


def test_launches_are_compiled_once_for_a_signature() -> None:
    @tw.jit
    def scale(x, factor, n, B: tl.constexpr):
        at = tl.program_id(0) * B + tl.arange(0, B)
        tl.store(x + at, tl.load(x + at, mask=at < n) * factor, mask=at < n)

    x = np.ones(10, np.float32)
    for factor in (2.0, 3.0):  # a float is passed, not compiled in
        scale[(2,)](x, factor, 10, B=8)
    assert (x == 6).all() and len(scale.launches) == 1
    scale[(2,)](x[:9], 0.5, 9, B=8)
    assert (x[:9] == 3).all() and x[9] == 6 and len(scale.launches) == 2
    scale[lambda meta: (tw.cdiv(meta["n"], meta["B"]),)](x, 2.0, 10, B=16, num_warps=8)
    assert len(scale.launches) == 3


def test_configurations_that_are_one_kernel_are_not_measured() -> None:
    calls: list[int] = []

    @tw.autotune(configs=[tw.Config({"B": 8}), tw.Config({"B": 16})], key=["n"])
    @tw.jit
    def double(x, n, B: tl.constexpr):
        at = tl.program_id(0) * B + tl.arange(0, B)
        tl.store(x + at, tl.load(x + at, mask=at < n) * 2.0, mask=at < n)

    def grid(meta: dict[str, Any]) -> tuple[int, ...]:
        calls.append(meta["B"])
        return (tw.cdiv(meta["n"], meta["B"]),)

    x = np.ones(40, np.float32)
    double[grid](x, 40)
    assert (x == 2).all(), "measuring does not touch the arrays"
    assert double.best[((40,), ("float32",))] == tw.Config({"B": 8})
    double[grid](x, 40)
    assert calls == [8, 16, 8, 8] and all(v.module is None for k, v in double.function.launches.items() if k[0] == (3,))


def test_configurations_are_measured_where_they_differ() -> None:
    @tw.autotune(configs=[tw.Config({"STEP": 1}), tw.Config({"STEP": 2})], key=["n"])
    @tw.jit
    def fill(x, n, STEP: tl.constexpr):
        tl.store(x + tl.program_id(0), tl.program_id(0) * 1.0 + 0 * STEP)
        tl.store(x + n, 1.0 * STEP)

    x = np.zeros(9, np.float32)
    fill[(8,)](x, 8)
    assert x[:8].tolist() == list(range(8)) and x[8] in (1, 2)


def test_empty_grids_do_nothing() -> None:
    x = np.ones(4, np.float32)
    add[(0,)](x, x.copy(), x.copy(), 0, BLOCK=8)
    assert (x == 1).all()


def test_attention_is_scheduled_in_blocks_of_rows() -> None:
    """The chain of products is found, though the program had taken it apart by blocks of keys."""
    q, k, v, out = (np.zeros((1, 2, 256, 32), np.float32) for _ in range(4))
    strides = (2 * 256 * 32, 256 * 32, 32, 1)
    kernel = attention.kernel((4, 2), q, k, v, out, 0.2, *strides, 2, 256, CAUSAL=False, WIDTH=32, BM=64, BN=32)
    scheduled = str(tw.default_schedule(kernel, tw.load_machine("x86.avx512"), threads=1).kernel)
    assert "dot = alloc(f32[1, 256, 256]" not in scheduled and "vector(" in scheduled


def test_block_ir_is_typed_text() -> None:
    x = np.zeros((8, 64), np.float32)
    text = str(softmax.block_ir((2,), x, x.copy(), 64, 64, 8, 64, PROGRAMS=2, BLOCK=64))
    assert text.splitlines()[0] == "block @softmax(%out_ptr: ptr<f32>, %x_ptr: ptr<f32>):"
    assert "for %row in range(%pid, " in text
    assert "%powers = math(" in text and ": f32[64]" in text and "reduce(%powers, op=+, axes=(0,)) : f32" in text


def test_programs_run_one_by_one_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 1, 40, 8)).astype(np.float32)
    fresh = tw.jit(attention.block_function)
    monkeypatch.setattr("tilewright.runtime.launch.WORKSPACE", 100)
    out = np.zeros_like(q)
    fresh[(3, 1)](q, k, v, out, 0.3, 320, 320, 8, 1, 1, 40, CAUSAL=True, WIDTH=8, BM=16, BN=16)
    (launch,) = fresh.launches.values()
    assert len(launch.kernel.body.stmts) == 1, "a loop over programs"
    scores = np.where(np.tril(np.ones((40, 40), bool)), q @ k.swapaxes(-1, -2) * 0.3, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(out, weights / weights.sum(-1, keepdims=True) @ v, rtol=1e-4, atol=1e-5)


def test_numbers_known_at_launch_wrap_around_in_conversions() -> None:
    @tw.jit
    def converted(out, n):
        tl.store(out, tl.cast(n, tl.uint32) // 2)
        tl.store(out + 1, tl.cast(n + 2654435762, tl.int32))
        tl.store(out + 2, tl.cast(n, tl.uint64) % 10)
        tl.store(out + 3, tl.cast(n - 6, tl.int32) + tl.cast(2654435761, tl.uint32))
        if tl.cast(2654435761, tl.int32) > 0:
            tl.store(out + 4, 1)

    out = np.zeros(5, np.int64)
    converted[(1,)](out, -1)
    minus = np.array(-1)
    want = [minus.astype(np.uint32) // 2, np.int64(2654435761).astype(np.int32), minus.astype(np.uint64) % 10, 2654435761 - 7, 0]
    assert out.tolist() == [int(w) for w in want]


@pytest.mark.parametrize("start", [-5, 3, 12])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_loops_whose_condition_converts(dtype: Any, start: int) -> None:
    """Only a conversion that keeps every number is looked through."""

    @tw.jit
    def passes(start_ptr, out):
        i = tl.load(start_ptr)
        n = 0
        while i.to(tl.uint32) < 10:
            i += 1
            n += 1
        tl.store(out, n)
        i = tl.load(start_ptr)
        n = 0
        while i.to(tl.int64) < 10:
            i += 1
            n += 1
        tl.store(out + 1, n)

    out = np.zeros(2, np.int32)
    first = np.array([start], dtype)
    passes[(1,)](first, out)
    assert out.tolist() == [max(10 - start, 0) if start >= 0 else 0, max(10 - start, 0)]
    assert str(passes.block_ir((1,), first, out)).count("while") == 1, "the second one is counted"


def test_loops_whose_condition_narrows() -> None:
    @tw.jit
    def passes(start_ptr, out):
        i = tl.load(start_ptr)
        n = 0
        while i.to(tl.int32) < 10:
            i += 1
            n += 1
        tl.store(out, n)

    out = np.zeros(1, np.int32)
    passes[(1,)](np.array([(1 << 32) + 4]), out)
    assert out[0] == 6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int32])
@pytest.mark.parametrize("start", [3, 15])
def test_loops_over_unsigned_numbers(dtype: Any, start: int) -> None:
    @tw.jit
    def passes(start_ptr, out):
        i = tl.load(start_ptr)
        n = 0
        while i < 10:
            i += 1
            n += 1
        tl.store(out, n)

    out = np.zeros(1, np.int32)
    passes[(1,)](np.array([start], dtype), out)
    assert out[0] == max(10 - start, 0)


@pytest.mark.parametrize("loaded", [True, False])
def test_loops_that_move_nothing_towards_the_end_may_not_begin(loaded: bool) -> None:
    @tw.jit
    def kept(first_ptr, out, LOADED: tl.constexpr):
        i = tl.load(first_ptr) if LOADED else 0
        while i > 5:
            i = i * 1
        tl.store(out, i + 7)

    @tw.jit
    def never(out):
        i = 6
        while i > 5:
            i = i * 1
        tl.store(out, i)

    out = np.zeros(1, np.int32)
    kept[(1,)](np.zeros(1, np.int32), out, LOADED=loaded)
    assert out[0] == 7
    with pytest.raises(tw.TilewrightError, match="never ends") as caught:
        never[(1,)](out)
    assert "break under a condition" in (caught.value.hint or "")
