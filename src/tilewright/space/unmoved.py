"""Nests between main memory and memories that a program fills itself which no declared transfer can do."""

from __future__ import annotations

from tilewright.hw import Machine
from tilewright.hw.memory import MAIN, SCRATCHPAD
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.simplify import Simplifier, scope_of
from tilewright.ir.stmt import For, Kernel, Stmt
from tilewright.schedule.guards import started
from tilewright.schedule.moves import moves
from tilewright.schedule.unify import Chain, chain_of


def unmoved(machine: Machine, kernel: Kernel, *, inwards: bool = False) -> list[tuple[Stmt, str]]:
    """Nests that bring results out of such memories (with ``inwards`` also those that fill them) without a transfer, and why."""
    found: list[tuple[Stmt, str]] = []

    def kind(memory: str) -> str:
        return machine.memory(memory).kind

    def visit(s: Stmt, scope: Simplifier, before: Chain | None = None) -> None:
        nest = chain_of(s)
        if nest is not None:
            nest = started(before, nest) or nest
            held = any(kind(ld.buffer.memory) == SCRATCHPAD for ld in ex.loads(nest.store.value))
            out = kind(nest.store.buffer.memory) == MAIN and held
            if out or (inwards and (held or kind(nest.store.buffer.memory) == SCRATCHPAD)):
                ways, why = moves(scope, machine, nest)
                found.extend([] if ways else [(s, why)])
        elif isinstance(s, For):
            with scope.inside(s):
                visit(s.body, scope)
        else:
            inside = st.substmts(s)
            for n, t in enumerate(inside):
                visit(t, scope, chain_of(inside[n - 1]) if n and isinstance(s, st.Block) else None)

    visit(kernel.body, scope_of(kernel))
    return found
