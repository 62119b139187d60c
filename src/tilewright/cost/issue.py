"""Which instruction the innermost loops of a symbolic program stand for.

Programs of machines without vector registers write an instruction as the nest of its own loops, unrolled; schedules put the call there.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.hw import Instruction, Machine
from tilewright.ir import expr as ex
from tilewright.ir.stmt import Store


def issued(machine: Machine, s: Store, extents: Sequence[int] = ()) -> Instruction | None:
    """The instruction whose operands have the types of those of ``s`` and are where those are.

    Of several the one whose axes have the ``extents`` of the unrolled loops, or the first. None: there is none.
    """
    where = sorted((b.memory, str(b.dtype)) for b in (s.buffer, *(ld.buffer for ld in ex.loads(s.value))))
    found = [i for i in machine.instructions if i.operands and sorted((o.memory, str(o.dtype)) for o in i.operands) == where]
    exact = (i for i in found if extents and sorted(a.extent for a in i.axes) == sorted(extents))
    return next(exact, found[0] if found else None)
