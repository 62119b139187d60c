"""Greedy fusion: element-wise consumers join the kernel that produces their operand.

What an operation is (element-wise, reduction, data movement) is read off its nests, so an operator
added later needs no annotation. A consumer joins when it reads the producer's result element by
element, at the same index, and is the only one that reads it; convolutions, products, reductions
and normalisations thus take bias, residual, activation and scaling along.
"""

from __future__ import annotations

from tilewright.graph.kernels import element_wise
from tilewright.graph.model import Graph, Operation
from tilewright.ir.expr import loads

#: Operations in one kernel at most: keeps compile time of a kernel bounded.
LARGEST_GROUP = 24


def greedy(graph: Graph) -> list[tuple[int, ...]]:
    """Groups of positions of operations, in execution order."""
    plan = _Plan(graph)
    for i in range(len(graph.operations)):
        plan.place(i)
    plan.absorb()
    return plan.ordered()


def element_wise_operands(operation: Operation) -> set[str]:
    """Operands an element-wise operation reads at exactly the index it writes, everywhere.

    Empty unless the operation is a single perfect nest that stores each element once.
    """
    found = element_wise(operation.nests[0]) if _is_element_wise(operation) else None
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
    """Groups under construction, each named by its first operation."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._consumers = graph.consumers()
        self._outputs = {graph.storage(v.buffer.name) for v in graph.outputs}
        self._producer: dict[str, int] = {}
        self._group_of: dict[int, int] = {}
        self._members: dict[int, list[int]] = {}

    def place(self, i: int) -> None:
        """Put operation ``i`` into the group of one of its producers (the latest that can take it), or into a new one."""
        target = next((g for g in self._producing_groups([i]) if self._may_join(g, [i])), i)
        self._group_of[i] = target
        self._members.setdefault(target, []).append(i)
        self._producer.update(dict.fromkeys(self._graph.operations[i].outputs, i))

    def absorb(self) -> None:
        """Let groups that are element-wise throughout join a producer: a value all their members share goes along."""
        for g, members in list(self._members.items()):
            if not all(_is_element_wise(self._graph.operations[m]) for m in members):
                continue
            target = next((p for p in self._producing_groups(members) if self._may_join(p, members)), None)
            if target is not None:
                self._members[target] = sorted(self._members[target] + members)
                self._group_of.update(dict.fromkeys(members, target))
                del self._members[g]

    def _producing_groups(self, operations: list[int]) -> list[int]:
        """Groups that compute operands of ``operations``, the one whose operand is computed last first."""
        found = {self._producer.get(self._graph.storage(n)) for i in operations for n in self._graph.operations[i].inputs}
        latest = sorted((p for p in found if p is not None and p not in operations), reverse=True)
        return list(dict.fromkeys(self._group_of[p] for p in latest))

    def _may_join(self, g: int, operations: list[int]) -> bool:
        """Whether ``operations`` may run inside the kernel of group ``g``."""
        if len(self._members[g]) + len(operations) > LARGEST_GROUP:
            return False
        inside = {n for m in self._members[g] for n in self._graph.operations[m].outputs}
        shared: set[str] = set()
        for i in operations:
            operation = self._graph.operations[i]
            reads = {n for n in operation.inputs if self._graph.storage(n) in inside}
            if not reads <= element_wise_operands(operation) or not reads <= inside:
                return False  # reads elsewhere than it writes, or through a reshaped view of private memory
            shared |= reads
        exclusive = [n for n in shared if n not in self._outputs and set(self._consumers[n]) <= {*operations, *self._members[g]}]
        # The kernel runs once: no other operand may wait for a part of it.
        others = [p for p in self._producing_groups(operations) if p != g]
        return bool(exclusive) and not self._reaches(others, g)

    def _reaches(self, groups: list[int], target: int) -> bool:
        """Whether any of ``groups`` depends on ``target``, directly or through other groups."""
        seen: set[int] = set()
        pending = list(groups)
        while pending:
            g = pending.pop()
            if g == target:
                return True
            if g not in seen:
                seen.add(g)
                pending.extend(self._depends(g))
        return False

    def _depends(self, g: int) -> list[int]:
        return [p for p in self._producing_groups(self._members[g]) if p != g]

    def ordered(self) -> list[tuple[int, ...]]:
        """The groups in an order that respects every dependence."""
        out: list[tuple[int, ...]] = []
        done: set[int] = set()
        pending = {g: set(self._depends(g)) for g in sorted(self._members, key=lambda g: self._members[g][-1])}
        while pending:
            ready = [g for g, needs in pending.items() if needs <= done]
            for g in ready:
                out.append(tuple(self._members[g]))
                done.add(g)
                del pending[g]
        return out


def _is_element_wise(operation: Operation) -> bool:
    """Whether the operation is one nest that stores each element once, at its own index."""
    return len(operation.nests) == 1 and not operation.temps and element_wise(operation.nests[0]) is not None
