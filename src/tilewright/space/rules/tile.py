"""The nests over a register tile: ordered, vectorised and unrolled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

from tilewright.ir import stmt as st
from tilewright.ir.expr import Var
from tilewright.ir.stmt import Block, For, Stmt
from tilewright.schedule.schedule import Schedule
from tilewright.space.rules.contraction import reduction_order
from tilewright.space.stages import Stage, stage_of


def nests(body: Stmt) -> Iterator[Stage]:
    """The innermost perfect nests below ``body``, in order."""
    for s in st.substmts(body):
        if isinstance(s, For):
            stage = stage_of(s)
            if stage.opaque:
                yield from nests(s)
            else:
                yield stage
        elif isinstance(s, (Block, st.If, st.While)):
            yield from nests(s)


def finish_nest(
    sch: Schedule, nest: Stage, tiled: Sequence[str], dims: Mapping[str, int], local: Set[str], packed: str, unroll: int = 1
) -> None:
    """Order one nest of a tile (reductions outside, rows, vector innermost), vectorise and unroll it.

    ``tiled`` are the reduction's loops of the tile, the vector loop last; ``dims`` says which dimension of the
    tile buffers (``local``) each loop walks. ``unroll`` steps of the innermost reduction loop run in one go.
    """
    loops = tile_loops(nest, dims, local)
    inner = [loops[n] for n in tiled if n in loops]
    reductions = reduction_order(nest, packed) if nest.reduction else []
    order = [*(n for n in nest.loops if n not in inner and n not in reductions), *reductions, *inner]
    if order != list(nest.loops) and len(order) > 1:
        sch.reorder(*order)
    for n in tiled:
        if n in loops and n == tiled[-1]:
            sch.vectorize(loops[n])
        elif n in loops:
            sch.unroll(loops[n])
    if reductions and unroll > 1:
        _, steps = sch.apply("split", reductions[-1], unroll)
        sch.unroll(steps)


def tile_loops(nest: Stage, dims: Mapping[str, int], local: Set[str]) -> dict[str, str]:
    """The nest's loop that walks each dimension of a tile buffer it stores to or loads from."""
    found: dict[str, str] = {}
    for a in (nest.target(), *nest.reads()):
        for loop, d in dims.items():
            index = a.indices[d] if a.buffer.name in local else None
            if isinstance(index, Var) and index.name in nest.loops:
                found.setdefault(loop, index.name)
    return found
