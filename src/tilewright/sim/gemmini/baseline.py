"""The vendor library's way to multiply matrices: its default tile sizes and the command streams it issues.

The baseline that generated programs are compared with, and the streams whose cycles were measured on the RTL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.isa import Command, Compute, ConfigEx, ConfigLd, ConfigSt, Mvin, Mvout, Preload, Tile
from tilewright.util.errors import ExecutionError


@dataclass(frozen=True, slots=True)
class Gemm:
    """C[m, n] = A[m, k] B[k, n], inputs, dense rows at these addresses; ``scale`` and ``activation`` on the way out.

    At ``bias`` are n sums that every row starts from; 0: it starts from zeros.
    """

    m: int
    n: int
    k: int
    a: int
    b: int
    c: int
    scale: int = isa.ONE
    activation: int = isa.NO_ACTIVATION
    bias: int = 0


def default_tiles(c: Configuration, m: int, n: int, k: int, *, double_buffered: bool = True) -> tuple[int, int, int]:
    """Blocks of a tile along i, j, k: a square result first, then grown along j, i, k while the memories hold it."""
    spad, acc = (c.spad_rows // 2, c.acc_rows // 2) if double_buffered else (c.spad_rows, c.acc_rows)
    most = [-(-x // c.dim) for x in (m, n, k)]
    square = isqrt(acc // c.dim)
    tile = [min(square, most[0]), min(square, most[1]), min(spad // 2 // c.dim // square, most[2])]

    def fits(t: list[int]) -> bool:
        return (t[0] * t[2] + t[2] * t[1]) * c.dim <= spad and t[0] * t[1] * c.dim <= acc

    grown = True
    while grown:
        grown = False
        for axis in (1, 0, 2):
            larger = [x + (at == axis) for at, x in enumerate(tile)]
            if larger[axis] <= most[axis] and fits(larger):
                tile, grown = larger, True
    return tile[0], tile[1], tile[2]


def tiled_ws(c: Configuration, g: Gemm, tile: tuple[int, int, int]) -> Iterator[Command]:
    """One ``loop_ws`` for each tile, i outermost and k innermost; each loads its A and B again."""
    yield from _prelude(g, isa.WEIGHT_STATIONARY, c)
    extents, size = (g.m, g.n, g.k), c.input_bytes
    if min(tile) < 1:
        raise ExecutionError(f"tile {tile}: at least one block along each axis")

    def steps(axis: int) -> Iterator[tuple[int, int, int]]:
        """(start in elements, blocks, padding) of the tiles along an axis."""
        span = tile[axis] * c.dim
        for start in range(0, extents[axis], span):
            length = min(span, extents[axis] - start)
            blocks = -(-length // c.dim)
            yield start, blocks, blocks * c.dim - length

    for i, rows, pad_i in steps(0):
        for j, cols, pad_j in steps(1):
            for k, depth, pad_k in steps(2):
                last = k + tile[2] * c.dim >= g.k
                yield isa.LoopBounds(rows, cols, depth, pad_i, pad_j, pad_k)
                yield isa.LoopAddressesAB(g.a + (i * g.k + k) * size, g.b + (k * g.n + j) * size)
                start = g.bias + j * c.acc_bytes if g.bias and not k else 0
                yield isa.LoopAddressesDC(start, g.c + (i * g.n + j) * size if last else 0)
                yield isa.LoopStridesAB(g.k, g.n)
                yield isa.LoopStridesDC(0 if g.bias else g.n, g.n)
                yield isa.LoopWs(accumulate=int(k > 0 or g.bias > 0))


def default_ws(c: Configuration, g: Gemm) -> Iterator[Command]:
    """:func:`tiled_ws` with the default tiles."""
    return tiled_ws(c, g, default_tiles(c, g.m, g.n, g.k))


def default_os(c: Configuration, g: Gemm) -> Iterator[Command]:
    """Output stationary, explicit commands, for a problem that fits the memories whole: loads, then computes, then stores."""
    tile = default_tiles(c, g.m, g.n, g.k, double_buffered=False)
    blocks = tuple(-(-x // c.dim) for x in (g.m, g.n, g.k))
    if g.bias:
        raise ExecutionError("the output-stationary stream has no bias", hint="use default_ws")
    if tile != blocks:
        raise ExecutionError(f"{g.m} x {g.n} x {g.k} does not fit the memories at once", hint="use default_ws")
    ni, nj, nk = blocks
    yield from _prelude(g, isa.OUTPUT_STATIONARY, c)
    b_start, span, size = c.spad_rows - nk * nj * c.dim, c.blocks(c.input_bytes), c.input_bytes

    def extent(block: int, count: int, total: int) -> int:
        return min((block + count) * c.dim, total) - block * c.dim

    yield ConfigLd(g.n * size, 0, c.dim, c.unscaled)
    for j in range(0, nj, span):
        for k in range(nk):
            local = Tile(b_start + (k * nj + j) * c.dim, extent(j, span, g.n), extent(k, 1, g.k))
            yield Mvin(g.b + (k * g.n + j) * c.dim * size, local)
    yield ConfigLd(g.k * size, 0, c.dim, c.unscaled)
    for i in range(ni):
        for k in range(0, nk, span):
            local = Tile((i * nk + k) * c.dim, extent(k, span, g.k), extent(i, 1, g.m))
            yield Mvin(g.a + (i * g.k + k) * c.dim * size, local)
    for i in range(ni):
        rows = extent(i, 1, g.m)
        for j in range(nj):
            cols = extent(j, 1, g.n)
            for k in range(nk):
                depth = extent(k, 1, g.k)
                result = isa.accumulator((i * nj + j) * c.dim) if k == nk - 1 else isa.GARBAGE
                yield Preload(Tile(isa.GARBAGE, c.dim, c.dim), Tile(result, cols, rows))
                yield Compute(Tile((i * nk + k) * c.dim, depth, rows), Tile(b_start + (k * nj + j) * c.dim, cols, depth), k == 0)
    for i in range(ni):
        for j in range(nj):
            local = Tile(isa.accumulator((i * nj + j) * c.dim), extent(j, 1, g.n), extent(i, 1, g.m))
            yield Mvout(g.c + (i * g.n + j) * c.dim * size, local)


def _prelude(g: Gemm, dataflow: int, c: Configuration) -> Iterator[Command]:
    yield isa.Flush()
    yield ConfigEx(dataflow)
    a, b = g.k * c.input_bytes, g.n * c.input_bytes
    yield ConfigSt(b, g.activation, g.scale)
    yield ConfigLd(a, 0, c.dim, c.unscaled)
    yield ConfigLd(b, 1, c.dim, c.unscaled)
    yield ConfigLd(0 if g.bias else b, 2, c.dim, c.unscaled)
