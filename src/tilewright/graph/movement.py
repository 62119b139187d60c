"""Chains of data movement become one move: what a transposition, slice or constant gather reads is read at its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tilewright.graph.kernels import element_wise
from tilewright.graph.model import Graph, Operation
from tilewright.ir import expr as ex
from tilewright.ir.expr import Const, Expr, Load, Var
from tilewright.ir.interval import Range
from tilewright.ir.simplify import simplify_expr
from tilewright.ir.stmt import Store, map_stmts


def compose_movements(graph: Graph) -> Graph:
    """``graph`` in which no move reads the result of another one, and moves that nobody reads any more are gone."""
    moves: dict[str, tuple[list[Var], Load]] = {}
    operations = []
    for op in graph.operations:
        found = _move(op)
        if found is not None:
            iterators, source = found
            if source.buffer.name in moves:
                source = _through(source, *moves[source.buffer.name])
                op = _reading(op, source)
            moves[op.outputs[0]] = iterators, source
        operations.append(op)
    return replace(graph, operations=tuple(_needed(graph, operations)))


def _move(op: Operation) -> tuple[list[Var], Load] | None:
    """Loops and source of an operation that only moves elements from places known at compile time."""
    found = element_wise(op.nests[0]) if len(op.nests) == 1 and len(op.outputs) == 1 else None
    if found is None or not isinstance(found[1].value, Load):
        return None
    iterators, made = found
    ranges: dict[str, Range] = {v.name: (0, s - 1) for v, s in zip(iterators, made.buffer.static_shape, strict=True)}
    assert isinstance(made.value, Load)  # checked above
    indices = tuple(simplify_expr(i, ranges) for i in made.value.indices)
    return (iterators, Load(made.value.buffer, indices)) if all(isinstance(i, (Var, Const)) for i in indices) else None


def _through(read: Load, iterators: list[Var], source: Load) -> Load:
    """What ``read``, of the result of a move from ``source``, finds at the source."""
    env: Mapping[str, Expr] = {v.name: i for v, i in zip(iterators, read.indices, strict=True)}
    return Load(source.buffer, tuple(ex.substitute(i, env) for i in source.indices))


def _reading(op: Operation, source: Load) -> Operation:
    (nest,) = op.nests
    moved = map_stmts(nest, lambda s: replace(s, value=source) if isinstance(s, Store) else None)
    return replace(op, nests=(moved,))


def _needed(graph: Graph, operations: list[Operation]) -> list[Operation]:
    """``operations`` without moves whose result is neither read nor an output."""
    wanted = {graph.storage(v.buffer.name) for v in graph.outputs}
    kept = []
    for op in reversed(operations):
        if _move(op) is None or wanted & set(op.outputs):
            kept.append(op)
            wanted |= {graph.storage(n) for n in op.inputs}
    return kept[::-1]
