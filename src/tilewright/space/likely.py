"""Numbers of a tiling among which a default is looked for: a bounded set that holds what is usually best."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np

from tilewright.cost.contraction import Contraction, least_cycles, load_work
from tilewright.cost.core import VectorCore
from tilewright.ir import expr as ex
from tilewright.space.tiling import TilingSpace

#: Tiles at most, and how much slower than the best one they may be at least (not counting the caches).
MOST_TILES, NEARLY_BEST = 48, 1.3
#: Vectors side by side in the tile of a stream at most: enough to hide the latency of additions.
STREAMED_VECTORS = 4


def likely(space: TilingSpace, problem: Contraction, core: VectorCore, threads: int) -> Mapping[str, np.ndarray] | None:
    """Values of the knobs of ``space``, one entry a candidate, the simplest of the best tiles first; None if there are none.

    Tiles that are fast while their operands are near, each with its loops in one block or in a block for each tile.
    """
    structure = space.structure
    if len(structure.rows) > 1 or (structure.depth and not structure.streamed) or any(how == "panel" for _, how in structure.packing):
        return None  # what only measuring finds worth while
    values = _tiles(space, problem, core)
    for n in structure.tiled:
        values = _each(values, space.blocks[n].name, _block_choices(space, n, values, threads))
    if space.depth is not None:
        values = _each(values, space.depth.name, [np.full(_length(values), d) for d in space.depth.values])
    if space.epilogue is not None:
        # On the tile; where it has to be done outside of blocks of the reduction, at the end or as soon as a block has its sums.
        places = space.epilogue.values[:1] if space.depth is None else (space.epilogue.values[-1], space.epilogue.values[0])
        values = _each(values, space.epilogue.name, [np.full(_length(values), p) for p in places])
    if space.unroll is not None:
        values[space.unroll.name] = np.ones(_length(values), np.int64)
    named = [k.name for k in space.knobs]
    holds = np.ones(_length(values), bool)
    for k in space.knobs:
        holds &= np.isin(values[k.name], k.values)
    for c in space.constraints:
        holds &= np.asarray(ex.evaluate(c, values), bool)
    return {n: values[n][holds] for n in named} if holds.any() else None


def _tiles(space: TilingSpace, problem: Contraction, core: VectorCore) -> dict[str, np.ndarray]:
    """Extents of the tile, by what its steps cost at least; of equals those first that load least."""
    structure = space.structure
    sizes = [space.size[n].values for n in structure.tiled]
    if structure.streamed:
        sizes = [tuple(s for s in sizes[0] if s <= STREAMED_VECTORS * core.lanes) or sizes[0][:1]]
    table = np.array(list(product(*sizes)), np.int64)
    values = {space.size[n].name: table[:, c] for c, n in enumerate(structure.tiled)}
    fits = np.asarray(ex.evaluate(space.constraints[0], values), bool) & np.ones(len(table), bool)
    table = table[fits]
    size = {n: table[:, c] for c, n in enumerate(structure.tiled)}
    packed = frozenset(name for name, _ in structure.packing)
    least = least_cycles(problem, core, structure.vector, size, packed, not structure.streamed)
    loads = load_work(problem, core, structure.vector, size, packed) / table.prod(axis=1)
    order = np.lexsort((loads, np.round(np.log(least) * 20)))
    order = order[least[order] <= NEARLY_BEST * least.min()][:MOST_TILES]
    return {space.size[n].name: table[order, c] for c, n in enumerate(structure.tiled)}


def _block_choices(space: TilingSpace, loop: str, values: Mapping[str, np.ndarray], threads: int) -> list[np.ndarray]:
    """A block for each tile, all tiles in one block; a loop that is divided, or a stream, also in a few blocks for each thread."""
    structure, length = space.structure, _length(values)
    each = -(-space.stage.loops[loop] // values[space.size[loop].name])
    found = [each, np.ones(length, np.int64)]
    if structure.streamed or (structure.parallel and structure.lead == loop):
        found += [np.full(length, n * threads) for n in (1, 2, 4)]
    return found if loop == structure.vector else [found[1], found[0], *found[2:]]


def _each(values: Mapping[str, np.ndarray], name: str, choices: list[np.ndarray]) -> dict[str, np.ndarray]:
    """``values`` with every one of ``choices`` for knob ``name``."""
    return {
        **{n: np.tile(v, len(choices)) for n, v in values.items()},
        name: np.concatenate(choices),
    }


def _length(values: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(values.values())))
