"""Greedy fusion: element-wise consumers join the kernel that produces their operand.

What an operation is (element-wise, reduction, data movement) is read off its nests, so an operator
added later needs no annotation. A consumer joins when it reads the producer's result element by
element, at the same index, and is the only one that reads it; convolutions, products, reductions
and normalisations thus take bias, residual, activation and scaling along.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.graph.kernels import element_wise
from tilewright.graph.model import Graph, Operation
from tilewright.ir.expr import loads

#: Operations in one kernel at most: keeps compile time of a kernel bounded.
_LARGEST_GROUP = 24


@dataclass(frozen=True, slots=True)
class Group:
    """Positions (in execution order) of the operations that become one kernel."""

    operations: tuple[int, ...]


def fuse(graph: Graph, *, enabled: bool = True) -> list[Group]:
    """Groups in execution order; with ``enabled=False`` every operation is its own kernel."""
    if not enabled:
        return [Group((i,)) for i in range(len(graph.operations))]
    plan = _Plan(graph)
    for i in range(len(graph.operations)):
        plan.place(i)
    return plan.ordered()


def element_wise_operands(operation: Operation) -> set[str]:
    """Operands an element-wise operation reads at exactly the index it writes, everywhere.

    Empty unless the operation is a single perfect nest that stores each element once.
    """
    if len(operation.nests) != 1 or operation.temps:
        return set()
    found = element_wise(operation.nests[0])
    if found is None:
        return set()
    store = found[1]
    aligned: dict[str, bool] = {}
    for ld in loads(store.value):
        aligned[ld.buffer.name] = (
            aligned.get(ld.buffer.name, True) and ld.indices == store.indices and ld.buffer.shape == store.buffer.shape
        )
    return {n for n, same in aligned.items() if same}


class _Plan:
    """Groups under construction. A group's dependences are kept as a bit set over operations."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._consumers = graph.consumers()
        self._outputs = {graph.storage(v.buffer.name) for v in graph.outputs}
        self._producer: dict[str, int] = {}
        self._before: list[int] = []  # all operations an operation depends on
        self._group_of: dict[int, int] = {}
        self._members: dict[int, list[int]] = {}

    def place(self, i: int) -> None:
        """Put operation ``i`` into the group of one of its producers, or into a new one."""
        operation = self._graph.operations[i]
        producers = {self._producer[s] for n in operation.inputs if (s := self._graph.storage(n)) in self._producer}
        before = 0
        for p in producers:
            before |= self._before[p] | 1 << p
        self._before.append(before)
        joinable = [self._group_of[p] for p in sorted(producers, reverse=True) if self._may_join(i, operation, p, producers)]
        target = joinable[0] if joinable else i
        self._group_of[i] = target
        self._members.setdefault(target, []).append(i)
        self._producer.update(dict.fromkeys(operation.outputs, i))

    def _may_join(self, i: int, operation: Operation, p: int, producers: set[int]) -> bool:
        group = self._members[self._group_of[p]]
        if len(group) >= _LARGEST_GROUP:
            return False
        carried = [n for n in self._graph.operations[p].outputs if n in element_wise_operands(operation)]
        if not carried or any(self._consumers[n] != [i] or n in self._outputs for n in carried):
            return False
        members = 0
        for m in group:
            members |= 1 << m
        inside = {n for m in group for n in self._graph.operations[m].outputs}
        if any(n not in inside and self._graph.storage(n) in inside for n in operation.inputs):
            return False  # it would read a reshaped view of memory private to the kernel
        # The kernel runs once: no other operand may wait for a part of it.
        for other in producers:
            outside = self._members[self._group_of[other]]
            if self._group_of[other] != self._group_of[p] and any(self._before[m] & members for m in outside):
                return False
        return True

    def ordered(self) -> list[Group]:
        """The groups in an order that respects every dependence."""
        pending = {g: self._depends(g) for g in self._members}
        out: list[Group] = []
        done: set[int] = set()
        while pending:
            ready = [g for g, needs in pending.items() if needs <= done]
            for g in ready:
                out.append(Group(tuple(self._members[g])))
                done.add(g)
                del pending[g]
        return out

    def _depends(self, g: int) -> set[int]:
        needs = set()
        for m in self._members[g]:
            for n in self._graph.operations[m].inputs:
                p = self._producer.get(self._graph.storage(n))
                if p is not None and self._group_of[p] != g:
                    needs.add(self._group_of[p])
        return needs
