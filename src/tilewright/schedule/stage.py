"""Stages: the statements of one block that together compute a buffer element by element.

Every element of the buffer must depend on its own index only (its previous value and other
buffers): then any subset of its elements can be computed anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import TRUE, Expr, Load, Var
from tilewright.ir.linear import Linear
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import (
    Alloc,
    Block,
    Call,
    For,
    If,
    Kernel,
    Stmt,
    Store,
    While,
    all_buffers,
    own_exprs,
    read_buffers,
    substitute,
    substmts,
    walk,
    written_buffers,
)
from tilewright.schedule.nest import place_of, trip_count
from tilewright.schedule.region import Box
from tilewright.util.errors import ScheduleError


@dataclass(frozen=True, slots=True)
class Spatial:
    """A loop that enumerates dimension ``dim`` of the stage's buffer: index = loop variable + ``offset``."""

    dim: int
    offset: Expr


@dataclass(frozen=True, slots=True)
class Nest:
    """One statement of a stage.

    ``spatial`` maps loops to the dimensions they enumerate, ``loops`` are those and the loops
    around them, ``bounds`` gives each dimension's index range; ``overwrites``: its first access
    to each element is a plain, unconditional store.
    """

    root: Stmt
    loops: tuple[For, ...]
    spatial: dict[str, Spatial]
    bounds: tuple[tuple[Expr, Expr], ...]
    overwrites: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """The nests, in order, that compute ``buffer``."""

    buffer: Buffer
    nests: tuple[Nest, ...]

    @property
    def roots(self) -> tuple[Stmt, ...]:
        return tuple(n.root for n in self.nests)

    @property
    def starts_anew(self) -> bool:
        """Whether each element starts from a plain store, so that computing it again gives the same value."""
        first = self.nests[0]
        return first.overwrites and all(n.overwrites or n.bounds == first.bounds for n in self.nests)

    @property
    def inputs(self) -> set[str]:
        """Buffers the stage reads, its own and private ones excluded."""
        private = {t.buffer.name for r in self.roots for t in walk(r) if isinstance(t, Alloc)}
        return set().union(*(read_buffers(r) for r in self.roots)) - private - {self.buffer.name}


def stage_buffer(kernel: Kernel, name: str, primitive: str) -> Buffer:
    """The buffer that ``name`` stands for: itself, or the one written by the nest of the loop ``name``."""
    known = {b.name: b for b in all_buffers(kernel)}
    if name in known:
        return known[name]
    at = place_of(kernel, lambda s: isinstance(s, For) and s.name == name)
    if at is None:
        raise ScheduleError(
            f"{primitive}: kernel {kernel.name} has no loop or buffer {name!r}",
            hint=f"name the stage by the buffer it writes ({', '.join(sorted(written_buffers(kernel.body)))}) or by its outermost loop",
        )
    private = {t.buffer.name for t in walk(at.node) if isinstance(t, Alloc)}
    written = sorted(written_buffers(at.node) - private)
    if len(written) != 1:
        raise ScheduleError(
            f"{primitive}: the nest of loop {name!r} writes {', '.join(written) or 'nothing'}, not exactly one buffer",
            hint="separate the statements by fission, or name the buffer",
        )
    return known[written[0]]


def stage_in(scope: Simplifier, buffer: Buffer, roots: Sequence[Stmt], primitive: str) -> Stage:
    """The stage made of ``roots``; ScheduleError names the rule that one of them breaks."""
    return Stage(buffer, tuple(_nest(scope, buffer, r, f"{primitive} {buffer.name}") for r in roots))


def _nest(scope: Simplifier, buffer: Buffer, root: Stmt, subject: str) -> Nest:
    private = {t.buffer.name for t in walk(root) if isinstance(t, Alloc)}
    others = sorted(written_buffers(root) - private - {buffer.name})
    if others:
        raise ScheduleError(f"{subject}: its nest also writes {', '.join(others)}", hint="separate the statements by fission")
    stores: list[tuple[Store, tuple[For, ...], bool]] = []
    _find_stores(root, buffer.name, (), False, stores, subject)
    spatial: dict[str, Spatial] = {}
    bounds: list[tuple[Expr, Expr]] = []
    first = stores[0][0].indices
    for s, loops, _ in stores:
        found, bounds = _spatial(scope, s, loops, subject)
        if s is not stores[0][0] and (found != spatial or s.indices != first):
            raise ScheduleError(f"{subject}: its stores use different indices in one nest", hint="separate the statements by fission")
        spatial = found
    _check_own_element(root, buffer.name, first, subject)
    _check_private(root, spatial, subject)
    plain, around, conditional = stores[0]
    depth = max((n + 1 for n, f in enumerate(around) if f.name in spatial), default=0)
    certain = not conditional and all((trip_count(f) or 0) > 0 for f in around if f.name not in spatial)
    overwrites = plain.op is None and certain and not _reads_before(root, plain, buffer.name)
    return Nest(root, around[:depth], spatial, tuple(bounds), overwrites)


def _reads_before(root: Stmt, store: Store, name: str) -> bool:
    for t in walk(root):
        if any(ld.buffer.name == name for e in own_exprs(t) for ld in ex.loads(e)):
            return True
        if t is store:
            return False
    return False


def _find_stores(
    s: Stmt, name: str, loops: tuple[For, ...], conditional: bool, out: list[tuple[Store, tuple[For, ...], bool]], subject: str
) -> None:
    match s:
        case Store() if s.buffer.name == name:
            out.append((s, loops, conditional))
        case Block():
            for t in s.stmts:
                _find_stores(t, name, loops, conditional, out, subject)
        case For():
            _find_stores(s.body, name, (*loops, s), conditional, out, subject)
        case If():
            for b in (s.then, *([s.orelse] if s.orelse else [])):
                _find_stores(b, name, loops, True, out, subject)
        case While() if name in written_buffers(s):
            raise ScheduleError(f"{subject}: it is written under a while loop", location=s.loc)
        case Call() if name in written_buffers(s):
            raise ScheduleError(f"{subject}: it is written by a call of {s.kernel.name}", hint="move the stage before tensorizing it")


def _spatial(scope: Simplifier, s: Store, loops: tuple[For, ...], subject: str) -> tuple[dict[str, Spatial], list[tuple[Expr, Expr]]]:
    by_name = {f.name: f for f in loops}
    spatial: dict[str, Spatial] = {}
    bounds: list[tuple[Expr, Expr]] = []
    for d, e in enumerate(s.indices):
        a = scope.linear(e)
        inner = [t for t in a.terms if ex.free_vars(t) & set(by_name)]
        if not inner:
            bounds.append((e, e + 1))
            continue
        v = inner[0]
        if len(inner) > 1 or not isinstance(v, Var) or a.terms[v] != 1 or v.name in spatial or by_name[v.name].step != 1:
            raise ScheduleError(
                f"{subject}: {Load(s.buffer, s.indices)} is not stored at one loop variable of its own in dimension {d}",
                hint="apply this primitive before splitting or skewing the stage",
                location=s.loc,
            )
        offset = scope.render(Linear({t: c for t, c in a.terms.items() if t is not v}, a.const))
        spatial[v.name] = Spatial(d, offset)
        f = by_name[v.name]
        bounds.append((f.lo + offset, f.hi + offset))
    return spatial, bounds


def _check_own_element(root: Stmt, name: str, own: tuple[Expr, ...], subject: str) -> None:
    for t in walk(root):
        for e in own_exprs(t):
            for ld in ex.loads(e):
                if ld.buffer.name == name and ld.indices != own:
                    raise ScheduleError(
                        f"{subject}: {Load(ld.buffer, own)} is computed from {ld}",
                        hint="only stages whose elements are independent can be recomputed elsewhere",
                        location=getattr(t, "loc", None),
                    )


def _check_private(root: Stmt, spatial: dict[str, Spatial], subject: str) -> None:
    """A temporary declared outside a spatial loop could carry values from one element to the next."""

    def visit(s: Stmt, missing: frozenset[str]) -> None:
        if isinstance(s, Alloc) and missing:
            raise ScheduleError(
                f"{subject}: the temporary {s.buffer.name} is declared outside its loop {min(missing)}",
                hint="declare it inside",
                location=s.loc,
            )
        for c in substmts(s):
            visit(c, missing - {s.name} if isinstance(s, For) else missing)

    visit(root, frozenset(spatial))


def restricted(scope: Simplifier, nest: Nest, box: Box) -> Stmt:
    """``nest.root`` computing only the elements inside ``box``.

    ``scope`` is what is known at the new position; box bounds are in its variables.
    """

    def block(b: Block) -> Block:
        return Block(tuple(map(visit, b.stmts)))

    def tightened(f: For, at: Spatial) -> For:
        """The loop over the box, counting from 0 (tiles of all iterations then look the same)."""
        lo = scope.expr(ex.binary("max", f.lo, box.lo[at.dim] - at.offset))
        hi = scope.expr(ex.binary("min", f.hi, box.hi[at.dim] - at.offset))
        body = substitute(f.body, {f.name: f.var + lo})
        assert isinstance(body, Block)  # substitution keeps the kind of a statement
        return replace(f, lo=ex.idx(0), hi=scope.expr(hi - lo), body=body)

    def visit(s: Stmt) -> Stmt:
        match s:
            case Block():
                return block(s)
            case For():
                at = nest.spatial.get(s.name)
                f = tightened(s, at) if at else s
                with scope.inside(f):
                    return replace(f, body=block(f.body))
            case If():
                return replace(s, then=block(s.then), orelse=block(s.orelse) if s.orelse else None)
        return s

    moved = visit(nest.root)
    for d in sorted(set(range(len(nest.bounds))) - {at.dim for at in nest.spatial.values()}):
        at_index, past = nest.bounds[d]
        inside = ex.logical("and", ex.compare("<=", box.lo[d], at_index), ex.compare("<=", past, box.hi[d]))
        if scope.expr(inside) != TRUE:
            moved = If(inside, Block((moved,)))
    return moved
