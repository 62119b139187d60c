"""How the values of a block program are used: how often, and which arguments are written."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.lang.block.ir import Function, Op, Value


def weighted_uses(function: Function) -> dict[Value, int]:
    """Uses of each value; one in a deeper loop than the definition counts as two."""
    uses: dict[Value, int] = {}
    depth: dict[Value, int] = {}

    def visit(ops: Sequence[Op], level: int) -> None:
        for op in ops:
            for o in op.operands:
                uses[o] = uses.get(o, 0) + (2 if depth.get(o, 0) < level and o in depth else 1)
            if op.result is not None:
                depth[op.result] = level
                uses.setdefault(op.result, 0)
            if op.region is not None:
                for a in op.region.arguments:
                    depth[a] = level + 1
                visit(op.region.ops, level + 1)
                for y in op.region.yields:
                    uses[y] = uses.get(y, 0) + 1
                for r in op.region.results:
                    depth[r] = level

    visit(function.ops, 0)
    return uses


def stored_arguments(function: Function) -> set[str]:
    """Names of the arguments that stores write."""
    base: dict[Value, str] = {a: a.name for a in function.arguments}

    def follow(ops: Sequence[Op]) -> set[str]:
        found: set[str] = set()
        for op in ops:
            if op.region is not None:
                for a, init in zip(op.region.arguments, op.operands[2:], strict=True):
                    if init in base:
                        base[a] = base[init]
                for r, init in zip(op.region.results, op.operands[2:], strict=True):
                    if init in base:
                        base[r] = base[init]
                found |= follow(op.region.ops)
            elif op.name == "store":
                found.add(base[op.operands[0]])
            elif op.result is not None and op.result.type.is_pointer:
                base[op.result] = base[op.operands[0]]
        return found

    return follow(function.ops)
