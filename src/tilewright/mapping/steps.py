"""A mapping as schedule steps: names of primitives and their arguments, nothing else.

Mapping lies below the schedule package, so it cannot apply primitives, only write down which
ones. ``Schedule.apply(step["primitive"], **step["arguments"])`` runs a step; from then on the
schedule's trace is the record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from tilewright.hw.machine import Machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.stmt import For, Kernel, Stmt, Store
from tilewright.mapping.lowering import lower
from tilewright.mapping.operator import REDUCTION
from tilewright.util.errors import MappingError

if TYPE_CHECKING:
    from tilewright.mapping.mapping import Mapping

#: Memories that instructions address directly: operands need no copy.
_ADDRESSABLE = ("main", "cache")


class Step(TypedDict):
    """One primitive by name with its arguments by parameter name (JSON values)."""

    primitive: str
    arguments: dict[str, Any]


def schedule_steps(m: Mapping, machine: Machine, kernel: Kernel) -> list[Step]:
    """Steps that finish ``lower(m, kernel, calls=False)`` on ``machine``.

    Operands are copied tile by tile into the memories the instruction reads and writes (the result
    stays there over all reduction loops), then the tile's nest becomes the instruction. Raises
    MappingError for a target that is not an instruction of a machine.
    """
    if m.target.declaration is None:
        raise MappingError(f"{m.target.name} is a kernel, not a declared instruction", hint="map onto machine.instruction(...)")
    packed = lower(m, kernel, calls=False)
    nest = _tile_nest(packed, m)
    inner = len(st.loops(m.target.view.kernel))
    outer, tile = nest[:-inner], nest[-inner]
    store = next(s for s in st.walk(tile) if isinstance(s, Store))
    arrays = {o.hardware.name: o.memory for o in m.physical().operands}
    steps: list[Step] = []
    spatial = outer[: len(outer) - _reductions(m)]
    if not _addressable(machine, arrays[m.target.view.output.name]):
        steps.append(_step("cache_write", buffer=store.buffer.name, loop=_last(spatial), memory=arrays[m.target.view.output.name]))
    for hard, read in zip(m.target.view.sources, ex.loads(store.value), strict=True):
        if not _addressable(machine, arrays[hard.name]):
            steps.append(_step("cache_read", buffer=read.buffer.name, loop=_last(outer), memory=arrays[hard.name]))
    return [*steps, _step("tensorize", loop=tile.name, instruction=m.target.name)]


def _step(primitive: str, **arguments: Any) -> Step:
    return {"primitive": primitive, "arguments": arguments}


def _addressable(machine: Machine, memory: str) -> bool:
    return machine.memory(memory).kind in _ADDRESSABLE


def _reductions(m: Mapping) -> int:
    """How many loops around the tile are reductions (lowering puts them innermost; one trip is no loop)."""
    free = [m.op.extents[u] for u in m.unassigned if m.op.iterations[u].kind == REDUCTION]
    trips = [n for n, a in zip(m.physical().trips, m.target.view.iterations, strict=True) if a.kind == REDUCTION]
    return sum(n > 1 for n in (*free, *trips))


def _last(loops: list[For]) -> str | None:
    return loops[-1].name if loops else None


def _tile_nest(packed: Kernel, m: Mapping) -> list[For]:
    """The loops around and in the tile: the nest that reduces into the packed result."""
    before = {b.name for b in st.all_buffers(m.op.kernel)}
    path: list[For] = []

    def visit(s: Stmt, around: list[For]) -> None:
        if isinstance(s, Store) and s.op == m.op.reduce and s.buffer.name not in before and len(ex.loads(s.value)) == len(m.op.sources):
            path[:] = around
        for t in st.substmts(s):
            visit(t, [*around, s] if isinstance(s, For) else around)

    visit(packed.body, [])
    return path
