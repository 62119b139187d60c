"""set_memory: a local buffer lives in another memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.ir.stmt import Block, Call, Kernel, all_buffers, replace_buffers, walk
from tilewright.schedule.copies import check_memory
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError

if TYPE_CHECKING:
    from tilewright.hw import Machine


@primitive
def set_memory(kernel: Kernel, buffer: str, memory: str, machine: Machine | None = None) -> tuple[Kernel, tuple[str, ...]]:
    """Place the local ``buffer`` in ``memory``. Returns its name.

    ScheduleError: unknown buffer; an argument (the caller decides where it is); a buffer that an
    instruction reads from the memory where it is; larger than the memory. MachineError: the
    machine has no such memory.
    """
    known = {b.name: b for b in all_buffers(kernel)}
    if buffer not in known:
        raise ScheduleError(f"set_memory: kernel {kernel.name} has no buffer {buffer!r}", hint=f"buffers: {', '.join(sorted(known))}")
    if any(b.name == buffer for b in kernel.args):
        raise ScheduleError(
            f"set_memory {buffer}: it is an argument and lives where the caller put it", hint="cache_read or cache_write makes a copy"
        )
    for s in walk(kernel.body):
        if isinstance(s, Call) and s.kernel.instruction and memory != known[buffer].memory and any(w.buffer.name == buffer for w in s.args):
            raise ScheduleError(
                f"set_memory {buffer}: instruction {s.kernel.instruction} uses it in {known[buffer].memory}",
                hint="place buffers before tensorizing",
                location=s.loc,
            )
    new = known[buffer].with_(memory=memory)
    check_memory(machine, new, "set_memory")
    body = replace_buffers(kernel.body, {buffer: new})
    assert isinstance(body, Block)  # the kind of a statement stays
    return kernel.with_(body=body), (buffer,)
