"""permute: a local buffer with its dimensions in another order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer, Layout
from tilewright.ir.expr import Expr, Load
from tilewright.ir.stmt import Alloc, Block, Kernel, Stmt
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError


@primitive
def permute(kernel: Kernel, buffer: str, order: Sequence[int]) -> tuple[Kernel, tuple[str, ...]]:
    """Index the local ``buffer`` by its dimensions in ``order`` ([1, 0]: transposed), everywhere. Returns its name.

    Instructions fix the order of an operand's dimensions; a layout only says where elements lie. The physical
    order of a buffer with a layout stays. ScheduleError: an argument, no such buffer, not a permutation, or an
    instruction already addresses it.
    """
    subject = f"permute {buffer}"
    old = next((b for b in st.allocated(kernel) if b.name == buffer), None)
    if old is None:
        local = ", ".join(b.name for b in st.allocated(kernel))
        raise ScheduleError(f"{subject}: kernel {kernel.name} allocates no such buffer", hint=f"it allocates: {local or 'none'}")
    if sorted(order) != list(range(old.rank)):
        raise ScheduleError(f"{subject}: {list(order)} is not an order of {old.rank} dimensions")
    called = next((s for s in st.walk(kernel.body) if isinstance(s, st.Call) and any(w.buffer.name == buffer for w in s.args)), None)
    if called is not None:
        hint = "permute buffers before tensorizing"
        raise ScheduleError(f"{subject}: the call of {called.kernel.name} addresses it", hint=hint, location=called.loc)
    new = _permuted(old, order)

    def load(e: Expr) -> Expr | None:
        if not isinstance(e, Load) or e.buffer.name != buffer:
            return None
        return Load(new, tuple(ex.transform(e.indices[d], load) for d in order))

    def stmt(s: Stmt) -> Stmt | None:
        if isinstance(s, Alloc) and s.buffer.name == buffer:
            return replace(s, buffer=new)
        if isinstance(s, st.Store) and s.buffer.name == buffer:
            return replace(s, buffer=new, indices=tuple(s.indices[d] for d in order))
        return None

    body = st.map_stmts(st.map_exprs(kernel.body, lambda e: ex.transform(e, load)), stmt)
    assert isinstance(body, Block)  # the kind of a statement stays
    return kernel.with_(body=body), (buffer,)


def _permuted(b: Buffer, order: Sequence[int]) -> Buffer:
    place = {d: n for n, d in enumerate(order)}
    layout = None if b.layout is None else Layout(tuple((place[d], block) for d, block in b.layout.dims))
    return b.with_(shape=tuple(b.shape[d] for d in order), layout=layout)
