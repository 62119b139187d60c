"""The gradient search that one-loop co-design descends from (DOSA, MICRO 2023), as published: few starts, long descents, no importance.

Seven starts from random machines; Adam on the factors inside main memory, whose own factors are what is left; a penalty where those
fall below one; every 500 steps all factors are rounded, and each layer takes the best of three loop orders at main memory (weights,
inputs or results stay). 1,490 steps; then again from other starts while the budget lasts.

``combined`` is a control, not a published method: this descent in short rounds, each followed by the same combination of mappings and
refinement as in our search. What it loses against our search is due to the descent, what it gains over ``dosa`` is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tilewright.codesign.gradient import Search
from tilewright.codesign.layer import DIMS
from tilewright.codesign.problem import Run
from tilewright.codesign.relaxed import Relaxation


@dataclass(frozen=True, slots=True)
class DosaSettings:
    """As published; the ``rate`` (in logarithms of factors; the best of five on ResNet-50 and BERT) and the ``penalty`` are ours."""

    starts: int = 7
    steps: int = 1490
    interval: int = 500
    rate: float = 0.02
    penalty: float = 4.0
    #: Random mappings of a layer, of which a start takes the best that fits its machine.
    drawn: int = 32


def dosa(run: Run, settings: DosaSettings | None = None) -> None:
    """Search until the budget is spent."""
    s = settings or DosaSettings()
    search = _Descent(run, s)
    while not run.done:
        search.restart()


#: A round of ``combined`` has about as many evaluations as one of our own search.
SHORT = DosaSettings(steps=140, interval=47)


def combined(run: Run) -> None:
    """The published descent with our combination and refinement, until the budget is spent."""
    search = Search(run)
    search.draw()
    descent = _Descent(run, SHORT, search.gather)
    while not run.done:
        descent.restart()
        search.refine()


class _Descent:
    """``gather`` takes each rounded population and says the order of each mapping; without it, points go to the run alone."""

    def __init__(self, run: Run, settings: DosaSettings, gather: Callable[[np.ndarray], np.ndarray] | None = None):
        self.gather = gather
        self.run, self.space, self.settings = run, run.space, settings
        self.relaxed = Relaxation(run.problem)
        self.sizes = np.log(self.space.sizes)
        #: Loop orders with different dimensions inside main memory: who stays in the memory below.
        kinds: dict[frozenset[str], int] = {}
        for n, variant in enumerate(self.space.variants):
            kinds.setdefault(frozenset(variant.orders[0][-3:]), n)
        self.orders = list(kinds.values())
        self.inner = {d: list(self.space.by_dim[d][:-1]) for d in DIMS}
        self.last = {d: self.space.by_dim[d][-1] for d in DIMS}

    def restart(self) -> None:
        """All starts for all their steps."""
        s, run = self.settings, self.run
        n, count = int(min(s.starts, max(run.points_left // 2, 1))), len(self.space.layers)
        points = self._starts(n)
        logs, order = np.log(points[..., :-1]), points[..., -1]
        machine = None if run.problem.hardware is None else {k: np.full(n, float(v)) for k, v in run.problem.hardware.items()}
        moment = square = np.zeros_like(logs)
        since = 0
        for step in range(1, s.steps + 1):
            if run.done or n * count > run.left:
                break
            slope = self._slope(logs, order, machine)
            run.charge(n * count)
            since += 1
            moment, square = 0.9 * moment + 0.1 * slope, 0.999 * square + 0.001 * slope**2
            logs = logs - s.rate * (moment / (1 - 0.9**since)) / (np.sqrt(square / (1 - 0.999**since)) + 1e-8)
            self._rest(logs)
            if step % s.interval == 0 or step == s.steps or n * count > run.left - 4 * n * count:
                points = self._rounded(logs, order)
                logs, order = np.log(points[..., :-1]), points[..., -1]
                moment, square, since = np.zeros_like(logs), np.zeros_like(logs), 0

    def _starts(self, n: int) -> np.ndarray:
        """Mappings for random machines: of some random ones of each layer the best that fits (any, where none does)."""
        run, count = self.run, len(self.space.layers)
        drawn = int(min(self.settings.drawn, max(run.points_left // (4 * n), 1)))
        ev, out = run.problem.evaluator, []
        for _ in range(n):
            machine = {p.name: np.array([float(np.clip(_random(p.step, run.rng), p.least, p.most))]) for p in self.space.family.parameters}
            points = self.space.sample(drawn, run.rng)
            points[..., -1] = np.array(self.orders)[run.rng.integers(0, len(self.orders), points.shape[:2])]
            run.charge(drawn * count)
            usage = ev.usage(points)
            cycles, energy = ev.cost(usage, machine)
            fits = np.all([need <= machine[k][0] for k, need in ev.needs(usage, machine).items()], axis=0)
            value = np.log(cycles) + np.log(energy) + np.where(fits, 0.0, 1e3)
            out.append(points[value.argmin(axis=0), np.arange(count)])
        return np.array(out)

    def _rest(self, logs: np.ndarray) -> None:
        """Main memory's factors are what the others leave (below one: too much inside)."""
        for k, d in enumerate(DIMS):
            logs[..., self.last[d]] = self.sizes[:, k] - logs[..., self.inner[d]].sum(axis=-1)

    def _slope(self, logs: np.ndarray, order: np.ndarray, machine: dict[str, np.ndarray] | None) -> np.ndarray:
        """Gradient by the factors inside main memory, with the penalty."""
        _, slope, _, _ = self.relaxed(np.maximum(logs, 0.0), order, machine)
        slope = np.where(logs < 0, 0.0, slope) - self.settings.penalty * (logs < 0)
        for d in DIMS:
            slope[..., self.inner[d]] -= slope[..., self.last[d], None]
            slope[..., self.last[d]] = 0.0
        return slope

    def _rounded(self, logs: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Valid points, each layer in its best order; they are offered to the run."""
        run, ev = self.run, self.run.problem.evaluator
        points = self.space.round(np.exp(logs), order)
        if self.gather is not None:
            points[..., -1] = self.gather(points)
            return points
        run.evaluate(points)
        if len(self.orders) * points.shape[0] * points.shape[1] > run.left:
            return points
        machine, _ = ev.infer(ev.usage(points))
        values = []
        for n in self.orders:
            tried = points.copy()
            tried[..., -1] = n
            run.charge(points.shape[0] * points.shape[1])
            cycles, energy = ev.cost(ev.usage(tried), machine)
            values.append(np.log(cycles) + np.log(energy))
        points[..., -1] = np.array(self.orders)[np.argmin(values, axis=0)]
        run.evaluate(points)
        return points


def _random(step: int, rng: np.random.Generator) -> float:
    """The side of an array (2 to 128), or bytes of a memory (1 KB to 2 MB): powers of two."""
    return 2.0 ** rng.integers(1, 8) if step == 1 else step * 2.0 ** rng.integers(0, 12)
