"""What ``loop_ws`` expands to: a matrix product over blocks, weights stationary."""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.expansion import Expansion, Loops
from tilewright.sim.gemmini.isa import Command, Compute, Mvin, Mvout, Preload, Tile
from tilewright.util.errors import ExecutionError


def matmul(loops: Loops, run: isa.LoopWs) -> Expansion:
    """C = A B + D over I x J x K blocks: k outermost, then j, then i, so that weights stay for I computes."""
    c = loops.configuration
    dim = c.dim
    n, ab, dc, strides_ab, strides_dc = loops.get(
        isa.LoopBounds, isa.LoopAddressesAB, isa.LoopAddressesDC, isa.LoopStridesAB, isa.LoopStridesDC
    )
    if min(n.i, n.j, n.k) < 1 or max(n.pad_i, n.pad_j, n.pad_k) >= dim:
        raise ExecutionError(f"{n}: each extent must be at least 1 block, each padding less than {dim}", hint="correct LoopBounds")
    if run.activation > isa.RELU:
        raise ExecutionError(f"{run}: the loop that gathers statistics is not modelled", hint="issue the stores with their commands")
    spad, acc = (n.i * n.k + n.k * n.j) * dim, n.i * n.j * dim
    a_start, b_end, c_start = loops.halves(run.a_half, run.b_half, spad, acc, bool(dc.c))
    b_start = b_end - n.k * n.j * dim

    i, j, k = (n.i, n.pad_i), (n.j, n.pad_j), (n.k, n.pad_k)
    a_groups = _loads(c, ab.a, strides_ab.a, a_start, *((k, i) if run.a_transpose else (i, k)), 0)
    b_groups = _loads(c, ab.b, strides_ab.b, b_start, *((j, k) if run.b_transpose else (k, j)), 1)
    span = c.blocks(c.input_bytes)
    a, a_k = _in_order(a_groups, bool(run.a_transpose), span) if ab.a else ((), ())
    b, b_k = _in_order(b_groups, not run.b_transpose, span) if ab.b else ((), ())
    execute = _products(c, run, n, a_start, b_start, c_start)
    needs = _needs(run, n, bool(ab.a), bool(ab.b), span)
    store, after = _stores(c, run, n, dc.c, strides_dc.c, c_start)
    bias = _bias(c, run, n, dc.d, strides_dc.d, c_start)
    return Expansion(bias, a, b, execute, store, needs, after, a_k, b_k)


def _length(dim: int, at: int, extent: tuple[int, int], count: int = 1) -> int:
    """Elements in ``count`` blocks from block ``at`` on, of an ``extent`` of so many blocks of which the last lacks some."""
    return count * dim - (extent[1] if at + count >= extent[0] else 0)


def _loads(
    c: Configuration, address: int, stride: int, start: int, outer: tuple[int, int], inner: tuple[int, int], mvin: int
) -> list[list[Mvin]]:
    """Mvins of a matrix of ``outer`` x ``inner`` (blocks, padding), by group of inner blocks, then by outer block."""
    dim, span = c.dim, c.blocks(c.input_bytes)
    groups = []
    for col in range(0, inner[0], span):
        count = min(span, inner[0] - col)
        group = []
        for row in range(outer[0]):
            local = Tile(start + (row * inner[0] + col) * dim, _length(dim, col, inner, count), _length(dim, row, outer))
            group.append(Mvin(address + (row * stride + col) * dim * c.input_bytes, local, mvin))
        groups.append(group)
    return groups


def _products(c: Configuration, run: isa.LoopWs, n: isa.LoopBounds, a_start: int, b_start: int, c_start: int) -> tuple[Command, ...]:
    """A preload and a compute for each block of A, k outermost, then j, then i."""
    dim, garbage = c.dim, Tile(isa.GARBAGE, c.dim, c.dim)
    execute: list[Command] = []
    for kk in range(n.k):
        ks = _length(dim, kk, (n.k, n.pad_k))
        for jj in range(n.j):
            js = _length(dim, jj, (n.j, n.pad_j))
            weights = b_start + (jj * n.k + kk if run.b_transpose else kk * n.j + jj) * dim
            for ii in range(n.i):
                rows = _length(dim, ii, (n.i, n.pad_i))
                result = isa.accumulator(c_start + (ii * n.j + jj) * dim, accumulate=bool(run.accumulate or kk))
                left = a_start + (kk * n.i + ii if run.a_transpose else ii * n.k + kk) * dim
                execute.append(Preload(Tile(weights if ii == 0 else isa.GARBAGE, js, ks), Tile(result, js, rows)))
                execute.append(Compute(Tile(left, ks, rows), garbage, ii == 0))
    return tuple(execute)


def _needs(run: isa.LoopWs, n: isa.LoopBounds, of_a: bool, of_b: bool, span: int) -> tuple[tuple[int, int], ...]:
    """Loads of A and of B that each command of :func:`_products` waits for."""
    needs: list[tuple[int, int]] = []
    for kk in range(n.k):
        for jj in range(n.j):
            b = _place(kk, jj, n.j, not run.b_transpose, span) + 1 if of_b else 0
            for ii in range(n.i):
                a = _place(kk, ii, n.i, bool(run.a_transpose), span) + 1 if of_a else 0
                needs += [(a, b)] * 2
    return tuple(needs)


def _place(k: int, other: int, others: int, outer_is_k: bool, span: int) -> int:
    """The number of the load that brings block (k, other), in the order of :func:`_in_order`."""
    return k * -(-others // span) + other // span if outer_is_k else k // span * others + other


def _in_order(groups: list[list[Mvin]], outer_is_k: bool, span: int) -> tuple[tuple[Command, ...], tuple[int, ...]]:
    """k is outermost in the order of issue: by rows of blocks when those are k, else by groups of columns. Also k of each."""
    by = [list(row) for row in zip(*groups, strict=True)] if outer_is_k else groups
    step = 1 if outer_is_k else span
    return tuple(m for group in by for m in group), tuple(n * step for n, group in enumerate(by) for _ in group)


def _bias(c: Configuration, run: isa.LoopWs, n: isa.LoopBounds, address: int, stride: int, start: int) -> tuple[Command, ...]:
    if not address:
        return ()
    size = c.input_bytes if run.low_d else c.acc_bytes
    return tuple(
        Mvin(address + (i * stride + j) * c.dim * size, Tile(isa.accumulator(start + (i * n.j + j) * c.dim), cols, rows), 2)
        for j, cols, i, rows in _blocks(c, n, c.blocks(size))
    )


def _stores(
    c: Configuration, run: isa.LoopWs, n: isa.LoopBounds, address: int, stride: int, start: int
) -> tuple[tuple[Command, ...], tuple[int, ...]]:
    if not address:
        return (), ()
    size = c.acc_bytes if run.full_c else c.input_bytes
    store, after = [], []
    for j, cols, i, rows in _blocks(c, n, 1 if run.full_c else c.blocks(size)):
        local = isa.accumulator(start + (i * n.j + j) * c.dim, full=bool(run.full_c))
        store.append(Mvout(address + (i * stride + j) * c.dim * size, Tile(local, cols, rows)))
        last = j + -(-cols // c.dim) - 1
        after.append(2 * (((n.k - 1) * n.j + last) * n.i + i + 1))
    return tuple(store), tuple(after)


def _blocks(c: Configuration, n: isa.LoopBounds, span: int) -> Iterator[tuple[int, int, int, int]]:
    """(j, columns, i, rows) of the moves of C or D: ``span`` blocks wide, i innermost."""
    for j in range(0, n.j, span):
        count = min(span, n.j - j)
        cols = count * c.dim - (n.pad_j if j + count >= n.j else 0)
        for i in range(n.i):
            yield j, cols, i, c.dim - (n.pad_i if i == n.i - 1 else 0)
