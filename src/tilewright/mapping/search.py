"""Enumeration of mapping spaces: every valid mapping, or the published subset of AMOS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, permutations, product
from math import gcd

from tilewright.hw.instruction import Instruction
from tilewright.ir.stmt import Kernel
from tilewright.mapping import validity
from tilewright.mapping.arithmetic import Binding, Ranges, bindings, operation_problem, type_problems
from tilewright.mapping.mapping import Mapping, known_ranges
from tilewright.mapping.operator import Operand, Operator, operator_of
from tilewright.mapping.target import Target, target_of, variants
from tilewright.mapping.validity import Groups
from tilewright.util.errors import MappingError

SPACES = ("complete", "amos")


def find_mappings(
    op: Operator | Kernel,
    instr: Instruction | Kernel | Target,
    space: str = "complete",
    *,
    orders: str = "auto",
    permuted: bool = False,
    ranges: Ranges | None = None,
) -> list[Mapping]:
    """All mappings of ``op`` onto ``instr`` in the given space; [] if there is none.

    ``space="complete"`` holds every mapping that passes the exact test, ``"amos"`` the published
    enumeration (elementary matches and their unions). The complete space also sees axes that always
    move together as one (``k_l<-c*r*s``). An axis that no iteration could ride on is
    left at one trip. ``orders``: operand orders to try for commutative arithmetic: "declared",
    "all", or "auto", which is the declared order unless another one leaves fewer axes empty.
    ``permuted`` also lists every order of fusion inside an axis. ``ranges`` are proven value bounds
    by operand name, for instructions that are exact only on a range. Operands whose types the
    instruction cannot hold give no mapping; :func:`explain` says so.
    """
    for name, value, known in (("space", space, SPACES), ("orders", orders, ("auto", "declared", "all"))):
        if value not in known:
            raise MappingError(f"{name}={value!r} is unknown", hint=f"use one of: {', '.join(known)}")
    operator = operator_of(op) if isinstance(op, Kernel) else op
    target = target_of(instr)
    if operation_problem(operator, target):
        return []
    found = [m for t in (variants(target) if space == "complete" else (target,)) for m in _onto(operator, t, space, orders, ranges or {})]
    return [replace(m, groups=g) for m in found for g in product(*map(permutations, m.groups))] if permuted else found


def _onto(op: Operator, target: Target, space: str, orders: str, ranges: Ranges) -> list[Mapping]:
    """The mappings onto one view of an instruction, over the operand orders that are asked for."""
    enumerate_groups = _complete if space == "complete" else _published
    best: list[Mapping] = []
    for binding in bindings(op):
        if next(type_problems(op, target, binding, ranges), None) is None:
            found = [Mapping(op, target, g, binding, known_ranges(ranges)) for g in enumerate_groups(op, target.view, binding)]
            if orders == "all":
                best += found
            elif _filled(found) > _filled(best):
                best = found
        if orders == "declared" or (orders == "auto" and _filled(best) == len(target.axes)):
            break
    return best


def _filled(found: Sequence[Mapping]) -> int:
    """Axes that take an iteration (the same ones in every mapping of one operand order)."""
    return sum(map(bool, found[0].groups)) if found else 0


def _allowed(op: Operator, view: Operator, binding: Binding) -> list[list[int]]:
    return [[u for u in range(len(op.iterations)) if validity.fits_alone(op, view, binding, u, t)] for t in range(len(view.iterations))]


def _subsets(items: Sequence[int]) -> list[tuple[int, ...]]:
    """Non-empty subsets in order of size; the empty one only where there is nothing to choose."""
    return [s for n in range(1, len(items) + 1) for s in combinations(items, n)] or [()]


def _disjoint(allowed: Sequence[Sequence[int]]) -> Iterator[Groups]:
    """One group for each axis, no iteration twice, at least one iteration in all."""
    choices = [[(s, sum(1 << u for u in s)) for s in _subsets(a)] for a in allowed]

    def extend(t: int, taken: int, chosen: Groups) -> Iterator[Groups]:
        if t == len(choices):
            if taken:
                yield chosen
            return
        for group, mask in choices[t]:
            if not taken & mask:
                yield from extend(t + 1, taken | mask, (*chosen, group))

    return extend(0, 0, ())


def _complete(op: Operator, view: Operator, binding: Binding) -> Iterator[Groups]:
    allowed = _allowed(op, view, binding)
    if validity.always_valid(op, view, allowed):
        yield from _disjoint(allowed)
        return
    for groups in _disjoint(allowed):
        if next(validity.violations(op, view, groups, binding), None) is None:
            yield groups


# --- the published space ----------------------------------------------------------------------


def _published(op: Operator, view: Operator, binding: Binding) -> Iterator[Groups]:
    """Unions of elementary matches, then the boolean test (AMOS sections 5.1 and 5.2)."""
    allowed = _allowed(op, view, binding)
    choices: list[Sequence[int | None]] = [a or [None] for a in allowed]
    matches = [c for c in product(*choices) if _is_elementary(op, view, binding, c)]
    masks = [(tuple(0 if u is None else 1 << u for u in m), sum(1 << u for u in m if u is not None)) for m in matches]
    for groups in _disjoint(allowed):
        sets = [sum(1 << u for u in g) for g in groups]
        covered = 0
        for per_axis, union in masks:
            if all(bit & ~s == 0 for bit, s in zip(per_axis, sets, strict=True)):
                covered |= union
        if covered == sum(sets) and validity.boolean_test(op, view, groups, binding):
            yield groups


def _is_elementary(op: Operator, view: Operator, binding: Binding, chosen: tuple[int | None, ...]) -> bool:
    """One iteration for each axis, all others at their lower bound: do the operands' indices agree?"""
    columns = [u for u in chosen if u is not None]
    if not columns or len(set(columns)) != len(columns):
        return False
    return all(
        _directions(soft, columns) == _directions(hard, [t for t, u in enumerate(chosen) if u is not None])
        for soft, hard in validity.pairs(op, view, binding)
    )


def _directions(operand: Operand, columns: Sequence[int]) -> list[tuple[int, ...]]:
    """The indices that move with ``columns``, up to a constant factor, in no particular order."""
    moving = (tuple(row[c] for c in columns) for row in operand.rows)
    return sorted(_normalised(r) for r in moving if any(r))


def _normalised(row: tuple[int, ...]) -> tuple[int, ...]:
    scale = gcd(*row)
    first = next(x for x in row if x)
    return tuple(x // (scale if first > 0 else -scale) for x in row)
