"""What no rule fits: nests inside loops that cannot be taken apart run in lanes, and the loops around them on several threads.

That is far from what the rules reach, and far from scalar code: block programs that carry more than reductions, filters
along time, triangular solves of many systems.
"""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.cost.core import vector_core
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Var
from tilewright.ir.linear import IndexScope
from tilewright.ir.stmt import For, If, LoopKind, Stmt, Store
from tilewright.schedule.schedule import Schedule
from tilewright.space.stages import stage_of
from tilewright.util.errors import ScheduleError

#: Vector registers that one step of such a nest covers.
_REGISTERS = 2


def in_lanes(sch: Schedule, threads: int) -> Schedule:
    """Vectorize what is still scalar below loops that no rule understood, and divide those among ``threads`` where allowed."""
    for root in [s for s in sch.kernel.body.stmts if isinstance(s, For)]:
        if root.kind is not LoopKind.SERIAL or not stage_of(root).opaque or any(f.kind is not LoopKind.SERIAL for f in st.loops(root)):
            continue
        for chain, store in list(_nests(root, ())):
            _vectorized(sch, chain, store)
        if threads > 1:
            _tried(sch, "parallel", root.name)
    return sch


def _nests(s: Stmt, around: tuple[For, ...]) -> Iterator[tuple[tuple[For, ...], Store]]:
    """Perfect nests around one store (guards in between are allowed), innermost loops last."""
    match s:
        case For():
            inside = s.body.stmts
            if len(inside) != 1:
                for t in inside:
                    yield from _nests(t, ())
                return
            yield from _nests(inside[0], (*around, s))
        case If(then=then, orelse=None) if len(then.stmts) == 1:
            yield from _nests(then.stmts[0], around)
        case Store() if around:
            yield around, s


def _vectorized(sch: Schedule, chain: tuple[For, ...], store: Store) -> None:
    machine = sch.machine
    assert machine is not None  # default_schedule sets it
    width = _REGISTERS * vector_core(machine, store.buffer.dtype).lanes
    lane = next((f for f in reversed(chain) if _step(f.name, store.indices) == 1), None)
    if lane is None:
        return
    names = [f.name for f in chain]
    order = [n for n in names if n != lane.name] + [lane.name]
    if order != names and not _tried(sch, "reorder", *order):
        return
    _tried(sch, "vectorize", lane.name, width)


def _step(loop: str, indices: tuple[ex.Expr, ...]) -> int | None:
    """By how much the last index moves with ``loop``; None when others move too, or it is not affine."""
    if not indices or any(loop in ex.free_vars(i) for i in indices[:-1]):
        return None
    form = IndexScope().linear(indices[-1])
    nested = any(loop in ex.free_vars(a) for a in form.terms if not isinstance(a, Var))
    return None if nested else form.terms.get(Var(loop), 0)


def _tried(sch: Schedule, primitive: str, *arguments: str | int) -> bool:
    """Whether ``primitive`` could be applied; refusals leave the schedule as it is."""
    try:
        getattr(sch, primitive)(*arguments)
    except ScheduleError:
        return False
    return True
