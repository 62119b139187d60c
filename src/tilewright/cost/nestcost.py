"""Cycles and energy of a layer on a machine of explicit memories: accesses of each level, and what they take.

Cycles follow from a recursion over the levels (:mod:`tilewright.cost.overlap`). Where everything overlaps, the layer takes as long as the
busiest of the arithmetic (one step for each iteration in time) and the memories (words over words a cycle of the instances in use):
searches use that form (:class:`Roofline`). Energy is accesses times what each costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilewright.cost.formula import Formula, Graph
from tilewright.cost.loopnest import LoopNest, mapping_program
from tilewright.cost.orders import Orders
from tilewright.cost.overlap import latency
from tilewright.cost.program import read
from tilewright.cost.residence import Movement, movements
from tilewright.cost.tape import Tape
from tilewright.hw.hierarchy import Hierarchy, Storage
from tilewright.ir.stmt import Kernel
from tilewright.util.errors import MachineError


@dataclass(frozen=True, slots=True)
class NestCost:
    """``cycles``, ``energy`` (pJ), and by name of level the ``words`` accessed, those ``held`` by one instance, the ``instances`` in use.

    Values are numbers, arrays or tensors, as the environment's.
    """

    cycles: Any
    energy: Any
    words: Mapping[str, Any]
    held: Mapping[str, Any]
    instances: Mapping[str, Any]


class NestModel:
    """The model of one ``layer`` and one mapping structure on one hierarchy: compiled once, evaluated on anything.

    Knobs of ``nest``, sizes of the layer and parameters of the hierarchy are bound at evaluation. ``rounded`` counts
    whole cycles and whole lines; without it the result is smooth between kinks, for searches that follow gradients.
    """

    #: Steps, operations, then by level words, words held and instances: what does not depend on the machine's parameters.
    traffic: Tape

    def __init__(self, layer: Kernel, nest: LoopNest, hierarchy: Hierarchy, rounded: bool = True):
        self.program = read(mapping_program(layer, nest))
        self.hierarchy, self.rounded = hierarchy, rounded
        self.movements = movements(self.program, nest, hierarchy)
        steps = self.graph.product(x.trips for x, p in zip(self.program.statements[0].loops, nest.loops(), strict=True) if not p.spatial)
        self._outputs = self._formulas(steps)
        self._tape = Tape(self._outputs)

    @property
    def graph(self) -> Graph:
        return self.program.graph

    @property
    def variables(self) -> tuple[str, ...]:
        """Names an evaluation must bind."""
        return self._tape.variables

    @property
    def operations(self) -> int:
        """Length of an evaluation."""
        return len(self._tape)

    def __call__(self, env: Mapping[str, Any]) -> NestCost:
        """Evaluate with numbers, arrays or tensors of one length."""
        cycles, energy, *rest = self._tape(env)
        names = [s.name for s in self.hierarchy.levels]
        n = len(names)
        words, held, instances = (dict(zip(names, rest[i * n : (i + 1) * n], strict=True)) for i in range(3))
        return NestCost(cycles, energy, words, held, instances)

    def _formulas(self, steps: Formula) -> list[Formula]:
        g = self.graph
        operations = g.product(x.trips for x in self.program.statements[0].loops)
        words, held, instances, paid = [], [], [], []
        for s in self.hierarchy.levels:
            own = [m for m in self.movements if m.level == s.name]
            words.append(g.sum(m.reads + m.fills + m.updates for m in own))
            held.append(g.sum(m.held for m in own))
            instances.append(own[0].instances if own else g.const(1))
            paid.append(self._paid(s, own) if self.rounded else words[-1])
        self.traffic = Tape([steps, operations, *words, *held, *instances])
        parameters = {p: g.var(p) for p in self.hierarchy.parameters}
        cycles = latency(g, self.hierarchy, steps, self.movements, parameters, self.rounded)
        return [cycles, _energy(self.hierarchy, operations, paid, parameters), *words, *held, *instances]

    def _paid(self, s: Storage, own: Sequence[Movement]) -> Formula:
        """Words in whole lines: each kind of access of each tensor fills its own."""
        g = self.graph
        line = g.lift(self.hierarchy.rate(s.line, {p: g.var(p) for p in self.hierarchy.parameters}))
        return g.sum(g.ceildiv(c, line) * line for m in own for c in (m.reads, m.fills, m.updates))


def _energy(h: Hierarchy, operations: Formula, paid: Sequence[Formula], parameters: Mapping[str, Formula]) -> Formula:
    """``paid`` words of each level, the outermost first."""
    energy = operations * h.rate(h.arithmetic, parameters)
    for s, words in zip(h.levels, paid, strict=True):
        energy = energy + words * h.rate(s.energy, parameters)
    return energy


class Roofline:
    """The part of :class:`NestModel` (not ``rounded``) that depends on the machine, for traffic that is known.

    A search that changes one layer, or only the machine, need not count the words of all the others again. MachineError for
    a hierarchy where not everything overlaps: its cycles need more than the words of each level.
    """

    def __init__(self, hierarchy: Hierarchy):
        for s in hierarchy.levels:
            if s.writes_per_cycle is not None or not (s.double_buffered or s is hierarchy.levels[0]):
                raise MachineError(
                    f"storage {s.name} of {hierarchy.name} {'has a port for writes' if s.double_buffered else 'is not double-buffered'}",
                    hint="searches need levels that overlap, with one port each; NestModel costs single mappings of others",
                )
        g = Graph()
        names = [s.name for s in hierarchy.levels]
        parameters = {p: g.var(p) for p in hierarchy.parameters}
        words, instances = ([g.var(f"{kind}.{n}") for n in names] for kind in ("words", "instances"))
        cycles = g.var("steps") * hierarchy.rate(hierarchy.step_cycles, parameters)
        for s, own, many in zip(hierarchy.levels, words, instances, strict=True):
            if s.words_per_cycle is not None:
                cycles = g.max(cycles, g.div(own, hierarchy.rate(s.words_per_cycle, parameters) * many))
        self.tape = Tape([cycles, _energy(hierarchy, g.var("operations"), words, parameters)])

    def __call__(
        self, steps: Any, operations: Any, words: Mapping[str, Any], instances: Mapping[str, Any], parameters: Mapping[str, Any]
    ) -> tuple[Any, Any]:
        """Cycles and pJ for ``words`` and ``instances`` by name of level. Values broadcast against each other."""
        env = {"steps": steps, "operations": operations, **parameters}
        env |= {f"words.{n}": w for n, w in words.items()} | {f"instances.{n}": w for n, w in instances.items()}
        cycles, energy = self.tape(env)
        return cycles, energy


@dataclass(slots=True)
class Population:
    """Models of one layer kernel on one hierarchy, by structure.

    Mappings whose orders cost the same are evaluated together.
    """

    layer: Kernel
    hierarchy: Hierarchy
    _models: dict[LoopNest, NestModel] = field(default_factory=dict)

    def model(self, structure: LoopNest) -> NestModel:
        """The model of a structure, built when first asked for."""
        if structure not in self._models:
            self._models[structure] = NestModel(self.layer, structure, self.hierarchy)
        return self._models[structure]

    def evaluate(self, nests: Sequence[LoopNest], parameters: Mapping[str, Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
        """Cycles and energy (pJ), each [len(nests)].

        ``parameters`` holds a column for each machine parameter and each size of the layer that no loop makes (strides).
        """
        columns = {k: np.asarray(v, dtype=np.float64) for k, v in parameters.items()}
        nests = Orders.of(self.layer, self.hierarchy).completed(nests)
        groups: dict[LoopNest, list[int]] = {}
        for n, nest in enumerate(nests):
            groups.setdefault(nest.structure(), []).append(n)
        cycles, energy = np.empty(len(nests)), np.empty(len(nests))
        for structure, rows in groups.items():
            values = [nests[r].environment() for r in rows]
            env = {k: np.array([v[k] for v in values], dtype=np.float64) for k in values[0]}
            cost = self.model(structure)({**env, **{k: v[rows] for k, v in columns.items()}})
            cycles[rows], energy[rows] = cost.cycles, cost.energy
        return cycles, energy
