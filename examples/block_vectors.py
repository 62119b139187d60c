"""Block programs along vectors and rows: addition, softmax, layer normalisation. Triton's spelling, this CPU.

python examples/block_vectors.py
"""

from __future__ import annotations

import numpy as np

import tilewright as triton
import tilewright.language as tl


@triton.jit
def add(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(axis=0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    total = tl.load(x_ptr + at, mask=inside) + tl.load(y_ptr + at, mask=inside)
    tl.store(out_ptr + at, total, mask=inside)


@triton.jit
def softmax(out_ptr, x_ptr, out_stride, x_stride, rows, cols, PROGRAMS: tl.constexpr, BLOCK: tl.constexpr):
    """Each program takes every PROGRAMS-th row; a row fits in a block."""
    at = tl.arange(0, BLOCK)
    inside = at < cols
    for row in tl.range(tl.program_id(0), rows, PROGRAMS):
        x = tl.load(x_ptr + row * x_stride + at, mask=inside, other=-float("inf"))
        powers = tl.exp(x - tl.max(x, axis=0))
        tl.store(out_ptr + row * out_stride + at, powers / tl.sum(powers, axis=0), mask=inside)


@triton.jit
def layer_norm(x_ptr, y_ptr, weight_ptr, bias_ptr, mean_ptr, rstd_ptr, stride, n, eps, BLOCK: tl.constexpr):
    """A row in pieces of BLOCK: one pass for the mean, one for the variance, one for the result."""
    row = tl.program_id(0)
    x_ptr += row * stride
    y_ptr += row * stride
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(x_ptr + at, mask=at < n, other=0.0).to(tl.float32)
    mean = tl.sum(total, axis=0) / n
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(tl.float32)
        centred = tl.where(at < n, x - mean, 0.0)
        squares += centred * centred
    rstd = 1 / tl.sqrt(tl.sum(squares, axis=0) / n + eps)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < n
        x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
        y = (x - mean) * rstd * tl.load(weight_ptr + at, mask=inside) + tl.load(bias_ptr + at, mask=inside)
        tl.store(y_ptr + at, y, mask=inside)


def main() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 10_000), np.float32)
    out = np.empty_like(x)
    grid = lambda meta: (triton.cdiv(len(x), meta["BLOCK"]),)  # noqa: E731
    add[grid](x, y, out, len(x), BLOCK=1024)
    print("add: largest error", np.abs(out - (x + y)).max())
    print(add.block_ir(grid, x, y, out, len(x), BLOCK=1024))
    print(add.kernel(grid, x, y, out, len(x), BLOCK=1024))

    x = rng.standard_normal((183, 781), np.float32)
    out = np.empty_like(x)
    softmax[(8,)](out, x, x.shape[1], x.shape[1], *x.shape, PROGRAMS=8, BLOCK=triton.next_power_of_2(x.shape[1]))
    powers = np.exp(x - x.max(1, keepdims=True))
    print("softmax: largest error", np.abs(out - powers / powers.sum(1, keepdims=True)).max())

    weight, bias = rng.standard_normal((2, x.shape[1]), np.float32)
    mean, rstd = np.empty((2, len(x)), np.float32)
    layer_norm[(len(x),)](x, out, weight, bias, mean, rstd, x.shape[1], x.shape[1], 1e-5, BLOCK=256)
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * weight + bias
    print("layer_norm: largest error", np.abs(out - expected).max())


if __name__ == "__main__":
    main()
