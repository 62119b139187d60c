"""int8 convolutions with a maximum over windows of their results: as kernels, and in NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tests.space.test_rules_explicit import convolution

from tilewright.ir.stmt import Kernel
from tilewright.lang import parse

SCALE = np.float32(0.05)


@dataclass(frozen=True)
class Pooled:
    """``size`` images of ``channels``, channels last; windows, distances and padding of the convolution and of the pool."""

    size: tuple[int, int]
    channels: int
    filters: int
    window: int
    step: int
    pad: int
    pool: int
    pool_step: int
    pool_pad: int
    relu: bool = True

    @property
    def least(self) -> int:
        return 0 if self.relu else -128

    @property
    def convolved(self) -> tuple[int, int]:
        h, w = ((n + 2 * self.pad - self.window) // self.step + 1 for n in self.size)
        return h, w

    @property
    def reduced(self) -> tuple[int, int]:
        h, w = ((n + 2 * self.pool_pad - self.pool) // self.pool_step + 1 for n in self.convolved)
        return h, w

    @property
    def unread(self) -> bool:
        """Whether rows or columns of the convolution lie behind the last window."""
        reached = ((n - 1) * self.pool_step + self.pool - self.pool_pad for n in self.reduced)
        return any(last < n for last, n in zip(reached, self.convolved, strict=True))

    def kernel(self) -> Kernel:
        text = str(convolution(self.size, self.channels, self.filters, self.window, self.step, self.pad, True))
        (p, q), (pp, qq), k, pad = self.convolved, self.reduced, self.filters, self.pool_pad
        head, body = text.replace("0.0), 127.0", f"{self.least}.0), 127.0").split("):\n", 1)
        head = head.replace(f"y: i8[1, {p}, {q}, {k}]", f"z: i8[1, {pp}, {qq}, {k}]")
        source, padded = "y", ""
        if pad:
            inside = f"h >= {pad} and h < {p + pad} and w >= {pad} and w < {q + pad}"
            source = "yp"
            padded = f"""
    yp = alloc(i8[1, {p + 2 * pad}, {q + 2 * pad}, {k}])
    for h in range({p + 2 * pad}):
        for w in range({q + 2 * pad}):
            for c in range({k}):
                yp[0, h, w, c] = where({inside}, y[0, h - {pad}, w - {pad}, c], i8(-128))
"""
        over = f"""
    for p in range({pp}):
        for q in range({qq}):
            for k in range({k}):
"""
        window = f"{source}[0, p * {self.pool_step} + r, q * {self.pool_step} + s, k]"
        return parse(f"""{head}):
    y = alloc(i8[1, {p}, {q}, {k}])
{body}{padded}{over}                z[0, p, q, k] = i8(-128)
{over}                for r in range({self.pool}):
                    for s in range({self.pool}):
                        z[0, p, q, k] = max(z[0, p, q, k], {window})
""")

    def arrays(self, seed: int) -> dict[str, NDArray[np.generic]]:
        """Arguments of the kernel; the result is poisoned."""
        rng = np.random.default_rng(seed)
        (h, w), (p, q) = self.size, self.reduced
        return {
            "x": rng.integers(-128, 128, (1, h, w, self.channels)).astype(np.int8),
            "f": rng.integers(-128, 128, (self.window, self.window, self.channels, self.filters)).astype(np.int8),
            "bias": rng.integers(-9000, 9000, self.filters).astype(np.int32),
            "z": np.full((1, p, q, self.filters), 85, np.int8),
        }

    def result(self, arrays: dict[str, NDArray[np.generic]]) -> NDArray[np.int8]:
        """What the kernel computes."""
        around = ((0, 0), (self.pad,) * 2, (self.pad,) * 2, (0, 0))
        x = np.pad(arrays["x"].astype(np.int64), around)
        windows = np.lib.stride_tricks.sliding_window_view(x, (self.window,) * 2, (1, 2))[:, :: self.step, :: self.step]
        sums = np.einsum("npqcrs,rsck->npqk", windows, arrays["f"].astype(np.int64)) + arrays["bias"]
        y = np.clip(np.rint(sums.astype(np.float32) * SCALE), self.least, 127).astype(np.int8)
        pad = ((0, 0), (self.pool_pad,) * 2, (self.pool_pad,) * 2, (0, 0))
        seen = np.lib.stride_tricks.sliding_window_view(np.pad(y, pad, constant_values=-128), (self.pool,) * 2, (1, 2))
        return seen[:, :: self.pool_step, :: self.pool_step].max((-2, -1))
