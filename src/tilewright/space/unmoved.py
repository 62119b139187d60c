"""Nests between main memory and memories that a program fills itself which no declared transfer can do."""

from __future__ import annotations

from contextlib import ExitStack

from tilewright.hw import Machine
from tilewright.hw.memory import MAIN, SCRATCHPAD
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.simplify import Simplifier, scope_of
from tilewright.ir.stmt import For, Kernel, Span, Stmt
from tilewright.schedule.guards import started
from tilewright.schedule.moves import Move, moves
from tilewright.schedule.unify import Chain, chain_of


def unmoved(machine: Machine, kernel: Kernel, *, inwards: bool = False, into: str | None = None) -> list[tuple[Stmt, str]]:
    """Nests that bring results out of such memories without a transfer, and why.

    With ``inwards`` also those that fill them, or, of these, those that set the array ``into`` from what other arrays hold.
    """
    found: list[tuple[Stmt, str]] = []

    def kind(memory: str) -> str:
        return machine.memory(memory).kind

    def visit(s: Stmt, scope: Simplifier, before: Chain | None = None) -> None:
        nest = chain_of(s)
        if nest is not None:
            nest = started(before, nest) or nest
            held = any(kind(ld.buffer.memory) == SCRATCHPAD for ld in ex.loads(nest.store.value))
            out = kind(nest.store.buffer.memory) == MAIN and held
            fills = nest.store.buffer.name == into and nest.store.op is None and any(ld.buffer.rank for ld in ex.loads(nest.store.value))
            if out or fills or (inwards and (held or kind(nest.store.buffer.memory) == SCRATCHPAD)):
                ways, why = moves(scope, machine, nest)
                if not any(_in_lines(machine, scope, w) for w in ways):
                    found.append((s, f"{ways[0].instruction.name}: its windows would not start at lines" if ways else why))
        elif isinstance(s, For):
            with scope.inside(s):
                visit(s.body, scope)
        else:
            inside = st.substmts(s)
            for n, t in enumerate(inside):
                visit(t, scope, chain_of(inside[n - 1]) if n and isinstance(s, st.Block) else None)

    visit(kernel.body, scope_of(kernel))
    return found


def _in_lines(machine: Machine, scope: Simplifier, move: Move) -> bool:
    """Whether the rows of each window in a memory that the program fills start at a line of it."""
    with ExitStack() as stack:
        for f in move.loops:
            stack.enter_context(scope.inside(f))
        for w in move.windows.values():
            memory, b = machine.memory(w.buffer.memory), w.buffer
            if memory.kind != SCRATCHPAD or not b.rank:
                continue
            at, row = w.indices[b.layout.dims[-1][0] if b.layout else -1], b.physical_shape()[-1]
            start = at.lo if isinstance(at, Span) else at
            line = max(memory.line // b.dtype.nbytes, 1)
            line = min(line, int(row.value)) if isinstance(row, ex.Const) else line
            if scope.expr(start % line) != ex.idx(0):
                return False
    return True
