"""Attention as a block program: block pointers, online softmax over blocks of keys, optionally causal.

python examples/block_attention.py
"""

from __future__ import annotations

import numpy as np

import tilewright as triton
import tilewright.language as tl


@triton.jit
def attention(
    q_ptr, k_ptr, v_ptr, out_ptr, scale, stride_batch, stride_head, stride_row, stride_col, heads, n,
    CAUSAL: tl.constexpr, WIDTH: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """BM queries of one head against all keys (CAUSAL: up to the last query), BN at a time; the running maximum and sums are
    rescaled as it grows."""
    first, head = tl.program_id(0) * BM, tl.program_id(1)
    base = head // heads * stride_batch + head % heads * stride_head
    q_at = tl.make_block_ptr(q_ptr + base, (n, WIDTH), (stride_row, stride_col), (first, 0), (BM, WIDTH), (1, 0))
    k_at = tl.make_block_ptr(k_ptr + base, (WIDTH, n), (stride_col, stride_row), (0, 0), (WIDTH, BN), (0, 1))
    v_at = tl.make_block_ptr(v_ptr + base, (n, WIDTH), (stride_row, stride_col), (0, 0), (BN, WIDTH), (1, 0))
    query, key = first + tl.arange(0, BM), tl.arange(0, BN)
    peak = tl.full([BM], -float("inf"), dtype=tl.float32)
    total = tl.zeros([BM], dtype=tl.float32) + 1.0
    acc = tl.zeros([BM, WIDTH], dtype=tl.float32)
    to_base_2 = scale * 1.4426950408889634
    q = tl.load(q_at, boundary_check=(0,))
    for start in range(0, tl.minimum(first + BM, n) if CAUSAL else n, BN):
        scores = tl.dot(q, tl.load(k_at, boundary_check=(1,))) * to_base_2
        if CAUSAL:
            scores += tl.where(query[:, None] >= (start + key)[None, :], 0.0, -1.0e6)
        scores = tl.where((start + key)[None, :] < n, scores, -1.0e6)
        higher = tl.maximum(peak, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        rescale = tl.exp2(peak - higher)
        total = total * rescale + tl.sum(weights, 1)
        v = tl.load(v_at, boundary_check=(0,))
        acc = tl.dot(weights.to(v.dtype), v, acc * rescale[:, None])
        peak = higher
        k_at = tl.advance(k_at, (0, BN))
        v_at = tl.advance(v_at, (BN, 0))
    acc = acc / total[:, None]
    out_at = tl.make_block_ptr(out_ptr + base, (n, WIDTH), (stride_row, stride_col), (first, 0), (BM, WIDTH), (1, 0))
    tl.store(out_at, acc.to(out_ptr.dtype.element_ty), boundary_check=(0,))


def main() -> None:
    rng = np.random.default_rng(0)
    batch, heads, n, width = 2, 3, 200, 32
    q, k, v = rng.standard_normal((3, batch, heads, n, width), np.float32)
    out = np.empty_like(q)
    strides = (heads * n * width, n * width, width, 1)
    for causal in (False, True):
        attention[(triton.cdiv(n, 64), batch * heads)](q, k, v, out, 0.2, *strides, heads, n, CAUSAL=causal, WIDTH=width, BM=64, BN=32)
        scores = q @ k.swapaxes(-1, -2) * 0.2
        scores = np.where(np.tril(np.ones((n, n), bool)) | (not causal), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        expected = weights / weights.sum(-1, keepdims=True) @ v
        print(f"attention{' (causal)' * causal}: largest error", np.abs(out - expected).max())


if __name__ == "__main__":
    main()
