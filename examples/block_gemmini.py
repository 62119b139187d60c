"""Block programs on Gemmini: quantised products, and attention in int8; the same programs as on this host.

``block_matmul.py`` has several products in one launch, here and there.

python examples/block_gemmini.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tilewright as triton
import tilewright.language as tl


@triton.jit
def quantised(
    a_ptr, b_ptr, c_ptr, m, n, k,
    SCALE: tl.constexpr, RELU: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """c = round(a @ b * SCALE) in int8, saturated. Programs walk the tiles of c in groups of rows."""
    pid = tl.program_id(0)
    tile_rows, tile_cols = tl.cdiv(m, BM), tl.cdiv(n, BN)
    in_group = GROUP * tile_cols
    first_row = pid // in_group * GROUP
    height = min(tile_rows - first_row, GROUP)
    row = (first_row + pid % in_group % height) * BM + tl.arange(0, BM)
    col = pid % in_group // height * BN + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    a_at = a_ptr + row[:, None] * k + depth[None, :]
    b_at = b_ptr + depth[:, None] * n + col[None, :]
    acc = tl.zeros((BM, BN), dtype=tl.int32)
    for start in range(0, k, BK):
        a = tl.load(a_at, mask=(row[:, None] < m) & (depth[None, :] < k - start), other=0)
        b = tl.load(b_at, mask=(depth[:, None] < k - start) & (col[None, :] < n), other=0)
        acc = tl.dot(a, b, acc)
        a_at += BK
        b_at += BK * n
    scaled = tl.math.rint(acc.to(tl.float32) * SCALE)
    if RELU:
        scaled = tl.maximum(scaled, 0.0)
    c = tl.minimum(tl.maximum(scaled, -128.0), 127.0).to(tl.int8)
    tl.store(c_ptr + row[:, None] * n + col[None, :], c, mask=(row[:, None] < m) & (col[None, :] < n))


@triton.jit
def attention(q_ptr, k_ptr, v_ptr, out_ptr, scale, n, WIDTH: tl.constexpr, BM: tl.constexpr, KEYS: tl.constexpr):
    """BM queries of one head against all keys: products in int8, the softmax between them in f32."""
    row, key, width = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, KEYS), tl.arange(0, WIDTH)
    q = tl.load(q_ptr + row[:, None] * WIDTH + width[None, :], mask=row[:, None] < n, other=0)
    k = tl.load(k_ptr + key[:, None] * WIDTH + width[None, :], mask=key[:, None] < n, other=0)
    scores = tl.where(key[None, :] < n, tl.dot(q, tl.trans(k)).to(tl.float32) * scale, -float("inf"))
    powers = tl.exp(scores - tl.max(scores, 1)[:, None])
    weights = tl.math.rint(powers / tl.sum(powers, 1)[:, None] * 127.0).to(tl.int8)
    v = tl.load(v_ptr + key[:, None] * WIDTH + width[None, :], mask=key[:, None] < n, other=0)
    tl.store(out_ptr + row[:, None] * WIDTH + width[None, :], tl.dot(weights, v), mask=row[:, None] < n)


def said(name: str, module: Any, macs: int) -> None:
    """A line for people: which kernels the array takes part in, and how busy it is in the cycle model."""
    cycles = module.seconds * module.machine.clock_hz
    on_array = ", ".join(k.name for k, p in zip(module.kernels, module.programs, strict=True) if p is not None)
    busy = macs / module.machine.parameters["dim"] ** 2 / cycles
    print(f"{name}: {cycles:.0f} cycles, array {busy:.0%} busy; on the array: {on_array}")


def main() -> None:
    rng = np.random.default_rng(0)

    def ints(*shape: int) -> np.ndarray:
        return rng.integers(-128, 128, shape).astype(np.int8)

    m, n, k = 200, 150, 100
    a, b, c = ints(m, k), ints(k, n), np.zeros((m, n), np.int8)
    blocks = {"SCALE": 0.003, "RELU": True, "BM": 32, "BN": 32, "BK": 64, "GROUP": 4}
    launch = quantised[(triton.cdiv(m, 32) * triton.cdiv(n, 32),)]
    launch(a, b, c, m, n, k, **blocks, machine="gemmini")
    here = np.zeros_like(c)
    launch(a, b, here, m, n, k, **blocks)
    expected = np.clip(np.rint((a.astype(np.int32) @ b).astype(np.float32) * np.float32(0.003)), 0, 127)
    assert (c == here).all() and (c == expected).all()
    said("quantised", quantised.module((35,), a, b, c, m, n, k, **blocks, machine="gemmini"), m * n * k)

    n, width = 100, 32
    q, keys, v, out_ = ints(n, width), ints(n, width), ints(n, width), np.zeros((n, width), np.int32)
    blocks = {"WIDTH": width, "BM": 32, "KEYS": 128}
    attention[(4,)](q, keys, v, out_, 0.002, n, **blocks, machine="gemmini")
    scores = (q.astype(np.int32) @ keys.T).astype(np.float32) * np.float32(0.002)
    powers = np.exp(scores - scores.max(1, keepdims=True))
    weights = np.rint(powers / powers.sum(1, keepdims=True) * 127).astype(np.int32)
    print("attention: largest error", np.abs(out_ - weights @ v).max(), "of", np.abs(out_).max())
    said("attention", attention.module((4,), q, keys, v, out_, 0.002, n, **blocks, machine="gemmini"), 2 * n * n * width)


if __name__ == "__main__":
    main()
