"""How long a nest takes on memories that work side by side or wait for each other: a recursion over the levels.

A *round* of a level is one run of the loops at and below it, with its contents in place. In a level's round the rounds of the level
inside follow each other, as many as the level has iterations in time; beside them its port reads for what is inside and takes its
results. So, in cycles,

    Latency(l) = max(Latency(l - 1) * iterations(l), reads(l) / bandwidth, writes(l) / bandwidth),    Latency(-1) = one step.

Between rounds the contents are exchanged. A level that is double-buffered exchanges them while the round goes on: the words
count for its ports, which are one more thing that may be the slowest. In one that is not, the exchange takes its own time.

All terms are for a run of the whole nest (a level's times the number of its rounds), so iterations need no division. Where every
level is double-buffered and has one port, this is a roofline: the most of the steps and of each level's words over words a cycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from tilewright.cost.formula import Formula, Graph
from tilewright.cost.residence import Movement
from tilewright.hw.hierarchy import Hierarchy, Storage


def latency(
    g: Graph, hierarchy: Hierarchy, steps: Formula, moved: Sequence[Movement], parameters: Mapping[str, Any], rounded: bool = True
) -> Formula:
    """Cycles of a nest of ``steps`` iterations in time whose tensors are ``moved`` (:func:`~tilewright.cost.residence.movements`).

    ``rounded``: each port takes whole cycles.
    """
    ports = _Ports(g, hierarchy, parameters, rounded)
    parents = {id(inner): outer for inner, outer in pairwise(moved) if inner.tensor == outer.tensor}
    cycles = steps * hierarchy.rate(hierarchy.step_cycles, parameters)
    for s in reversed(hierarchy.levels):  # from the innermost out
        own = [m for m in moved if m.level == s.name]
        if s.double_buffered or s is hierarchy.levels[0]:
            cycles = ports.most(cycles, s, own, [m.reads for m in own], [x for m in own for x in (m.fills, m.updates)])
        else:
            cycles = ports.most(cycles, s, own, [m.reads for m in own], [m.updates for m in own])
            exchange = ports.most(g.const(0), s, own, [], [m.fills for m in own])
            for outer in hierarchy.levels:
                served = [p for m in own if (p := parents.get(id(m))) is not None and p.level == outer.name]
                exchange = ports.most(exchange, outer, served, [p.reads for p in served], [p.updates for p in served])
            cycles = cycles + exchange
    return cycles


class _Ports:
    """Times of memories' ports."""

    def __init__(self, g: Graph, hierarchy: Hierarchy, parameters: Mapping[str, Any], rounded: bool):
        self.g, self.hierarchy, self.parameters, self.rounded = g, hierarchy, parameters, rounded

    def most(self, cycles: Formula, s: Storage, own: Sequence[Movement], reads: Sequence[Formula], writes: Sequence[Formula]) -> Formula:
        """``cycles``, or what the ports of ``s`` need for words read and written if that is more; ``own`` says in how many instances."""
        g = self.g
        if not own:
            return cycles
        together = [*reads, *writes] if s.writes_per_cycle is None else list(reads)
        for words, rate in ((together, s.words_per_cycle), ([] if s.writes_per_cycle is None else list(writes), s.writes_per_cycle)):
            if words and rate is not None:
                all_instances = self.hierarchy.rate(rate, self.parameters) * own[0].instances
                divide = g.ceildiv if self.rounded else g.div
                cycles = g.max(cycles, divide(g.sum(words), all_instances))
        return cycles
