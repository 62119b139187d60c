"""cache_read: a loop body reads a local copy of the part of a buffer that it uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.ir.buffer import Buffer
from tilewright.ir.stmt import Alloc, Kernel, Stmt, names, read_buffers, written_buffers
from tilewright.schedule.copies import Tile, body_using, buffer_in_scope, check_memory, copy_in, parse_layout, rounded, with_body
from tilewright.schedule.nest import fresh
from tilewright.schedule.primitive import primitive
from tilewright.schedule.region import box_of, clipped, redirect, scope_at, tile_of
from tilewright.util.errors import ScheduleError

if TYPE_CHECKING:
    from tilewright.hw import Machine


@primitive
def cache_read(
    kernel: Kernel,
    buffer: str,
    loop: str | None,
    memory: str,
    layout: str | None = None,
    padded: bool = False,
    machine: Machine | None = None,
) -> tuple[Kernel, tuple[str, ...]]:
    """Copy the region of ``buffer`` that one iteration of ``loop`` reads into a new buffer in ``memory``.

    ``loop`` None stands for the whole kernel. The copy comes before the first use in the loop's
    body, and every read in the body goes to it. ``layout`` is its physical order, for example
    "1/16 0 1". With ``padded`` the copy has constant extents, rounded up to whole blocks of the
    layout, and is zero where the source has no element. Returns (new buffer, copy loops outer
    first). ScheduleError when the body writes the buffer after its first read (the copy would be
    stale), or does not read it.
    """
    body = body_using(kernel, buffer, loop, "cache_read")
    source = buffer_in_scope(kernel, buffer, body, "cache_read")
    start = _first_read(body.stmts, buffer, loop)
    taken = names(kernel)
    with scope_at(kernel, body.place) as scope:
        reading = body.stmts[start:]
        box = box_of(scope, reading, source, writes=False)
        if box is None:
            raise ScheduleError(f"cache_read {buffer}: it is not read there", hint="cache_write serves buffers that are written")
        if not padded:
            box = clipped(scope, box, source.shape)
        shape, origin = tile_of(scope, box, source.shape)
        physical = parse_layout(layout, source.rank)
        shape = rounded(shape, physical) if padded else shape
        tile = Tile(source, Buffer(fresh(taken, f"{buffer}_{memory}"), source.dtype, shape, memory, physical), box, origin)
        check_memory(machine, tile.buffer, f"cache_read {buffer}")
        copy, copy_loops = copy_in(scope, tile, taken, fill=padded)
        moved = [redirect(s, buffer, tile.buffer, tile.origin) for s in reading]
        out = with_body(body, [*body.stmts[:start], Alloc(tile.buffer), copy, *moved], scope, kernel)
    return out, (tile.buffer.name, *copy_loops)


def _first_read(stmts: tuple[Stmt, ...], buffer: str, loop: str | None) -> int:
    reads = [n for n, s in enumerate(stmts) if buffer in read_buffers(s)]
    if not reads:
        raise ScheduleError(f"cache_read {buffer}: it is not read there", hint="cache_write serves buffers that are written")
    for s in stmts[reads[0] :]:
        if buffer in written_buffers(s):
            head = str(s).strip().splitlines()[0]
            raise ScheduleError(
                f"cache_read {buffer}, {loop}: '{head}' writes the buffer where the copy would be read",
                hint="use cache_write, which keeps one copy for reads and writes, or a loop inside which it is only read",
                location=getattr(s, "loc", None),
            )
    return reads[0]
