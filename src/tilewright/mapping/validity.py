"""When is a mapping right? The exact test, and the published boolean test.

A mapping fuses iterations into the instruction's axes: f_t = sum of s_u * stride_tu, so an
instruction address is affine in the software iterations too. Exact validity: over the box of
mapped iterations, the address fixes the element of every operand, and the output's element fixes
its address (else two partial results would have one home, or one result two).

The boolean test of AMOS (ISCA 2022, section 5.2) compares access matrices:
X operand x software iteration, Y axis x software iteration, Z operand x axis; Z.Y == X and
X.Y^T == Z over OR-AND. It cannot see inside compound indices such as ``x[q + s]``, and it refuses
operands that would be copied along an axis they do not depend on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from tilewright.mapping.arithmetic import Binding
from tilewright.mapping.lattice import Row, counterexample
from tilewright.mapping.operator import Operand, Operator

#: For each instruction axis the columns of the operator's iterations fused into it, slowest first.
Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Violation:
    """Two iteration points, ``difference`` apart, that break the bijection of one operand.

    ``split`` True: one slot, two elements of the operand. False: one element, two slots (outputs).
    """

    software: Operand
    hardware: Operand
    split: bool
    difference: tuple[int, ...]


def fused_strides(extents: Sequence[int], group: Sequence[int]) -> Row:
    """Weight of every iteration in the fused index of ``group`` (0 for iterations outside it)."""
    row = [0] * len(extents)
    stride = 1
    for u in reversed(group):
        row[u] = stride
        stride *= extents[u]
    return tuple(row)


def addresses(op: Operator, hardware: Operand, groups: Groups) -> tuple[Row, ...]:
    """The instruction operand's address, one row for each of its indices, in the operator's iterations."""
    fused = [fused_strides(op.extents, g) for g in groups]
    columns = range(len(op.iterations))
    return tuple(tuple(sum(z * f[u] for z, f in zip(row, fused, strict=True)) for u in columns) for row in hardware.rows)


def pairs(op: Operator, view: Operator, binding: Binding) -> list[tuple[Operand, Operand]]:
    """(software operand, instruction operand), the output first."""
    return [(op.output, view.output), *((op.sources[b], slot) for b, slot in zip(binding, view.sources, strict=True))]


def fits_alone(op: Operator, view: Operator, binding: Binding, u: int, t: int) -> bool:
    """Whether iteration ``u`` alone may ride on axis ``t``: necessary for every mapping that puts it there."""
    if op.iterations[u].kind != view.iterations[t].kind:
        return False
    return all(hard.uses(t) or not soft.uses(u) for soft, hard in pairs(op, view, binding))


def violations(op: Operator, view: Operator, groups: Groups, binding: Binding) -> Iterator[Violation]:
    """Everything that makes the candidate wrong, with witnesses; nothing for a valid mapping. Exact.

    Iterations of extent 1 are held to the rules of longer ones: where they are put must not
    depend on an extent that happens to be 1.
    """
    used = {u for g in groups for u in g}
    extents = tuple(e if u in used else 1 for u, e in enumerate(op.extents))
    for soft, hard in pairs(op, view, binding):
        address = addresses(op, hard, groups)
        if (d := counterexample(address, soft.rows, extents)) is not None:
            yield Violation(soft, hard, True, d)
        if hard is view.output and (d := counterexample(soft.rows, address, extents)) is not None:
            yield Violation(soft, hard, False, d)
        for t, group in enumerate(groups):
            for u in group:
                if op.extents[u] == 1 and soft.uses(u) and not hard.uses(t):
                    yield Violation(soft, hard, True, tuple(int(v == u) for v in range(len(extents))))


def always_valid(op: Operator, view: Operator, allowed: Sequence[Sequence[int]]) -> bool:
    """Whether every choice of disjoint groups from ``allowed`` passes the exact test.

    True when each instruction index is one axis and the output's element fixes each spatial
    iteration: then validity splits into the conditions on single iterations that ``allowed``
    already meets. (For conv2d, and nearly everything else, this decides the whole space at once.)
    """
    if any(sum(map(bool, row)) != 1 for o in view.operands for row in o.rows):
        return False
    columns = {u for group, axis in zip(allowed, view.iterations, strict=True) if axis.kind == "spatial" for u in group}
    n = len(op.iterations)
    wanted = tuple(tuple(int(v == u) for v in range(n)) for u in sorted(columns))
    return counterexample(op.output.rows, wanted, tuple(e if u in columns else 1 for u, e in enumerate(op.extents))) is None


# --- the published test -----------------------------------------------------------------------


def matrices(op: Operator, view: Operator, groups: Groups, binding: Binding) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boolean X [operands, mapped iterations], Y [axes, mapped iterations], Z [operands, axes].

    Operands are the output and then the instruction's sources; unmapped iterations have no column
    and axes that take no iteration no row, as published.
    """
    mapped = [u for u in range(len(op.iterations)) if any(u in g for g in groups)]
    axes = [t for t, g in enumerate(groups) if g]
    both = pairs(op, view, binding)
    x = np.array([[soft.uses(u) for u in mapped] for soft, _ in both], dtype=bool).reshape(len(both), len(mapped))
    y = np.array([[u in groups[t] for u in mapped] for t in axes], dtype=bool).reshape(len(axes), len(mapped))
    z = np.array([[hard.uses(t) for t in axes] for _, hard in both], dtype=bool).reshape(len(both), len(axes))
    return x, y, z


def boolean_test(op: Operator, view: Operator, groups: Groups, binding: Binding) -> bool:
    """AMOS algorithm 1: ``Z.Y == X and X.Y^T == Z`` over OR-AND."""
    x, y, z = matrices(op, view, groups, binding)
    return bool(np.array_equal(z @ y, x) and np.array_equal(x @ y.T, z))


def fused_extents(op: Operator, groups: Groups) -> tuple[int, ...]:
    """Iterations of each instruction axis in all (1 for an axis that takes none)."""
    return tuple(prod(op.extents[u] for u in g) for g in groups)
