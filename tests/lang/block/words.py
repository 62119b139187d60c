"""Block programs of words that users bring: random numbers, scans, sorting, elements moved along a dimension."""

from __future__ import annotations

import tilewright as triton
import tilewright.language as tl
from tilewright.language.extra import libdevice


@triton.jit
def words_of_philox(counter_ptr, out_ptr, seed, B: tl.constexpr):
    """The four words of each counter of four numbers."""
    at = tl.program_id(0) * B + tl.arange(0, B)
    x, y, z, w = tl.philox(
        seed,
        tl.load(counter_ptr + at * 4),
        tl.load(counter_ptr + at * 4 + 1),
        tl.load(counter_ptr + at * 4 + 2),
        tl.load(counter_ptr + at * 4 + 3),
    )
    tl.store(out_ptr + at * 4, x)
    tl.store(out_ptr + at * 4 + 1, y)
    tl.store(out_ptr + at * 4 + 2, z)
    tl.store(out_ptr + at * 4 + 3, w)


@triton.jit
def seeded_dropout(x_ptr, out_ptr, n, p, seed, B: tl.constexpr):
    at = tl.program_id(axis=0) * B + tl.arange(0, B)
    inside = at < n
    x = tl.load(x_ptr + at, mask=inside)
    keep = tl.rand(seed, at) > p
    tl.store(out_ptr + at, tl.where(keep, x / (1 - p), 0.0), mask=inside)


@triton.jit
def seeds_from_memory(seeds_ptr, out_ptr, B: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, B)
    tl.store(out_ptr + row * B + at, tl.randint(tl.load(seeds_ptr + row), at))


@triton.jit
def normal(out_ptr, seed, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(out_ptr + at, tl.randn(seed, at))


@triton.jit
def running(x_ptr, out_ptr, n, REVERSE: tl.constexpr, B: tl.constexpr, PRODUCT: tl.constexpr):
    """Running sums (or products) of rows of n numbers."""
    row, at = tl.program_id(0), tl.arange(0, B)
    x = tl.load(x_ptr + row * n + at, mask=at < n, other=1.0 if PRODUCT else 0.0)
    y = tl.cumprod(x, 0, reverse=REVERSE) if PRODUCT else tl.cumsum(x, 0, reverse=REVERSE)
    tl.store(out_ptr + row * n + at, y, mask=at < n)


@triton.jit
def step(a, x, b, y):
    """h -> a h + x, then h -> b h + y."""
    return a * b, x * b + y


@triton.jit
def recurrence(a_ptr, x_ptr, out_ptr, ROWS: tl.constexpr, B: tl.constexpr):
    """h[i] = a[i] h[i - 1] + x[i] along the second dimension."""
    at = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None] * B + tl.arange(0, B)[None, :]
    _, h = tl.associative_scan((tl.load(a_ptr + at), tl.load(x_ptr + at)), 1, step)
    tl.store(out_ptr + at, h)


@triton.jit
def farther(x, y):
    return tl.where(tl.abs(x) > tl.abs(y), x, y)


@triton.jit
def farthest(x_ptr, out_ptr, B: tl.constexpr):
    x = tl.load(x_ptr + tl.program_id(0) * B + tl.arange(0, B))
    tl.store(out_ptr + tl.program_id(0), tl.reduce(x, 0, farther))


@triton.jit
def rearranged(x_ptr, y_ptr, out_ptr, B: tl.constexpr):
    """Six rows of 2 B numbers."""
    at, twice = tl.arange(0, B), tl.arange(0, 2 * B)
    x, y = tl.load(x_ptr + at), tl.load(y_ptr + at)
    tl.store(out_ptr + twice, tl.interleave(x, tl.flip(y)))
    tl.store(out_ptr + 2 * B + twice, tl.cat(x, y, can_reorder=True))
    even, odd = tl.split(tl.reshape(tl.interleave(x, y) * 2, (B, 2)))
    tl.store(out_ptr + 4 * B + at, even)
    tl.store(out_ptr + 5 * B + at, odd)
    tl.store(out_ptr + 6 * B + at, tl.gather(x, (at * 3) % B, 0))
    tl.store(out_ptr + 7 * B + at, tl.sort(x))
    tl.store(out_ptr + 8 * B + at, tl.sort(y, descending=True))
    tl.store(out_ptr + 9 * B + tl.arange(0, B)[:, None] * 2 + tl.arange(0, 2)[None, :], tl.join(x, y))


@triton.jit
def counted(x_ptr, out_ptr, n, B: tl.constexpr, BINS: tl.constexpr):
    at = tl.arange(0, B)
    tl.static_assert(B >= BINS, "few bins")
    tl.static_print("bins", BINS)
    x = tl.load(x_ptr + at, mask=at < n, other=0)
    tl.store(out_ptr + tl.arange(0, BINS), tl.histogram(x, BINS, mask=at < n))
    tl.debug_barrier()


@triton.jit
def together(x_ptr, out_ptr, B: tl.constexpr):
    """Sum, largest and smallest of what all programs hold."""
    x = tl.load(x_ptr + tl.program_id(0) * B + tl.arange(0, B))
    tl.atomic_add(out_ptr, tl.sum(x))
    tl.atomic_max(out_ptr + 1, tl.max(x))
    tl.atomic_min(out_ptr + 2, tl.min(x))


@triton.jit
def swizzled(out_ptr, M: tl.constexpr, N: tl.constexpr, GROUP: tl.constexpr):
    i, j = tl.swizzle2d(tl.program_id(0), tl.program_id(1), M, N, GROUP)
    tl.store(out_ptr + i * N + j, tl.program_id(0) * N + tl.program_id(1))


@triton.jit
def by_libdevice(x_ptr, out_ptr, n, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(out_ptr + at, libdevice.asin(x) + libdevice.atanh(x) + tl.extra.libdevice.fmod(x, 0.3), mask=at < n)


@triton.jit
def high_words(x_ptr, y_ptr, out_ptr, B: tl.constexpr):
    at = tl.arange(0, B)
    tl.store(out_ptr + at, tl.umulhi(tl.load(x_ptr + at), tl.load(y_ptr + at)))


@triton.jit
def in_two_dimensions(x_ptr, at_ptr, out_ptr, SIZE: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """Six results of SIZE elements each; a program holds M rows of N."""
    at = (tl.program_id(0) * M + tl.arange(0, M))[:, None] * N + tl.arange(0, N)[None, :]
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, tl.associative_scan(x, 1, tl.maximum))
    tl.store(out_ptr + SIZE + at, x.cumsum(0))
    tl.store(out_ptr + 2 * SIZE + at, x + tl.reduce(x, 1, tl.minimum, keep_dims=True))
    tl.store(out_ptr + 3 * SIZE + at, tl.gather(x, tl.load(at_ptr + at), 1))
    tl.store(out_ptr + 4 * SIZE + at, tl.sort(x))
    tl.store(out_ptr + 5 * SIZE + at, tl.flip(x, 0))
