"""Kernels of several contractions as several kernels: each contraction with its start and what reads it, the rest in between.

An accelerator's program does one contraction well. Where a kernel has more (attention, several products in one launch), its
nests are brought into groups, and arrays that pass from one group to another become arguments.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.stmt import Alloc, Kernel, Stmt
from tilewright.space.stages import Stage, stages


@dataclass(frozen=True, slots=True)
class Separated:
    """``kernels`` to run in order; ``temporaries`` are arguments of theirs that the kernel they are made from allocates."""

    kernels: tuple[Kernel, ...]
    temporaries: tuple[Buffer, ...]


def separated(kernel: Kernel, alone: Set[str] = frozenset()) -> Separated:
    """``kernel`` as several that together do the same; itself when it has at most one contraction and nothing has to stand alone.

    ``alone`` names results of contractions whose reader stays a kernel of its own.
    """
    nests = stages(kernel)
    groups = _grouped(nests, _locals(kernel), alone)
    if len(groups) < 2:
        return Separated((kernel,), ())
    used = [set().union(*(st.read_buffers(s) | st.written_buffers(s) for s in g)) for g in groups]
    shared = {n: b for n, b in _locals(kernel).items() if sum(n in u for u in used) > 1}
    made = []
    for number, (group, names) in enumerate(zip(groups, used, strict=True), 1):
        own = [Alloc(b) for n, b in _locals(kernel).items() if n in names and n not in shared]
        args = [b for b in (*kernel.args, *shared.values()) if b.name in names]
        made.append(kernel.with_(name=f"{kernel.name}_{number}", args=tuple(args), body=st.block(*own, *group)))
    return Separated(tuple(made), tuple(shared.values()))


def contractions(kernel: Kernel) -> list[str]:
    """Results of the nests that sum products, in order."""
    return [s.output.name for s in stages(kernel) if _contracts(s)]


def _locals(kernel: Kernel) -> dict[str, Buffer]:
    return {s.buffer.name: s.buffer for s in kernel.body.stmts if isinstance(s, Alloc)}


def _contracts(s: Stage) -> bool:
    return s.is_reduction and s.factors() is not None


def _grouped(nests: list[Stage], local: dict[str, Buffer], alone: Set[str]) -> list[list[Stmt]]:
    """The nests in an order that means the same, in groups; neighbours without a contraction stay together."""
    around: dict[int, list[int]] = {}
    for n, s in enumerate(nests):
        if _contracts(s):
            taken = {m for group in around.values() for m in group}
            start = _start(nests, n)
            reader = None if s.output.name in alone or s.output.name not in local else _reader(nests, n)
            around[n] = [m for m in (start, n, reader) if m is not None and m not in taken]
    moved = {m for n, group in around.items() for m in group if m != n}
    out: list[list[Stmt]] = []
    joins = False
    for n, s in enumerate(nests):
        if n in around:
            out.append([nests[m].root for m in around[n]])
            joins = False
        elif n not in moved:
            if joins:
                out[-1].append(s.root)
            else:
                out.append([s.root])
            joins = True
    return out


def _start(nests: list[Stage], at: int) -> int | None:
    """The nest that sets the sums at ``at`` to their start, when nothing in between touches them."""
    name = nests[at].output.name
    before = [n for n in range(at) if name in _touched(nests[n])]
    return before[-1] if before and nests[before[-1]].is_init else None


def _reader(nests: list[Stage], at: int) -> int | None:
    """The only nest that reads the sums at ``at``, when it is element-wise and may run right after them."""
    name = nests[at].output.name
    after = [n for n in range(at + 1, len(nests)) if name in _touched(nests[n])]
    if len(after) != 1:
        return None
    reader = nests[after[0]]
    if reader.store is None or reader.store.op is not None or name in st.written_buffers(reader.root):
        return None
    written = st.written_buffers(reader.root)
    between = nests[at + 1 : after[0]]
    conflicts = any(st.written_buffers(s.root) & _touched(reader) or st.read_buffers(s.root) & written for s in between)
    return None if conflicts else after[0]


def _touched(s: Stage) -> set[str]:
    return st.read_buffers(s.root) | st.written_buffers(s.root)
