"""Programs in the form of the public Triton tutorials, in words of our own: what they call and how their loops lie is the same."""

from __future__ import annotations

import tilewright as triton
import tilewright.language as tl


@triton.jit
def persistent_softmax(to_ptr, from_ptr, from_stride, to_stride, rows, cols, BLOCK: tl.constexpr, num_stages: tl.constexpr):
    """As many programs as the launch likes; each takes its share of the rows."""
    begin = tl.program_id(0)
    apart = tl.num_programs(0)
    for row in tl.range(begin, rows, apart, num_stages=num_stages):
        start = from_ptr + row * from_stride
        col = tl.arange(0, BLOCK)
        valid = col < cols
        x = tl.load(start + col, mask=valid, other=-float("inf"))
        shifted = x - tl.max(x, axis=0)
        powers = tl.exp(shifted)
        total = tl.sum(powers, axis=0)
        to_start = to_ptr + row * to_stride
        tl.store(to_start + col, powers / total, mask=valid)


@triton.jit
def leaky(x):
    return tl.where(x >= 0, x, 0.01 * x)


@triton.autotune(
    configs=[
        triton.Config({"BM": 32, "BN": 64, "BK": 16, "GROUP": 8}, num_stages=3, num_warps=8),
        triton.Config({"BM": 16, "BN": 16, "BK": 32, "GROUP": 2}, num_stages=4, num_warps=4),
    ],
    key=["M", "N", "K"],
)
@triton.jit
def grouped_order_matmul(
    a_ptr, b_ptr, c_ptr, M, N, K, stride_am, stride_ak, stride_bk, stride_bn, stride_cm, stride_cn,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(axis=0)
    across_m = tl.cdiv(M, BM)
    across_n = tl.cdiv(N, BN)
    in_group = GROUP * across_n
    group = pid // in_group
    first_m = group * GROUP
    height = min(across_m - first_m, GROUP)
    pid_m = first_m + ((pid % in_group) % height)
    pid_n = (pid % in_group) // height
    tl.assume(pid_m >= 0)
    tl.assume(stride_am > 0)
    rows = (pid_m * BM + tl.arange(0, BM)) % M
    cols = (pid_n * BN + tl.arange(0, BN)) % N
    depth = tl.arange(0, BK)
    a_at = a_ptr + (rows[:, None] * stride_am + depth[None, :] * stride_ak)
    b_at = b_ptr + (depth[:, None] * stride_bk + cols[None, :] * stride_bn)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(tl.cdiv(K, BK)):
        a = tl.load(a_at, mask=depth[None, :] < K - k * BK, other=0.0)
        b = tl.load(b_at, mask=depth[:, None] < K - k * BK, other=0.0)
        total = tl.dot(a, b, total)
        a_at += BK * stride_ak
        b_at += BK * stride_bk
    if ACTIVATION == "leaky":
        total = leaky(total)
    c = total.to(tl.float16)
    to_row = pid_m * BM + tl.arange(0, BM)
    to_col = pid_n * BN + tl.arange(0, BN)
    c_at = c_ptr + stride_cm * to_row[:, None] + stride_cn * to_col[None, :]
    tl.store(c_at, c, mask=(to_row[:, None] < M) & (to_col[None, :] < N))


@triton.jit
def layer_norm_forward(X, Y, W, B, Mean, Rstd, stride, N, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    Y += row * stride
    X += row * stride
    mean = 0
    sums = tl.zeros([BLOCK], dtype=tl.float32)
    for off in range(0, N, BLOCK):
        cols = off + tl.arange(0, BLOCK)
        a = tl.load(X + cols, mask=cols < N, other=0.0).to(tl.float32)
        sums += a
    mean = tl.sum(sums, axis=0) / N
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    for off in range(0, N, BLOCK):
        cols = off + tl.arange(0, BLOCK)
        x = tl.load(X + cols, mask=cols < N, other=0.0).to(tl.float32)
        x = tl.where(cols < N, x - mean, 0.0)
        squares += x * x
    var = tl.sum(squares, axis=0) / N
    rstd = 1 / tl.sqrt(var + eps)
    tl.store(Mean + row, mean)
    tl.store(Rstd + row, rstd)
    for off in range(0, N, BLOCK):
        cols = off + tl.arange(0, BLOCK)
        mask = cols < N
        w = tl.load(W + cols, mask=mask)
        b = tl.load(B + cols, mask=mask)
        x = tl.load(X + cols, mask=mask, other=0.0).to(tl.float32)
        y = (x - mean) * rstd * w + b
        tl.store(Y + cols, y, mask=mask)


@triton.jit
def keys_of_stage(block, N, BM: tl.constexpr, STAGE: tl.constexpr):
    """The keys of one stage: 1 is what lies below the diagonal's block, 2 that block, 3 all keys."""
    if STAGE == 1:
        lo, hi = 0, block * BM
    elif STAGE == 2:
        lo, hi = block * BM, (block + 1) * BM
        lo = tl.multiple_of(lo, BM)
    else:
        lo, hi = 0, N
    return lo, hi


@triton.jit
def block_of_keys(acc, total, peak, q, k, v, seen, scale, dtype: tl.constexpr, STAGE: tl.constexpr):
    """Online softmax over one block of keys (transposed) and values; ``seen`` masks that of the diagonal."""
    qk = tl.dot(q, k)
    if STAGE == 2:
        qk = qk * scale + tl.where(seen, 0, -1.0e6)
        higher = tl.maximum(peak, tl.max(qk, 1))
        qk -= higher[:, None]
    else:
        higher = tl.maximum(peak, tl.max(qk, 1) * scale)
        qk = qk * scale - higher[:, None]
    p = tl.math.exp2(qk)
    alpha = tl.math.exp2(peak - higher)
    added = tl.sum(p, 1)
    acc = acc * alpha[:, None]
    acc = tl.dot(p.to(dtype), v, acc)
    return acc, total * alpha + added, higher


@triton.jit
def windows_inner(
    acc, total, peak, q, k_at, v_at, block, scale,
    BM: tl.constexpr, WIDTH: tl.constexpr, BN: tl.constexpr, STAGE: tl.constexpr, rows: tl.constexpr, cols: tl.constexpr,
    N: tl.constexpr, fp8_v: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = tl.float8e5 if fp8_v else tl.float16
    lo, hi = keys_of_stage(block, N, BM, STAGE)
    k_at = tl.advance(k_at, (0, lo))
    v_at = tl.advance(v_at, (lo, 0))
    for start in range(lo, hi, BN):
        start = tl.multiple_of(start, BN)
        seen = rows[:, None] >= (start + cols[None, :])
        acc, total, peak = block_of_keys(acc, total, peak, q, tl.load(k_at), tl.load(v_at), seen, scale, dtype, STAGE)
        v_at = tl.advance(v_at, (BN, 0))
        k_at = tl.advance(k_at, (0, BN))
    return acc, total, peak


@triton.autotune(configs=[triton.Config({"BM": 32, "BN": 16}, num_stages=3, num_warps=4)], key=["N", "WIDTH"])
@triton.jit
def attention_by_windows(
    Q, K, V, sm_scale, M, Out,
    stride_qz, stride_qh, stride_qm, stride_qk, stride_kz, stride_kh, stride_kn, stride_kk,
    stride_vz, stride_vh, stride_vk, stride_vn, stride_oz, stride_oh, stride_om, stride_on, Z, H, N,
    WIDTH: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, STAGE: tl.constexpr,
):  # fmt: skip
    """Block pointers."""
    tl.static_assert(BN <= WIDTH)
    block = tl.program_id(0)
    zh = tl.program_id(1)
    z = zh // H
    h = zh % H
    offset = z.to(tl.int64) * stride_qz + h.to(tl.int64) * stride_qh
    q_at = tl.make_block_ptr(
        base=Q + offset, shape=(N, WIDTH), strides=(stride_qm, stride_qk), offsets=(block * BM, 0), block_shape=(BM, WIDTH), order=(1, 0)
    )
    v_order: tl.constexpr = (0, 1) if V.dtype.element_ty == tl.float8e5 else (1, 0)
    v_at = tl.make_block_ptr(
        base=V + offset, shape=(N, WIDTH), strides=(stride_vk, stride_vn), offsets=(0, 0), block_shape=(BN, WIDTH), order=v_order
    )
    k_at = tl.make_block_ptr(
        base=K + offset, shape=(WIDTH, N), strides=(stride_kk, stride_kn), offsets=(0, 0), block_shape=(WIDTH, BN), order=(0, 1)
    )
    o_at = tl.make_block_ptr(
        base=Out + offset, shape=(N, WIDTH), strides=(stride_om, stride_on), offsets=(block * BM, 0), block_shape=(BM, WIDTH), order=(1, 0)
    )
    rows = block * BM + tl.arange(0, BM)
    cols = tl.arange(0, BN)
    peak = tl.zeros([BM], dtype=tl.float32) - float("inf")
    total = tl.zeros([BM], dtype=tl.float32) + 1.0
    acc = tl.zeros([BM, WIDTH], dtype=tl.float32)
    scale = sm_scale
    scale *= 1.44269504
    q = tl.load(q_at)
    if STAGE & 1:
        acc, total, peak = windows_inner(
            acc, total, peak, q, k_at, v_at, block, scale, BM, WIDTH, BN, 4 - STAGE, rows, cols, N, V.dtype.element_ty == tl.float8e5
        )
    if STAGE & 2:
        acc, total, peak = windows_inner(
            acc, total, peak, q, k_at, v_at, block, scale, BM, WIDTH, BN, 2, rows, cols, N, V.dtype.element_ty == tl.float8e5
        )
    peak += tl.math.log2(total)
    acc = acc / total[:, None]
    tl.store(M + zh * N + rows, peak)
    tl.store(o_at, acc.to(Out.type.element_ty))


@triton.jit
def described_inner(
    acc, total, peak, q, desc_k, desc_v, offset, dtype: tl.constexpr, block, scale,
    BM: tl.constexpr, WIDTH: tl.constexpr, BN: tl.constexpr, STAGE: tl.constexpr, rows: tl.constexpr, cols: tl.constexpr,
    N: tl.constexpr, warp_specialize: tl.constexpr,
):  # fmt: skip
    lo, hi = keys_of_stage(block, N, BM, STAGE)
    offset_k = offset + lo
    offset_v = offset + lo
    for start in tl.range(lo, hi, BN, warp_specialize=warp_specialize):
        start = tl.multiple_of(start, BN)
        seen = rows[:, None] >= (start + cols[None, :])
        k, v = desc_k.load([offset_k, 0]).T, desc_v.load([offset_v, 0])
        acc, total, peak = block_of_keys(acc, total, peak, q, k, v, seen, scale, dtype, STAGE)
        offset_k += BN
        offset_v += BN
    return acc, total, peak


@triton.jit
def described(desc_or_ptr, shape, strides, block_shape):
    if isinstance(desc_or_ptr, tl.tensor_descriptor):
        return desc_or_ptr
    else:
        return tl.make_tensor_descriptor(desc_or_ptr, shape, strides, block_shape)


@triton.jit
def attention_by_descriptors(
    sm_scale, M, Z, H, desc_q, desc_k, desc_v, desc_o, N,
    WIDTH: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, FP8: tl.constexpr, STAGE: tl.constexpr, warp_specialize: tl.constexpr,
):  # fmt: skip
    """Tensor descriptors over all heads, one below the other."""
    dtype = tl.float8e5 if FP8 else tl.float16
    tl.static_assert(BN <= WIDTH)
    block = tl.program_id(0)
    zh = tl.program_id(1)
    z = zh // H
    h = zh % H
    y_dim = Z * H * N
    desc_q = described(desc_q, shape=[y_dim, WIDTH], strides=[WIDTH, 1], block_shape=[BM, WIDTH])
    desc_v = described(desc_v, shape=[y_dim, WIDTH], strides=[WIDTH, 1], block_shape=[BN, WIDTH])
    desc_k = described(desc_k, shape=[y_dim, WIDTH], strides=[WIDTH, 1], block_shape=[BN, WIDTH])
    desc_o = described(desc_o, shape=[y_dim, WIDTH], strides=[WIDTH, 1], block_shape=[BM, WIDTH])
    offset = z * (N * H) + h * N
    offset_qo = offset + block * BM
    rows = block * BM + tl.arange(0, BM)
    cols = tl.arange(0, BN)
    peak = tl.zeros([BM], dtype=tl.float32) - float("inf")
    total = tl.zeros([BM], dtype=tl.float32) + 1.0
    acc = tl.zeros([BM, WIDTH], dtype=tl.float32)
    scale = sm_scale
    scale *= 1.44269504
    q = desc_q.load([offset_qo, 0])
    if STAGE & 1:
        acc, total, peak = described_inner(
            acc, total, peak, q, desc_k, desc_v, offset, dtype, block, scale, BM, WIDTH, BN, 4 - STAGE, rows, cols, N, warp_specialize
        )
    if STAGE & 2:
        acc, total, peak = described_inner(
            acc, total, peak, q, desc_k, desc_v, offset, dtype, block, scale, BM, WIDTH, BN, 2, rows, cols, N, warp_specialize
        )
    peak += tl.math.log2(total)
    acc = acc / total[:, None]
    tl.store(M + zh * N + rows, peak)
    desc_o.store([offset_qo, 0], acc.to(dtype))


@triton.autotune(
    configs=[triton.Config({"BM": 16, "BN": 32, "BK": 16, "PROGRAMS": 7}), triton.Config({"BM": 16, "BN": 16, "BK": 16, "PROGRAMS": 4})],
    key=["problems"],
)
@triton.jit
def grouped_gemm(
    a_addresses, b_addresses, c_addresses, sizes, leading, problems,
    PROGRAMS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A fixed number of programs works through the tiles of all problems; what a problem is stands in memory."""
    tile = tl.program_id(0)
    end = 0
    for g in range(problems):
        gm = tl.load(sizes + g * 3)
        gn = tl.load(sizes + g * 3 + 1)
        gk = tl.load(sizes + g * 3 + 2)
        down = tl.cdiv(gm, BM)
        across = tl.cdiv(gn, BN)
        tiles = down * across
        while tile >= end and tile < end + tiles:
            k = gk
            lda = tl.load(leading + g * 3)
            ldb = tl.load(leading + g * 3 + 1)
            ldc = tl.load(leading + g * 3 + 2)
            a_ptr = tl.load(a_addresses + g).to(tl.pointer_type(tl.float16))
            b_ptr = tl.load(b_addresses + g).to(tl.pointer_type(tl.float16))
            c_ptr = tl.load(c_addresses + g).to(tl.pointer_type(tl.float16))
            mine = tile - end
            tile_m = mine // across
            tile_n = mine % across
            rows = tile_m * BM + tl.arange(0, BM)
            cols = tile_n * BN + tl.arange(0, BN)
            depth = tl.arange(0, BK)
            a_at = a_ptr + rows[:, None] * lda + depth[None, :]
            b_at = b_ptr + depth[:, None] * ldb + cols[None, :]
            total = tl.zeros((BM, BN), dtype=tl.float32)
            for _ in range(tl.cdiv(k, BK)):
                tl.multiple_of(a_at, [16, 16])
                tl.multiple_of(b_at, [16, 16])
                a = tl.load(a_at)
                b = tl.load(b_at)
                total += tl.dot(a, b)
                a_at += BK
                b_at += BK * ldb
            c = total.to(tl.float16)
            to_row = tile_m * BM + tl.arange(0, BM)
            to_col = tile_n * BN + tl.arange(0, BN)
            c_at = c_ptr + ldc * to_row[:, None] + to_col[None, :]
            tl.store(c_at, c)
            tile += PROGRAMS
        end = end + tiles


@triton.jit
def grouped_gemm_of_integers(
    a_addresses, b_addresses, c_addresses, sizes, problems,
    PROGRAMS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The same for int8, with masks: sizes need not fit the tiles."""
    tile = tl.program_id(0)
    end = 0
    for g in range(problems):
        m = tl.load(sizes + g * 3)
        n = tl.load(sizes + g * 3 + 1)
        k = tl.load(sizes + g * 3 + 2)
        across = tl.cdiv(n, BN)
        tiles = tl.cdiv(m, BM) * across
        while tile >= end and tile < end + tiles:
            a_ptr = tl.load(a_addresses + g).to(tl.pointer_type(tl.int8))
            b_ptr = tl.load(b_addresses + g).to(tl.pointer_type(tl.int8))
            c_ptr = tl.load(c_addresses + g).to(tl.pointer_type(tl.int32))
            rows = (tile - end) // across * BM + tl.arange(0, BM)
            cols = (tile - end) % across * BN + tl.arange(0, BN)
            depth = tl.arange(0, BK)
            total = tl.zeros((BM, BN), dtype=tl.int32)
            for start in range(0, k, BK):
                at = start + depth
                a = tl.load(a_ptr + rows[:, None] * k + at[None, :], mask=(rows[:, None] < m) & (at[None, :] < k), other=0)
                b = tl.load(b_ptr + at[:, None] * n + cols[None, :], mask=(at[:, None] < k) & (cols[None, :] < n), other=0)
                total += tl.dot(a, b)
            tl.store(c_ptr + rows[:, None] * n + cols[None, :], total, mask=(rows[:, None] < m) & (cols[None, :] < n))
            tile += PROGRAMS
        end = end + tiles


@triton.jit
def grouped_gemm_by_descriptors(
    a_addresses, b_addresses, c_addresses, sizes, leading, problems,
    PROGRAMS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, FP8: tl.constexpr,
):  # fmt: skip
    """The same with tensor descriptors, made once for each problem that a program has tiles of; b comes transposed."""
    dtype = tl.float8e4nv if FP8 else tl.float16
    tile = tl.program_id(0)
    end = 0
    for g in range(problems):
        gm = tl.load(sizes + g * 3)
        gn = tl.load(sizes + g * 3 + 1)
        gk = tl.load(sizes + g * 3 + 2)
        down = tl.cdiv(gm, BM)
        across = tl.cdiv(gn, BN)
        tiles = down * across
        if tile >= end and tile < end + tiles:
            lda = tl.load(leading + g * 3)
            ldb = tl.load(leading + g * 3 + 1)
            ldc = tl.load(leading + g * 3 + 2)
            a_ptr = tl.load(a_addresses + g).to(tl.pointer_type(dtype))
            b_ptr = tl.load(b_addresses + g).to(tl.pointer_type(dtype))
            c_ptr = tl.load(c_addresses + g).to(tl.pointer_type(dtype))
            a_desc = tl.make_tensor_descriptor(a_ptr, shape=[gm, gk], strides=[lda, 1], block_shape=[BM, BK])
            b_desc = tl.make_tensor_descriptor(b_ptr, shape=[gn, gk], strides=[ldb, 1], block_shape=[BN, BK])
            c_desc = tl.make_tensor_descriptor(c_ptr, shape=[gm, gn], strides=[ldc, 1], block_shape=[BM, BN])
            while tile >= end and tile < end + tiles:
                k = gk
                mine = tile - end
                tile_m = mine // across
                tile_n = mine % across
                first_m = tile_m * BM
                first_n = tile_n * BN
                total = tl.zeros((BM, BN), dtype=tl.float32)
                for step in range(0, tl.cdiv(k, BK)):  # noqa: PIE808
                    a = a_desc.load([first_m, step * BK])
                    b = b_desc.load([first_n, step * BK])
                    total += tl.dot(a, b.T)
                to_m = tile_m * BM
                to_n = tile_n * BN
                c = total.to(dtype)
                c_desc.store([to_m, to_n], c)
                tile += PROGRAMS
        end = end + tiles


@triton.jit
def tile_of(tile, in_group, across_m, GROUP: tl.constexpr):
    group = tile // in_group
    first_m = group * GROUP
    height = min(across_m - first_m, GROUP)
    return first_m + (tile % height), (tile % in_group) // height


@triton.jit
def persistent_matmul(
    a_ptr, b_ptr, c_ptr, M, N, K, stride_am, stride_ak, stride_bk, stride_bn, stride_cm, stride_cn,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """As many programs as the launch likes; each takes every PROGRAMS-th tile, and stores one tile behind the sums."""
    start = tl.program_id(axis=0)
    across_m = tl.cdiv(M, BM)
    across_n = tl.cdiv(N, BN)
    k_tiles = tl.cdiv(K, BK)
    tiles = across_m * across_n
    tile_c = start - PROGRAMS
    depth = tl.arange(0, BK)
    in_group = GROUP * across_n
    for tile in tl.range(start, tiles, PROGRAMS, flatten=True):
        pid_m, pid_n = tile_of(tile, in_group, across_m, GROUP)
        rows = pid_m * BM + tl.arange(0, BM)
        cols = pid_n * BN + tl.arange(0, BN)
        rows = tl.where(rows < M, rows, 0)
        cols = tl.where(cols < N, cols, 0)
        rows = tl.max_contiguous(tl.multiple_of(rows, BM), BM)
        cols = tl.max_contiguous(tl.multiple_of(cols, BN), BN)
        total = tl.zeros((BM, BN), dtype=tl.float32)
        for k in range(k_tiles):
            at = k * BK + depth
            a = tl.load(a_ptr + (rows[:, None] * stride_am + at[None, :] * stride_ak), mask=depth[None, :] < K - k * BK, other=0.0)
            b = tl.load(b_ptr + (at[:, None] * stride_bk + cols[None, :] * stride_bn), mask=depth[:, None] < K - k * BK, other=0.0)
            total = tl.dot(a, b, total)
        tile_c += PROGRAMS
        pid_m, pid_n = tile_of(tile_c, in_group, across_m, GROUP)
        to_row = pid_m * BM + tl.arange(0, BM)
        to_col = pid_n * BN + tl.arange(0, BN)
        c_at = c_ptr + stride_cm * to_row[:, None] + stride_cn * to_col[None, :]
        tl.store(c_at, total.to(tl.float16), mask=(to_row[:, None] < M) & (to_col[None, :] < N))


@triton.jit
def layer_norm_backward(DX, DY, DW, DB, X, W, Mean, Rstd, stride, N, BLOCK: tl.constexpr):
    """One row of the input's gradient; its part of the weights' gradients is added where a lock would be held elsewhere."""
    row = tl.program_id(0)
    cols = tl.arange(0, BLOCK)
    mask = cols < N
    X += row * stride
    DY += row * stride
    DX += row * stride
    x = tl.load(X + cols, mask=mask, other=0).to(tl.float32)
    dy = tl.load(DY + cols, mask=mask, other=0).to(tl.float32)
    w = tl.load(W + cols, mask=mask).to(tl.float32)
    mean = tl.load(Mean + row)
    rstd = tl.load(Rstd + row)
    xhat = (x - mean) * rstd
    wdy = w * dy
    xhat = tl.where(mask, xhat, 0.0)
    wdy = tl.where(mask, wdy, 0.0)
    c1 = tl.sum(xhat * wdy, axis=0) / N
    c2 = tl.sum(wdy, axis=0) / N
    dx = (wdy - (xhat * c1 + c2)) * rstd
    tl.store(DX + cols, dx, mask=mask)
    tl.atomic_add(DW + cols, (dy * xhat).to(w.dtype), mask=mask)
    tl.atomic_add(DB + cols, (dy).to(w.dtype), mask=mask)
