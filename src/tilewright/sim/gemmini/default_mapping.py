"""The vendor library's default tiles as mappings, so that the model that searches are judged by also judges the library.

Matrix products take the tiles of :func:`~tilewright.sim.gemmini.baseline.default_tiles`; convolutions shrink the largest side of a tile
until it fits half of the memories, then grow what still can. Tiles at the edges of a layer are smaller; a mapping has tiles of
one size, so a layer becomes several mappings, whose cycles and energies add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product

from tilewright.cost.loopnest import Factor, Level, LoopNest
from tilewright.sim.gemmini.baseline import default_tiles
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.util.errors import ExecutionError

#: The library's loops over tiles, outermost first (it also lists sides in this order), and those within a tile: weights stay, rows stream.
_TILES, _WITHIN = "NPQKRSC", "KCRSNQP"


def default_nests(
    c: Configuration, sizes: Mapping[str, int], strides: tuple[int, int] = (1, 1), dilations: tuple[int, int] = (1, 1)
) -> Iterator[LoopNest]:
    """Mappings that together are the library's way to run a layer: ``sizes`` of N K C P Q R S, 1 where left out.

    Channels that do not fill the array's blocks are padded, as they are in its memories. Convolutions with a 1 x 1 window
    are matrix products, as in the library's networks, without strides: what lies between pixels is not loaded.
    """
    sizes = {d: int(sizes.get(d, 1)) for d in _TILES}
    if sizes["R"] == sizes["S"] == 1:
        m = sizes["N"] * sizes["P"] * sizes["Q"]
        sizes = {**dict.fromkeys(_TILES, 1), "P": m, "K": sizes["K"], "C": sizes["C"]}
        blocks = default_tiles(c, m, sizes["K"], sizes["C"])
        extents = {d: min(n * c.dim, sizes[d]) for d, n in zip("PKC", blocks, strict=True)}
        tile = {**dict.fromkeys(_TILES, 1), **extents}
    else:
        tile = convolution_tile(c, sizes, strides, dilations)
    parts = [[(tile[d], sizes[d] // tile[d]), (sizes[d] % tile[d], 1)] for d in _TILES]
    for chosen in product(*([p for p in own if p[0] and p[1]] for own in parts)):
        extents, counts = ({d: p[n] for d, p in zip(_TILES, chosen, strict=True)} for n in (0, 1))
        yield _nest(c.dim, extents, counts)


def convolution_tile(
    c: Configuration, sizes: Mapping[str, int], strides: tuple[int, int] = (1, 1), dilations: tuple[int, int] = (1, 1)
) -> dict[str, int]:
    """Sides of a convolution's tile, in elements. ExecutionError when even the smallest does not fit."""
    tile = dict(sizes)

    def fits(t: Mapping[str, int]) -> bool:
        spad, acc = _rows(c.dim, t, strides, dilations)
        return spad <= c.spad_rows // 2 and acc <= c.acc_rows // 2

    while not fits(tile):
        # Columns up to the array's side stay while there are rows to give up: they keep the array busy.
        spared = {"Q"} if tile["Q"] <= c.dim and tile["P"] > 1 else set()
        largest = max((d for d in _TILES if d not in spared), key=lambda d: tile[d])
        if tile[largest] == 1:
            raise ExecutionError(f"no tile of a convolution fits half of {c.spad_rows} and {c.acc_rows} rows", hint="use a larger machine")
        if largest in "KC":
            over = tile[largest] % c.dim
            tile[largest] = max(tile[largest] - (over or c.dim), 1)
        else:
            tile[largest] -= 1
    _grow(tile, sizes, "Q", fits)
    _grow(tile, sizes, _TILES, fits)
    return tile


def _grow(tile: dict[str, int], sizes: Mapping[str, int], dims: str, fits: Callable[[Mapping[str, int]], bool]) -> None:
    """Each of ``dims`` by one in turn, until none can."""
    grown = True
    while grown:
        grown = False
        for d in dims:
            if tile[d] < sizes[d] and fits({**tile, d: tile[d] + 1}):
                tile[d] += 1
                grown = True


def _rows(dim: int, t: Mapping[str, int], strides: tuple[int, int], dilations: tuple[int, int]) -> tuple[int, int]:
    """Rows of the scratchpad and of the accumulator that a tile takes, as the library counts them (a row of inputs too many)."""
    down, across = (
        o * stride + k + (dilation - 1) * (k - 1) - 1
        for o, k, stride, dilation in zip((t["P"], t["Q"]), (t["R"], t["S"]), strides, dilations, strict=True)
    )
    channels, kernels = -(-t["C"] // dim), -(-t["K"] // dim)
    inputs, weights = channels * t["N"] * down * across, kernels * t["R"] * t["S"] * t["C"]
    return inputs + weights, kernels * t["N"] * t["P"] * t["Q"]


def _nest(dim: int, tile: Mapping[str, int], counts: Mapping[str, int]) -> LoopNest:
    """``counts`` tiles of one size; all loops are there, so that all such mappings have one structure."""
    units = {d: min(dim, tile[d]) for d in "KC"}
    inner = {d: -(-tile[d] // units.get(d, 1)) for d in _WITHIN}
    return LoopNest(
        (
            Level("L3", "WIO", tuple(Factor(d, counts[d]) for d in _TILES)),
            Level("L2", "WI", (), (Factor("K", units["K"]),)),
            Level("L1", "O", tuple(Factor(d, inner[d]) for d in _WITHIN), (Factor("C", units["C"]),)),
            Level("L0", "W"),
        )
    )
