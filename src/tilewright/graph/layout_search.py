"""Layouts of least estimated time: every part of a network in the order of channels that its kernels are fastest in.

A part is what element-wise operations join: the value a convolution writes, its activation, the sum at the end of a
residual block. All kernels that touch a part are priced with the layouts of everything they read and write, so
what it takes to convert at the border of two parts is in the price of the kernel that reads one and writes the other.
The search starts from all parts alike and changes one at a time while that pays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from tilewright.graph.fusion import visible
from tilewright.graph.greedy import greedy
from tilewright.graph.kernels import group_kernel
from tilewright.graph.layout import Way, arranged, pointwise_in_space, windowed
from tilewright.graph.model import Graph
from tilewright.graph.patterns import Pattern, pattern
from tilewright.hw import Machine
from tilewright.ir.buffer import Buffer
from tilewright.ir.stmt import Kernel
from tilewright.space.default import plan
from tilewright.util.errors import ScheduleError, SpaceError

#: Where the search may start: all parts alike.
_UNIFORM: tuple[Way, ...] = ("channels-last", "blocked", "plain")

#: Layouts closer together than this are equal: no estimate is that good. Then channels are last.
EQUAL = 0.02

#: Seconds of a kernel whose named arguments are constants; ScheduleError or SpaceError where no rule schedules it.
Price = Callable[[Kernel, frozenset[str]], float]


def least_estimated(graph: Graph, values: Iterable[str], machine: Machine, threads: int, price: Price | None = None) -> dict[str, Buffer]:
    """``values`` with the layouts of least time by ``price`` (default: the estimate of the default schedule)."""
    parts = joined(graph, values)
    prices = _Prices(graph, machine, parts, price or (lambda kernel, constants: estimated(kernel, machine, threads, constants)))
    uniform: list[list[Way]] = [[way] * len(parts) for way in _UNIFORM]
    chosen = uniform[0]
    for other in uniform[1:]:
        if prices.of(other) < prices.of(chosen) * (1 - EQUAL):
            chosen = other
    changed = True
    while changed:
        changed = False
        for n, part in enumerate(parts):
            for way in get_args(Way):
                trial = [*chosen[:n], way, *chosen[n + 1 :]]
                if prices.of(trial, part) < prices.of(chosen, part) * (1 - EQUAL):
                    chosen, changed = trial, True
    return prices.buffers(chosen)


def joined(graph: Graph, values: Iterable[str]) -> list[tuple[str, ...]]:
    """``values`` in parts: what element-wise operations read and write together lies alike."""
    part = {n: [n] for n in values}
    for op in graph.operations:
        if windowed(op) or pattern(op) is Pattern.CONTRACTION or not pointwise_in_space(op):
            continue
        touched = [n for n in (*op.inputs, *op.outputs) if n in part]
        for n in touched[1:]:
            first, other = part[touched[0]], part[n]
            if first is not other:
                first += other
                part |= dict.fromkeys(other, first)
    return list(dict.fromkeys(tuple(p) for p in part.values()))


def estimated(kernel: Kernel, machine: Machine, threads: int, constants: frozenset[str]) -> float:
    """Seconds of the default schedule by the analytical model; ScheduleError or SpaceError where no rule has one."""
    return plan(kernel, machine, threads=threads, constants=constants, estimated=True).seconds or 0.0


@dataclass(slots=True)
class _Prices:
    """Times of groups of operations (as greedy fusion makes them) under layouts of the ``parts``; equal kernels are priced once.

    A layout in which no rule schedules a group costs too much if some other one is scheduled. If none is, the group runs as it
    is written whichever is chosen, and costs nothing.
    """

    graph: Graph
    machine: Machine
    parts: Sequence[Sequence[str]]
    price: Price
    _groups: list[tuple[int, ...]] = field(default_factory=list)
    _touching: dict[str, set[int]] = field(default_factory=dict)
    _visible: list[frozenset[str]] = field(default_factory=list)
    _uniform: list[dict[str, Buffer]] = field(default_factory=list)
    _known: dict[tuple[Kernel, frozenset[str]], float | None] = field(default_factory=dict)
    _of_group: dict[tuple[object, ...], float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._groups = list(greedy(self.graph))
        consumers = self.graph.consumers()
        kept = {self.graph.storage(v.buffer.name) for v in self.graph.outputs}
        for number, members in enumerate(self._groups):
            self._visible.append(visible(self.graph, members, consumers, kept))
            for name in (n for i in members for n in (*self.graph.operations[i].inputs, *self.graph.operations[i].outputs)):
                self._touching.setdefault(name, set()).add(number)
        self._uniform = [self.buffers([way] * len(self.parts)) for way in _UNIFORM]

    def buffers(self, ways: Sequence[Way]) -> dict[str, Buffer]:
        return {n: arranged(self.graph.buffers[n], way, self.machine) for part, way in zip(self.parts, ways, strict=True) for n in part}

    def of(self, ways: Sequence[Way], only: Sequence[str] | None = None) -> float:
        """Seconds of all kernels that touch the ``parts``, or one of them."""
        values = self.buffers(ways)
        touched = set[int]().union(*(self._touching.get(n, set()) for n in (values if only is None else only)))
        return sum(self._group(g, values) for g in sorted(touched))

    def _group(self, number: int, values: Mapping[str, Buffer]) -> float:
        seconds = self._scheduled(number, values)
        if seconds is not None:
            return seconds
        return math.inf if any(self._scheduled(number, other) is not None for other in self._uniform) else 0.0

    def _scheduled(self, number: int, values: Mapping[str, Buffer]) -> float | None:
        """Seconds of a group; None where no rule schedules it."""
        operations = [self.graph.operations[i] for i in self._groups[number]]
        names = dict.fromkeys(n for o in operations for n in (*o.inputs, *o.outputs))
        key = (number, *(str(values[n].layout) for n in names if n in values))
        if key not in self._of_group:
            call = group_kernel(operations, {**self.graph.buffers, **values}, self._visible[number])
            constants = call.constants(self.graph)
            if (call.kernel, constants) not in self._known:
                self._known[call.kernel, constants] = self._priced(call.kernel, constants)
            self._of_group[key] = self._known[call.kernel, constants]
        return self._of_group[key]

    def _priced(self, kernel: Kernel, constants: frozenset[str]) -> float | None:
        try:
            return self.price(kernel, constants)
        except (ScheduleError, SpaceError):
            return None
