"""Causal attention makes the passes that its programs make: about half of the work, for sizes that fit the blocks and for others."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from examples.block_attention import attention
from hypothesis import given, settings
from hypothesis import strategies as some
from tests.lang.block.agreement import interpreted
from tests.lang.block.test_tutorials import attention as tutorial
from tests.lang.block.test_tutorials import steps

import tilewright as tw
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.interpreter import interpret
from tilewright.space import Space
from tilewright.space.best import first


def arguments(heads: int, n: int, width: int, causal: bool, rows: int, keys: int) -> tuple[tuple[int, int], dict[str, Any]]:
    q, k, v = np.random.default_rng(n).standard_normal((3, 1, heads, n, width), np.float32)
    strides = dict(zip(("stride_batch", "stride_head", "stride_row", "stride_col"), steps(q), strict=True))
    named = {"q_ptr": q, "k_ptr": k, "v_ptr": v, "out_ptr": np.zeros_like(q), "scale": 0.3, **strides, "heads": heads, "n": n}
    return (tw.cdiv(n, rows), heads), {**named, "CAUSAL": causal, "WIDTH": width, "BM": rows, "BN": keys}


def expected(named: dict[str, Any]) -> np.ndarray:
    q, k, v = (named[x].astype(np.float64) for x in ("q_ptr", "k_ptr", "v_ptr"))
    scores = q @ k.swapaxes(-1, -2) * 0.3
    scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)) | (not named["CAUSAL"]), scores, -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True) @ v


def work(s: st.Stmt, env: dict[str, int] | None = None) -> int:
    """Multiplications of sums of products that are executed."""
    env = env or {}
    if isinstance(s, st.For):
        lo, hi = (int(ex.evaluate(e, env)) for e in (s.lo, s.hi))
        varies = any(s.name in ex.free_vars(e) for t in st.walk(s.body) if isinstance(t, st.For | st.If) for e in st.own_exprs(t))
        if not varies:
            return max(hi - lo, 0) * work(s.body, {**env, s.name: lo})
        return sum(work(s.body, {**env, s.name: i}) for i in range(lo, hi))
    if isinstance(s, st.If) and not ex.evaluate(s.cond, env):
        return 0
    mine = isinstance(s, st.Store) and s.op == "+" and isinstance(s.value, ex.Binary) and s.value.op == "*"
    return mine + sum(work(t, env) for t in st.substmts(s))


@settings(max_examples=8, deadline=None)
@given(some.integers(1, 40), some.sampled_from([(16, 16), (16, 8), (8, 16), (32, 16)]), some.booleans())
def test_any_number_of_queries(n: int, blocks: tuple[int, int], causal: bool) -> None:
    grid, named = arguments(1, n, 4, causal, *blocks)
    interpreted(attention, grid, named)
    np.testing.assert_allclose(named["out_ptr"], expected(named), rtol=1e-3, atol=1e-5)


@settings(max_examples=3, deadline=None)
@given(some.integers(33, 52), some.sampled_from([(16, 8), (8, 16), (16, 16)]))
def test_any_number_of_queries_in_blocks_of_rows(n: int, blocks: tuple[int, int]) -> None:
    """The schedule that leaves passes out, as text in the interpreter."""
    grid, named = arguments(1, n, 4, True, *blocks)
    function = tw.jit(attention.block_function)
    launch, values = function.specialized(grid, function.bound((), named), build=False)
    sketches = Space(launch.kernel, tw.load_machine("x86.avx512"), threads=1).sketches
    chain = next(s for s in sketches if s.name.startswith("blocks of") and s.likely is not None)
    assert chain.likely is not None
    schedule = chain.steps(first(chain, chain.likely()))
    assert work(schedule.kernel.body) < work(launch.kernel.body)
    interpret(schedule.kernel, [np.asarray(v) for v in values])
    np.testing.assert_allclose(named["out_ptr"], expected(named), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("n", [1024, 1010])
def test_half_of_the_work(n: int) -> None:
    machine = tw.load_machine("x86.avx512")
    counts = []
    for causal in (False, True):
        grid, named = arguments(4, n, 64, causal, 64, 32)
        kernel = attention.kernel(grid, **named)
        counts.append(work(tw.default_schedule(kernel, machine, threads=1).kernel.body))
    assert counts[0] == 2 * prod((4, n, n, 64))
    assert counts[1] < 0.6 * counts[0]


def test_half_of_the_work_in_two_stages() -> None:
    counts = []
    for stage in (1, 3):
        program, grid, named, _ = tutorial("windows", 2, 1024, stage)
        kernel = program.function.kernel(grid, **named)
        counts.append(work(tw.default_schedule(kernel, tw.load_machine("x86.avx512"), threads=1).kernel.body))
    assert counts[1] < 0.6 * counts[0]


def test_launches_that_leave_passes_out() -> None:
    for n in (512, 300):
        grid, named = arguments(2, n, 16, True, 64, 32)
        attention[grid](**named)
        np.testing.assert_allclose(named["out_ptr"], expected(named), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_later_queries_see_does_not_reach_earlier_ones(poison: float) -> None:
    """In the launch, too, where whole blocks are left out and masks with them."""
    grid, named = arguments(1, 520, 16, True, 64, 32)
    want = expected(named)
    named["v_ptr"][..., 500:, :] = poison
    attention[grid](**named)
    np.testing.assert_allclose(named["out_ptr"][..., :448, :], want[..., :448, :], rtol=1e-3, atol=1e-5)
    assert not np.isfinite(named["out_ptr"][..., 500:, :]).any()
