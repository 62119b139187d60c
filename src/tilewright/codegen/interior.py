"""Loops around guarded values, divided where the guards change: the interior of an image is copied without asking for its border.

``pad[i, j] = where(i >= 1 and i < 57 and j >= 1 and j < 57, x[i - 1, j - 1], 0)`` asks four questions for each element. Those
about ``j`` have one answer in each of three parts of its loop, those about ``i`` one for a whole row: the loop over ``j`` becomes
a loop for each part, inside a condition on the row. What is left in the interior is a plain copy, which moves whole vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Compare, Expr, Load, Where
from tilewright.ir.stmt import Block, For, If, Kernel, LoopKind, Stmt, Store, names
from tilewright.schedule.nest import constant, copied

#: Parts of a loop at most: before, interior, behind.
MOST_PARTS = 3

#: Iterations of a loop whose guards are asked one by one, at most.
LONGEST = 1 << 20


def divided(kernel: Kernel) -> Kernel:
    """``kernel`` with the innermost serial loops on which guards of plain stores depend divided; the same values are stored."""
    taken = names(kernel)

    def loop(s: Stmt) -> Stmt | tuple[Stmt, ...] | None:
        return _parts(s, taken) if isinstance(s, For) else None

    body = st.map_stmts(kernel.body, loop)
    return kernel if body is kernel.body or not isinstance(body, Block) else kernel.with_(body=body)


def _parts(f: For, taken: set[str]) -> tuple[Stmt, ...] | None:
    """What takes the place of loop ``f``; None where it is left alone."""
    lo, hi = constant(f.lo), constant(f.hi)
    if f.kind is not LoopKind.SERIAL or f.step != 1 or lo is None or hi is None or not _is_plain(f.body):
        return None
    guards = [w.cond for w in _wheres(f.body)]
    inside = {g.name for g in st.loops(f.body)}
    own = list(dict.fromkeys(c for g in guards for c in ex.conjuncts(g) if ex.free_vars(c) == {f.name}))
    if not own or not MOST_PARTS < hi - lo <= LONGEST or len(cuts := _cuts(own, f.name, lo, hi)) > MOST_PARTS:
        return None
    rows = [tuple(c for c in ex.conjuncts(g) if not ex.free_vars(c) & {f.name, *inside} and not _reads(c)) for g in guards]
    whole = rows[0] if all(set(r) == set(rows[0]) for r in rows) else ()
    parts = []
    for start, end in zip(cuts, [*cuts[1:], hi], strict=True):
        known = {c: bool(ex.evaluate(c, {f.name: start})) for c in own} | dict.fromkeys(whole, True)
        parts.append(_part(f, start, end, known, taken))
    if not whole:
        return tuple(parts)
    outside = _part(f, lo, hi, dict.fromkeys(whole, False), taken)
    return (If(reduce(lambda a, b: ex.logical("and", a, b), whole), Block(tuple(parts)), Block((outside,))),)


def _is_plain(b: Block) -> bool:
    """Whether the block only stores values, in loops or not: parts of it can be written out again and again."""
    return all(_is_plain(s.body) if isinstance(s, For) else isinstance(s, Store) and s.op is None for s in b.stmts)


def _wheres(b: Block) -> Iterator[Where]:
    for s in st.walk(b):
        if isinstance(s, Store):
            yield from (e for e in ex.walk(s.value) if isinstance(e, Where))


def _reads(e: Expr) -> bool:
    return any(isinstance(n, Load) for n in ex.walk(e))


def _cuts(conditions: Sequence[Expr], name: str, lo: int, hi: int) -> list[int]:
    """Where parts of ``range(lo, hi)`` begin in each of which every condition on ``name`` has one answer."""
    at = np.arange(lo, hi)
    changes: set[int] = set()
    for c in conditions:
        if not isinstance(c, Compare) or _reads(c):
            return list(range(lo, hi))  # not looked into
        answers = np.broadcast_to(np.asarray(ex.evaluate(c, {name: at}), bool), at.shape)
        changes |= {int(n) + lo + 1 for n in np.flatnonzero(answers[1:] != answers[:-1])}
    return [lo, *sorted(changes)]


def _part(f: For, start: int, end: int, known: dict[Expr, bool], taken: set[str]) -> For:
    """A copy of the loop over a part of its range, in which the answers to some conditions are ``known``."""

    def chosen(e: Expr) -> Expr | None:
        if not isinstance(e, Where):
            return None
        left = [c for c in ex.conjuncts(e.cond) if known.get(c) is not True]
        if any(known.get(c) is False for c in left):
            return e.b
        return replace(e, cond=reduce(lambda a, b: ex.logical("and", a, b), left)) if left else e.a

    # Conditions are recognised before the copy gives the loop a name of its own.
    body = st.map_exprs(f.body, lambda e: ex.transform(e, chosen))
    assert isinstance(body, Block)  # a block maps to a block
    (part,) = copied(Block((replace(f, lo=ex.idx(start), hi=ex.idx(end), body=body),)), taken).stmts
    assert isinstance(part, For)  # a copy of a loop is a loop
    return part
