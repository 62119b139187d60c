"""Which operations become one kernel: not at all, by greedy rules, or by dynamic programming over costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from tilewright.graph.greedy import LARGEST_GROUP, greedy
from tilewright.graph.kernels import group_kernel
from tilewright.graph.model import Graph, Operation
from tilewright.graph.partition import WIDTH, Problem, bits, partition
from tilewright.graph.patterns import Pattern, may_join, patterns
from tilewright.graph.roofline import estimate, on_chip_bytes, row_bytes
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.util.errors import ScheduleError, SpaceError, TilewrightError

#: "none": every operation its own kernel; "greedy": element-wise consumers join their producer;
#: "dp": the division of least estimated cost; "measured": the same, with groups built and timed.
Fusion = Literal["none", "greedy", "dp", "measured"]

#: Prices are counted in picoseconds.
_UNIT = 1e12

#: Seconds of a kernel whose named arguments are constants.
Cost = Callable[[Kernel, frozenset[str]], float]


@dataclass(frozen=True, slots=True)
class FusionPlan:
    """Groups of positions of operations, in execution order, and how they were found.

    ``seconds`` is what they should take together (None where nothing was estimated); ``exact`` is False
    when the dynamic program had to drop states (``states`` were visited); ``priced`` kernels of different structure were priced.
    """

    method: Fusion
    groups: tuple[tuple[int, ...], ...]
    seconds: float | None = None
    states: int = 0
    priced: int = 0
    exact: bool = True

    def __str__(self) -> str:
        if self.seconds is None:
            return f"{self.method}: {len(self.groups)} kernels"
        limit = "" if self.exact else ", width limit reached: a beam was searched"
        return f"{self.method}: {len(self.groups)} kernels, {self.states} states, {self.priced} kinds of groups priced{limit}"


def fuse(
    graph: Graph,
    method: Fusion = "greedy",
    *,
    machine: Machine | None = None,
    threads: int = 1,
    cost: Cost | None = None,
    width: int = WIDTH,
) -> FusionPlan:
    """Divide ``graph`` by ``method``; ``cost`` replaces the roofline of :mod:`tilewright.graph.roofline`.

    ``width`` bounds the states the dynamic program keeps of one size. TilewrightError for an unknown method.
    """
    if method not in get_args(Fusion):
        raise TilewrightError(f"unknown fusion {method!r}", hint=f"there are: {', '.join(get_args(Fusion))}")
    if method == "none":
        return FusionPlan(method, tuple((i,) for i in range(len(graph.operations))))
    if method == "greedy":
        return FusionPlan(method, tuple(greedy(graph)))
    machine = machine or Machine.host()
    if cost is None and method == "measured":
        from tilewright.graph.measured import MeasuredCost

        with MeasuredCost(machine, threads) as measured:
            return _cheapest(graph, method, machine, measured, width)
    return _cheapest(graph, method, machine, cost or (lambda kernel, constants: estimate(kernel, machine, threads, constants)), width)


def _cheapest(graph: Graph, method: Fusion, machine: Machine, cost: Cost, width: int) -> FusionPlan:
    groups = _Groups(graph, machine, cost)
    found = partition(groups.problem(), width=width)
    return FusionPlan(method, found.groups, found.cost / _UNIT, found.states, len(groups.prices), found.exact)


def visible(graph: Graph, members: Sequence[int], consumers: dict[str, list[int]], kept: set[str]) -> frozenset[str]:
    """Results of ``members`` that are needed outside: by other operations, or as outputs of the network.

    A group none of whose results are needed (dead code) keeps them all.
    """
    inside = set(members)
    written = [n for i in members for n in graph.operations[i].outputs]
    needed = frozenset(n for n in written if n in kept or any(c not in inside for c in consumers.get(n, ())))
    return needed or frozenset(written)


@dataclass(slots=True)
class _Groups:
    """Legality and price of the groups of one graph.

    A group is priced once for each structure: the operations' nests, how they feed one another, what is constant
    and what stays inside. Blocks of a network that repeat cost nothing the second time.
    """

    graph: Graph
    machine: Machine
    cost: Cost
    prices: dict[tuple[object, ...], float] = field(default_factory=dict)
    _patterns: list[Pattern] = field(default_factory=list)
    _signatures: list[int] = field(default_factory=list)
    _consumers: dict[str, list[int]] = field(default_factory=dict)
    _producer: dict[str, int] = field(default_factory=dict)
    _kept: set[str] = field(default_factory=set)
    _by_mask: dict[int, float] = field(default_factory=dict)
    _descendants: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        operations = self.graph.operations
        self._patterns = patterns(self.graph)
        numbers: dict[object, int] = {}
        for o in operations:
            kernel = group_kernel([o], self.graph.buffers, frozenset(o.outputs)).kernel
            self._signatures.append(numbers.setdefault(kernel, len(numbers)))
        self._consumers = self.graph.consumers()
        self._producer = {n: i for i, o in enumerate(operations) for n in o.outputs}
        self._kept = {self.graph.storage(v.buffer.name) for v in self.graph.outputs}

    def problem(self) -> Problem:
        successors = [0] * len(self.graph.operations)
        for name, readers in self._consumers.items():
            if name in self._producer:
                successors[self._producer[name]] |= sum(1 << r for r in readers)
        contractions = sum(1 << i for i, p in enumerate(self._patterns) if p is Pattern.CONTRACTION)
        opaque = sum(1 << i for i, p in enumerate(self._patterns) if p is Pattern.OPAQUE)

        def admits(group: int) -> bool:
            return group.bit_count() <= LARGEST_GROUP and (group & contractions).bit_count() <= 2 and not group & opaque

        problem = Problem(successors, self._joins, admits, self._price)
        self._descendants = problem.descendants
        return problem

    def _joins(self, producer: int, consumer: int) -> bool:
        """Whether everything ``consumer`` reads of ``producer`` may stay inside a kernel."""
        reads = [n for n in self.graph.operations[consumer].inputs if self._producer.get(self.graph.storage(n)) == producer]
        # Private memory has one shape: what is read through a reshaped view has to be a value of the graph.
        plain = all(n not in self.graph.views for n in reads)
        alone = all(len(self._consumers[n]) == 1 and n not in self._kept for n in reads if n in self._consumers)
        return plain and may_join(self._patterns[producer], self._patterns[consumer], only_reader=alone)

    def _price(self, mask: int) -> float:
        if mask not in self._by_mask:
            self._by_mask[mask] = self._priced(tuple(bits(mask)))
        return self._by_mask[mask]

    def _priced(self, members: tuple[int, ...]) -> float:
        if not self._chained(members):
            return math.inf
        operations = [self.graph.operations[i] for i in members]
        shown = visible(self.graph, members, self._consumers, self._kept)
        inside = [self.graph.buffers[n] for o in operations for n in o.outputs if n not in shown]
        if len(members) > 1 and row_bytes(inside) > on_chip_bytes(self.machine):
            return math.inf
        key = self._structure(members, operations, shown)
        if key not in self.prices:
            price = self._kernel_price(operations, shown)
            self.prices[key] = price * _UNIT // 1 if math.isfinite(price) else price  # whole picoseconds: sums are exact, so ties are ties
        return self.prices[key]

    def _chained(self, members: tuple[int, ...]) -> bool:
        """Whether a reduction stands between any two contractions, as the softmax of an attention does."""
        contractions = [i for i in members if self._patterns[i] is Pattern.CONTRACTION]
        if len(contractions) < 2:
            return True
        first, second = contractions
        after = self._descendants[first]
        return any(after >> i & 1 and self._descendants[i] >> second & 1 for i in members if self._patterns[i] is Pattern.REDUCTION)

    def _structure(self, members: tuple[int, ...], operations: list[Operation], shown: frozenset[str]) -> tuple[object, ...]:
        place = {n: (k, m) for k, o in enumerate(operations) for m, n in enumerate(o.outputs)}
        outside: dict[str, int] = {}
        key: list[object] = []
        for i, o in zip(members, operations, strict=True):
            wires: list[object] = []
            for n in o.inputs:
                if n in place:
                    wires.append(place[n])
                else:
                    constant = self.graph.storage(n) in self.graph.constants
                    wires.append((outside.setdefault(n, len(outside)), constant, str(self.graph.buffers[n].layout)))
            key.append((self._signatures[i], tuple(wires), tuple(n in shown for n in o.outputs)))
        return tuple(key)

    def _kernel_price(self, operations: list[Operation], shown: frozenset[str]) -> float:
        call = group_kernel(operations, self.graph.buffers, shown)
        try:
            return self.cost(call.kernel, call.constants(self.graph))
        except (ScheduleError, SpaceError):
            # Opaque nests run as written and alone: what that takes does not matter to the division.
            return 0.0 if len(operations) == 1 else math.inf
