"""Networks for an accelerator that a host drives by instruction words: which operations become one kernel, and how values lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tilewright.codegen.commands import Host, Program, walk
from tilewright.graph.fusion import FusionPlan, visible
from tilewright.graph.greedy import greedy
from tilewright.graph.kernels import group_kernel
from tilewright.graph.layout import choose_layouts, moved_types
from tilewright.graph.model import Graph
from tilewright.graph.movement import compose_movements
from tilewright.graph.network import Network, plan_steps
from tilewright.graph.patterns import Pattern, pattern
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import DType

#: The program of a kernel with these constant arguments; None when the host does it alone.
Prepare = Callable[[Kernel, frozenset[str]], Program | None]


def offloaded(graph: Graph, machine: Machine, prepare: Prepare) -> Network:
    """``graph`` as kernels for ``machine``, to be run by :meth:`Network.executed`.

    Element-wise operations join the kernel that produces their operand as long as the accelerator does all of it, and so does a
    reduction of windows (a pool) that is the only reader of a kernel's result: what its moves
    cannot do on the way out is a kernel of its own, and its operand leaves the accelerator in its own, narrow type.
    """
    graph = choose_layouts(compose_movements(graph), machine)
    division = _Division(graph, prepare, moved_types(machine))
    groups = tuple(division.groups(greedy(graph)))
    return Network(graph, plan_steps(graph, groups), fusion=FusionPlan("greedy", groups))


class _Division:
    def __init__(self, graph: Graph, prepare: Prepare, moved: frozenset[DType]):
        self.graph, self.prepare, self.moved = graph, prepare, moved
        self.consumers = graph.consumers()
        self.kept = {graph.storage(v.buffer.name) for v in graph.outputs}

    def groups(self, found: Iterable[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
        """``found`` (groups in execution order) divided, and joined by what can be done on the way out of them."""
        joined: set[int] = set()
        for members in found:
            for part in self.parts(tuple(m for m in members if m not in joined)):
                reader = self.reduction_of(part)
                if reader is not None and self.alone((*part, reader)):
                    joined.add(reader)
                    part = (*part, reader)
                yield part

    def reduction_of(self, part: tuple[int, ...]) -> int | None:
        """The reduction that is the only reader of what ``part``, a contraction and what follows it, computes, and reads nothing else."""
        if not any(pattern(self.graph.operations[i]) is Pattern.CONTRACTION for i in part):
            return None
        results = visible(self.graph, part, self.consumers, self.kept)
        readers = {r for n in results for r in self.consumers.get(n, ())}
        if len(results) != 1 or len(readers) != 1 or results & self.kept:
            return None
        reader = readers.pop()
        operation = self.graph.operations[reader]
        only = {self.graph.storage(n) for n in operation.inputs} == {self.graph.storage(n) for n in results}
        return reader if only and pattern(operation) is Pattern.REDUCTION else None

    def parts(self, members: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """``members`` as groups: first the most that the accelerator does alone, then the same of the rest."""
        if not members:
            return
        # The host does what the accelerator does nothing of in one go.
        contracts = any(pattern(self.graph.operations[i]) is Pattern.CONTRACTION for i in members)
        least = 1 if contracts else len(members)
        count = next((n for n in range(len(members), int(contracts), -1) if self.alone(members[:n])), least)
        yield members[:count]
        if count < len(members):
            yield from self.parts(members[count:])

    def alone(self, members: tuple[int, ...]) -> bool:
        """Whether the accelerator does these operations without work of the host."""
        results = visible(self.graph, members, self.consumers, self.kept)
        if any(self.graph.buffers[n].dtype not in self.moved for n in results):
            return False
        operations = [self.graph.operations[i] for i in members]
        call = group_kernel(operations, self.graph.buffers, results)
        program = self.prepare(call.kernel, call.constants(self.graph))
        return program is not None and not any(isinstance(i, Host) for i in walk(program.body))
