"""Mappings of a contraction onto declared instructions, and what they cost."""

from __future__ import annotations

import numpy as np

from tilewright.hw import Instruction, Machine
from tilewright.ir.stmt import Kernel
from tilewright.mapping import Mapping, Operator, find_mappings, operator_of
from tilewright.util.errors import MappingError


def mappings_of(op: Operator, instruction: Instruction, orders: str = "auto") -> list[Mapping]:
    """Every mapping of ``op`` onto ``instruction``; none where types or arithmetic differ."""
    try:
        return find_mappings(op, instruction, orders=orders)
    except MappingError:
        return []


def mapping_cycles(machine: Machine, found: list[tuple[Instruction, Mapping]]) -> np.ndarray:
    """Estimated cycles of each mapping: instructions issued plus packed bytes moved through main memory."""
    placed = [m.physical() for _, m in found]
    issues = np.array([p.instructions for p in placed], dtype=np.float64)
    each = np.array([i.cycles() for i, _ in found], dtype=np.float64)
    moved = np.array([p.packing_bytes for p in placed], dtype=np.float64)
    return issues * each + 2 * moved / (machine.bandwidth(machine.main_memory.name) or 8.0)


def vector_mapping(kernel: Kernel, machine: Machine, output: str, vector: str, row: str | None) -> str:
    """How a register tile rides on the machine's vector instructions, e.g. ``fma_outer: i<-q j<-k``; "" if on none.

    The widest instruction that takes ``vector`` on its lanes (and ``row`` on its rows) is named.
    """
    try:
        op = operator_of(kernel, at=output)
    except MappingError:
        return ""
    wanted = [(row,), (vector,)] if row else [(vector,)]
    for instruction in sorted(machine.instructions, key=lambda i: -i.macs):
        lanes = [a for a in instruction.axes if not a.is_reduction]
        if instruction.sets or len(lanes) not in (1, len(wanted)):
            continue
        for m in mappings_of(op, instruction):
            assigned = [tuple(op.iterations[u].name for u in group) for group in m.groups]
            if assigned == wanted[-len(assigned) :]:
                return f"{instruction.name}: {str(m).split('[')[0].strip()}"
    return ""
