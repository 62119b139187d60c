"""Block programs for tests, beyond those of the examples."""

from __future__ import annotations

import tilewright as triton
import tilewright.language as tl


@triton.jit
def integer_matmul(a_ptr, b_ptr, c_ptr, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    col = tl.program_id(1) * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), tl.int32)
    for start in range(0, k, BK):
        at = start + tl.arange(0, BK)
        a = tl.load(a_ptr + row[:, None] * k + at[None, :], mask=(row[:, None] < m) & (at[None, :] < k), other=0)
        b = tl.load(b_ptr + at[:, None] * n + col[None, :], mask=(at[:, None] < k) & (col[None, :] < n), other=0)
        acc += tl.dot(a, b)
    tl.store(c_ptr + row[:, None] * n + col[None, :], acc, mask=(row[:, None] < m) & (col[None, :] < n))


@triton.jit
def requantised(a_ptr, b_ptr, c_ptr, m, n, k, RELU: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """An int8 product with its ReLU written in the ways that people write it, on whole blocks."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    col = tl.program_id(1) * BN + tl.arange(0, BN)
    at = tl.arange(0, BK)
    acc = tl.dot(tl.load(a_ptr + row[:, None] * k + at[None, :]), tl.load(b_ptr + at[:, None] * n + col[None, :]))
    if RELU == "sums":
        acc = tl.maximum(acc, 0)
    elif RELU == "chosen":
        acc = tl.where(acc > 0, acc, 0)
    y = acc.to(tl.float32) / 64.0 if RELU == "divided" else acc.to(tl.float32) * 0.01
    if RELU == "scaled" or RELU == "divided":
        y = tl.maximum(y, 0.0)
    y = tl.maximum(tl.minimum(tl.math.rint(y), 127.0), -128.0).to(tl.int8)
    if RELU == "narrowed":
        y = tl.maximum(y, 0)
    tl.store(c_ptr + row[:, None] * n + col[None, :], y)


@triton.jit
def in_place(x_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(x_ptr + at, x * x, mask=at < n)
    tl.store(x_ptr + at, tl.load(x_ptr + at, mask=at < n) + x, mask=at < n)


@triton.jit
def gather(x_ptr, index_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    where = tl.load(index_ptr + at, mask=at < n, other=0)
    tl.store(out_ptr + at, tl.load(x_ptr + where, mask=(at < n) & (where >= 0), other=-1.0), mask=at < n)


@triton.jit
def histogram(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """How many numbers are in each of BLOCK rows: a scalar sum added to one place by every program."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.atomic_add(out_ptr, tl.sum(tl.where(x > 0.5, 1, 0), axis=0))


@triton.jit
def branches(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    at = pid * BLOCK + tl.arange(0, BLOCK)
    scale = 1.0
    if pid % 2 == 0:
        scale = 2.0
        tl.store(out_ptr + n + pid, pid * 10)
    else:
        tl.store(out_ptr + n + pid, -pid)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(out_ptr + at, x * scale + at, mask=at < n)


@triton.jit
def triangle(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """Sum of the columns up to the diagonal's block: the bound of the loop depends on the program."""
    pid = tl.program_id(0)
    row = pid * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, (pid + 1) * BLOCK, BLOCK):
        col = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row[:, None] * n + col[None, :], mask=(row[:, None] < n) & (col[None, :] < n), other=0.0)
        acc += tl.sum(tl.where(col[None, :] <= row[:, None], x, 0.0), axis=1)
    tl.store(out_ptr + row, acc, mask=row < n)


@triton.jit
def recurrence(x_ptr, out_ptr, rows, cols, BLOCK: tl.constexpr):
    """A running value that no reduction expresses."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    state = tl.zeros((BLOCK,), tl.float32)
    for r in range(rows):
        x = tl.load(x_ptr + r * cols + at, mask=at < cols, other=0.0)
        state = state * 0.5 + tl.maximum(x, state)
        tl.store(out_ptr + r * cols + at, state, mask=at < cols)


@triton.jit
def transposed(x_ptr, out_ptr, m, n, BM: tl.constexpr, BN: tl.constexpr):
    x_at = tl.make_block_ptr(x_ptr, (m, n), (n, 1), (tl.program_id(0) * BM, tl.program_id(1) * BN), (BM, BN), (1, 0))
    out_at = tl.make_block_ptr(out_ptr, (n, m), (m, 1), (tl.program_id(1) * BN, tl.program_id(0) * BM), (BN, BM), (1, 0))
    tl.store(out_at, tl.trans(tl.load(x_at, boundary_check=(0, 1))), boundary_check=(0, 1))


@triton.jit
def positions(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * n + at, mask=at < n, other=-float("inf"))
    tl.store(out_ptr + row, tl.argmax(x, axis=0))


@triton.jit
def two_loops(x_ptr, out_ptr, n, half, SCALE: tl.constexpr, BLOCK: tl.constexpr):
    """Online softmax sum over two loops: the second continues what the first carried."""
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    peak = -float("inf")
    total = 0.0
    for start in range(0, half, BLOCK):
        x = tl.load(x_ptr + row * n + start + at, mask=start + at < half, other=-float("inf"))
        higher = tl.maximum(peak, tl.max(x, axis=0))
        total = total * tl.exp(peak - higher) + tl.sum(tl.exp(x - higher), axis=0)
        peak = higher
    for start in range(half, n, BLOCK):
        x = tl.load(x_ptr + row * n + start + at, mask=start + at < n, other=-float("inf"))
        higher = tl.maximum(peak, tl.max(x, axis=0))
        total = total * tl.exp(peak - higher) + tl.sum(tl.exp(x - higher), axis=0)
        peak = higher
    tl.store(out_ptr + row, peak + tl.log(total))


@triton.jit
def overwrites(out_ptr, n, step, BLOCK: tl.constexpr):
    """Iterations of one program store to the same places: the last one wins."""
    pid = tl.program_id(0)
    for i in range(pid, n, 2):
        tl.store(out_ptr + pid * 64 + i // 2 * step + tl.arange(0, BLOCK), i)


@triton.jit
def perhaps_never(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """A sum that is first used in a loop which some programs do not enter, and then again."""
    pid = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    total = tl.sum(tl.exp(tl.load(x_ptr + at)), axis=0)
    for i in range(pid):
        tl.store(out_ptr + pid * 8 + i, total + i)
    tl.store(out_ptr + pid * 8 + 7, total)


@triton.jit
def split_depth(a_ptr, b_ptr, c_ptr, m, n, k, B: tl.constexpr, SPLIT: tl.constexpr):
    """Parts of a product's depth go to programs of their own, which add up."""
    part = tl.program_id(2)
    row = tl.program_id(0) * B + tl.arange(0, B)
    col = tl.program_id(1) * B + tl.arange(0, B)
    acc = tl.zeros((B, B), tl.float32)
    for step in range(part, tl.cdiv(k, B), SPLIT):
        at = step * B + tl.arange(0, B)
        a = tl.load(a_ptr + row[:, None] * k + at[None, :], mask=(row[:, None] < m) & (at[None, :] < k), other=0.0)
        b = tl.load(b_ptr + at[:, None] * n + col[None, :], mask=(at[:, None] < k) & (col[None, :] < n), other=0.0)
        acc += tl.dot(a, b)
    tl.atomic_add(c_ptr + row[:, None] * n + col[None, :], acc, mask=(row[:, None] < m) & (col[None, :] < n))


@triton.jit
def correlation(x_ptr, w_ptr, out_ptr, n, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK,), tl.float32)
    for t in tl.static_range(WIDTH):
        acc += tl.load(x_ptr + at + t, mask=at + t < n + WIDTH - 1, other=0.0) * tl.load(w_ptr + t)
    tl.store(out_ptr + at, acc, mask=at < n)


@triton.jit
def running_sum(x_ptr, out_ptr, n, B: tl.constexpr):
    row = tl.program_id(0)
    total = 0.0
    for i in range(n):
        total += tl.load(x_ptr + row * n + i)
        tl.store(out_ptr + row * n + i, total)


@triton.jit
def counted_by_while(x_ptr, out_ptr, n, lo, STEP: tl.constexpr, BLOCK: tl.constexpr):
    """Blocks from the program's own on, by a condition of two parts; what the loop leaves behind is used."""
    pid = tl.program_id(0)
    at = pid
    total = tl.zeros((BLOCK,), tl.float32)
    while lo <= pid and at * BLOCK < n:
        offsets = at * BLOCK + tl.arange(0, BLOCK)
        total += tl.load(x_ptr + offsets, mask=offsets < n, other=0.0)
        at = at + STEP
    tl.store(out_ptr + pid * 2, tl.sum(total, axis=0))
    tl.store(out_ptr + pid * 2 + 1, at)


@triton.jit
def counted_downwards(x_ptr, out_ptr, n_ptr, BLOCK: tl.constexpr):
    """How far is only known from memory, and differs among programs."""
    pid = tl.program_id(0)
    left = tl.load(n_ptr + pid)
    total = 0.0
    while left > 0:
        left -= 3
        total = total * 0.5 + tl.load(x_ptr + pid * BLOCK + tl.maximum(left, 0))
    tl.store(out_ptr + pid, total)


@triton.jit
def found_first(x_ptr, out_ptr, n, limit, BLOCK: tl.constexpr):
    """Leaves the loop at the first large number, passes over negative ones."""
    row = tl.program_id(0)
    found = -1
    total = 0.0
    for i in range(n):
        x = tl.load(x_ptr + row * n + i)
        if x < 0:
            continue
        if x > limit:
            found = i
            break
        total += x
    tl.store(out_ptr + row * 2, found)
    tl.store(out_ptr + row * 2 + 1, total)


@triton.jit
def nested_breaks(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    count = 0
    for i in range(n):
        for j in range(n):
            if tl.load(x_ptr + tl.program_id(0) * n + j) > i:
                break
            count += 1
        if count > 7:
            break
        count += 100
    tl.store(out_ptr + tl.program_id(0), count)


@triton.jit
def described_transposition(x_ptr, out_ptr, m, n, BM: tl.constexpr, BN: tl.constexpr):
    x = tl.make_tensor_descriptor(x_ptr, shape=[m, n], strides=[n, 1], block_shape=[BM, BN])
    out = tl.make_tensor_descriptor(out_ptr, [n, m], [m, 1], [BN, BM])
    first, second = tl.program_id(0) * BM, tl.program_id(1) * BN
    out.store([second, first], x.load([first, second]).T)


@triton.jit
def staged_sums(
    x_ptr, w_ptr, out_ptr, n,
    BM: tl.constexpr, BN: tl.constexpr, WRONG: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Sums weighted by powers over columns up to the diagonal, in two loops; WRONG: what makes the loops differ."""
    block = tl.program_id(0)
    rows, cols = block * BM + tl.arange(0, BM), tl.arange(0, BN)
    peak = tl.zeros([BM], tl.float32) - float("inf")
    total = tl.zeros([BM], tl.float32)
    for start in range(0, block * BM + (BN if WRONG == "overlap" else 0), BN):
        x = tl.load(x_ptr + rows[:, None] * n + start + cols[None, :])
        if WRONG == "scale":
            x = x * 2.0
        w = tl.load(w_ptr + start + cols)
        higher = tl.maximum(peak, tl.max(x, 1))
        total = total * tl.exp(peak - higher) + tl.sum(tl.exp(x - higher[:, None]) * w[None, :], 1)
        peak = higher
    if WRONG == "between":
        total = total * 0.5
    for start in range(block * BM, (block + 1) * BM, BN):
        x = tl.load(x_ptr + rows[:, None] * n + start + cols[None, :])
        x = tl.where(rows[:, None] >= start + cols[None, :], x, MASKED)
        w = tl.load(w_ptr + start + cols + (1 if WRONG == "weights" else 0))
        higher = tl.maximum(peak, tl.max(x, 1))
        total = total * tl.exp(peak - higher) + tl.sum(tl.exp(x - higher[:, None]) * w[None, :], 1)
        peak = higher
    tl.store(out_ptr + rows, peak + tl.log(total))


@triton.jit
def halved_until_small(x_ptr, out_ptr, steps_ptr, n, BLOCK: tl.constexpr):
    """How long it takes is a matter of the data: a block is halved until its largest element is small."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    steps = 0
    while tl.max(tl.abs(x), axis=0) > 0.25:
        x = x * 0.5
        steps += 1
    tl.store(out_ptr + at, x, mask=at < n)
    tl.store(steps_ptr + tl.program_id(0), steps)


@triton.jit
def bisection(sorted_ptr, wanted_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """The first place whose element is not below what is wanted; programs with an odd number do nothing."""
    pid = tl.program_id(0)
    lo, hi = 0, n
    if pid % 2 == 0:
        wanted = tl.load(wanted_ptr + pid)
        while lo < hi:
            middle = (lo + hi) // 2
            below = tl.load(sorted_ptr + middle) < wanted
            lo = tl.where(below, middle + 1, lo)
            hi = tl.where(below, hi, middle)
    tl.store(out_ptr + pid, lo)


@triton.jit
def walk(next_ptr, out_ptr, n, limit, BLOCK: tl.constexpr):
    """Follows a list until its end, or a place seen often enough."""
    at, steps = tl.program_id(0), 0
    while True:
        if at >= n:
            break
        steps += 1
        if steps == limit:
            break
        at = tl.load(next_ptr + at)
    tl.store(out_ptr + tl.program_id(0) * 2, at)
    tl.store(out_ptr + tl.program_id(0) * 2 + 1, steps)


@triton.jit
def first_above(x_ptr, out_ptr, n, limit, BLOCK: tl.constexpr):
    """The condition loads what is only there while the loop goes on."""
    i, skipped = 0, 0
    while tl.load(x_ptr + tl.program_id(0) * n + i) < limit:
        i += 1
        if i == n:
            break
        if i % 3 == 1:
            continue
        skipped += 1
    tl.store(out_ptr + tl.program_id(0) * 2, i)
    tl.store(out_ptr + tl.program_id(0) * 2 + 1, skipped)


@triton.jit
def counted_up(addresses, counter, BLOCK: tl.constexpr):
    """What is loaded is not what the launch found there: the program has written it."""
    p = tl.load(addresses).to(tl.pointer_type(tl.float32))
    tl.store(counter, tl.load(counter) + 3)
    tl.store(p + tl.load(counter), 1.0)
