"""Violations in words: which operand, which slot, which iterations are to blame."""

from __future__ import annotations

from tilewright.mapping.operator import Operand, Operator
from tilewright.mapping.target import Target
from tilewright.mapping.validity import Groups, Violation, fused_strides


def violation_text(op: Operator, target: Target, groups: Groups, v: Violation) -> str:
    """One sentence that names the operand, the slot or the element, and the iterations that collide."""
    low = tuple(max(-d, 0) for d in v.difference)
    high = tuple(max(d, 0) for d in v.difference)
    moved = [op.names[u] for u, d in enumerate(v.difference) if d]
    if v.split:
        slot = _slot(op, target, groups, v.hardware, high)
        return f"{v.software.name} would need two elements in slot ({slot}): {_blame(op, target, groups, v, moved)}"
    first, second = (_slot(op, target, groups, v.hardware, p) for p in (low, high))
    element = f"{v.software.expr} at {_point(op, high)}"
    if first == second:  # an iteration of extent 1: no second point exists to show
        return f"{v.software.name} does not move with {', '.join(moved)}, slot ({first}) does"
    return f"slots ({first}) and ({second}) would both hold {element}: {' and '.join(moved)} share an index of {v.software.name}"


def _blame(op: Operator, target: Target, groups: Groups, v: Violation, moved: list[str]) -> str:
    axes = [t for t, g in zip(target.axes, groups, strict=True) if any(op.names[u] in moved for u in g)]
    if len(moved) > 1:
        return f"{' and '.join(moved)} share a row of {v.hardware.expr}"
    return f"{moved[0]} moves {v.software.name}, but {v.hardware.expr} has no index {axes[0]}"


def _slot(op: Operator, target: Target, groups: Groups, hardware: Operand, point: tuple[int, ...]) -> str:
    """The instruction point of the iteration point ``point``, in the axes the operand is indexed with."""
    parts = []
    for t, (axis, g) in enumerate(zip(target.axes, groups, strict=True)):
        if hardware.uses(t):
            strides = fused_strides(op.extents, g)
            parts.append(f"{axis}={sum(s * p for s, p in zip(strides, point, strict=True))}")
    return ", ".join(parts)


def _point(op: Operator, point: tuple[int, ...]) -> str:
    return ", ".join(f"{n}={p}" for n, p in zip(op.names, point, strict=True) if p) or "the origin"
