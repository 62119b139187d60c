"""What an operation is to fusion, read off its loop nests and not off its name.

The classes are those of the thesis (section 3.3): injective, element-wise, reduction, complex-out-fusable
(contractions: products, convolutions), opaque. Softmax and normalisations come out as reductions.
"""

from __future__ import annotations

from enum import Enum

from tilewright.graph.model import Graph, Operation
from tilewright.ir.expr import Const, Load, Var, loads
from tilewright.space.stages import Stage, stage_of


class Pattern(Enum):
    """How the elements of an operation's results depend on those of its operands."""

    ELEMENT_WISE = "element-wise"  # each from the same place of every operand (or a broadcast one)
    INJECTIVE = "injective"  # each from one place of an operand: permutations, slices, joins, padding
    REDUCTION = "reduction"  # some from many places: sums, maxima, windows
    CONTRACTION = "complex-out-fusable"  # sums of products of two operands
    OPAQUE = "opaque"  # anything that is no sequence of rectangular nests


#: Edges (producer, consumer) that may be inside a kernel; into a contraction only where it is the only reader.
_JOINS = {
    Pattern.ELEMENT_WISE: {Pattern.ELEMENT_WISE, Pattern.INJECTIVE, Pattern.REDUCTION, Pattern.CONTRACTION},
    Pattern.INJECTIVE: {Pattern.ELEMENT_WISE, Pattern.INJECTIVE, Pattern.REDUCTION, Pattern.CONTRACTION},
    Pattern.REDUCTION: {Pattern.ELEMENT_WISE, Pattern.INJECTIVE, Pattern.REDUCTION, Pattern.CONTRACTION},
    Pattern.CONTRACTION: {Pattern.ELEMENT_WISE, Pattern.INJECTIVE, Pattern.REDUCTION},
    Pattern.OPAQUE: set[Pattern](),
}


def may_join(producer: Pattern, consumer: Pattern, *, only_reader: bool) -> bool:
    """Whether a value may stay inside a kernel on its way from ``producer`` to ``consumer``.

    A contraction brings its operands into vector order first; what others read too has to be in memory anyway, so nothing is gained.
    """
    return consumer in _JOINS[producer] and (only_reader or consumer is not Pattern.CONTRACTION)


def pattern(operation: Operation) -> Pattern:
    """The class of ``operation``."""
    found = [stage_of(n) for n in operation.nests]
    if not found or any(s.opaque or _places_by_data(s) for s in found):
        return Pattern.OPAQUE
    if any(s.is_reduction and s.factors() is not None for s in found):
        return Pattern.CONTRACTION
    if any(s.is_reduction for s in found):
        return Pattern.REDUCTION
    if any(s.store is not None and s.store.op is not None for s in found):
        return Pattern.OPAQUE  # scatters: the same place may be written again
    return Pattern.ELEMENT_WISE if len(found) == 1 and _same_place(found[0]) else Pattern.INJECTIVE


def patterns(graph: Graph) -> list[Pattern]:
    """The class of every operation of ``graph``, in its order."""
    return [pattern(o) for o in graph.operations]


def _places_by_data(s: Stage) -> bool:
    """Whether the place that is written depends on values."""
    return s.store is not None and any(loads(i) for i in s.store.indices)


def _same_place(s: Stage) -> bool:
    assert s.store is not None  # opaque stages were refused before
    if not all(isinstance(i, Var) for i in s.store.indices):
        return False
    return all(_broadcast(ld, s.store.indices) for ld in loads(s.store.value))


def _broadcast(ld: Load, target: tuple[object, ...]) -> bool:
    """Whether ``ld`` reads at ``target``, from the last dimension backwards, or at 0 where it has extent 1."""
    if len(ld.indices) > len(target):
        return False
    tail = target[len(target) - len(ld.indices) :]
    return all(i == t or (isinstance(i, Const) and s == 1) for i, t, s in zip(ld.indices, tail, ld.buffer.static_shape, strict=True))
