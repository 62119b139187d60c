"""Applying a register tiling to a reduction stage: the primitives, in order.

``tile_output`` splits the nest that walks the result (the epilogue, or the reduction itself) into
main and tail tiles; the stages that compute the tile then move inside, and every nest of a tile is
ordered, vectorised and unrolled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from tilewright.ir import stmt as st
from tilewright.ir.expr import Var
from tilewright.ir.stmt import Block, For, Stmt
from tilewright.schedule.nest import trip_count
from tilewright.schedule.schedule import Schedule
from tilewright.space.rules.contraction import Tiling, reduction_order
from tilewright.space.stages import Stage, stage_of


def tile_output(sch: Schedule, nest: Stage, tiling: Tiling, at: Mapping[str, str]) -> list[str]:
    """Split and order ``nest``; returns, for main and tail tiles, the innermost loop around the tile.

    ``at`` maps the tiling's loop names to loops of ``nest``. Loops of ``nest`` that the tiling does
    not mention (reductions, when the nest is the reduction itself) stay inside the tile.
    """
    vector, row = at[tiling.vector], at[tiling.row] if tiling.row else None
    outer = [at[n] for n in tiling.outer]
    missing = [n for n in (row, vector) if n is not None and n not in outer]
    spatial = {*at.values()}
    trivial = [n for n in nest.loops if n in spatial and n not in outer and n not in missing]
    inside = [n for n in nest.loops if n not in spatial]
    order = [*trivial, *outer, *missing]
    if order + inside != list(nest.loops):
        sch.reorder(*order, *inside)
    return _split_tiles(sch, order, {vector: tiling.width, **({row: tiling.rows} if row else {})}, inside)


def _split_tiles(sch: Schedule, order: list[str], sizes: dict[str, int], inside: list[str]) -> list[str]:
    """Split each loop of ``sizes`` (outermost first), main and tail; tile loops move inwards, innermost the vector."""
    todo = [n for n in order if n in sizes]
    if not todo:
        return [order[-1]]
    loop = todo[0]
    position = order.index(loop)
    extent = st.find_loop(sch.kernel, loop)
    parts = sch.apply("split", loop, sizes[loop], "peel") if _extent(extent) >= sizes[loop] else sch.apply("split", loop, _extent(extent))
    variants = [(parts[0], parts[1])]
    if len(parts) == 3:
        tail = parts[2]
        variants.append(sch.apply("split", tail, _extent(st.find_loop(sch.kernel, tail))))  # type: ignore[arg-type]
    out: list[str] = []
    for outer, inner in variants:
        below = [f.name for f in st.loops(st.find_loop(sch.kernel, inner).body)]
        # A tail is a copy with fresh names, but its loops stand in the same order.
        rest, tail_inside = below[: len(order) - position - 1], below[len(order) - position - 1 :]
        if below:
            sch.reorder(*rest, inner, *tail_inside)
        new_sizes = {n: sizes[o] for n, o in zip(rest, order[position + 1 :], strict=True) if o in sizes}
        if new_sizes:
            out += _split_tiles(sch, rest, new_sizes, [inner, *tail_inside])
        else:
            out.append(rest[-1] if rest else outer)
    return out


def _extent(f: For) -> int:
    count = trip_count(f)
    if count is None:
        raise ValueError(f"loop {f.name} has no constant extent")
    return count


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


def finish_nest(sch: Schedule, nest: Stage, tiling: Tiling, dims: Mapping[str, int], local: Set[str], packed: str) -> None:
    """Order one nest of a tile (reductions outside, rows, vector innermost), vectorise and unroll it.

    ``dims`` says which dimension of the tile buffers (``local``) each loop of the tiling walks.
    """
    loops = _tile_loops(nest, dims, local)
    vector, row = loops.get(tiling.vector), loops.get(tiling.row or "")
    reductions = reduction_order(nest, packed) if nest.reduction else []
    others = [n for n in nest.loops if n not in (vector, row) and n not in reductions]
    order = [*others, *reductions, *([row] if row else []), *([vector] if vector else [])]
    if order != list(nest.loops) and len(order) > 1:
        sch.reorder(*order)
    if vector:
        sch.vectorize(vector)
    if row:
        sch.unroll(row)


def _tile_loops(nest: Stage, dims: Mapping[str, int], local: Set[str]) -> dict[str, str]:
    """The nest's loop that walks each dimension of a tile buffer it stores to or loads from."""
    found: dict[str, str] = {}
    for a in (nest.target(), *nest.reads()):
        for loop, d in dims.items():
            index = a.indices[d] if a.buffer.name in local else None
            if isinstance(index, Var) and index.name in nest.loops:
                found.setdefault(loop, index.name)
    return found
