"""vectorize: the iterations of a loop become the lanes of vector operations."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir.stmt import Call, For, Kernel, LoopKind, While, loops, walk
from tilewright.schedule.legality import check_independent, region_of
from tilewright.schedule.nest import get_loop, loop_place, range_text, replace_stmt, trip_count
from tilewright.schedule.primitive import primitive
from tilewright.schedule.primitives.split import split
from tilewright.util.errors import ScheduleError


@primitive
def vectorize(kernel: Kernel, loop: str, width: int | None = None) -> tuple[Kernel, tuple[str, ...]]:
    """Execute ``loop`` in lanes: all its iterations, or ``width`` at a time (the rest in a scalar loop).

    Iterations must be independent, except that a reduction ``x op= v`` may be computed in lanes
    and combined. Returns (loop,), or what splitting by ``width`` returned: (outer, lanes[, tail]).
    ScheduleError: dependent iterations, an extent that is not a constant, a vector loop around or
    inside it, a call, a while loop, an inner loop whose bounds differ between lanes.
    """
    f = get_loop(kernel, loop, "vectorize")
    if width is None and not trip_count(f):
        raise ScheduleError(
            f"vectorize {f.name}: its extent {f.extent} is not a positive constant",
            hint="give the width: vectorize(loop, 16)",
            location=f.loc,
        )
    check_lanes(f, f"vectorize {loop}")
    _check_alone(kernel, f)
    check_independent(region_of(kernel, f), loop, f"vectorize {loop}", lanes=True)
    results: tuple[str, ...] = (loop,)
    if width is not None and trip_count(f) != width:
        kernel, results = split(kernel, loop, width, tail="peel")
        f = get_loop(kernel, results[1], "vectorize")
    return replace_stmt(kernel, f, replace(f, kind=LoopKind.VECTOR, unit=None)), results


def _check_alone(kernel: Kernel, f: For) -> None:
    """Lanes of two loops at once would need a proof about pairs of both: ``fuse`` makes that one loop."""
    place = loop_place(kernel, f.name, "vectorize")
    for other in (*place.loops, *loops(f.body)):
        if other.kind is LoopKind.VECTOR:
            raise ScheduleError(
                f"vectorize {f.name}: {other.name}, {'around' if other in place.loops else 'inside'} it, runs in lanes already",
                hint=f"fuse {f.name} and {other.name} first",
                location=f.loc,
            )


def check_lanes(f: For, subject: str) -> None:
    """Raise ScheduleError, opening with ``subject``, for a body that cannot run in lanes of ``f``: calls, diverging loops."""
    for s in walk(f.body):
        if isinstance(s, (Call, While)):
            what = f"a call of {s.kernel.name}" if isinstance(s, Call) else "a while loop"
            raise ScheduleError(
                f"{subject}: its body contains {what}, which has no lanes",
                hint="vectorize a loop inside, or unroll this one",
                location=s.loc,
            )
        if isinstance(s, For) and f.name in ex.free_vars(s.lo) | ex.free_vars(s.hi):
            raise ScheduleError(
                f"{subject}: the range of the inner loop {s.name}, {range_text(s)}, differs between lanes",
                hint=f"reorder so that {f.name} is inside {s.name}",
                location=s.loc,
            )
