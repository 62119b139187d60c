"""Results that start at zero: where the first of the instructions that add to them can replace them instead."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Const, Expr
from tilewright.ir.linear import Linear
from tilewright.ir.simplify import Simplifier
from tilewright.schedule.unify import Chain, chain_of


def overwriting(scope: Simplifier, s: st.Stmt, after: Sequence[st.Stmt]) -> tuple[st.Call, Expr] | None:
    """When ``s`` sets a box of a buffer to zero and the next use of it is a nest of one instruction that adds to all of it:
    that call, and an expression that is 0 where it adds to an element for the first time and 1 elsewhere.

    None unless it is proven that the first additions, and nothing before them, cover the box that ``s`` sets.
    """
    zeroed = chain_of(s)
    if zeroed is None or not _is_zero(zeroed.store):
        return None
    name = zeroed.store.buffer.name
    user = next((t for t in after if name in st.read_buffers(t) | st.written_buffers(t)), None)
    path = _only_call(user, name) if user is not None else None
    if path is None:
        return None
    loops, call = path
    position = [n for n, w in enumerate(call.args) if w.buffer.name == name]
    target = call.kernel.args[position[0]].name
    if len(position) != 1 or not _adds(call.kernel, target):
        return None
    window = call.args[position[0]]
    moving = {v for i in window.indices for e in ((i.lo, i.extent) if isinstance(i, st.Span) else (i,)) for v in ex.free_vars(e)}
    again = [f for f in loops if f.name not in moving]
    spatial = [f for f in loops if f.name in moving]
    repeated = {f.name for f in again}
    if any(ex.free_vars(e) & repeated for f in spatial for e in (f.lo, f.hi)):
        return None
    if not all(_runs(scope, loops, f) for f in again):
        return None
    if not _covers(scope, zeroed, window, spatial):
        return None
    count: Expr = ex.idx(0)
    for f in again:
        count = count + (f.var - f.lo)
    return call, ex.binary("min", count, 1) if again else ex.idx(0)


def _is_zero(s: st.Store) -> bool:
    return s.op is None and isinstance(s.value, Const) and s.value.value == 0


def _only_call(s: st.Stmt, name: str) -> tuple[list[st.For], st.Call] | None:
    """The loops around the one statement of ``s`` that uses the buffer, a call; None when there are guards around it or more uses."""
    loops: list[st.For] = []
    while True:
        match s:
            case st.Block():
                users = [t for t in s.stmts if name in st.read_buffers(t) | st.written_buffers(t)]
                if len(users) != 1:
                    return None
                s = users[0]
            case st.For():
                loops.append(s)
                s = s.body
            case st.Call():
                return loops, s
            case _:
                return None


def _adds(kernel: st.Kernel, target: str) -> bool:
    stores = [s for s in st.walk(kernel.body) if isinstance(s, st.Store)]
    reads = {ld.buffer.name for s in stores for e in (s.value, *s.indices) for ld in ex.loads(e)}
    return kernel.instruction is not None and all(s.op == "+" and s.buffer.name == target for s in stores) and target not in reads


def _runs(scope: Simplifier, loops: Sequence[st.For], f: st.For) -> bool:
    """Whether ``f`` runs at least once in every iteration of the loops around it."""
    return _proven(scope, loops[: loops.index(f)], f.hi - f.lo - 1)


def _proven(scope: Simplifier, loops: Sequence[st.For], e: Expr) -> bool:
    """Whether ``e >= 0`` at every iteration of ``loops``, outer first."""
    if not loops:
        return _nonneg(scope, scope.linear(e))
    f = loops[0]
    with scope.inside(f):
        return _proven(scope, loops[1:], e)


def _nonneg(scope: Simplifier, a: Linear) -> bool:
    """``a >= 0``, also by what a quotient is at least."""
    if scope.nonneg(a):
        return True
    for atom, c in a.terms.items():
        if c > 0 and isinstance(atom, ex.Binary) and atom.op == "//" and isinstance(atom.b, Const) and atom.b.value > 0:
            d, x = int(atom.b.value), scope.linear(atom.a)
            rest = a.without(atom).times(d)
            # c (x // d) + r >= 0 follows from x + d r >= 0 for c = 1, as r is an integer, else from c (x - d + 1) + d r >= 0.
            return _nonneg(scope, rest.plus(x) if c == 1 else rest.plus(Linear(x.terms, x.const - d + 1), c))
    return False


def _covers(scope: Simplifier, zeroed: Chain, window: st.Window, spatial: Sequence[st.For]) -> bool:
    """Whether the windows over the ``spatial`` loops are, side by side, all that ``zeroed`` sets; each element once."""
    set_by = {f.name: f for f in zeroed.loops}
    owner: set[str] = set()
    for index, place in zip(zeroed.store.indices, window.indices, strict=True):
        if isinstance(index, ex.Var) and index.name in set_by:
            f = set_by[index.name]
            if f.lo != ex.idx(0) or f.step != 1 or f.name in owner:
                return False
            extent = f.hi
        elif index == ex.idx(0):
            extent = ex.idx(1)
        else:
            return False
        span = place if isinstance(place, st.Span) else st.Span(place, ex.idx(1))
        mine = [g for g in spatial if g.name in ex.free_vars(span.lo)]
        others = {g.name for g in spatial} - {g.name for g in mine}
        if span.step != 1 or len(mine) > 1 or ex.free_vars(span.lo) & others or owner & {g.name for g in mine}:
            return False
        if any(ex.free_vars(e) & {h.name for h in spatial} for g in mine for e in (g.lo, g.hi)):
            return False
        owner |= {g.name for g in mine}
        if not mine:
            if scope.expr(span.lo) != ex.idx(0) or scope.expr(span.extent - extent) != ex.idx(0):
                return False
            continue
        g = mine[0]
        step = scope.linear(span.lo).terms.get(g.var, 0) * g.step
        start = scope.expr(ex.substitute(span.lo, {g.name: g.lo}))
        if step < 1 or start != ex.idx(0):
            return False
        # Windows end where the next begins, or at the end of the box, and the last one reaches it.
        whole = ex.binary("min", ex.idx(step), extent - span.lo)
        if not _proven(scope, mine, whole - span.extent) or not _proven(scope, mine, span.extent - whole):
            return False
        if not _proven(scope, (), (g.hi - g.lo + (g.step - 1)) // g.step * step - extent):
            return False
    return not {g.name for g in spatial} - owner
