"""What no rule fits: nests inside loops that cannot be taken apart run in lanes, and the loops around them on several threads.

That is far from what the rules reach, and far from scalar code: block programs that carry more than reductions, filters
along time, triangular solves of many systems. How many vectors a step covers is a knob of the space.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from tilewright.cost.core import vector_core
from tilewright.hw import Machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Const, Expr, Var
from tilewright.ir.index_scope import IndexScope
from tilewright.ir.stmt import Block, For, If, Kernel, LoopKind, Stmt, Store
from tilewright.schedule.nest import trip_count
from tilewright.schedule.schedule import Schedule
from tilewright.space.attempts import Attempts
from tilewright.space.levels import ceil_div
from tilewright.space.rules import pointwise, rows
from tilewright.space.stages import stage_of

#: Vectors that one step of such a nest covers, unless tuned.
VECTORS = 2


@dataclass(frozen=True, slots=True)
class Allowed:
    """What dependences allow below the loops that no rule understood: ``lanes`` may run in lanes, ``divided`` on threads."""

    lanes: frozenset[str]
    divided: frozenset[str]


def roots(kernel: Kernel) -> tuple[str, ...]:
    """The outermost loops that no rule understands. None where ranges are symbolic: those run as written."""
    return () if kernel.sizes else tuple(s.name for s in kernel.body.stmts if isinstance(s, For) and stage_of(s).opaque)


def arrange(tries: Attempts) -> None:
    """Below such loops, the loop that walks memory becomes the innermost of its nest where dependences allow."""
    sch = tries.sch
    for root in roots(sch.kernel):
        for chain, store in list(_nests(st.find_loop(sch.kernel, root), ())):
            names = [f.name for f in chain]
            lane = next((n for n in reversed(names) if _step(n, store.indices) == 1), names[-1])
            if lane != names[-1]:
                tries.attempt(f"{lane} innermost", partial(sch.reorder, *(n for n in names if n != lane), lane))


def apply(tries: Attempts, wanted: tuple[str, ...], machine: Machine, threads: int, vectors: int = VECTORS) -> Allowed:
    """Vectorize what is scalar below the ``wanted`` loops, ``vectors`` in a step, and divide those among ``threads``, where allowed."""
    sch, lanes, divided = tries.sch, set[str](), set[str]()
    for root in [s for s in sch.kernel.body.stmts if isinstance(s, For) and s.name in wanted]:
        if any(f.kind is not LoopKind.SERIAL for f in st.loops(root)):
            continue  # it shares rows with a reduction, and is done
        for chain, store in list(_nests(root, ())):
            width = vectors * vector_core(machine, store.buffer.dtype).lanes
            lane = chain[-1]
            along = _step(lane.name, store.indices) == 1
            if along and tries.attempt(f"lanes of {lane.name}", partial(_vectorize, sch, lane, width)):
                lanes.add(lane.name)
        if threads > 1 and _long(root) and tries.attempt(f"threads of {root.name}", partial(sch.parallel, root.name)):
            divided.add(root.name)
    return Allowed(frozenset(lanes), frozenset(divided))


@lru_cache(maxsize=8)  # all sketches of a kernel ask
def allowed(kernel: Kernel, machine: Machine, threads: int) -> Allowed:
    """What :func:`apply` can do in ``kernel``, which is prepared but not scheduled."""
    return apply(Attempts(Schedule(kernel, machine)), roots(kernel), machine, threads)


def program(root: For, machine: Machine, found: Allowed, vectors: Expr) -> For:
    """The symbolic program of ``root`` after :func:`apply`: lanes in steps of ``vectors``, remainders rounded up."""

    def rewrite(s: Stmt) -> Stmt | None:
        if not isinstance(s, For) or s.name not in found.lanes:
            return None
        store = next(t for t in st.walk(s) if isinstance(t, Store))
        width = vectors * vector_core(machine, store.buffer.dtype).lanes
        if isinstance(s.extent, Const):
            width = ex.binary("min", width, s.extent)
        chunk = Var(f"{s.name}_chunk")
        body = st.substitute(s.body, {s.name: s.lo + chunk * width + s.var})
        assert isinstance(body, Block)  # substitution keeps the kind of statement
        return For(chunk, ex.idx(0), ceil_div(s.extent, width), st.block(For(s.var, ex.idx(0), width, body, LoopKind.VECTOR)))

    out = st.map_stmts(root, rewrite)
    assert isinstance(out, For)  # a loop becomes a loop
    return replace(out, kind=LoopKind.PARALLEL) if root.name in found.divided else out


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


def _step(loop: str, indices: tuple[Expr, ...]) -> int | None:
    """By how much the last index moves with ``loop``; None when others move too, or it is not affine."""
    if not indices or any(loop in ex.free_vars(i) for i in indices[:-1]):
        return None
    form = IndexScope().linear(indices[-1])
    nested = any(loop in ex.free_vars(a) for a in form.terms if not isinstance(a, Var))
    return None if nested else form.terms.get(Var(loop), 0)


def _vectorize(sch: Schedule, lane: For, width: int) -> None:
    extent = trip_count(lane)
    if extent is None:
        sch.vectorize(lane.name, width)
    else:
        pointwise.vectorize_inner(sch, lane.name, extent, width)


def _long(root: For) -> bool:
    """Whether dividing ``root`` is worth waking other cores; ranges that only its run decides are taken to be long."""
    return any(trip_count(f) is None for f in st.loops(root)) or rows.work(root) >= pointwise.PARALLEL_ELEMENTS
