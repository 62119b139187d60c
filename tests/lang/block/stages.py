"""Softmax whose programs loop for different times: weighted, in two stages, with what keeps them from being one loop."""

from __future__ import annotations

import tilewright as triton
import tilewright.language as tl


@triton.jit
def stage(
    first, total, other, peak, x_ptr, v_ptr, seen_ptr, n, lo, hi,
    MASKED: tl.constexpr, STORED: tl.constexpr, SWAPPED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """Columns from lo to hi; STORED: where each pass also leaves which columns it saw. SWAPPED: which sum gets the weights."""
    rows = first + tl.arange(0, BM)
    for start in range(lo, hi, BN):
        cols = start + tl.arange(0, BN)
        x = tl.load(x_ptr + rows[:, None] * n + cols[None, :])
        if MASKED:
            x = x + tl.where(rows[:, None] >= cols[None, :], 0.0, LOW)
        higher = tl.maximum(peak, tl.max(x, 1))
        powers = tl.exp(x - higher[:, None])
        rescale = tl.exp(peak - higher)
        weights = tl.load(v_ptr + cols)[None, :]
        if SWAPPED:
            other = other * rescale + tl.sum(powers, 1)
            total = total * rescale + tl.sum(powers * weights, 1)
        else:
            total = total * rescale + tl.sum(powers, 1)
            other = other * rescale + tl.sum(powers * weights, 1)
        peak = higher
        if STORED:
            tl.store(seen_ptr + rows[:, None] * n + cols[None, :], x)
    return total, other, peak


@triton.jit
def two_stages(
    x_ptr, v_ptr, total_ptr, other_ptr, seen_ptr, n,
    STORES: tl.constexpr, SWAPS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """The columns that all rows of a block see, then those up to the diagonal. STORES, SWAPS: the stage that does it, 0 for none."""
    first = tl.program_id(0) * BM
    rows = first + tl.arange(0, BM)
    peak = tl.full([BM], -float("inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    other = tl.zeros([BM], tl.float32)
    total, other, peak = stage(first, total, other, peak, x_ptr, v_ptr, seen_ptr, n, 0, first, False, STORES == 1, SWAPS == 1, BM, BN, LOW)
    total, other, peak = stage(
        first, total, other, peak, x_ptr, v_ptr, seen_ptr, n, first, first + BM, True, STORES == 2, SWAPS == 2, BM, BN, LOW
    )
    tl.store(total_ptr + rows, total)
    tl.store(other_ptr + rows, other)


@triton.jit
def longer_where_masked(v_ptr, total_ptr, n, BM: tl.constexpr):
    """More passes in later programs, the last of which have no rows and read nothing."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    cols = tl.arange(0, BM)
    peak = tl.full([BM], -float("inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    for start in range(0, (tl.program_id(0) + 1) * BM, BM):
        x = tl.load(v_ptr + start + cols[None, :] + rows[:, None] * 0, mask=rows[:, None] < n, other=0.0)
        higher = tl.maximum(peak, tl.max(x, 1))
        total = total * tl.exp(peak - higher) + tl.sum(tl.exp(x - higher[:, None]), 1)
        peak = higher
    tl.store(total_ptr + rows, total, mask=rows < n)
