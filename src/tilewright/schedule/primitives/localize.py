"""localize: a local buffer of which each iteration uses its own part becomes that part, inside the loop."""

from __future__ import annotations

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Alloc, Block, For, Kernel, Stmt
from tilewright.schedule.nest import local_place, loop_place, place_of, replace_stmt
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError


@primitive
def localize(kernel: Kernel, buffer: str, loop: str) -> tuple[Kernel, tuple[str, ...]]:
    """Allocate ``buffer`` inside ``loop``, with extent 1 in the dimensions that select the iteration's own part.

    Such a dimension is indexed, in every use, by the variable of ``loop`` or of one loop between the
    allocation and ``loop``, so different iterations never share an element. Returns the buffer's
    name. ScheduleError: not a local buffer, used outside the loop, passed to a call, or no
    dimension is indexed by ``loop``'s own variable (elements would be shared between iterations).
    """
    place = loop_place(kernel, loop, "localize")
    found, old = local_place(kernel, buffer, f"localize {buffer}")
    home = found.block
    if home not in place.ancestors:
        raise ScheduleError(f"localize {buffer}, {loop}: the loop is not in the scope of the allocation")
    between = [f for f in (*place.loops, place.node) if isinstance(f, For) and f not in found.loops]
    uses = _uses(home, buffer)
    inside = _uses(place.node, buffer)
    if len(uses) != len(inside):
        raise ScheduleError(f"localize {buffer}, {loop}: it is also used outside the loop", hint="merge the loops that use it first")
    if any(u is None for u in uses):
        raise ScheduleError(f"localize {buffer}: it is passed to a call", hint="inline the call first")
    own = _own_dimensions(old, [u for u in uses if u is not None], {f.name for f in between})
    if missing := [f.name for f in between if f.name not in own.values()]:
        raise ScheduleError(
            f"localize {buffer}, {loop}: no dimension is indexed by {missing[0]} in every use, so its iterations share elements",
            hint="choose a loop further out, or keep the buffer where it is",
        )
    new = old.with_(shape=tuple(ex.idx(1) if d in own else e for d, e in enumerate(old.shape)))
    assert isinstance(place.node, For)  # loop_place finds loops
    body = Block((Alloc(new), *(_redirected(s, new, own) for s in place.node.body.stmts)))
    out = replace_stmt(kernel, place.node, _with_body(place.node, body))
    gone = place_of(out, lambda s: s is found.node)
    return replace_stmt(out, gone.node) if gone else out, (buffer,)


def _uses(s: Stmt, buffer: str) -> list[tuple[Expr, ...] | None]:
    """The indices of every access below ``s``; None for a window passed to a call."""
    out: list[tuple[Expr, ...] | None] = []
    for t in st.walk(s):
        out += [ld.indices for e in st.own_exprs(t) for ld in ex.loads(e) if ld.buffer.name == buffer]
        if isinstance(t, st.Store) and t.buffer.name == buffer:
            out.append(t.indices)
        elif isinstance(t, st.Call):
            out += [None for w in t.args if w.buffer.name == buffer]
    return out


def _own_dimensions(buffer: Buffer, uses: list[tuple[Expr, ...]], loops: set[str]) -> dict[int, str]:
    """Dimensions that every use indexes by the same one of ``loops``."""
    own: dict[int, str] = {}
    for d in range(buffer.rank):
        used = {u[d] for u in uses}
        if len(used) == 1 and isinstance(index := next(iter(used)), Var) and index.name in loops:
            own[d] = index.name
    return own


def _redirected(s: Stmt, new: Buffer, own: dict[int, str]) -> Stmt:
    def indices(old: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(ex.idx(0) if d in own else i for d, i in enumerate(old))

    def load(e: Expr) -> Expr | None:
        return Load(new, indices(e.indices)) if isinstance(e, Load) and e.buffer.name == new.name else None

    def store(t: Stmt) -> Stmt | None:
        if isinstance(t, st.Store) and t.buffer.name == new.name:
            return st.Store(new, indices(t.indices), t.value, t.op, t.loc)
        return None

    return st.map_stmts(st.map_exprs(s, lambda e: ex.transform(e, load)), store)


def _with_body(f: For, body: Block) -> For:
    return For(f.var, f.lo, f.hi, body, f.kind, f.step, f.unit, f.loc)
