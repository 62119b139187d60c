"""Which instruction the innermost loops of a symbolic program stand for.

Programs of machines without vector registers write an instruction as the nest of its own loops, unrolled; schedules put the call there.
"""

from __future__ import annotations

from tilewright.hw import Instruction, Machine
from tilewright.ir import expr as ex
from tilewright.ir.stmt import Store


def issued(machine: Machine, s: Store) -> Instruction | None:
    """The instruction whose operands are where those of ``s`` are; of several one for the same types. None: there is none."""
    accesses = [s.buffer, *(ld.buffer for ld in ex.loads(s.value))]
    where = sorted(b.memory for b in accesses)
    found = [i for i in machine.instructions if i.operands and sorted(o.memory for o in i.operands) == where]
    types = sorted(str(b.dtype) for b in accesses)
    return next((i for i in found if sorted(str(o.dtype) for o in i.operands) == types), found[0] if found else None)
