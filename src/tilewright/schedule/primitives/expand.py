"""expand: a buffer of each iteration becomes one buffer with a place for every iteration, outside the loop."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load
from tilewright.ir.stmt import Alloc, Block, For, Kernel, LoopKind, Stmt
from tilewright.schedule.nest import loop_place, replace_stmt
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError


@primitive
def expand(kernel: Kernel, buffer: str, loop: str) -> tuple[Kernel, tuple[str, ...]]:
    """Allocate ``buffer`` before ``loop``, in whose body it is declared, with a first dimension indexed by the loop.

    Every iteration keeps a place of its own, so this is always legal; it lets ``fission`` separate the statements
    that use it (scalar expansion), and ``localize`` undoes it. Returns the buffer's name. ScheduleError:
    not declared directly in the loop's body, passed to a call, has a layout, a shape that depends on the loop, or the
    extent of the loop is not known outside it.
    """
    place = loop_place(kernel, loop, "expand")
    f = place.node
    if not isinstance(f, For):
        raise ScheduleError(f"expand {buffer}, {loop}: not a loop")
    found = next((s for s in f.body.stmts if isinstance(s, Alloc) and s.buffer.name == buffer), None)
    subject = f"expand {buffer}, {loop}"
    if found is None:
        declared = ", ".join(s.buffer.name for s in f.body.stmts if isinstance(s, Alloc))
        raise ScheduleError(
            f"{subject}: its body does not declare {buffer}", hint=f"declared there: {declared or 'nothing'}", location=f.loc
        )
    old = found.buffer
    if old.layout is not None or any(loop in ex.free_vars(e) for e in old.shape):
        raise ScheduleError(f"{subject}: it has a layout, or a shape that depends on {loop}", location=found.loc)
    if any(isinstance(t, st.Call) and any(w.buffer.name == buffer for w in t.args) for t in st.walk(f.body)):
        raise ScheduleError(f"{subject}: it is passed to a call", hint="inline the call first", location=found.loc)
    if f.kind is LoopKind.VECTOR or ex.loads(f.extent):
        raise ScheduleError(f"{subject}: the number of iterations is not known outside the loop", location=f.loc)
    new = old.with_(shape=(f.extent, *old.shape))
    at = (f.var - f.lo) // f.step
    body = Block(tuple(_redirected(s, new, at) for s in f.body.stmts if s is not found))
    return replace_stmt(kernel, f, Alloc(new, found.loc), replace(f, body=body)), (buffer,)


def _redirected(s: Stmt, new: Buffer, at: Expr) -> Stmt:
    def load(e: Expr) -> Expr | None:
        return Load(new, (at, *e.indices)) if isinstance(e, Load) and e.buffer.name == new.name else None

    def store(t: Stmt) -> Stmt | None:
        return replace(t, buffer=new, indices=(at, *t.indices)) if isinstance(t, st.Store) and t.buffer.name == new.name else None

    return st.map_stmts(st.map_exprs(s, lambda e: ex.transform(e, load)), store)
