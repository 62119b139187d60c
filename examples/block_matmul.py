"""Block programs that multiply matrices: grouped order with a fused activation, tuned; several products in one launch.

python examples/block_matmul.py
"""

from __future__ import annotations

import numpy as np

import tilewright as triton
import tilewright.language as tl


@triton.jit
def leaky_relu(x):
    return tl.where(x >= 0, x, 0.01 * x)


@triton.autotune(
    configs=[
        triton.Config({"BM": 64, "BN": 64, "BK": 32, "GROUP": 8}, num_stages=3, num_warps=4),
        triton.Config({"BM": 32, "BN": 128, "BK": 16, "GROUP": 4}, num_stages=4, num_warps=2),
    ],
    key=["m", "n", "k"],
)
@triton.jit
def matmul(
    a_ptr, b_ptr, c_ptr, m, n, k, stride_am, stride_ak, stride_bk, stride_bn, stride_cm, stride_cn,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, ACTIVATION: tl.constexpr = "",
):  # fmt: skip
    """c = activation(a @ b). Programs walk the tiles of c in groups of rows, so that neighbours share what they read."""
    pid = tl.program_id(axis=0)
    tile_rows, tile_cols = tl.cdiv(m, BM), tl.cdiv(n, BN)
    in_group = GROUP * tile_cols
    first_row = pid // in_group * GROUP
    height = min(tile_rows - first_row, GROUP)
    tile_row = first_row + pid % in_group % height
    tile_col = pid % in_group // height

    row = (tile_row * BM + tl.arange(0, BM)) % m
    col = (tile_col * BN + tl.arange(0, BN)) % n
    depth = tl.arange(0, BK)
    a_at = a_ptr + (row[:, None] * stride_am + depth[None, :] * stride_ak)
    b_at = b_ptr + (depth[:, None] * stride_bk + col[None, :] * stride_bn)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for step in range(tl.cdiv(k, BK)):
        a = tl.load(a_at, mask=depth[None, :] < k - step * BK, other=0.0)
        b = tl.load(b_at, mask=depth[:, None] < k - step * BK, other=0.0)
        acc = tl.dot(a, b, acc)
        a_at += BK * stride_ak
        b_at += BK * stride_bk
    if ACTIVATION == "leaky_relu":
        acc = leaky_relu(acc)
    row = tile_row * BM + tl.arange(0, BM)
    col = tile_col * BN + tl.arange(0, BN)
    c_at = c_ptr + stride_cm * row[:, None] + stride_cn * col[None, :]
    tl.store(c_at, acc.to(c_ptr.dtype.element_ty), mask=(row[:, None] < m) & (col[None, :] < n))


@triton.jit
def grouped_matmul(
    a_ptrs, b_ptrs, c_ptrs, shapes,
    PROGRAMS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SUMS: tl.constexpr = tl.float32,
):  # fmt: skip
    """c = a @ b for each problem; PROGRAMS programs share all tiles, one after the other. Problems come as tuples; SUMS: type of sums."""
    pid = tl.program_id(0)
    before = 0
    for g in tl.static_range(len(shapes)):
        m, n, k = shapes[g]
        tile_cols = tl.cdiv(n, BN)
        tiles = tl.cdiv(m, BM) * tile_cols
        for tile in range((pid + PROGRAMS - before % PROGRAMS) % PROGRAMS, tiles, PROGRAMS):
            row = tile // tile_cols * BM + tl.arange(0, BM)[:, None]
            col = tile % tile_cols * BN + tl.arange(0, BN)[None, :]
            acc = tl.zeros((BM, BN), dtype=SUMS)
            for start in range(0, k, BK):
                across, down = start + tl.arange(0, BK)[None, :], start + tl.arange(0, BK)[:, None]
                a = tl.load(a_ptrs[g] + row * k + across, mask=(row < m) & (across < k), other=0)
                b = tl.load(b_ptrs[g] + down * n + col, mask=(down < k) & (col < n), other=0)
                acc += tl.dot(a, b)
            tl.store(c_ptrs[g] + row * n + col, acc, mask=(row < m) & (col < n))
        before += tiles


def main() -> None:
    rng = np.random.default_rng(0)
    m, n, k = 300, 250, 200
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    c = np.empty((m, n), np.float32)
    grid = lambda meta: (triton.cdiv(m, meta["BM"]) * triton.cdiv(n, meta["BN"]),)  # noqa: E731
    matmul[grid](a, b, c, m, n, k, k, 1, n, 1, n, 1, ACTIVATION="leaky_relu")
    expected = a @ b
    print("matmul: largest error", np.abs(c - np.where(expected >= 0, expected, 0.01 * expected)).max())

    shapes = ((64, 96, 32), (100, 40, 70), (33, 65, 129))
    left = tuple(rng.standard_normal((x, z), np.float32) for x, _, z in shapes)
    right = tuple(rng.standard_normal((z, y), np.float32) for _, y, z in shapes)
    out = tuple(np.empty((x, y), np.float32) for x, y, _ in shapes)
    grouped_matmul[(4,)](left, right, out, shapes, PROGRAMS=4, BM=32, BN=32, BK=32)
    worst = max(float(np.abs(o - x @ y).max()) for o, x, y in zip(out, left, right, strict=True))
    print("grouped_matmul: largest error", worst)

    left, right = (tuple((x * 30).astype(np.int8) for x in some) for some in (left, right))
    out = tuple(np.empty((x, y), np.int32) for x, y, _ in shapes)
    grouped_matmul[(4,)](left, right, out, shapes, PROGRAMS=4, BM=32, BN=32, BK=32, SUMS=tl.int32, machine="gemmini")
    right_answers = all((o == x.astype(np.int32) @ y).all() for o, x, y in zip(out, left, right, strict=True))
    print("grouped_matmul of int8 on a simulated Gemmini:", "exact" if right_answers else "wrong")


if __name__ == "__main__":
    main()
