"""Block programs against NumPy formulas, and against the same functions run directly on NumPy blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from examples.block_attention import attention
from examples.block_matmul import grouped_matmul, matmul
from examples.block_vectors import add, layer_norm, softmax
from hypothesis import given, settings
from hypothesis import strategies as some
from tests.lang.block import programs
from tests.lang.block.agreement import agree

import tilewright as tw
from tilewright.ir import stmt as st

FEW = settings(max_examples=20, deadline=None)
SIZES = some.integers(1, 40)
BLOCKS = some.sampled_from([8, 16, 32])


def arrays(seed: int, *shapes: tuple[int, ...], dtype: Any = np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


# --- the tutorials' programs ----------------------------------------------------------------------


@FEW
@given(some.integers(1, 300), BLOCKS)
def test_vector_add_is_one_loop(n: int, block: int) -> None:
    x, y = arrays(n, (n,), (n,))
    out = np.zeros_like(x)
    kernel = agree(add, (tw.cdiv(n, block),), {"x_ptr": x, "y_ptr": y, "out_ptr": out, "n": n, "BLOCK": block}, ["out_ptr"])
    assert (out == x + y).all()
    assert len(st.loops(kernel)) == (n > 1) and not any(isinstance(s, st.If) for s in st.walk(kernel.body))


@FEW
@given(SIZES, SIZES, some.integers(1, 9), some.booleans())
def test_softmax(rows: int, cols: int, count: int, strided: bool) -> None:
    (wide,) = arrays(rows, (rows, cols + 5))
    x = wide[:, :cols] if strided else wide[:, :cols].copy()
    out = np.zeros((rows, cols), np.float32)
    stride = x.strides[0] // 4
    named = {"out_ptr": out, "x_ptr": x, "out_stride": cols, "x_stride": stride, "rows": rows, "cols": cols}
    agree(softmax, (count,), {**named, "PROGRAMS": count, "BLOCK": tw.next_power_of_2(cols)}, ["out_ptr"])
    powers = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(out, powers / powers.sum(1, keepdims=True), rtol=1e-5, atol=1e-6)


@FEW
@given(some.integers(1, 12), some.integers(2, 90), BLOCKS)
def test_layer_norm(rows: int, n: int, block: int) -> None:
    x, weight, bias = arrays(n, (rows, n), (n,), (n,))
    y, mean, rstd = np.zeros_like(x), np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    named = {"x_ptr": x, "y_ptr": y, "weight_ptr": weight, "bias_ptr": bias, "mean_ptr": mean, "rstd_ptr": rstd}
    kernel = agree(layer_norm, (rows,), {**named, "stride": n, "n": n, "eps": 1e-5, "BLOCK": block}, ["y_ptr", "mean_ptr", "rstd_ptr"])
    np.testing.assert_allclose(mean, x.mean(1), atol=1e-5)
    assert not any("% " in str(s) for s in kernel.body.stmts), "partial sums by lane are gone"


@FEW
@given(SIZES, SIZES, SIZES, BLOCKS, some.integers(1, 5), some.booleans(), some.sampled_from(["", "leaky_relu"]))
def test_grouped_order_becomes_one_contraction(m: int, n: int, k: int, block: int, group: int, turned: bool, activation: str) -> None:
    a, b = arrays(m, (m, k), (n, k) if turned else (k, n))
    b = b.T if turned else b
    c = np.zeros((m, n), np.float32)
    strides = {
        "stride_am": k,
        "stride_ak": 1,
        "stride_bk": 1 if turned else n,
        "stride_bn": k if turned else 1,
        "stride_cm": n,
        "stride_cn": 1,
    }
    sizes = {"m": m, "n": n, "k": k, "BM": block, "BN": 16, "BK": 16, "GROUP": group, "ACTIVATION": activation}
    grid = (tw.cdiv(m, block) * tw.cdiv(n, 16),)
    kernel = agree(matmul, grid, {"a_ptr": a, "b_ptr": b, "c_ptr": c, **strides, **sizes}, ["c_ptr"], 1e-3)
    assert st.allocated(kernel)[0].static_shape == (m, n), "nothing is computed for masked rows and columns"
    assert not any(isinstance(s, st.If) for s in st.walk(kernel.body)) and "//" not in str(kernel) and "%" not in str(kernel)


def test_matmul_is_the_kernel_one_would_write() -> None:
    a, b, c = (np.zeros(s, np.float32) for s in ((130, 77), (77, 100), (130, 100)))
    sizes = {"BM": 64, "BN": 32, "BK": 32, "GROUP": 3}
    assert str(matmul.function.kernel((12,), a, b, c, 130, 100, 77, 77, 1, 100, 1, 100, 1, **sizes)) == (
        "@kernel\n"
        "def matmul(a_ptr: f32[130, 77], b_ptr: f32[77, 100], c_ptr: f32[130, 100]):\n"
        "    acc = alloc(f32[130, 100])\n"
        "    for i in range(130):\n"
        "        for j in range(100):\n"
        "            acc[i, j] = 0.0\n"
        "    for i_1 in range(130):\n"
        "        for j_1 in range(100):\n"
        "            for k in range(77):\n"
        "                acc[i_1, j_1] += a_ptr[i_1, k] * b_ptr[k, j_1]\n"
        "    for i_2 in range(130):\n"
        "        for j_2 in range(100):\n"
        "            c_ptr[i_2, j_2] = acc[i_2, j_2]"
    )


@FEW
@given(some.integers(1, 3), some.integers(1, 45), some.booleans(), some.sampled_from([(16, 16), (32, 8), (8, 32)]))
def test_attention_is_taken_apart(heads: int, n: int, causal: bool, blocks: tuple[int, int]) -> None:
    q, k, v = arrays(n, *[(1, heads, n, 8)] * 3)
    out = np.zeros_like(q)
    strides = {"stride_batch": heads * n * 8, "stride_head": n * 8, "stride_row": 8, "stride_col": 1}
    sizes = {"heads": heads, "n": n, "CAUSAL": causal, "WIDTH": 8, "BM": blocks[0], "BN": blocks[1]}
    named = {"q_ptr": q, "k_ptr": k, "v_ptr": v, "out_ptr": out, "scale": 0.3, **strides, **sizes}
    kernel = agree(attention, (tw.cdiv(n, blocks[0]), heads), named, ["out_ptr"])
    assert len(kernel.body.stmts) > 5, "stages over whole arrays, not one loop over programs"


@FEW
@given(some.lists(some.tuples(SIZES, SIZES, some.integers(1, 40)), min_size=1, max_size=3), some.integers(1, 5))
def test_grouped_matmul_over_tuples(shapes: list[tuple[int, int, int]], count: int) -> None:
    left = tuple(arrays(1, *[(m, k) for m, _, k in shapes]))
    right = tuple(arrays(2, *[(k, n) for _, n, k in shapes]))
    out = tuple(np.zeros((m, n), np.float32) for m, n, _ in shapes)
    sizes = {"shapes": tuple(shapes), "PROGRAMS": count, "BM": 16, "BN": 32, "BK": 16}
    agree(grouped_matmul, (count,), {"a_ptrs": left, "b_ptrs": right, "c_ptrs": out, **sizes}, ["c_ptrs"], 1e-3)
    for o, a, b in zip(out, left, right, strict=True):
        np.testing.assert_allclose(o, a @ b, rtol=1e-3, atol=1e-3)


# --- other features -------------------------------------------------------------------------------


@FEW
@given(SIZES, SIZES, SIZES)
def test_integer_products_are_exact(m: int, n: int, k: int) -> None:
    rng = np.random.default_rng(m)
    a, b = rng.integers(-128, 128, (m, k), np.int8), rng.integers(-128, 128, (k, n), np.int8)
    c = np.zeros((m, n), np.int32)
    named = {"a_ptr": a, "b_ptr": b, "c_ptr": c, "m": m, "n": n, "k": k, "BM": 16, "BN": 16, "BK": 32}
    kernel = agree(programs.integer_matmul, (tw.cdiv(m, 16), tw.cdiv(n, 16)), named, ["c_ptr"])
    assert (c == a.astype(np.int64) @ b.astype(np.int64)).all()
    if min(m, n, k) > 1:
        assert "+= a_ptr[i_1, k] * b_ptr[k, j_1]" in str(kernel)


@pytest.mark.parametrize("n", [1, 16, 37])
def test_loads_see_what_was_stored_before(n: int) -> None:
    (x,) = arrays(n, (n,))
    want = x * x + x
    agree(programs.in_place, (tw.cdiv(n, 16),), {"x_ptr": x, "n": n, "BLOCK": 16}, ["x_ptr"])
    np.testing.assert_allclose(x, want, rtol=1e-6)


def test_offsets_from_memory() -> None:
    (x,) = arrays(0, (20,))
    index = np.array([3, -1, 19, 0, 7, 7, -5], np.int32)
    named = {"x_ptr": x, "index_ptr": index, "out_ptr": np.zeros(7, np.float32), "n": 7, "BLOCK": 4}
    agree(programs.gather, (2,), named, ["out_ptr"])


def test_atomic_addition_of_all_programs() -> None:
    (x,) = arrays(0, (50,))
    named = {"x_ptr": x, "out_ptr": np.zeros(1, np.int32), "n": 50, "BLOCK": 8}
    agree(programs.histogram, (7,), named, ["out_ptr"])
    assert named["out_ptr"][0] == (x > 0.5).sum()


@pytest.mark.parametrize("n", [5, 32, 41])
def test_conditions_of_the_program(n: int) -> None:
    (x,) = arrays(n, (n,))
    grid = tw.cdiv(n, 8)
    agree(programs.branches, (grid,), {"x_ptr": x, "out_ptr": np.zeros(n + grid, np.float32), "n": n, "BLOCK": 8}, ["out_ptr"])


@pytest.mark.parametrize("n", [3, 16, 29])
def test_bounds_that_depend_on_the_program(n: int) -> None:
    (x,) = arrays(n, (n, n))
    named = {"x_ptr": x, "out_ptr": np.zeros(n, np.float32), "n": n, "BLOCK": 8}
    agree(programs.triangle, (tw.cdiv(n, 8),), named, ["out_ptr"])
    np.testing.assert_allclose(named["out_ptr"], np.tril(x).sum(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cols", [4, 8, 13])
def test_recurrences_run_program_by_program(cols: int) -> None:
    (x,) = arrays(cols, (6, cols))
    named = {"x_ptr": x, "out_ptr": np.zeros_like(x), "rows": 6, "cols": cols, "BLOCK": 8}
    agree(programs.recurrence, (tw.cdiv(cols, 8),), named, ["out_ptr"])


@FEW
@given(SIZES, SIZES)
def test_block_pointers_and_transposition(m: int, n: int) -> None:
    (x,) = arrays(m, (m, n))
    out = np.zeros((n, m), np.float32)
    agree(
        programs.transposed, (tw.cdiv(m, 16), tw.cdiv(n, 8)), {"x_ptr": x, "out_ptr": out, "m": m, "n": n, "BM": 16, "BN": 8}, ["out_ptr"]
    )
    assert (out == x.T).all()


def test_first_of_equal_positions() -> None:
    x = np.array([[1, 5, 5, 0, 2], [7, 7, 1, 7, 0], [0, 0, 0, 0, 1]], np.float32)
    out = np.zeros(3, np.int32)
    agree(programs.positions, (3,), {"x_ptr": x, "out_ptr": out, "n": 5, "BLOCK": 8}, ["out_ptr"])
    assert out.tolist() == [1, 0, 4]


@pytest.mark.parametrize("half", [8, 24])
def test_loops_that_continue_one_another(half: int) -> None:
    (x,) = arrays(half, (5, 37))
    out = np.zeros(5, np.float32)
    agree(programs.two_loops, (5,), {"x_ptr": x, "out_ptr": out, "n": 37, "half": half, "SCALE": 1, "BLOCK": 8}, ["out_ptr"])
    np.testing.assert_allclose(out, np.log(np.exp(x).sum(1)), rtol=1e-5)


@pytest.mark.parametrize("wrong", ["", "overlap", "scale", "between", "weights"])
@pytest.mark.parametrize("masked", [-float("inf"), -1e6, -3.0])
def test_stages_are_joined_only_where_they_do_the_same(wrong: str, masked: float) -> None:
    (x,), w = arrays(3, (64, 64)), np.random.default_rng(0).uniform(0.5, 1, 65).astype(np.float32)
    named = {"x_ptr": x, "w_ptr": w, "out_ptr": np.zeros(64, np.float32), "n": 64, "BM": 16, "BN": 8, "WRONG": wrong, "MASKED": masked}
    kernel = agree(programs.staged_sums, (4,), named, ["out_ptr"])
    assert (len(kernel.body.stmts) > 1) == (wrong == ""), "one loop over programs, or steps over whole arrays"
    if not wrong:
        assert not any(isinstance(s, st.If) for s in st.walk(kernel.body)), "passes of other programs are computed and not counted"


@pytest.mark.parametrize("step", [0, 1, 4])
def test_the_last_of_several_stores_wins(step: int) -> None:
    agree(programs.overwrites, (2,), {"out_ptr": np.zeros(128, np.int32), "n": 9, "step": step, "BLOCK": 4}, ["out_ptr"])


def test_values_first_used_in_a_loop_outlive_it() -> None:
    (x,) = arrays(0, (8,))
    agree(programs.perhaps_never, (4,), {"x_ptr": x, "out_ptr": np.zeros(32, np.float32), "n": 8, "BLOCK": 8}, ["out_ptr"])


@FEW
@given(SIZES, SIZES, SIZES, some.integers(1, 4))
def test_programs_that_add_up_parts(m: int, n: int, k: int, split: int) -> None:
    a, b = arrays(m, (m, k), (k, n))
    named = {"a_ptr": a, "b_ptr": b, "c_ptr": np.zeros((m, n), np.float32), "m": m, "n": n, "k": k, "B": 16, "SPLIT": split}
    agree(programs.split_depth, (tw.cdiv(m, 16), tw.cdiv(n, 16), split), named, ["c_ptr"], 1e-3)


def test_overlapping_windows() -> None:
    x, w = arrays(0, (104,), (5,))
    named = {"x_ptr": x, "w_ptr": w, "out_ptr": np.zeros(100, np.float32), "n": 100, "WIDTH": 5, "BLOCK": 32}
    kernel = agree(programs.correlation, (4,), named, ["out_ptr"])
    assert len(st.loops(kernel)) == 1
    np.testing.assert_allclose(named["out_ptr"], np.correlate(x, w, "valid"), rtol=1e-4, atol=1e-5)


def test_values_stored_while_they_are_carried() -> None:
    (x,) = arrays(0, (3, 20))
    agree(programs.running_sum, (3,), {"x_ptr": x, "out_ptr": np.zeros_like(x), "n": 20, "B": 1}, ["out_ptr"])


# --- loops that end on a condition ----------------------------------------------------------------


@FEW
@given(some.integers(1, 90), some.integers(0, 3), some.integers(1, 5), some.integers(1, 6))
def test_while_loops_that_count(n: int, lo: int, step: int, count: int) -> None:
    (x,) = arrays(n, (n,))
    named = {"x_ptr": x, "out_ptr": np.zeros(2 * count, np.float32), "n": n, "lo": lo, "STEP": step, "BLOCK": 8}
    kernel = agree(programs.counted_by_while, (count,), named, ["out_ptr"])
    assert len(kernel.body.stmts) > 1 or count == 1, "steps over whole arrays, not one loop over programs"


def test_while_loops_with_limits_from_memory() -> None:
    (x,) = arrays(0, (5 * 16,))
    limits = np.array([0, 1, 7, -4, 15], np.int32)
    agree(programs.counted_downwards, (5,), {"x_ptr": x, "out_ptr": np.zeros(5, np.float32), "n_ptr": limits, "BLOCK": 16}, ["out_ptr"])


@FEW
@given(some.integers(1, 40), some.integers(0, 50))
def test_while_loops_that_end_on_data(n: int, seed: int) -> None:
    x = arrays(seed, (n,))[0] * 4
    grid = tw.cdiv(n, 8)
    named = {"x_ptr": x, "out_ptr": np.zeros(n, np.float32), "steps_ptr": np.zeros(grid, np.int32), "n": n, "BLOCK": 8}
    agree(programs.halved_until_small, (grid,), named, ["out_ptr", "steps_ptr"])


@FEW
@given(some.integers(1, 40), some.integers(0, 50))
def test_bisection(n: int, seed: int) -> None:
    x, wanted = np.sort(arrays(seed, (n,))[0]), arrays(seed + 1, (5,))[0]
    named = {"sorted_ptr": x, "wanted_ptr": wanted, "out_ptr": np.zeros(5, np.int32), "n": n, "BLOCK": 1}
    agree(programs.bisection, (5,), named, ["out_ptr"])
    assert (named["out_ptr"] == np.where(np.arange(5) % 2, 0, np.searchsorted(x, wanted))).all()
    compiled = np.zeros(5, np.int32)
    programs.bisection[(5,)](x, wanted, compiled, n, BLOCK=1)
    assert (compiled == named["out_ptr"]).all()


@FEW
@given(some.integers(1, 12), some.integers(0, 50))
def test_loops_that_are_left_early(n: int, seed: int) -> None:
    (x,) = arrays(seed, (4, n))
    agree(programs.found_first, (4,), {"x_ptr": x, "out_ptr": np.zeros(8, np.float32), "n": n, "limit": 0.9, "BLOCK": 1}, ["out_ptr"])


@FEW
@given(some.integers(1, 12), some.integers(0, 50))
def test_while_loops_that_are_left_early(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    named = {"next_ptr": rng.integers(0, n + 1, n).astype(np.int32), "out_ptr": np.zeros(2 * n, np.int32), "n": n, "limit": 5, "BLOCK": 1}
    agree(programs.walk, (n,), named, ["out_ptr"])
    x = rng.standard_normal((3, n)).astype(np.float32)
    agree(programs.first_above, (3,), {"x_ptr": x, "out_ptr": np.zeros(6, np.int32), "n": n, "limit": 1.2, "BLOCK": 1}, ["out_ptr"])


@FEW
@given(some.integers(1, 6), some.integers(0, 50))
def test_loops_that_are_left_inside_others(n: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 7, (3, n)).astype(np.int32)
    agree(programs.nested_breaks, (3,), {"x_ptr": x, "out_ptr": np.zeros(3, np.int32), "n": n, "BLOCK": 1}, ["out_ptr"])


@FEW
@given(SIZES, SIZES)
def test_tensor_descriptors(m: int, n: int) -> None:
    (x,) = arrays(m, (m, n))
    named = {"x_ptr": x, "out_ptr": np.zeros((n, m), np.float32), "m": m, "n": n, "BM": 16, "BN": 8}
    agree(programs.described_transposition, (tw.cdiv(m, 16), tw.cdiv(n, 8)), named, ["out_ptr"])
    assert (named["out_ptr"] == x.T).all()
