"""What a co-design search minimises and under which limits; and the run that every search method is charged to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tilewright.codesign.evaluator import Evaluation, Evaluator
from tilewright.codesign.layer import Layer, unique
from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.pareto import Front
from tilewright.cost.residual import ArrayTime, Rates
from tilewright.hw.family import Family
from tilewright.util.errors import SpaceError

#: Powers of a network's energy and latency in what is minimised.
OBJECTIVES = {"edp": (1.0, 1.0), "latency": (0.0, 1.0), "throughput": (0.0, 1.0), "energy": (1.0, 0.0), "ed2p": (1.0, 2.0)}

#: Evaluations that no budget of time ever reaches.
_ENDLESS = 1 << 60
#: Square millimetres of a machine from its parameters, written with plain operators.
AreaModel = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """``area`` (mm2, by ``area_model``), ``power`` (W at ``clock_hz``), and the most of a parameter; None: no limit."""

    area: float | None = None
    power: float | None = None
    most: Mapping[str, float] = field(default_factory=dict)
    area_model: AreaModel | None = None
    clock_hz: float = 1e9


class Problem:
    """A map space, an objective and limits.

    ``objective``: ``edp``, ``latency``, ``throughput``, ``energy``, ``ed2p``, or the powers of energy and latency. A network's energy is
    the sum of its layers' by their counts, its latency likewise; they are those of ``batch`` samples (throughput is most where latency
    is least). ``networks`` are counts of the layers for several networks, in order or by name: the objective is then the geometric mean
    of theirs. ``hardware`` fixes the machine: only mappings are searched. ``array``: cycles fitted to measured ones (:func:`array_time`)
    count where they are more than the roofline's.

    SpaceError for an unknown objective, limits that are not positive or contradict the family or the fixed machine, and an area limit
    without a model.
    """

    def __init__(
        self,
        space: MapSpace,
        objective: str | tuple[float, float] = "edp",
        limits: Limits | None = None,
        hardware: Mapping[str, float] | None = None,
        networks: Sequence[Sequence[int]] | Mapping[str, Sequence[int]] | None = None,
        array: ArrayTime | None = None,
        batch: int = 1,
    ):
        if isinstance(objective, str) and objective not in OBJECTIVES:
            raise SpaceError(
                f"there is no objective {objective!r}", hint=f"one of {', '.join(OBJECTIVES)}, or powers of energy and latency"
            )
        self.space, self.evaluator, self.batch = space, Evaluator(space, array), batch
        self.powers = OBJECTIVES[objective] if isinstance(objective, str) else objective
        self.limits = self._rounded(limits or Limits()) if hardware is None else limits or Limits()
        self.hardware = dict(hardware) if hardware is not None else None
        given = networks if networks is not None else {"network": space.counts}
        counts = given if isinstance(given, Mapping) else {f"network {n}": own for n, own in enumerate(given)}
        self.names = tuple(counts)
        self.networks = np.array(list(counts.values()), dtype=np.float64)
        self._check()
        self._check_least()

    @classmethod
    def of(
        cls,
        layers: Sequence[Layer] | Mapping[str, Sequence[Layer]],
        family: Family,
        objective: str | tuple[float, float] = "edp",
        limits: Limits | None = None,
        hardware: Mapping[str, float] | None = None,
        array: ArrayTime | None = None,
        batch: int = 1,
        padding: float = 0.0,
    ) -> Problem:
        """The problem of one network's layers, or of several networks' by name, for ``batch`` samples of what they say. Layers of one shape
        are one. ``padding``: as of :class:`~tilewright.codesign.mapspace.MapSpace`."""
        given = layers if isinstance(layers, Mapping) else {"network": layers}
        networks = {name: [x.batched(batch) for x in own] for name, own in given.items()}
        shared = unique(tuple(x for own in networks.values() for x in own))
        return cls(MapSpace(shared, family, padding), objective, limits, hardware, _counts(networks, shared), array, batch)

    def _rounded(self, limits: Limits) -> Limits:
        """Limits of parameters rounded down to values that the family has."""
        steps = {p.name: (p.step, p.least) for p in self.space.family.parameters}
        most = dict(limits.most)
        for name, (step, least) in steps.items():
            if most.get(name, -np.inf) >= least:
                most[name] = max(float(np.floor(most[name] / step) * step), least)
        return replace(limits, most=most)

    def _check(self) -> None:
        known = [p.name for p in self.space.family.parameters]
        if self.networks.ndim != 2 or self.networks.shape[1] != len(self.space.layers) or not (self.networks.sum(axis=1) > 0).all():
            raise SpaceError(
                f"networks count {self.networks.shape[-1]} layers, the space has {len(self.space.layers)}", hint="a count for each layer"
            )
        if self.hardware is not None and sorted(self.hardware) != sorted(known):
            raise SpaceError(f"the machine gives {', '.join(self.hardware) or 'nothing'}", hint=f"give {', '.join(known)}")
        x = self.limits
        for name, value in {"area": x.area, "power": x.power, **x.most}.items():
            if value is not None and not value > 0:
                raise SpaceError(f"the limit of {name} is {value}", hint="limits are positive")
        if x.area is not None and x.area_model is None:
            raise SpaceError(
                f"nothing says how large a {self.space.family.name} is: its area cannot be limited",
                hint=f"limit its parameters ({', '.join(known)}), or give an area model: from these to square millimetres",
            )
        for p in self.space.family.parameters:
            for what, value in (("limit", x.most.get(p.name)), ("machine", (self.hardware or {}).get(p.name))):
                if value is not None and not value >= p.least:
                    raise SpaceError(
                        f"the {what} has {p.name} = {value:g}, {self.space.family.name} needs {p.least} or more", hint=f"raise {p.name}"
                    )
                if what == "machine" and value is not None and (value > p.most or value != round(value)):
                    raise SpaceError(
                        f"the machine has {p.name} = {value:g}",
                        hint=f"give a whole number from {p.least}" + (f" to {p.most:g}" if p.most < np.inf else ""),
                    )
            if self.hardware is not None and self.hardware[p.name] > x.most.get(p.name, np.inf):
                raise SpaceError(
                    f"the machine has {p.name} = {self.hardware[p.name]:g}, the limit is {x.most[p.name]:g}",
                    hint="raise one or lower the other",
                )
        if self.hardware is not None and x.area is not None and x.area_model is not None and (own := x.area_model(self.hardware)) > x.area:
            raise SpaceError(f"the machine takes {own:.3g} mm2, the limit is {x.area:g}", hint="raise the limit, or give a smaller machine")
        if unknown := [k for k in x.most if k not in known]:
            raise SpaceError(f"{self.space.family.name} has no parameter {unknown[0]!r}", hint=f"parameters: {', '.join(known)}")

    def _check_least(self) -> None:
        """SpaceError when even the smallest machine of the family exceeds a limit of its size."""
        space, limits = self.space, self.limits
        if limits.area is None and not limits.most:
            return
        machine = self.evaluator.evaluate(space.outermost[None]).hardware
        if limits.area is not None and limits.area_model is not None and (area := float(limits.area_model(machine)[0])) > limits.area:
            raise SpaceError(
                f"the smallest {space.family.name} has {area:.4g} mm2, the limit is {limits.area:g}",
                hint=f"raise the area limit to {rounded_up(area)} or more",
            )
        for name, value in machine.items():
            if value[0] > limits.most.get(name, np.inf):
                raise SpaceError(
                    f"mappings need {name} = {value[0]:g} or more, the limit is {limits.most[name]:g}", hint=f"raise the limit of {name}"
                )

    def coolest(self) -> Problem:
        """The same with power to minimise, not to limit."""
        networks = dict(zip(self.names, self.networks.astype(int).tolist(), strict=True))
        limits = replace(self.limits, power=None)
        return Problem(self.space, (1.0, -1.0), limits, self.hardware, networks, self.evaluator.array, self.batch)

    def watts(self, cycles: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """Power of each network [n, networks] at the clock of the limits, from layers' costs [n, layers]."""
        latency, total = self.totals(cycles, energy)
        return np.asarray(total / latency * 1e-12 * self.limits.clock_hz)

    @property
    def limited(self) -> bool:
        """Whether anything but the layers limits the machine."""
        x = self.limits
        return self.hardware is not None or x.area is not None or x.power is not None or bool(x.most)

    def totals(self, cycles: np.ndarray, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Latency (cycles) and energy (pJ) of each network, [n, networks], from those of its layers [n, layers]."""
        return cycles @ self.networks.T, energy @ self.networks.T

    def throughput(self, latency: float) -> float:
        """Samples a second where a batch takes ``latency`` cycles, at the clock of the limits."""
        return self.batch * self.limits.clock_hz / latency

    def values(self, cycles: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """The logarithm of each network's objective [n, networks], from layers' costs [n, layers]."""
        latency, total = self.totals(cycles, energy)
        return np.asarray(self.powers[0] * np.log(total) + self.powers[1] * np.log(latency))

    def value(self, cycles: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """The logarithm of the objective [n] of layers' costs [n, layers]."""
        return np.asarray(self.values(cycles, energy).mean(axis=-1))

    def oversize(self, hardware: Mapping[str, np.ndarray]) -> np.ndarray:
        """By how much machines exceed the limits of their parameters and area [n]: a sum of logarithms of ratios, 0 where all are kept."""
        out = np.zeros(len(next(iter(hardware.values()))))
        for name, most in self.limits.most.items():
            out += np.maximum(np.log(hardware[name] / most), 0)
        if self.limits.area is not None and self.limits.area_model is not None:
            out += np.maximum(np.log(self.limits.area_model(hardware) / self.limits.area), 0)
        return out

    def excess(self, cycles: np.ndarray, energy: np.ndarray, hardware: Mapping[str, np.ndarray]) -> np.ndarray:
        """:meth:`oversize`, and by how much the power limit is exceeded."""
        out = self.oversize(hardware)
        if self.limits.power is not None:
            out += np.maximum(np.log(self.watts(cycles, energy) / self.limits.power), 0).sum(axis=-1)
        return out

    def on(self, hardware: Mapping[str, float]) -> Problem:
        """The same networks and objective on a machine that is given, without limits."""
        networks = dict(zip(self.names, self.networks.astype(int).tolist(), strict=True))
        return Problem(self.space, self.powers, hardware=hardware, networks=networks, array=self.evaluator.array, batch=self.batch)

    def evaluate(self, points: np.ndarray) -> Evaluation:
        """Costs of ``points`` on the fixed machine, or on the smallest of each."""
        return self.evaluator.evaluate(points, self.hardware)

    def score(self, e: Evaluation) -> np.ndarray:
        """The objective (pJ and cycles, to their powers) [n]; infinite where a limit is exceeded or mappings do not fit."""
        good = e.fits & (self.excess(e.cycles, e.energy, e.hardware) <= 1e-12)
        return np.where(good, np.exp(self.value(e.cycles, e.energy)), np.inf)


def rounded_up(value: float) -> str:
    """``value`` to three digits, not below it."""
    unit = 10.0 ** (np.floor(np.log10(value)) - 2)
    return f"{np.ceil(value / unit) * unit:.3g}"


def _counts(networks: Mapping[str, Sequence[Layer]], shared: Sequence[Layer]) -> dict[str, list[int]]:
    """How often each network has each of the layers that they share."""
    out = {}
    for name, own in networks.items():
        if not own:
            raise SpaceError(f"network {name} has no layers", hint="give one layer or more")
        counts = {x.shape: x.count for x in unique(tuple(own))}
        out[name] = [counts.get(x.shape, 0) for x in shared]
    return out


def array_time(family: Family, cycles: str) -> ArrayTime | None:
    """What ``cycles`` names for a family: ``roofline`` (None), or ``rtl``: fitted to measured cycles. SpaceError for others."""
    if cycles == "roofline":
        return None
    if cycles != "rtl":
        raise SpaceError(f"there are no cycles {cycles!r}", hint="one of roofline, rtl")
    if not family.array_rates:
        raise SpaceError(f"{family.name} has no cycles fitted to measured ones", hint="use roofline")
    return ArrayTime(Rates(**family.array_rates))


@dataclass(frozen=True, slots=True)
class Budget:
    """``evaluations`` of one mapping of one layer, and ``seconds``; at least one of them."""

    evaluations: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        given = [x for x in (self.evaluations, self.seconds) if x is not None]
        if not given or any(x <= 0 for x in given):
            raise SpaceError(
                f"the budget is {self.evaluations} evaluations and {self.seconds} seconds", hint="give one of them, more than 0"
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """After ``evaluations``, ``seconds`` of wall clock and ``processor`` seconds (of all threads) the best score was ``best``."""

    evaluations: int
    seconds: float
    processor: float
    best: float


class Run:
    """One search: its problem, budget and random numbers; the best point, the history and the Pareto front of all that was evaluated.

    A search method is a function of a run that evaluates points until ``done``. One evaluation is one mapping of one layer.
    """

    def __init__(self, problem: Problem, budget: Budget, seed: int = 0, pareto: bool = False):
        self.problem, self.budget = problem, budget
        self.rng = np.random.default_rng(seed)
        self.evaluations = 0
        self.best = np.inf
        self.point: np.ndarray | None = None
        #: The least power that any mappings were found to take, where it is limited and a search for it was needed.
        self.least_power: float | None = None
        self.history: list[Progress] = []
        self.front = Front() if pareto else None
        self._start, self._processor = time.monotonic(), time.process_time()

    @property
    def space(self) -> MapSpace:
        return self.problem.space

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._start

    @property
    def processor(self) -> float:
        """Processor seconds that the process used since then: fair between runs on a machine that others use too."""
        return time.process_time() - self._processor

    @property
    def left(self) -> int:
        """Evaluations that the budget still has; very many when it is one of time."""
        return _ENDLESS if self.budget.evaluations is None else max(self.budget.evaluations - self.evaluations, 0)

    @property
    def points_left(self) -> int:
        """Evaluations of whole points that the budget still has."""
        return self.left // len(self.space.layers)

    @property
    def done(self) -> bool:
        """Whether nothing more can be evaluated."""
        return self.points_left < 1 or (self.budget.seconds is not None and self.seconds >= self.budget.seconds)

    def charge(self, evaluations: int) -> None:
        """Count evaluations that were made elsewhere: a gradient step of one start is one for each layer that it moves."""
        self.evaluations += evaluations

    def evaluate(self, points: np.ndarray) -> np.ndarray:
        """Scores of ``points`` [n, layers, width]; those beyond the budget are not evaluated (infinite)."""
        allowed = int(min(len(points), self.points_left))
        scores = np.full(len(points), np.inf)
        if allowed:
            self.charge(allowed * len(self.space.layers))
            evaluation = self.problem.evaluate(points[:allowed])
            scores[:allowed] = self.problem.score(evaluation)
            self.offer(points[:allowed], scores[:allowed], evaluation)
        return scores

    def offer(self, points: np.ndarray, scores: np.ndarray, evaluation: Evaluation) -> None:
        """Take note of points that were evaluated and charged."""
        first = int(np.argmin(scores))
        if scores[first] < self.best:
            self.best, self.point = float(scores[first]), points[first].copy()
            self.history.append(Progress(self.evaluations, self.seconds, self.processor, self.best))
        if self.front is not None:
            self.front.add(self.problem, points, np.isfinite(scores), evaluation)

    def nothing(self) -> SpaceError:
        """The error to raise when no point was found within the limits: the limit that is too low, where one is known to be."""
        power, least = self.problem.limits.power, self.least_power
        if power is not None and least is not None and least > power:
            return SpaceError(
                f"no mappings within the limits were found: the least power found is {least:.3g} W, the limit {power:g}",
                hint=f"raise the limit of power to {rounded_up(least)} or more, or raise the budget",
            )
        return SpaceError(
            f"no mappings within the limits were found in {self.evaluations:,} evaluations", hint="raise the budget, or the limits"
        )
