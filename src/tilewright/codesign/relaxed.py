"""The objective and its gradient where factors are real numbers: many starts, all layers, the machine inferred.

The model is the one that evaluates points; only factors are not whole. What couples the layers of a start is the machine (the
largest of their needs) and the objective (a function of sums), so a step is: words of every layer, needs, machine, costs, and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.codesign.layer import STEPS
from tilewright.codesign.problem import Problem
from tilewright.cost.adjoint import Adjoint
from tilewright.cost.formula import Graph
from tilewright.cost.nestcost import Roofline
from tilewright.cost.tape import Tape
from tilewright.hw.family import Family, Use

#: Weight of a limit exceeded, in units of the logarithm of the objective; of a need beyond a machine that is given.
PENALTY = 8.0
BEYOND = 4.0


@dataclass(slots=True)
class Traffic:
    """Of each start and layer: steps, and by level words, words held and instances: an array [quantity, n, layers]."""

    values: np.ndarray


def need_tapes(family: Family) -> dict[str, list[Tape]]:
    """Of each parameter what its needs compute, from ``held.LEVEL``, ``units.LEVEL`` and the parameters declared before."""
    out: dict[str, list[Tape]] = {}
    names = [s.name for s in family.hierarchy.levels]
    for p in family.parameters:
        g = Graph()
        use = Use({s: g.var(f"held.{s}") for s in names}, {s: g.var(f"units.{s}") for s in names})
        known = {name: g.var(name) for name in out}
        out[p.name] = [Tape([g.lift(need(use, known))]) for need in p.needs]
    return out


class Relaxation:
    """Objective and gradient of logarithms of factors for one ``problem``."""

    def __init__(self, problem: Problem):
        self.problem, self.space = problem, problem.space
        space, hierarchy = self.space, self.space.family.hierarchy
        self._levels = [s.name for s in hierarchy.levels]
        self._knobs = [c.knob for c in space.columns]
        fixed = {n for n, c in enumerate(space.columns) if all(x.sizes[c.dim] == 1 for x in space.layers)}
        self._free = [n for n in range(len(space.columns)) if n not in fixed]
        names = [self._knobs[n] for n in self._free]
        self._traffic = [Adjoint(m.traffic, [k for k in names if k in m.traffic.variables]) for m in problem.evaluator.models]
        self._roofline = Adjoint(Roofline(hierarchy).tape)
        self._array = None if problem.evaluator.array is None else problem.evaluator.array.smooth()
        self._needs = self._need_tapes()
        self._area = self._area_tape()
        self._operations = np.array([x.operations for x in space.layers], dtype=np.float64)
        work = problem.networks * self._operations
        #: Part of each layer in the networks' arithmetic: what its needs beyond a given machine weigh.
        self._weights = (work / work.sum(axis=1, keepdims=True)).mean(axis=0)
        self._units = {
            s.name: [n for n, c in enumerate(space.columns) if c.spatial and c.depth == depth]
            for depth, s in zip(reversed(range(len(self._levels))), hierarchy.levels, strict=True)
        }

    def _need_tapes(self) -> dict[str, list[Adjoint]]:
        return {name: [Adjoint(tape) for tape in tapes] for name, tapes in need_tapes(self.space.family).items()}

    def _area_tape(self) -> Adjoint | None:
        limits = self.problem.limits
        if limits.area is None or limits.area_model is None:
            return None
        g = Graph()
        return Adjoint(Tape([g.lift(limits.area_model({p.name: g.var(p.name) for p in self.space.family.parameters}))]))

    # --- words ----------------------------------------------------------------------------------

    def _environment(self, factors: np.ndarray, layers: np.ndarray) -> dict[str, np.ndarray | int]:
        env: dict[str, np.ndarray | int] = dict.fromkeys(self._knobs, 1)
        env |= {self._knobs[n]: factors[n] for n in self._free}
        for n, name in enumerate(STEPS):
            values = self.space.steps[:, n]
            env[name] = int(values[0]) if (values == values[0]).all() else values[layers].astype(np.float64)
        return env

    def _forward(self, factors: np.ndarray, order: np.ndarray, layers: np.ndarray) -> tuple[np.ndarray, list[tuple[int, np.ndarray, list]]]:
        """Of mappings in columns of ``factors`` [columns, m]: quantities [1 + 3 levels, m], and what each order's way back needs."""
        out = np.empty((1 + 3 * len(self._levels), factors.shape[1]))
        kept = []
        for k, adjoint in enumerate(self._traffic):
            own = np.flatnonzero(order == k)
            if len(own):
                slots = adjoint.forward(self._environment(factors[:, own], layers[own]))
                steps, _, *rest = adjoint.results(slots)
                for at, value in enumerate([steps, *rest]):
                    out[at, own] = value
                kept.append((k, own, slots))
        return out, kept

    def _backward(self, seeds: np.ndarray, kept: Sequence[tuple[int, np.ndarray, list]], shape: tuple[int, ...]) -> np.ndarray:
        out = np.zeros(shape)
        for k, own, slots in kept:
            rows = seeds[:, own]
            found = self._traffic[k].backward(slots, [rows[0], None, *rows[1:]])
            for n in self._free:
                if (part := found.get(self._knobs[n])) is not None:
                    out[n, own] = part
        return out

    # --- the objective --------------------------------------------------------------------------

    def __call__(
        self,
        logs: np.ndarray,
        order: np.ndarray,
        machine: Mapping[str, np.ndarray] | None = None,
        active: np.ndarray | None = None,
        traffic: Traffic | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Traffic]:
        """Logarithm of the objective [n], its gradient [n, active, columns], shares [n, layers], and the traffic of all layers.

        ``logs`` are logarithms of factors [n, layers, columns], ``order`` [n, layers]. On a given ``machine`` ([n] each) needs
        beyond it are penalised, otherwise it is inferred. Only ``active`` layers are counted again; the others' ``traffic`` is
        the one of an earlier call. A layer's share is its part in a change of the objective.
        """
        n, count = logs.shape[:2]
        act = np.arange(count) if active is None else active
        factors = np.exp(np.ascontiguousarray(logs[:, act].reshape(n * len(act), -1).T))
        layers = np.tile(act, n)
        found, kept = self._forward(factors, order[:, act].ravel(), layers)
        values = np.empty((len(found), n, count)) if traffic is None else traffic.values.copy()
        values[:, :, act] = found.reshape(len(found), n, len(act))
        units = {s: np.exp(logs[..., c].sum(axis=-1)) for s, c in self._units.items()}
        tile = {k: np.exp(logs[..., c].sum(axis=-1)) for k, c in self.problem.evaluator.tile_columns.items()}
        value, seeds, unit_seeds, tile_seeds, shares = self._network(values, units, tile, machine)
        columns = self._backward(seeds[:, :, act].reshape(len(found), -1), kept, factors.shape)
        gradient = (columns * factors).T.reshape(n, len(act), -1)
        for s, own in self._units.items():
            gradient[..., own] += (unit_seeds[s] * units[s])[:, act, None]
        for name, own in self.problem.evaluator.tile_columns.items():
            gradient[..., own] += (tile_seeds[name] * tile[name])[:, act, None]
        return value, gradient, shares, Traffic(values)

    def _network(
        self,
        values: np.ndarray,
        units: Mapping[str, np.ndarray],
        tile: Mapping[str, np.ndarray],
        machine: Mapping[str, np.ndarray] | None,
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
        """Value and shares; derivatives by traffic, by units, and by what the array's own cycles depend on."""
        levels = len(self._levels)
        at = {"words": 1, "held": 1 + levels, "instances": 1 + 2 * levels}
        env = {f"{kind}.{s}": values[start + k] for kind, start in at.items() for k, s in enumerate(self._levels)}
        use = {**env, **{f"units.{s}": v for s, v in units.items()}}
        hardware, needs = self._machine(use, machine)
        slots = self._roofline.forward(
            {**env, "steps": values[0], "operations": self._operations, **{k: v[:, None] for k, v in hardware.items()}}
        )
        cycles, energy = self._roofline.results(slots)
        measured, slower = self._array_slots(tile, hardware), np.False_
        if measured is not None and self._array is not None:
            own = self._array.results(measured)[0]
            slower, cycles = np.greater(own, cycles), np.maximum(own, cycles)
        value, by_cycles, by_energy, by_hardware = self._objective(cycles, energy, hardware)
        shares = by_cycles * cycles + by_energy * energy
        parts = self._roofline.backward(slots, [by_cycles if measured is None else np.where(slower, 0.0, by_cycles), by_energy])
        tile_seeds: dict[str, np.ndarray] = {}
        if measured is not None and self._array is not None:
            tile_seeds = self._array.backward(measured, [np.where(slower, by_cycles, 0.0)])
            by_hardware["dim"] = by_hardware["dim"] + _summed(tile_seeds.pop("dim"), values.shape[1:])
        seeds = np.zeros_like(values)
        seeds[0] = parts["steps"]
        for k, s in enumerate(self._levels):
            seeds[at["words"] + k] += parts[f"words.{s}"]
            seeds[at["instances"] + k] += parts.get(f"instances.{s}", 0.0)
        for p in hardware:
            by_hardware[p] = by_hardware[p] + _summed(parts.get(p, 0.0), values.shape[1:])
        value, through = self._need_seeds(value, hardware, needs, by_hardware, machine is not None)
        unit_seeds = {s: np.zeros(values.shape[1:]) for s in self._levels}
        for name, part in through.items():
            kind, s = name.split(".")
            if kind == "units":
                unit_seeds[s] += part
            else:
                seeds[at[kind] + self._levels.index(s)] += part
        return value, seeds, unit_seeds, tile_seeds, shares

    def _array_slots(self, tile: Mapping[str, np.ndarray], hardware: Mapping[str, np.ndarray]) -> list[Any] | None:
        """Values of the array's own cycles, where they count."""
        ev = self.problem.evaluator
        if ev.array is None or self._array is None:
            return None
        return self._array.forward(ev.array.bound({**tile, **ev.strides(slice(None)), "dim": hardware["dim"][:, None]}))

    def _machine(self, use: Mapping[str, np.ndarray], machine: Mapping[str, np.ndarray] | None) -> tuple[dict, dict]:
        """The machine [n] for each parameter, and of each the needs [n, layers] with the way back."""
        hardware: dict[str, np.ndarray] = {}
        needs: dict[str, list] = {}
        for p in self.space.family.parameters:
            known = {k: v[:, None] for k, v in hardware.items()}
            needs[p.name] = []
            for tape in self._needs[p.name]:
                slots = tape.forward({**use, **known})
                needs[p.name].append((tape, slots, tape.results(slots)[0]))
            if machine is None:
                most = np.max([v.max(axis=1) for _, _, v in needs[p.name]], axis=0)
                hardware[p.name] = np.maximum(most, p.least)
            else:
                hardware[p.name] = np.asarray(machine[p.name], dtype=np.float64)
        return hardware, needs

    def _objective(
        self, cycles: np.ndarray, energy: np.ndarray, hardware: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Value [n] with penalties, and its derivatives by cycles and energy [n, layers] and by the machine ([n] each)."""
        problem, limits = self.problem, self.problem.limits
        networks, (a, b) = problem.networks, problem.powers
        latency, total = problem.totals(cycles, energy)
        value = problem.value(cycles, energy) + PENALTY * problem.excess(cycles, energy, hardware)
        over_total, over_latency = a / (total * len(networks)), b / (latency * len(networks))
        if limits.power is not None:
            hot = PENALTY * (total / latency * 1e-12 * limits.clock_hz > limits.power)
            over_total, over_latency = over_total + hot / total, over_latency - hot / latency
        by_hardware = {k: np.zeros(len(cycles)) for k in hardware}
        for name, most in limits.most.items():
            by_hardware[name] += PENALTY * (hardware[name] > most) / hardware[name]
        if self._area is not None:
            slots = self._area.forward(hardware)
            area = np.asarray(self._area.results(slots)[0])
            for name, part in self._area.backward(slots, [PENALTY * (area > limits.area) / area]).items():
                by_hardware[name] = by_hardware[name] + part
        return value, over_latency @ networks, over_total @ networks, by_hardware

    def _need_seeds(
        self,
        value: np.ndarray,
        hardware: Mapping[str, np.ndarray],
        needs: Mapping[str, list],
        by_hardware: dict[str, np.ndarray],
        given: bool,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Derivatives by what layers use, through what they need: of the largest need, or of needs beyond the given machine."""
        through: dict[str, np.ndarray] = {}
        for p in reversed(self.space.family.parameters):
            n = len(value)
            largest = np.max([v.max(axis=1) for _, _, v in needs[p.name]], axis=0)
            for tape, slots, need in needs[p.name]:
                if given:
                    reached = np.maximum(need, hardware[p.name][:, None])
                    value = value + BEYOND * np.log(reached / hardware[p.name][:, None]) @ self._weights
                    seed = np.where(need > hardware[p.name][:, None], BEYOND * self._weights / reached, 0.0)
                else:
                    first = np.zeros(need.shape)
                    where = need.argmax(axis=1)
                    first[np.arange(n), where] = (need[np.arange(n), where] == largest) & (largest >= p.least)
                    seed = first * by_hardware[p.name][:, None]
                for name, part in tape.backward(slots, [seed]).items():
                    if name in hardware:
                        by_hardware[name] = by_hardware[name] + _summed(part, need.shape)
                    else:
                        through[name] = through[name] + part if name in through else part
        return value, through


def _summed(part: np.ndarray | float, shape: tuple[int, ...]) -> np.ndarray:
    """Over layers: the machine is one for all."""
    return np.broadcast_to(part, shape).sum(axis=1)
