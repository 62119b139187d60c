"""Which part of a buffer a piece of program touches: boxes with symbolic bounds.

Boxes come from eliminating the inner loop variables of each index, innermost first, through loop
bounds and enclosing guards. They contain every element touched (they may be larger), which is what
copies and recomputation need.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Const, Expr, Load, Var, Where
from tilewright.ir.linear import Linear
from tilewright.ir.simplify import Simplifier, scope_of
from tilewright.ir.stmt import (
    Block,
    Call,
    For,
    If,
    Kernel,
    Span,
    Stmt,
    Store,
    While,
    Window,
    map_exprs,
    map_stmts,
    read_buffers,
    store,
    written_buffers,
)
from tilewright.schedule.nest import Place

#: Alternative bounds kept for one index: more would only tighten boxes that are already bounded.
_MAX_BOUNDS = 6


@dataclass(frozen=True, slots=True)
class Access:
    """One access: the index range [first, last] of each dimension, and whether it reads or writes."""

    statement: Stmt
    first: tuple[Expr, ...]
    last: tuple[Expr, ...]
    reads: bool
    writes: bool


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open bounds per dimension, in variables that are visible where the box is used."""

    lo: tuple[Expr, ...]
    hi: tuple[Expr, ...]


@contextmanager
def scope_at(kernel: Kernel, place: Place, inside: bool = True) -> Iterator[Simplifier]:
    """What is known about indices at ``place`` (in the body of the loop there, when ``inside``)."""
    chain = (*place.ancestors, place.node) if inside else place.ancestors
    with ExitStack() as stack:
        scope = scope_of(kernel)
        for n, s in enumerate(chain):
            below = chain[n + 1] if n + 1 < len(chain) else None
            if isinstance(s, For):
                stack.enter_context(scope.inside(s))
            elif isinstance(s, If) and below is not None:
                cond = scope.expr(s.cond)
                stack.enter_context(scope.assuming(cond if below is s.then else scope.negation(cond)))
        yield scope


def accesses(scope: Simplifier, s: Stmt, name: str) -> Iterator[tuple[Access, Simplifier]]:
    """Accesses to buffer ``name`` in ``s``; the scope holds what is known at that access, until the next is asked for."""
    match s:
        case Block():
            for t in s.stmts:
                yield from accesses(scope, t, name)
        case For():
            for e in (s.lo, s.hi):
                yield from _loads(scope, s, e, name)
            with scope.inside(s):
                yield from accesses(scope, s.body, name)
        case If():
            yield from _loads(scope, s, s.cond, name)
            cond = scope.expr(s.cond)
            with scope.assuming(cond):
                yield from accesses(scope, s.then, name)
            if s.orelse:
                with scope.assuming(scope.negation(cond)):
                    yield from accesses(scope, s.orelse, name)
        case While():
            yield from _loads(scope, s, s.cond, name)
            yield from accesses(scope, s.body, name)
        case Store():
            for e in (*s.indices, s.value):
                yield from _loads(scope, s, e, name)
            if s.buffer.name == name:
                yield Access(s, s.indices, s.indices, reads=s.op is not None, writes=True), scope
        case Call():
            yield from _call_accesses(scope, s, name)


def _call_accesses(scope: Simplifier, s: Call, name: str) -> Iterator[tuple[Access, Simplifier]]:
    reads, writes = read_buffers(s.kernel.body), written_buffers(s.kernel.body)
    for w, p in zip(s.args, s.kernel.args, strict=True):
        if w.buffer.name == name:
            first = tuple(i.lo if isinstance(i, Span) else i for i in w.indices)
            last = tuple(i.lo + (i.extent - 1) * i.step if isinstance(i, Span) else i for i in w.indices)
            yield Access(s, first, last, p.name in reads, p.name in writes), scope


def _loads(scope: Simplifier, s: Stmt, e: Expr, name: str) -> Iterator[tuple[Access, Simplifier]]:
    match e:
        case Where():
            yield from _loads(scope, s, e.cond, name)
            cond = scope.expr(e.cond)
            with scope.assuming(cond):
                yield from _loads(scope, s, e.a, name)
            with scope.assuming(scope.negation(cond)):
                yield from _loads(scope, s, e.b, name)
            return
        case Load() if e.buffer.name == name:
            yield Access(s, e.indices, e.indices, reads=True, writes=False), scope
    for c in ex.children(e):
        yield from _loads(scope, s, c, name)


def box_of(scope: Simplifier, stmts: Iterable[Stmt], buffer: Buffer, *, reads: bool = True, writes: bool = True) -> Box | None:
    """The box of ``buffer`` that ``stmts`` touch, in variables visible in ``scope``; None if untouched.

    Not clipped to the shape: guarded accesses may make it reach outside.
    """
    visible = frozenset(scope.ranges)
    lows: list[list[list[Linear] | None]] = []
    highs: list[list[list[Linear] | None]] = []
    for s in stmts:
        for access, here in accesses(scope, s, buffer.name):
            if (access.reads and reads) or (access.writes and writes):
                lows.append([_eliminate(here, here.linear(e), visible, up=False) for e in access.first])
                highs.append([_eliminate(here, here.linear(e), visible, up=True) for e in access.last])
    if not lows:
        return None
    lo, hi = [], []
    for d in range(buffer.rank):
        lo.append(_combine(scope, [a[d] for a in lows], up=False, whole=ex.idx(0)))
        hi.append(_combine(scope, [a[d] for a in highs], up=True, whole=buffer.shape[d]))
    return Box(tuple(lo), tuple(hi))


def clipped(scope: Simplifier, box: Box, shape: tuple[Expr, ...]) -> Box:
    """The part of ``box`` inside ``shape``."""
    lo = tuple(scope.expr(ex.binary("max", e, ex.idx(0))) for e in box.lo)
    return Box(lo, tuple(scope.expr(ex.binary("min", e, s)) for e, s in zip(box.hi, shape, strict=True)))


def _combine(scope: Simplifier, bounds: list[list[Linear] | None], up: bool, whole: Expr) -> Expr:
    """Hull over accesses of the tightest bound of each; ``whole`` where an access has no bound."""
    best: Expr | None = None
    for alternatives in bounds:
        if alternatives is None:
            return whole
        tight = [scope.render(Linear(a.terms, a.const + 1) if up else a) for a in alternatives]
        mine = tight[0]
        for other in tight[1:]:
            mine = ex.binary("min" if up else "max", mine, other)
        best = mine if best is None or best == mine else ex.binary("max" if up else "min", best, mine)
    return scope.expr(best) if best is not None else whole


def _eliminate(scope: Simplifier, a: Linear, visible: frozenset[str], up: bool) -> list[Linear] | None:
    """Upper (lower) bounds of ``a`` in visible variables: the least (greatest) of them is the bound."""
    inner = next((v for v in reversed(list(scope.ranges)) if v not in visible and any(_mentions(t, v) for t in a.terms)), None)
    if inner is None:
        return [a] if all(not ex.loads(t) for t in a.terms) else None
    out: list[Linear] = []
    for atom, c in a.terms.items():
        if _mentions(atom, inner):
            for value in _atom_bounds(scope, atom, visible, up == (c > 0)):
                rest = a.without(atom)
                for found in _eliminate(scope, rest.plus(value, c), visible, up) or ():
                    if not any(_no_worse(o, found, up) for o in out):
                        out = [o for o in out if not _no_worse(found, o, up)] + [found]
            break
    return out[:_MAX_BOUNDS] or None


def _no_worse(a: Linear, b: Linear, up: bool) -> bool:
    return a.terms == b.terms and (a.const <= b.const if up else a.const >= b.const)


def _mentions(e: Expr, v: str) -> bool:
    return e.name == v if isinstance(e, Var) else any(isinstance(n, Var) and n.name == v for n in ex.walk(e))


def _atom_bounds(scope: Simplifier, atom: Expr, visible: frozenset[str], up: bool) -> list[Linear]:
    """Bounds of one atom by outer variables: ranges and facts for variables, monotonicity for the rest."""
    low, high = scope.bounds(Linear({atom: 1}))
    number = high if up else low
    out = [] if number is None else [Linear({}, number)]
    match atom:
        case Var():
            order = list(scope.ranges)
            # A bound in other variables that are not deeper: `i < 2 + i // 2` would bound i by itself, without end.
            unusable = frozenset(order[order.index(atom.name) :])
            for fact in scope.facts:
                if fact.terms.get(atom) == (-1 if up else 1) and not any(ex.free_vars(t) & unusable for t in fact.terms if t != atom):
                    out.append(Linear({atom: 1}).plus(fact, 1 if up else -1))
        case Binary(op="//", b=Const(value=m)) if m > 0:
            for x in _eliminate(scope, scope.linear(atom.a), visible, up) or ():
                out.append(scope.linear(scope.render(x) // int(m)))
        case Binary(op="min" | "max"):
            sides = [_eliminate(scope, scope.linear(x), visible, up) for x in (atom.a, atom.b)]
            if (atom.op == "min") == up:
                out.extend(x for side in sides for x in side or ())
            elif all(sides):
                a, b = ([scope.render(x) for x in side or ()] for side in sides)
                out.extend(scope.linear(ex.binary(atom.op, x, y)) for x in a for y in b)
    return out


def largest_extent(scope: Simplifier, lo: Expr, hi: Expr) -> int | None:
    """An upper bound of ``hi - lo`` at every point of the scope, None if there is none."""
    return _largest(scope, scope.linear(hi).plus(scope.linear(lo), -1), depth=4)


def _largest(scope: Simplifier, a: Linear, depth: int) -> int | None:
    best = scope.bounds(a)[1]
    if depth == 0:
        return best
    for atom, c in a.terms.items():
        if isinstance(atom, Binary) and atom.op in ("min", "max"):
            rest = a.without(atom)
            sides = [_largest(scope, rest.plus(scope.linear(x), c), depth - 1) for x in (atom.a, atom.b)]
            known = [x for x in sides if x is not None]
            if (atom.op == "min") == (c > 0):
                best = min([*known, *([] if best is None else [best])], default=None)
            elif len(known) == 2:
                best = max(known) if best is None else min(best, max(known))
    return best


def tile_of(scope: Simplifier, box: Box, shape: tuple[Expr, ...]) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
    """Shape of a buffer that can hold ``box`` at every point of the scope, and the element of the original at its index 0.

    A dimension without a constant bound is kept whole.
    """
    extents = [largest_extent(scope, lo, hi) for lo, hi in zip(box.lo, box.hi, strict=True)]
    sizes = tuple(whole if n is None else ex.idx(max(n, 0)) for n, whole in zip(extents, shape, strict=True))
    return sizes, tuple(ex.idx(0) if n is None else lo for n, lo in zip(extents, box.lo, strict=True))


def redirect(s: Stmt, name: str, new: Buffer, origin: tuple[Expr, ...], *, reads: bool = True, writes: bool = True) -> Stmt:
    """``s`` with accesses to buffer ``name`` made to ``new``, whose element 0 is element ``origin``.

    Windows of calls move when either kind is redirected (a window may be both).
    """

    def moved(indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(i - o for i, o in zip(indices, origin, strict=True))

    def node(e: Expr) -> Expr | None:
        return Load(new, moved(e.indices)) if isinstance(e, Load) and e.buffer.name == name else None

    def stmt(t: Stmt) -> Stmt | None:
        match t:
            case Store() if t.buffer.name == name and writes:
                return store(Load(new, moved(t.indices)), t.value, t.op, t.loc)
            case Call() if any(w.buffer.name == name for w in t.args):
                return Call(t.kernel, t.sizes, tuple(_moved_window(w, name, new, origin) for w in t.args), t.loc)
        return None

    return map_stmts(map_exprs(s, lambda e: ex.transform(e, node)) if reads else s, stmt)


def _moved_window(w: Window, name: str, new: Buffer, origin: tuple[Expr, ...]) -> Window:
    if w.buffer.name != name:
        return w
    return Window(
        new, tuple(Span(i.lo - o, i.extent, i.step) if isinstance(i, Span) else i - o for i, o in zip(w.indices, origin, strict=True))
    )
