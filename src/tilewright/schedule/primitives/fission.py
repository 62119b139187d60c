"""fission: one loop over several statements becomes several loops."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir.affine import Statement, Time
from tilewright.ir.expr import Var
from tilewright.ir.stmt import Alloc, Block, For, Kernel, Stmt, names, read_buffers, written_buffers
from tilewright.schedule.legality import check_order, region_of
from tilewright.schedule.nest import fresh, get_loop, range_text, reads_in, replace_stmt, substituted
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError


@primitive
def fission(kernel: Kernel, loop: str, after: int = 1) -> tuple[Kernel, tuple[str, ...]]:
    """Run the first ``after`` statements of the body of ``loop`` for all iterations, then the others.

    Returns the two loops; the first keeps the name. ScheduleError: a dependence that would be
    reversed, a buffer allocated in the first part and used in the second, ``after`` out of range.
    """
    f = get_loop(kernel, loop, "fission")
    stmts = f.body.stmts
    if not isinstance(after, int) or not 1 <= after < len(stmts):
        raise ScheduleError(
            f"fission {loop}: after={after!r}, but its body has {len(stmts)} statements", hint="cut between two statements", location=f.loc
        )
    first, second = stmts[:after], stmts[after:]
    _check_allocations(f, first, second)
    if reads_in(f.lo, f.hi):
        raise ScheduleError(f"fission {loop}: its bounds read memory: {range_text(f)}", location=f.loc)
    part = region_of(kernel, f)

    def new_time(s: Statement) -> Time:
        head, it, at, *rest = s.time  # (position, loop, position in its body, ...)
        half = 0 if isinstance(at, int) and at < 2 * after else 1
        return (head, half, it, at, *rest)

    check_order(part, new_time, f"fission {loop}")
    var = Var(fresh(names(kernel), loop))
    moved = substituted(Block(second), {loop: var})
    return replace_stmt(kernel, f, replace(f, body=Block(first)), replace(f, var=var, body=moved)), (loop, var.name)


def _check_allocations(f: For, first: tuple[Stmt, ...], second: tuple[Stmt, ...]) -> None:
    used = written_buffers(Block(second)) | read_buffers(Block(second))
    for s in first:
        if isinstance(s, Alloc) and s.buffer.name in used:
            raise ScheduleError(
                f"fission {f.name}: {s.buffer.name} is allocated in the first part and used in the second",
                hint="cut before the allocation, or give it a dimension for the loop",
                location=s.loc,
            )
