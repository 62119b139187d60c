"""Discrete Fourier transforms as products with a table of cosines and sines (quadratic in the length)."""

from __future__ import annotations

import numpy as np

from tilewright.graph.lowering import Lowering, operator
from tilewright.graph.model import Tensor
from tilewright.ir.expr import Expr, cast, compare, idx, where


def _rotations(op: Lowering, x: Tensor, rows: int, columns: int, period: int, sign: float, scale: float = 1.0) -> Tensor:
    """[rows, columns, 2]: scale * (cos, sin) of sign * 2 pi * row * column / period."""
    angle = sign * 2 * np.pi * (np.outer(np.arange(rows), np.arange(columns)) % period) / period
    return op.array((scale * np.stack([np.cos(angle), np.sin(angle)], -1)).astype(x.dtype.to_numpy()), x.dtype)


def _product(re: Expr, im: Expr | None, cos: Expr, sin: Expr, part: Expr) -> Expr:
    """Real (part 0) or imaginary (part 1) component of (re + i im)(cos + i sin)."""
    if im is None:
        return re * where(compare("==", part, 0), cos, sin)
    return where(compare("==", part, 0), re * cos - im * sin, re * sin + im * cos)


@operator("DFT")
def dft(op: Lowering, x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    """Transform along ``axis`` of [..., 1] (real) or [..., 2] (complex); one-sided inverse gives real output."""
    along = op.axis(
        int(op.known(axis, "axis").reshape(())) if axis is not None else op.attribute("axis", 1 if op.opset < 20 else -2), x.rank
    )
    inverse, onesided = bool(op.attribute("inverse", 0)), bool(op.attribute("onesided", 0))
    given = x.shape[along]
    number = int(op.known(length, "dft_length").reshape(())) if length is not None else (2 * (given - 1) if inverse and onesided else given)
    if inverse and onesided:
        return _real_inverse(op, x, along, number)
    rows = number // 2 + 1 if onesided else number
    used = min(given, number)
    table = _rotations(op, x, rows, used, number, 1.0 if inverse else -1.0, 1.0 / number if inverse else 1.0)
    shape = [*(rows if d == along else s for d, s in enumerate(x.shape[:-1])), 2]

    def term(*i: Expr) -> Expr:
        own, part, t = i[: x.rank - 1], i[x.rank - 1], i[x.rank]
        at = tuple(t if d == along else e for d, e in enumerate(own))
        imaginary = x[(*at, idx(1))] if x.shape[-1] == 2 else None
        return _product(x[(*at, idx(0))], imaginary, table.buffer[own[along], t, idx(0)], table.buffer[own[along], t, idx(1)], part)

    return op.reduce(shape, [used], term, x.dtype)


def _real_inverse(op: Lowering, x: Tensor, along: int, number: int) -> Tensor:
    """Real signal of ``number`` samples from the first half of its spectrum (the rest is its mirror image)."""
    used = min(x.shape[along], number // 2 + 1)
    weights = np.full(used, 2.0)
    weights[0] = 1.0
    if number % 2 == 0 and used == number // 2 + 1:
        weights[-1] = 1.0
    angle = 2 * np.pi * (np.outer(np.arange(number), np.arange(used)) % number) / number
    values = np.stack([np.cos(angle), -np.sin(angle)], -1) * weights[None, :, None] / number
    table = op.array(values.astype(x.dtype.to_numpy()), x.dtype)
    shape = [*(number if d == along else s for d, s in enumerate(x.shape[:-1])), 1]

    def term(*i: Expr) -> Expr:
        own, t, part = i[: x.rank - 1], i[x.rank], i[x.rank + 1]
        return x[(*(t if d == along else e for d, e in enumerate(own)), part)] * table.buffer[own[along], t, part]

    return op.reduce(shape, [used, 2], term, x.dtype)


@operator("STFT")
def stft(op: Lowering, signal: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None) -> Tensor:
    """[batch, frames, bins, 2]: transforms of windows of the signal, ``step`` samples apart."""
    if length is not None:
        size = int(op.known(length, "frame_length").reshape(()))
    elif window is not None:
        size = window.shape[0]
    else:
        raise op.refuse("it has neither a window nor a frame_length")
    hop = int(op.known(step, "frame_step").reshape(()))
    frames = (signal.shape[1] - size) // hop + 1
    rows = size // 2 + 1 if op.attribute("onesided", 1) else size
    table = _rotations(op, signal, rows, size, size, -1.0)
    components = signal.rank == 3

    def term(b: Expr, f: Expr, k: Expr, part: Expr, t: Expr) -> Expr:
        at = f * hop + t
        re = signal[b, at, idx(0)] if components else signal[b, at]
        im = signal[b, at, idx(1)] if components and signal.shape[2] == 2 else None
        value = _product(re, im, table.buffer[k, t, idx(0)], table.buffer[k, t, idx(1)], part)
        return value if window is None else value * cast(window.buffer[t], signal.dtype)

    return op.reduce([signal.shape[0], frames, rows, 2], [size], term, signal.dtype)
