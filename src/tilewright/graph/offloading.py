"""Networks for an accelerator that a host drives by instruction words: which operations become one kernel, and how values lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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

    Element-wise operations join the kernel that produces their operand as long as the accelerator does all of it: what its moves
    cannot do on the way out is a kernel of its own, and its operand leaves the accelerator in its own, narrow type.
    """
    graph = choose_layouts(compose_movements(graph), machine)
    division = _Division(graph, prepare, moved_types(machine))
    groups = tuple(part for members in greedy(graph) for part in division.parts(members))
    return Network(graph, plan_steps(graph, groups), fusion=FusionPlan("greedy", groups))


class _Division:
    def __init__(self, graph: Graph, prepare: Prepare, moved: frozenset[DType]):
        self.graph, self.prepare, self.moved = graph, prepare, moved
        self.consumers = graph.consumers()
        self.kept = {graph.storage(v.buffer.name) for v in graph.outputs}

    def parts(self, members: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """``members`` as groups: first the most that the accelerator does alone, then the same of the rest."""
        if not any(pattern(self.graph.operations[i]) is Pattern.CONTRACTION for i in members):
            yield members
            return
        count = next((n for n in range(len(members), 1, -1) if self.alone(members[:n])), 1)
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
        pairs = zip(call.kernel.args, call.arguments, strict=True)
        program = self.prepare(call.kernel, frozenset(b.name for b, n in pairs if self.graph.storage(n) in self.graph.constants))
        return program is not None and not any(isinstance(i, Host) for i in walk(program.body))
