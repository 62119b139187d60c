"""compute_at: a producer computes, inside a loop of its consumer, just what one iteration needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import is_

from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Alloc, Block, For, Kernel, LoopKind, Stmt, names, read_buffers, substmts, walk, written_buffers
from tilewright.schedule.coverage import Coverage
from tilewright.schedule.nest import Place, copied, fresh, loop_place, place_of, replace_stmt
from tilewright.schedule.primitive import primitive
from tilewright.schedule.region import Box, box_of, clipped, redirect, scope_at, tile_of
from tilewright.schedule.stage import Stage, restricted, stage_buffer, stage_in
from tilewright.util.errors import ScheduleError


@dataclass(frozen=True, slots=True)
class _Target:
    """A loop that gets a copy of the stage, and the box it needs there."""

    place: Place
    box: Box

    @property
    def loop(self) -> For:
        assert isinstance(self.place.node, For)
        return self.place.node


@primitive
def compute_at(kernel: Kernel, stage: str, loop: str | Sequence[str], shrink: bool = True) -> tuple[Kernel, tuple[str, ...]]:
    """Move the computation of a buffer into ``loop`` of its consumer, for the region one iteration uses.

    ``stage`` is the buffer, or a loop of a nest that writes it; all nests of the block that write
    it move together (initialisation and updates of a reduction). ``loop`` may list several loops
    (the main and the tail loops of a consumer): each gets a copy. With ``shrink`` a local buffer
    becomes one per iteration, of the size of the region. Returns the names of the moved
    outermost loops.

    ScheduleError when an element depends on other elements, when the buffer is used outside the
    loops, when an input changes on the way, or when elements would be lost or computed twice
    where that matters.
    """
    loops = (loop,) if isinstance(loop, str) else tuple(dict.fromkeys(loop))
    buffer = stage_buffer(kernel, stage, "compute_at")
    name = buffer.name
    subject = f"compute_at {name}, {', '.join(loops)}"
    targets = [loop_place(kernel, n, "compute_at") for n in loops]
    home, above = _home(targets[0], name, subject)
    roots, consumers = _split_block(home, targets, name, subject)
    with scope_at(kernel, Place(above, home), inside=False) as scope:
        producer = stage_in(scope, buffer, roots, "compute_at")
    _check_inputs(producer, home, roots, consumers, subject)
    placed = [_Target(t, _needed(kernel, t, buffer, subject)) for t in targets]
    _check_uses(consumers, placed, name, subject)
    local = _is_private(home, consumers, roots, name)
    _check_coverage(producer, placed, home, consumers, local, local and shrink, subject)
    return _rewrite(kernel, producer, placed, local and shrink)


def _home(target: Place, name: str, subject: str) -> tuple[Block, tuple[Stmt, ...]]:
    """The innermost block around the loop in which the buffer is written before the loop, and that block's ancestors."""
    chain = (*target.ancestors, target.node)
    for n in range(len(chain) - 2, -1, -1):
        b = chain[n]
        if isinstance(b, Block) and any(name in written_buffers(s) for s in b.stmts[: _position(b, chain[n + 1])]):
            return b, chain[:n]
    raise ScheduleError(
        f"{subject}: nothing before the loop, in the blocks around it, writes {name}",
        hint="name a loop of a consumer that comes after the stage; the loops around the stage must enclose it",
    )


def _split_block(home: Block, targets: list[Place], name: str, subject: str) -> tuple[list[Stmt], list[Stmt]]:
    """The stage's statements in the block, and the statements of the block that hold the loops."""
    consumers: list[Stmt] = []
    for t in targets:
        chain = (*t.ancestors, t.node)
        if not any(s is home for s in chain):
            raise ScheduleError(
                f"{subject}: the loops around the stage do not enclose the loop {t.node.name}",  # type: ignore[attr-defined]
                hint="stage and consumer must stand in one block",
            )
        root = chain[next(n for n, s in enumerate(chain) if s is home) + 1]
        if not any(root is c for c in consumers):
            consumers.append(root)
    start = min(_position(home, c) for c in consumers)
    roots = [s for s in home.stmts[:start] if name in written_buffers(s)]
    if not roots:
        raise ScheduleError(
            f"{subject}: the stage does not come before all of the loops", hint="name loops of consumers that come after it"
        )
    return roots, consumers


def _position(block: Block, s: Stmt) -> int:
    return next(n for n, t in enumerate(block.stmts) if t is s)


def _check_inputs(stage: Stage, home: Block, roots: list[Stmt], consumers: list[Stmt], subject: str) -> None:
    """Nothing the stage reads may change, and nobody may use the buffer, between the old and the new place."""
    start = _position(home, roots[0])
    end = max(_position(home, c) for c in consumers)
    inputs: set[str] = set()
    for s in home.stmts[start : end + 1]:
        if any(s is r for r in roots):
            inputs |= read_buffers(s) - {stage.buffer.name}
            continue
        changed = sorted(inputs & written_buffers(s))
        if changed:
            raise ScheduleError(
                f"{subject}: the stage reads {changed[0]}, which '{_headline(s)}' writes before the stage would run",
                location=getattr(s, "loc", None),
            )
        is_consumer = any(s is c for c in consumers)
        if not is_consumer and stage.buffer.name in read_buffers(s) | written_buffers(s):
            raise ScheduleError(
                f"{subject}: '{_headline(s)}' uses {stage.buffer.name} before or between the loops",
                hint="list the loops of all consumers, or inline the stage",
            )


def _headline(s: Stmt | Expr) -> str:
    return str(s).strip().splitlines()[0].strip()


def _needed(kernel: Kernel, target: Place, buffer: Buffer, subject: str) -> Box:
    f = target.node
    assert isinstance(f, For)
    if any(g.kind is LoopKind.VECTOR for g in (*target.loops, f)):
        raise ScheduleError(f"{subject}: a loop nest cannot run inside the vector loop", hint="name a loop around it", location=f.loc)
    with scope_at(kernel, target) as scope:
        box = box_of(scope, f.body.stmts, buffer)
        if box is None:
            raise ScheduleError(f"{subject}: loop {f.name} does not use {buffer.name}", location=f.loc)
        return clipped(scope, box, buffer.shape)


def _check_uses(consumers: list[Stmt], placed: list[_Target], name: str, subject: str) -> None:
    """Inside the consumers, the buffer may be used in the bodies of the loops only."""
    bodies = {id(t.loop.body) for t in placed}

    def visit(s: Stmt) -> Stmt | None:
        if id(s) in bodies:
            return None
        inside = substmts(s)
        if not inside and name in read_buffers(s) | written_buffers(s):
            return s
        return next((bad for c in inside if (bad := visit(c)) is not None), None)

    for c in consumers:
        if (bad := visit(c)) is not None:
            raise ScheduleError(
                f"{subject}: '{_headline(bad)}' uses {name} outside the loop",
                hint="list every loop that uses it, or an outer loop",
                location=getattr(bad, "loc", None),
            )


def _is_private(home: Block, consumers: list[Stmt], roots: list[Stmt], name: str) -> bool:
    """Whether the buffer is declared in the block and used by the stage and the consumers only."""
    declared = any(isinstance(s, Alloc) and s.buffer.name == name for s in home.stmts)
    known = [*roots, *consumers]
    others = (s for s in home.stmts if not any(s is k for k in known))
    return declared and not any(name in read_buffers(s) | written_buffers(s) for s in others)


def _check_coverage(
    stage: Stage, placed: list[_Target], home: Block, consumers: list[Stmt], private: bool, shrunk: bool, subject: str
) -> None:
    """Where the buffer outlives the consumers every element must be computed; where values change, exactly once."""
    name = stage.buffer.name
    in_place = any(name in written_buffers(c) for c in consumers)
    concurrent = any(g.kind in (LoopKind.PARALLEL, LoopKind.BIND) for t in placed for g in (*t.place.loops, t.loop))
    # A tile of its own starts anew in every iteration: only what the consumer changed in it could be missed by another.
    once = in_place or (not shrunk and (concurrent or not stage.starts_anew))
    if not once and private:
        return
    regions = Coverage(stage, [(t.place, t.box) for t in placed], home, subject)
    missing = None if private else regions.missing()
    if missing is not None:
        raise ScheduleError(
            f"{subject}: element {name}{f'[{missing}]' if missing else ''} is computed by the stage but needed by no iteration of the loop",
            hint=f"{name} is used elsewhere: the consumer must cover all of it",
        )
    if once and (twice := regions.repeated()) is not None:
        raise ScheduleError(
            f"{subject}: iterations {twice} of the loop need the same element of {name}, which may only be computed once",
            hint="choose an outer loop, whose iterations need disjoint regions",
        )


def _loops_of(s: Stmt) -> list[For]:
    return [t for t in walk(s) if isinstance(t, For)]


def _rewrite(kernel: Kernel, stage: Stage, placed: list[_Target], shrunk: bool) -> tuple[Kernel, tuple[str, ...]]:
    taken = names(kernel)
    out = kernel
    results: list[str] = []
    for n, t in enumerate(placed):
        # earlier copies rebuilt the tree around this loop, not the loop itself
        place = place_of(out, partial(is_, t.loop))
        if place is None:
            raise ScheduleError(
                f"compute_at {stage.buffer.name}: the loops {', '.join(x.loop.name for x in placed)} must not contain each other"
            )
        with scope_at(out, place) as scope:
            moved = Block(tuple(restricted(scope, nest, t.box) for nest in stage.nests))
            if n:
                moved = copied(moved, taken)  # type: ignore[assignment]
            results += [outer.name for s in moved.stmts for outer in _loops_of(s)[:1]]
            body = Block((*moved.stmts, *t.loop.body.stmts))
            if shrunk:
                body = _shrunk(scope, stage.buffer, t.box, body, taken if n else None)
            body = scope.block(body, frozenset(f.name for f in _loops_of(body)))
        out = replace_stmt(out, t.loop, For(t.loop.var, t.loop.lo, t.loop.hi, body, t.loop.kind, t.loop.step, t.loop.unit, t.loop.loc))
    for r in stage.roots:
        out = replace_stmt(out, r)
    if shrunk:
        old = place_of(out, lambda s: isinstance(s, Alloc) and s.buffer == stage.buffer)
        if old is not None:
            out = replace_stmt(out, old.node)
    return out, tuple(results)


def _shrunk(scope: Simplifier, buffer: Buffer, box: Box, body: Block, taken: set[str] | None) -> Block:
    """``body`` on a buffer of its own that holds just the box."""
    shape, origin = tile_of(scope, box, buffer.shape)
    new = buffer.with_(shape=shape, name=fresh(taken, buffer.name) if taken is not None else buffer.name)
    moved = redirect(body, buffer.name, new, origin)
    return Block((Alloc(new), *(moved.stmts if isinstance(moved, Block) else (moved,))))
