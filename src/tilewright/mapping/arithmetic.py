"""Whether an instruction computes an operator's arithmetic: operation, operand order, types, ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations

from tilewright.ir.types import DType
from tilewright.mapping.operator import Operand, Operator, plain, widening
from tilewright.mapping.target import Target

#: Which source of the operator each source of the instruction takes.
Binding = tuple[int, ...]
#: Known bounds of an operand's values by the operand's name.
Ranges = Mapping[str, tuple[int, int]]


def operation_problem(op: Operator, target: Target) -> str | None:
    """Why the instruction's arithmetic is another one; None if it is the operator's."""
    want, have = (_operation(o) for o in (op, target.view))
    return None if want == have else f"{op.name} computes `{want}`, {target.name} computes `{have}`"


def _operation(o: Operator) -> str:
    value = f" {o.combine or ''} ".join(f"x{n}" for n in range(len(o.sources)))
    return f"out {o.reduce or ''}= {f'{o.narrowed}({value})' if o.narrowed else value}"


def bindings(op: Operator) -> Iterator[Binding]:
    """Operand orders: all, since sources are only joined by commutative arithmetic; the declared one first."""
    yield from permutations(range(len(op.sources)))


def type_problems(op: Operator, target: Target, binding: Binding, ranges: Ranges) -> Iterator[str]:
    """Operands whose values the instruction could not hold, one sentence each."""
    for source, slot in zip((op.sources[b] for b in binding), target.view.sources, strict=True):
        have, want = plain(source.expr).dtype, plain(slot.expr).dtype
        if not widening(have, want):
            yield f"{source.name} is {have}, operand {slot.name} of {target.name} holds {want}"
        yield from _range_problems(source, have, slot.name, target, ranges)
    if op.precision.is_float and not widening(op.precision, target.view.precision):
        yield f"{op.name} computes in {op.precision}, {target.name} in {target.view.precision}"
    have, want = op.output.dtype, target.view.output.dtype
    if not _accumulates(have, want):
        yield f"{op.output.name} accumulates in {have}, operand {target.view.output.name} of {target.name} in {want}"


def _accumulates(have: DType, want: DType) -> bool:
    """Sums formed in ``want`` and narrowed once equal sums narrowed at each step (floats: as exact or more)."""
    if have.is_float or want.is_float:
        return have == want or (have.is_float and want.is_float and widening(have, want))
    return have == want or (have.is_int and want.is_int and want.bits >= have.bits)


def _range_problems(source: Operand, have: DType, slot: str, target: Target, ranges: Ranges) -> Iterator[str]:
    for rule in target.declaration.value_ranges if target.declaration else ():
        if rule.operand != slot:
            continue
        lo, hi = ranges.get(source.name, have.range)
        if lo < rule.lo or hi > rule.hi:
            yield f"{source.name} may hold {lo}..{hi}, but {target.name} is exact only for {rule.lo}..{rule.hi} in {slot}"
