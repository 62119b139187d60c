"""Programs of the public tutorials' form: against NumPy, against themselves run directly, and what becomes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from tests.lang.block import programs, tutorials
from tests.lang.block.agreement import agree

import tilewright as tw
from tilewright.ir import stmt as st
from tilewright.ir.stmt import Kernel
from tilewright.util.errors import TilewrightError

FEW = settings(max_examples=8, deadline=None)


def halves(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(np.float16) for s in shapes]


@FEW
@given(some.integers(1, 20), some.integers(1, 40), some.integers(1, 9))
def test_softmax_by_any_number_of_programs(rows: int, cols: int, programs: int) -> None:
    x = np.random.default_rng(rows).standard_normal((rows, cols), np.float32)
    out = np.zeros_like(x)
    named = {"to_ptr": out, "from_ptr": x, "from_stride": cols, "to_stride": cols, "rows": rows, "cols": cols}
    agree(tutorials.persistent_softmax, (programs, 1, 1), {**named, "BLOCK": 64, "num_stages": 2}, ["to_ptr"])
    powers = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(out, powers / powers.sum(1, keepdims=True), rtol=1e-5)


def test_how_many_programs_share_the_rows_is_of_no_consequence() -> None:
    x, out = np.zeros((2, 20, 40), np.float32)
    kernels = [tutorials.persistent_softmax.kernel((p,), out, x, 40, 40, 20, 40, BLOCK=64, num_stages=2) for p in (2, 3, 8, 20)]
    assert all(k == kernels[0] for k in kernels)


@FEW
@given(some.integers(1, 70), some.integers(1, 70), some.integers(1, 40), some.booleans())
def test_matmul_in_grouped_order(m: int, n: int, k: int, activated: bool) -> None:
    a, b = halves(m, (m, k), (k, n))
    strides = {"stride_am": k, "stride_ak": 1, "stride_bk": n, "stride_bn": 1, "stride_cm": n, "stride_cn": 1}
    sizes = {"M": m, "N": n, "K": k, "BM": 32, "BN": 16, "BK": 16, "GROUP": 2, "ACTIVATION": "leaky" if activated else ""}
    named = {"a_ptr": a, "b_ptr": b, "c_ptr": np.zeros((m, n), np.float16), **strides, **sizes}
    kernel = agree(tutorials.grouped_order_matmul, (tw.cdiv(m, 32) * tw.cdiv(n, 16),), named, ["c_ptr"], 2e-2)
    assert contractions(kernel) == [tuple(e for e in (m, n, k) if e > 1)], "one product; loops of one pass are left out"


@FEW
@given(some.integers(1, 9), some.integers(2, 70))
def test_layer_norm_keeps_mean_and_deviation(rows: int, n: int) -> None:
    x, (w, b) = np.random.default_rng(n).standard_normal((rows, n), np.float32), np.ones((2, n), np.float32)
    named = {"X": x, "Y": np.zeros_like(x), "W": w, "B": b, "Mean": np.zeros(rows, np.float32), "Rstd": np.zeros(rows, np.float32)}
    agree(tutorials.layer_norm_forward, (rows,), {**named, "stride": n, "N": n, "eps": 1e-5, "BLOCK": 32}, ["Y", "Mean", "Rstd"])
    np.testing.assert_allclose(named["Rstd"], 1 / np.sqrt(x.var(1) + 1e-5), rtol=1e-3)


@FEW
@given(some.integers(1, 70), some.integers(1, 70), some.integers(1, 40), some.integers(1, 9))
def test_matmul_by_any_number_of_programs(m: int, n: int, k: int, programs: int) -> None:
    a, b = halves(m, (m, k), (k, n))
    strides = {"stride_am": k, "stride_ak": 1, "stride_bk": n, "stride_bn": 1, "stride_cm": n, "stride_cn": 1}
    sizes = {"M": m, "N": n, "K": k, "BM": 32, "BN": 16, "BK": 16, "GROUP": 2, "PROGRAMS": programs}
    named = {"a_ptr": a, "b_ptr": b, "c_ptr": np.zeros((m, n), np.float16), **strides, **sizes}
    agree(tutorials.persistent_matmul, (programs,), named, ["c_ptr"], 2e-2)
    np.testing.assert_allclose(named["c_ptr"], a.astype(np.float32) @ b.astype(np.float32), rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize(("rows", "n"), [(1, 5), (9, 20)])
def test_gradients_of_layer_norm(rows: int, n: int) -> None:
    """Against differences of the forward pass."""
    rng = np.random.default_rng(n)
    x, dy, w = rng.standard_normal((rows, n)), rng.standard_normal((rows, n)), rng.standard_normal(n)

    def loss(x: np.ndarray, w: np.ndarray) -> float:
        mean, var = x.mean(1, keepdims=True), x.var(1, keepdims=True)
        return float((((x - mean) / np.sqrt(var + 1e-5) * w) * dy).sum())

    mean, rstd = x.mean(1), 1 / np.sqrt(x.var(1) + 1e-5)
    single = {k: v.astype(np.float32) for k, v in {"DY": dy, "X": x, "W": w, "Mean": mean, "Rstd": rstd}.items()}
    named = {"DX": np.zeros((rows, n), np.float32), "DW": np.zeros(n, np.float32), "DB": np.zeros(n, np.float32), **single}
    agree(tutorials.layer_norm_backward, (rows,), {**named, "stride": n, "N": n, "BLOCK": 32}, ["DX", "DW", "DB"])
    small = 1e-6 * np.eye(n)
    slopes = [(loss(x, w + d) - loss(x, w - d)) / 2e-6 for d in small]
    np.testing.assert_allclose(named["DW"], slopes, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(named["DB"], dy.sum(0), rtol=1e-4, atol=1e-5)
    moved = [(loss(np.vstack([x[:1] + d, x[1:]]), w) - loss(np.vstack([x[:1] - d, x[1:]]), w)) / 2e-6 for d in small]
    np.testing.assert_allclose(named["DX"][0], moved, rtol=1e-3, atol=1e-4)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool) -> tuple[np.ndarray, np.ndarray]:
    """The result, and the logarithm (to base 2) of the sum of powers of each row."""
    n = q.shape[2]
    scores = q.astype(np.float32) @ k.astype(np.float32).swapaxes(-1, -2) * 0.5
    scores = np.where(np.tril(np.ones((n, n), bool)) | (not causal), scores, -np.inf)
    peak = scores.max(-1, keepdims=True)
    powers = np.exp(scores - peak)
    total = powers.sum(-1, keepdims=True)
    return powers / total @ v.astype(np.float32), ((peak + np.log(total))[..., 0] / np.log(2)).astype(np.float32)


def attention(form: str, heads: int, n: int, stage: int) -> tuple[Any, tuple[int, int], dict[str, Any], list[str]]:
    """Program, grid, arguments and outputs."""
    q, k, v = halves(n, *[(1, heads, n, 16)] * 3)
    out, sums = np.zeros_like(q), np.zeros((1, heads, n), np.float32)
    if form == "windows":
        strides = {
            f"stride_{x}{d}": s
            for x, ds in zip("qkvo", ("zhmk", "zhnk", "zhkn", "zhmn"), strict=True)
            for d, s in zip(ds, steps(q), strict=True)
        }
        named = {"Q": q, "K": k, "V": v, "sm_scale": 0.5, "M": sums, "Out": out, **strides, "Z": 1, "H": heads, "N": n}
        names = ["M", "Out"]
    else:
        named = {"sm_scale": 0.5, "M": sums, "Z": 1, "H": heads, "desc_q": q, "desc_k": k, "desc_v": v, "desc_o": out, "N": n}
        named |= {"FP8": False, "warp_specialize": True}
        names = ["M", "desc_o"]
    program = tutorials.attention_by_windows if form == "windows" else tutorials.attention_by_descriptors
    return program, (n // 32, heads), {**named, "WIDTH": 16, "BM": 32, "BN": 16, "STAGE": stage}, names


def steps(x: np.ndarray) -> tuple[int, ...]:
    return tuple(s // x.itemsize for s in x.strides)


@pytest.mark.parametrize("form", ["windows", "descriptors"])
@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize(("heads", "n"), [(1, 32), (2, 96)])
def test_attention(form: str, stage: int, heads: int, n: int) -> None:
    """STAGE 3 is causal: all that lies left of the diagonal's block in one loop, that block in a second one."""
    program, grid, named, outputs = attention(form, heads, n, stage)
    kernel = agree(program, grid, named, outputs, 1e-2)
    assert (n, n, 16) in [c[-3:] for c in contractions(kernel)] and not any(isinstance(s, st.If) for s in st.walk(kernel.body))
    q, k, v = (named[x] for x in (("Q", "K", "V") if form == "windows" else ("desc_q", "desc_k", "desc_v")))
    want, sums = attend(q, k, v, stage == 3)
    np.testing.assert_allclose(named[outputs[1]], want, atol=4e-3)
    np.testing.assert_allclose(named["M"], sums, atol=1e-4)


def test_two_stages_are_scheduled_in_blocks_of_rows() -> None:
    program, grid, named, _ = attention("windows", 2, 256, 3)
    kernel = program.function.kernel(grid, **named)
    scheduled = str(tw.default_schedule(kernel, tw.load_machine("x86.avx512"), threads=1).kernel)
    assert "alloc(f32[2, 256, 256]" not in scheduled and "vector(" in scheduled


# --- several products, found in memory ------------------------------------------------------------


def problems(shapes: list[tuple[int, int, int]], dtype: Any, to: Any) -> tuple[dict[str, Any], list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(len(shapes))
    left = [rng.integers(-4, 5, (m, k)).astype(dtype) for m, _, k in shapes]
    right = [rng.integers(-4, 5, (k, n)).astype(dtype) for _, n, k in shapes]
    out = [np.zeros((m, n), to) for m, n, _ in shapes]
    addresses = {
        x: tw.pointers(arrays) for x, arrays in zip(("a_addresses", "b_addresses", "c_addresses"), (left, right, out), strict=True)
    }
    products = [a.astype(np.int32) @ b.astype(np.int32) for a, b in zip(left, right, strict=True)]
    return {**addresses, "sizes": np.array(shapes, np.int32).reshape(-1), "problems": len(shapes)}, out, products


def contractions(kernel: Kernel) -> list[tuple[int, ...]]:
    """Extents of the loops around each sum of products."""
    found = []
    for s in kernel.body.stmts:
        inner = [t for t in st.walk(s) if isinstance(t, st.Store)]
        if len(inner) == 1 and inner[0].op == "+" and " * " in str(inner[0]):
            found.append(tuple(int(f.hi.value) for f in st.loops(s)))  # type: ignore[attr-defined]
    return found


@settings(max_examples=5, deadline=None)
@given(
    some.lists(some.tuples(*[some.integers(1, 2)] * 3), min_size=1, max_size=5),
    some.sampled_from([(16, 32), (16, 16)]),
    some.integers(1, 9),
)
def test_products_found_in_memory(tiles: list[tuple[int, int, int]], blocks: tuple[int, int], programs: int) -> None:
    """Each problem becomes one plain product, whatever program worked on which of its tiles."""
    shapes = [(a * 16, b * 32, c * 16) for a, b, c in tiles]
    named, out, products = problems(shapes, np.float16, np.float16)
    named["leading"] = np.array([(k, n, n) for _, n, k in shapes], np.int32).reshape(-1)
    sizes = {"PROGRAMS": programs, "BM": blocks[0], "BN": blocks[1], "BK": 16}
    kernel = agree(tutorials.grouped_gemm, (programs,), {**named, **sizes}, ["c_addresses"])
    assert contractions(kernel) == shapes
    for got, want in zip(out, products, strict=True):
        np.testing.assert_array_equal(got, want)


@settings(max_examples=5, deadline=None)
@given(some.lists(some.tuples(*[some.integers(2, 40)] * 3), min_size=1, max_size=4), some.integers(1, 9))
def test_products_found_in_memory_by_descriptors(shapes: list[tuple[int, int, int]], programs: int) -> None:
    """Descriptors are made under a condition, and guard what does not fill a tile."""
    named, out, products = problems(shapes, np.float16, np.float16)
    named["b_addresses"] = tw.pointers([np.ascontiguousarray(b.T) for b in named["b_addresses"].arrays])
    named["leading"] = np.array([(k, k, n) for _, n, k in shapes], np.int32).reshape(-1)
    sizes = {"PROGRAMS": programs, "BM": 16, "BN": 32, "BK": 16, "FP8": False}
    kernel = agree(tutorials.grouped_gemm_by_descriptors, (programs,), {**named, **sizes}, ["c_addresses"])
    assert contractions(kernel) == shapes
    for got, want in zip(out, products, strict=True):
        np.testing.assert_array_equal(got, want)


def test_products_found_in_memory_are_tuned_and_compiled() -> None:
    shapes = [(32, 64, 32), (16, 32, 64)]
    named, out, products = problems(shapes, np.float16, np.float16)
    leading = np.array([(k, n, n) for _, n, k in shapes], np.int32)
    positional = (*(named[f"{x}_addresses"] for x in "abc"), named["sizes"], leading.reshape(-1), 2)
    tuned = tw.autotune(tutorials.grouped_gemm.configs, key=["problems"])(tw.jit(tutorials.grouped_gemm.block_function))
    tuned[lambda meta: (meta["PROGRAMS"],)](*positional)
    for got, want in zip(out, products, strict=True):
        np.testing.assert_array_equal(got, want)
    kernels = {v.kernel for v in tuned.function.launches.values()}
    assert len(tuned.function.launches) == 2 and len(kernels) == 1, "configurations that become one kernel are not measured"


def test_products_found_in_memory_on_an_accelerator() -> None:
    named, out, products = problems([(20, 40, 33), (64, 16, 16), (1, 50, 70)], np.int8, np.int32)
    sizes = {"PROGRAMS": 3, "BM": 16, "BN": 32, "BK": 16, "machine": "gemmini"}
    tutorials.grouped_gemm_of_integers[(3,)](**named, **sizes)
    for got, want in zip(out, products, strict=True):
        np.testing.assert_array_equal(got, want)
    module = tutorials.grouped_gemm_of_integers.module((3,), **named, **sizes)
    assert sum(p is not None for p in module.programs) == 3


def test_sizes_are_read_again_when_they_change() -> None:
    """A launch with addresses is compiled for the small arrays of integers beside them."""
    named, (out,), (product,) = problems([(16, 32, 16)], np.int8, np.int32)
    launch = tutorials.grouped_gemm_of_integers[(2,)]
    launch(**named, PROGRAMS=2, BM=16, BN=16, BK=16)
    np.testing.assert_array_equal(out, product)
    named["sizes"][2] = 8  # a shorter depth, of the same memory: rows of 8 elements
    out[...] = 0
    launch(**named, PROGRAMS=2, BM=16, BN=16, BK=16)
    a, b = (named[x].arrays[0].reshape(-1).astype(np.int32) for x in ("a_addresses", "b_addresses"))
    np.testing.assert_array_equal(out, a[: 16 * 8].reshape(16, 8) @ b[: 8 * 32].reshape(8, 32))


def test_sizes_of_large_arrays_are_read_by_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then every program loads them itself, and runs as it is written."""
    monkeypatch.setattr("tilewright.runtime.launch.KNOWN", 0)
    fresh = tw.jit(tutorials.grouped_gemm_of_integers.block_function)
    named, _, _ = problems([(20, 24, 16), (16, 16, 40)], np.int8, np.int32)
    kernel = agree(fresh, (3,), {**named, "PROGRAMS": 3, "BM": 16, "BN": 16, "BK": 16}, ["c_addresses"])
    assert "sizes[" in str(kernel)


def test_what_the_program_writes_is_not_known_at_the_launch() -> None:
    out, counter = np.zeros(8, np.float32), np.array([1], np.int32)
    agree(programs.counted_up, (1,), {"addresses": tw.pointers([out]), "counter": counter, "BLOCK": 1}, ["addresses", "counter"])
    assert counter[0] == 4 and out.tolist() == [0, 0, 0, 0, 1, 0, 0, 0]


def test_what_has_no_bounds_is_refused() -> None:
    named, _, _ = problems([(16, 16, 16)], np.int8, np.int32)
    sizes = {"PROGRAMS": 1, "BM": 16, "BN": 16, "BK": 16}
    raw = np.array([a.ctypes.data for a in named["a_addresses"].arrays])
    with pytest.raises(TilewrightError, match="no array behind it") as caught:
        tutorials.grouped_gemm_of_integers[(1,)](**{**named, "a_addresses": raw}, **sizes)
    assert "tilewright.pointers([a, b, ...])" in str(caught.value)
    with pytest.raises(TilewrightError, match="item 0 is no array"):
        tw.pointers([raw[0].item()])
    with pytest.raises(TilewrightError, match="an array of i32 is taken for one of i8"):
        tutorials.grouped_gemm_of_integers[(1,)](**{**named, "a_addresses": named["c_addresses"]}, **sizes)
    with pytest.raises(TilewrightError, match="address 1 of an array of 1 addresses"):
        tutorials.grouped_gemm_of_integers[(1,)](**{**named, "sizes": np.tile(named["sizes"], 2), "problems": 2}, **sizes)
