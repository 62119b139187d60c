"""cache_write: a loop body works on a local copy of the part of a buffer that it writes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tilewright.ir.buffer import Buffer
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Alloc, For, Kernel, Stmt, names, written_buffers
from tilewright.schedule.copies import Tile, body_using, buffer_in_scope, check_memory, copy_in, copy_out, parse_layout, with_body
from tilewright.schedule.legality import check_concurrency
from tilewright.schedule.nest import fresh, loop_place
from tilewright.schedule.primitive import primitive
from tilewright.schedule.region import Box, box_of, clipped, redirect, scope_at, tile_of
from tilewright.schedule.stage import stage_in
from tilewright.util.errors import ScheduleError

if TYPE_CHECKING:
    from tilewright.hw import Machine


@primitive
def cache_write(
    kernel: Kernel,
    buffer: str,
    loop: str | None,
    memory: str,
    layout: str | None = None,
    later_reads: bool = True,
    machine: Machine | None = None,
) -> tuple[Kernel, tuple[str, ...]]:
    """Let the body of ``loop`` compute in a new buffer in ``memory``, written back after the last use.

    ``loop`` None stands for the whole kernel. Reads and writes of the body both go to the new
    buffer, which holds the region that one iteration uses. Its prior contents are loaded first
    unless the first statement that uses it overwrites all of it. With ``later_reads`` False it is
    written back right after the last statement that writes it, and what follows reads the buffer
    itself. Returns (new buffer, loops of the load if there is one, loops of the write-back). ScheduleError when the body does not write
    the buffer, or when the write-back of one iteration of a parallel loop would race with another.
    """
    body = body_using(kernel, buffer, loop, "cache_write")
    source = buffer_in_scope(kernel, buffer, body, "cache_write")
    if not any(buffer in written_buffers(s) for s in body.used):
        raise ScheduleError(f"cache_write {buffer}, {loop}: it is only read there", hint="use cache_read")
    if not later_reads:
        body = replace(body, last=max(n for n, s in enumerate(body.stmts) if buffer in written_buffers(s)))
    taken = names(kernel)
    with scope_at(kernel, body.place) as scope:
        box = box_of(scope, body.used, source)
        if box is None:
            raise ScheduleError(f"cache_write {buffer}, {loop}: it is not used there")
        box = clipped(scope, box, source.shape)
        shape, origin = tile_of(scope, box, source.shape)
        new = Buffer(fresh(taken, f"{buffer}_{memory}"), source.dtype, shape, memory, parse_layout(layout, source.rank))
        check_memory(machine, new, f"cache_write {buffer}")
        tile = Tile(source, new, box, origin)
        loops: tuple[str, ...] = ()
        before: list[Stmt] = [Alloc(new)]
        if not _overwritten(scope, body.used[0], tile):
            load, loops = copy_in(scope, tile, taken)
            before.append(load)
        store, store_loops = copy_out(scope, tile, taken)
        moved = [redirect(s, buffer, new, origin) for s in body.used]
        stmts = [*body.stmts[: body.first], *before, *moved, store, *body.stmts[body.last + 1 :]]
        out = with_body(body, stmts, scope, kernel)
    _check_races(out, loop, buffer)
    return out, (new.name, *loops, *store_loops)


def _overwritten(scope: Simplifier, first: Stmt, tile: Tile) -> bool:
    """Whether ``first`` stores every element of the tile without reading it: then nothing needs to be loaded."""
    if tile.source.name not in written_buffers(first):
        return False
    try:
        nest = stage_in(scope, tile.source, [first], "cache_write").nests[0]
    except ScheduleError:
        return False  # too irregular to tell: loading is always right
    return nest.overwrites and _covers(scope, nest.bounds, tile.box)


def _covers(scope: Simplifier, bounds: tuple, box: Box) -> bool:  # type: ignore[type-arg]
    for (a, b), lo, hi in zip(bounds, box.lo, box.hi, strict=True):
        low, high = scope.linear(lo).plus(scope.linear(a), -1), scope.linear(b).plus(scope.linear(hi), -1)
        if not scope.nonneg(low) or not scope.nonneg(high):
            return False
    return True


def _check_races(kernel: Kernel, loop: str | None, buffer: str) -> None:
    """A region may be larger than what is written: its write-back must not meet that of a concurrent iteration."""
    if loop is None:
        return
    place = loop_place(kernel, loop, "cache_write")
    for f in (*place.loops, place.node):
        if isinstance(f, For):
            check_concurrency(kernel, f, f"cache_write {buffer}, {loop}")
