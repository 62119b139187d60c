"""Finding and replacing loops in a kernel, and the fresh names that rewrites need."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Const, Expr, Var
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import (
    Alloc,
    Block,
    For,
    If,
    Kernel,
    LoopKind,
    Stmt,
    While,
    allocated,
    loops,
    map_stmts,
    replace_buffers,
    substitute,
    substmts,
    walk,
)
from tilewright.util.errors import ScheduleError

#: Words that mean something else in the kernel language.
RESERVED = frozenset({*keyword.kwlist, *ex.INTRINSICS, *(k.value for k in LoopKind), "alloc", "min", "max", "where", "kernel"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a statement stands: its ancestors from the kernel body inwards (blocks included)."""

    ancestors: tuple[Stmt, ...]
    node: Stmt

    @property
    def loops(self) -> tuple[For, ...]:
        """Enclosing loops, outer first."""
        return tuple(a for a in self.ancestors if isinstance(a, For))

    @property
    def block(self) -> Block:
        """The block that holds the statement."""
        last = self.ancestors[-1]
        if not isinstance(last, Block):
            raise ScheduleError("the kernel body itself stands in no block")
        return last


def place_of(kernel: Kernel, matches: Callable[[Stmt], bool]) -> Place | None:
    """The first statement in program order that ``matches``, with its ancestors."""

    def search(s: Stmt, above: tuple[Stmt, ...]) -> Place | None:
        if matches(s):
            return Place(above, s)
        inside = (*above, s)
        for child in substmts(s):
            if (found := search(child, inside)) is not None:
                return found
        return None

    return search(kernel.body, ())


def get_loop(kernel: Kernel, name: str, primitive: str) -> For:
    """The loop called ``name``; ScheduleError in the name of ``primitive`` when there is none."""
    for f in loops(kernel):
        if f.name == name:
            return f
    raise ScheduleError(
        f"{primitive}: kernel {kernel.name} has no loop {name!r}", hint=f"loops: {', '.join(f.name for f in loops(kernel))}"
    )


def loop_place(kernel: Kernel, name: str, primitive: str) -> Place:
    """The place of the loop called ``name``; ScheduleError in the name of ``primitive`` when there is none."""
    found = place_of(kernel, lambda s: isinstance(s, For) and s.name == name)
    if found is None:
        get_loop(kernel, name, primitive)
        raise ScheduleError(f"{primitive}: no loop {name!r}")
    return found


def local_place(kernel: Kernel, buffer: str, subject: str) -> tuple[Place, Buffer]:
    """Where the local ``buffer`` is allocated, and it itself; ScheduleError, opening with ``subject``, when there is none."""
    found = place_of(kernel, lambda s: isinstance(s, Alloc) and s.buffer.name == buffer)
    if found is None or not isinstance(found.node, Alloc):
        local = ", ".join(b.name for b in allocated(kernel))
        raise ScheduleError(f"{subject}: kernel {kernel.name} has no local buffer {buffer!r}", hint=f"local buffers: {local or 'none'}")
    return found, found.node.buffer


def replace_stmt(kernel: Kernel, old: Stmt, *new: Stmt) -> Kernel:
    """``kernel`` with the statement ``old`` (this very node) replaced by ``new`` in its block."""

    def rewrite(s: Stmt) -> Stmt | None:
        children = substmts(s)
        if isinstance(s, Block):
            for n, child in enumerate(s.stmts):
                if child is old:
                    return Block((*s.stmts[:n], *new, *s.stmts[n + 1 :]))
        for child in children:
            if (changed := rewrite(child)) is not None:
                return _with_child(s, child, changed)
        return None

    body = rewrite(kernel.body)
    if not isinstance(body, Block):
        raise ScheduleError(f"kernel {kernel.name} does not contain the statement to replace")
    return kernel.with_(body=body)


def _with_child(s: Stmt, old: Stmt, new: Stmt) -> Stmt:
    match s:
        case Block():
            return Block(tuple(new if c is old else c for c in s.stmts))
        case If() if s.orelse is old:
            return replace(s, orelse=_block(new))
        case If():
            return replace(s, then=_block(new))
        case For() | While():
            return replace(s, body=_block(new))
    return s


def _block(s: Stmt) -> Block:
    return s if isinstance(s, Block) else Block((s,))


def fresh(taken: set[str], wanted: str) -> str:
    """``wanted``, or ``wanted_1``, ``wanted_2``, ... whichever is not taken; it is taken afterwards.

    Words of the kernel language (``is`` from skewing ``i``, ``if`` from fusing ``i`` and ``f``) count as taken.
    """
    name, n = wanted, 0
    while name in taken or name in RESERVED:
        n += 1
        name = f"{wanted}_{n}"
    taken.add(name)
    return name


def copied(b: Block, taken: set[str]) -> Block:
    """A copy of ``b`` whose loops and allocated buffers have fresh names (added to ``taken``)."""
    buffers = {t.buffer.name: t.buffer.with_(name=fresh(taken, t.buffer.name)) for t in walk(b) if isinstance(t, Alloc)}
    renamed = {f.name: Var(fresh(taken, f.name)) for f in loops(b)}

    def rename(t: Stmt) -> Stmt | None:
        return replace(t, var=renamed[t.name]) if isinstance(t, For) and t.name in renamed else None

    def copy(s: Stmt) -> Stmt:
        return map_stmts(substitute(replace_buffers(s, buffers) if buffers else s, renamed), rename)

    return Block(tuple(map(copy, b.stmts)))


def constant(e: Expr) -> int | None:
    """The value of a constant expression, else None."""
    return int(e.value) if isinstance(e, Const) else None


def trip_count(loop: For) -> int | None:
    """Number of iterations of a loop whose bounds differ by a constant, else None."""
    lo, hi = constant(loop.lo), constant(loop.hi)
    if lo is not None and hi is not None:
        return max(0, -(-(hi - lo) // loop.step))
    span = Simplifier({}).linear(loop.hi - loop.lo)
    return None if span.terms else max(0, -(-span.const // loop.step))


def substituted(b: Block, env: Mapping[str, Expr]) -> Block:
    """``b`` with free variables replaced by name."""
    return Block(tuple(substitute(s, env) for s in b.stmts))


def reads_in(*exprs: Expr) -> bool:
    """Whether any of the expressions reads memory."""
    return any(ex.loads(e) for e in exprs)


def range_text(loop: For) -> str:
    """The range of ``loop`` as the program prints it, for messages."""
    return str(loop).splitlines()[0].partition(" in ")[2].rstrip(":")
