"""The form that scheduling rules read: every nest perfect around one statement, every reduction with a start of its own.

People write reductions in several ways: initialised inside the nest, or added to what is there. Both are
brought into the form tensor expressions have from the beginning, through primitives like everything else.
"""

from __future__ import annotations

from tilewright.ir import stmt as st
from tilewright.ir.stmt import Alloc, Block, For, Store
from tilewright.schedule.schedule import Schedule
from tilewright.space.stages import Stage, stages
from tilewright.util.errors import ScheduleError


def separate_nests(sch: Schedule) -> None:
    """Imperfect nests become several perfect ones where dependences allow; others stay as they are."""
    for root in [s.name for s in sch.kernel.body.stmts if isinstance(s, For)]:
        trial = sch.copy()
        try:
            _separate(trial, root)
        except ScheduleError:
            continue  # the statements need each other's results iteration by iteration
        sch.kernel, sch.trace = trial.kernel, trial.trace


def _separate(sch: Schedule, root: str) -> None:
    """Cut every loop of the nest between its statements, the innermost loops first.

    Buffers of an iteration (scalar accumulators) get a place for every iteration, or the cut could not pass them.
    """
    nest = st.find_loop(sch.kernel, root)
    if not all(isinstance(s, (For, Store, Block, Alloc)) for s in st.walk(nest)):
        return
    for f in reversed(st.loops(nest)):
        for s in [s for s in st.find_loop(sch.kernel, f.name).body.stmts if isinstance(s, Alloc)]:
            _expand_out(sch, s.buffer.name)
    nest = st.find_loop(sch.kernel, root)
    inner = [f.name for f in st.loops(nest) if len(f.body.stmts) > 1]
    for name in reversed(inner):
        _cut(sch, name)
    # Cutting a loop leaves its parent with several loops.
    if any(len(f.body.stmts) > 1 for f in st.loops(st.find_loop(sch.kernel, root))):
        _separate(sch, root)


def _expand_out(sch: Schedule, buffer: str) -> None:
    """Move a declaration out of all loops around it."""
    while True:
        around = [f for f in st.loops(sch.kernel) if any(isinstance(s, Alloc) and s.buffer.name == buffer for s in f.body.stmts)]
        if not around:
            return
        sch.expand(buffer, around[0].name)


def _cut(sch: Schedule, name: str) -> None:
    while (count := len(st.find_loop(sch.kernel, name).body.stmts)) > 1:
        sch.fission(name, count - 1)


def accumulate_apart(sch: Schedule) -> None:
    """Reductions that add to existing contents are summed apart first, so that they can run in registers."""
    every = stages(sch.kernel)
    for n, s in enumerate(every):
        if s.is_reduction and s.spatial and not any(_starts(p, s) for p in every[:n]):
            sch.accumulate(s.name)


def _starts(earlier: Stage, s: Stage) -> bool:
    """Whether ``earlier`` gives the result of ``s`` its first value."""
    return earlier.store is not None and earlier.output.name == s.output.name and earlier.store.op is None
