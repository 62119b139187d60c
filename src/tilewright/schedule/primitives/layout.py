"""layout: another physical order of a buffer's elements."""

from __future__ import annotations

from tilewright.ir.stmt import Block, Call, Kernel, all_buffers, replace_buffers, walk
from tilewright.schedule.copies import parse_layout
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError


@primitive
def layout(kernel: Kernel, buffer: str, order: str | None) -> tuple[Kernel, tuple[str, ...]]:
    """Store ``buffer`` in the physical ``order``, for example "1/16 0 1" (None: row major). Returns its name.

    Indices stay logical, so the program is the same; for an argument the interface changes: the
    caller passes it packed. IRTypeError when ``order`` does not lay out every dimension once;
    ScheduleError for unknown buffers, or one that an instruction already addresses.
    """
    known = {b.name: b for b in all_buffers(kernel)}
    if buffer not in known:
        raise ScheduleError(f"layout: kernel {kernel.name} has no buffer {buffer!r}", hint=f"buffers: {', '.join(sorted(known))}")
    old = known[buffer]
    new = old.with_(layout=parse_layout(order, old.rank))
    for s in walk(kernel.body):
        if isinstance(s, Call) and new != old and any(w.buffer.name == buffer for w in s.args):
            raise ScheduleError(
                f"layout {buffer}: the call of {s.kernel.name} addresses it in its present order",
                hint="lay out buffers before tensorizing",
                location=s.loc,
            )
    body = replace_buffers(kernel.body, {buffer: new})
    assert isinstance(body, Block)  # the kind of a statement stays
    return kernel.with_(args=tuple(new if b.name == buffer else b for b in kernel.args), body=body), (buffer,)
