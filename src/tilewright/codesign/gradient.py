"""One-loop co-design (thesis, algorithm 6): descent by gradient, combination, refinement; machine and mappings move together.

Some random points give a first machine. Then rounds of three parts until the budget is spent:

1. *Descend*. Many starts follow the gradient of the objective in logarithms of factors. Factors stay valid: after a step each dimension's
   are projected to numbers of 1 or more whose product is its size. At intervals all starts are rounded, and layers take the loop
   order that is best for them.
2. *Combine*. Rounded mappings of all starts go to a pool. Layers share nothing but the machine, so the best mappings of different
   starts make one network, for any machine.
3. *Refine*. Moves of factors of the best point, and machines around its own, until nothing gets better; then the same from the
   best points that the pool has on other machines.

In the first round the machine is inferred from the mappings and free; later rounds start anew around the best machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tilewright.codesign.evaluator import SLACK
from tilewright.codesign.exact import grid_of
from tilewright.codesign.importance import Importance
from tilewright.codesign.layer import DIMS
from tilewright.codesign.pool import Pool, Site
from tilewright.codesign.problem import Budget, Run
from tilewright.codesign.relaxed import Relaxation, Traffic
from tilewright.cost.adam import Adam

#: Machines whose parameters all differ by less, in logarithms, are one neighbourhood.
NEAR = 0.05
#: How far from the best one, at least, machines are that hops lead to in turn.
AWAY = (0.0, 0.3, 0.8)
#: How far from its own, in logarithms, machines are tried for a point.
CLOSE = 0.2
#: How far from the best machine descents start, in logarithms; with a limit of area, which other machines meet otherwise.
SPREAD, WIDER = 0.3, 1.5
#: Steps of a bisection for the largest machine within a limit.
HALVINGS = 12
#: Evaluations of each layer in the search for the least power.
COOLING = 1000
#: Mappings of a layer whose changes are tried.
ELITE = 12


@dataclass(frozen=True, slots=True)
class Settings:
    """``drawn`` random points come first. ``starts`` descend together for ``steps``, rounded each ``interval`` steps; ``rate`` is the first
    step in logarithms of factors.

    ``share`` of the layers move in a step (those of most importance; 1: all). ``machines`` are tried in a selection, ``hops`` to other
    machines follow a descent, a sweep has ``jumps`` random changes of a layer. Parts can be switched off, to see what they are worth:
    ``combine``, ``refine``, ``reorder``.
    """

    starts: int = 16
    steps: int = 60
    interval: int = 20
    hops: int = 9
    drawn: int = 128
    jumps: int = 24
    rate: float = 0.2
    share: float = 0.5
    machines: int = 32
    combine: bool = True
    refine: bool = True
    reorder: bool = True


def gradient(run: Run, settings: Settings | None = None) -> None:
    """Search until the budget of ``run`` is spent. Deterministic for a seed where the budget is one of evaluations."""
    search = Search(run, settings)
    anchored = False
    if search.settings.combine:
        search.draw()
    while not run.done:
        search.descend(anchored)
        if search.settings.refine:
            search.refine()
        anchored = search.settings.combine and np.isfinite(run.best)


def within_limits(run: Run, share: float = np.inf) -> None:
    """Offer the mapping that needs the least of a machine; where power is limited, also the one of least power that a search for it finds.

    That search has :data:`COOLING` evaluations of each layer, at most ``share`` of the budget; they are counted.
    """
    problem = run.problem
    points = [problem.space.outermost]
    if problem.limits.power is not None:
        count = len(problem.space.layers)
        evaluations, seconds = (np.inf if v is None else v * share for v in (run.budget.evaluations, run.budget.seconds))
        cool = Run(problem.coolest(), Budget(max(int(min(COOLING * count, evaluations)), count), seconds))
        gradient(cool)
        run.charge(cool.evaluations)
        points += [cool.point] if cool.point is not None else []
    found = np.stack(points)
    evaluation = problem.evaluate(found)
    run.charge(len(found) * len(problem.space.layers))
    run.offer(found, problem.score(evaluation), evaluation)
    if problem.limits.power is not None and (fits := evaluation.fits & (problem.oversize(evaluation.hardware) <= 1e-12)).any():
        watts = problem.watts(evaluation.cycles, evaluation.energy).max(axis=-1)[fits]
        run.least_power = float(min(watts.min(), np.inf if run.least_power is None else run.least_power))


class Search:
    """The parts of the search, for one run. Another descent may :meth:`gather` points for the same combination and refinement."""

    def __init__(self, run: Run, settings: Settings | None = None):
        self.run, self.settings = run, settings or Settings()
        self.problem, self.space = run.problem, run.space
        self.relaxed = Relaxation(run.problem)
        self.pool = Pool(run.problem)
        similar = {x.shape[0][1:]: n for n, x in enumerate(self.space.layers)}
        kinds = np.array([similar[x.shape[0][1:]] for x in self.space.layers])
        work = (self.problem.networks * np.array([float(x.operations) for x in self.space.layers])).sum(axis=0)
        self.importance = Importance(work, kinds)
        self.logs = np.log(self.space.sizes)
        self.best: Site | None = None
        #: Points whose moves found nothing more on their machines.
        self.refined: list[Site] = []

    def draw(self) -> None:
        """Random mappings, from which the first machine is combined."""
        run = self.run
        points = self.space.sample(int(min(self.settings.drawn, run.points_left // 4)), run.rng)
        if len(points):
            if self.problem.limited:  # of these layers' mappings one fits each machine
                points[0] = self.space.outermost
            run.evaluate(points)
            self._note()
            rows, layers = points.reshape(-1, self.space.width), np.tile(np.arange(len(self.space.layers)), len(points))
            new = self.pool.fresh(rows, layers)
            self.pool.add(rows[new], layers[new], self.problem.evaluator.rows(rows[new], layers[new]))
            self._begin(points)
            if self.best is None and self.problem.limits.power is not None:
                within_limits(run, share=0.25)
                self._note()
            while self._combine(self.best, reach=1.0) is not None:
                self._note()

    def _begin(self, points: np.ndarray) -> None:
        """Where no point is within the limits: what the pool has for machines that are. ``points`` say what layers may cost."""
        if self.best is not None or not self.problem.limited:
            return
        given = self._fixed(1)
        grid = grid_of(self.problem) if given is None else given
        allowed = self.run.rng.permutation(np.flatnonzero(self.problem.oversize(grid) <= 0))[: 4 * self.settings.machines]
        if not len(allowed):
            return
        e = self.problem.evaluate(points)
        latency, total = (np.median(v, axis=0) for v in self.problem.totals(e.cycles, e.energy))
        value, picked = self.pool.select({k: v[allowed] for k, v in grid.items()}, latency, total)
        best = np.argsort(value, kind="stable")[:3]
        self.run.evaluate(self.pool.points(picked[best[np.isfinite(value[best])]]))
        self._note()

    # --- descend --------------------------------------------------------------------------------

    def descend(self, anchored: bool) -> None:
        """All starts for one round."""
        s, run = self.settings, self.run
        n = int(min(s.starts, max(run.points_left // 2, 1)))
        logs, order = self._starts(n)
        machine = (
            self._around(self.best, n, SPREAD if self.problem.limits.area is None else WIDER)
            if anchored and self.best is not None
            else self._fixed(n)
        )
        adam = Adam(logs.shape, s.rate, s.steps)
        traffic: Traffic | None = None
        active = np.arange(len(self.space.layers))
        if not s.steps:
            self._round(logs, order, machine)
        for step in range(1, s.steps + 1):
            if run.done or n * len(active) > run.left:
                break
            _, slope, shares, traffic = self.relaxed(logs, order, machine, active, traffic)
            run.charge(n * len(active))
            slope = self._tangent(slope)
            own = np.ix_(np.arange(n), active)
            logs[own] = self._project(logs[own] - adam.step(slope, own), active)
            if step % s.interval == 0 or step == s.steps:
                order = self._round(logs, order, machine)
            if s.share < 1 and step % 10 == 0:
                self.importance.record(shares.min(axis=0), active)
                active = self.importance.choose(s.share)

    def _starts(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Real factors drawn evenly from all factorisations, variants at random."""
        space, rng = self.space, self.run.rng
        logs = space.relaxed(n, rng)
        everything = np.arange(len(space.layers))
        return self._project(logs, everything), rng.integers(0, len(space.variants), (n, len(space.layers)))

    def _tangent(self, slope: np.ndarray) -> np.ndarray:
        """The gradient by the factors inside the outermost level, whose own are what those leave: one grows as the other shrinks."""
        for d in DIMS:
            *inner, last = self.space.by_dim[d]
            slope[..., inner] -= slope[..., last, None]
            slope[..., last] = 0.0
        return slope

    def _project(self, logs: np.ndarray, layers: np.ndarray) -> np.ndarray:
        """The nearest logarithms of factors of 1 or more, units within limits, that leave 1 or more to the outermost level."""
        out = np.maximum(logs, 0.0)
        for k, d in enumerate(DIMS):
            *inner, last = self.space.by_dim[d]
            total = self.logs[layers, k]
            for n in inner:
                if (most := self.space.columns[n].most) is not None:
                    out[..., n] = np.minimum(out[..., n], np.log(most))
            for _ in inner:
                over = np.maximum(out[..., inner].sum(axis=-1) - total, 0.0)
                count = (out[..., inner] > 0).sum(axis=-1)
                out[..., inner] = np.maximum(out[..., inner] - (over / np.maximum(count, 1))[..., None], 0.0)
            out[..., last] = np.maximum(total - out[..., inner].sum(axis=-1), 0.0)
        return out

    def _fixed(self, n: int) -> dict[str, np.ndarray] | None:
        given = self.problem.hardware
        return None if given is None else {k: np.full(n, float(v)) for k, v in given.items()}

    def _round(self, logs: np.ndarray, order: np.ndarray, machine: Mapping[str, np.ndarray] | None) -> np.ndarray:
        """Points rounded and gathered. Gives the best orders."""
        return self.gather(self.space.round(np.exp(logs), order), machine)

    def gather(self, points: np.ndarray, machine: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Points [n, layers, width] go to the run and to the pool, in all orders. Gives the best orders on ``machine``, or the smallest."""
        s, run = self.settings, self.run
        run.evaluate(points)
        self._note()
        order = points[..., -1]
        if not (s.reorder or s.combine):
            return order
        count = len(self.space.layers)
        rows, layers = points.reshape(-1, self.space.width), np.tile(np.arange(count), len(points))
        variants = len(self.space.variants)
        every = np.repeat(rows, variants, axis=0)
        every[:, -1] = np.tile(np.arange(variants), len(rows))
        if not s.reorder:
            every = rows
        per = variants if s.reorder else 1
        if len(every) > run.left:
            return order
        run.charge(len(every) - len(rows))  # the rows in their present order are paid for
        usage = self.problem.evaluator.rows(every, np.repeat(layers, per))
        if s.combine:
            new = self.pool.fresh(every, np.repeat(layers, per))
            self.pool.add(every[new], np.repeat(layers, per)[new], usage.map(lambda v: v[new]))
            self._begin(points)
            self._combine(self.best)
            self._note()
        if not s.reorder:
            return order
        shaped = usage.map(lambda v: v.reshape(len(points), count, per))
        least, _ = self.problem.evaluator.infer(shaped.map(lambda v: v[:, :, 0]))
        where = {k: v[:, None, None] for k, v in (least if machine is None else machine).items()}
        cycles, energy = self.problem.evaluator.costs(shaped, where)
        a, b = self.problem.powers
        return np.asarray((max(a, 1e-4) * np.log(energy) + max(b, 1e-4) * np.log(cycles)).argmin(axis=2))

    # --- combine and refine ---------------------------------------------------------------------

    def _note(self) -> None:
        if self.run.point is not None and (self.best is None or self.run.best < self.best.score):
            self.best = self._site(self.run.best, self.run.point)

    def _site(self, score: float, point: np.ndarray) -> Site:
        e = self.problem.evaluate(point[None])
        latency, total = self.problem.totals(e.cycles, e.energy)
        return Site(score, point, {k: float(v[0]) for k, v in e.hardware.items()}, latency[0], total[0])

    def _around(self, site: Site, n: int, spread: float) -> dict[str, np.ndarray]:
        """The machine of ``site`` and others around it, each with some other parameters, up to exp(``spread``) times as large or small."""
        if (fixed := self._fixed(n)) is not None:
            return fixed
        rng, out = self.run.rng, {}
        far = spread * 4.0 ** -rng.integers(0, 3, n)
        far[0] = 0.0
        for p in self.space.family.parameters:
            moved = site.machine[p.name] * np.exp(rng.normal(0, 1, n) * far * (rng.random(n) < 0.6))
            most = min(p.most, self.problem.limits.most.get(p.name, np.inf))
            out[p.name] = np.clip(np.round(moved / p.step) * p.step, p.least, most)
        return self._within(out)

    def _within(self, machines: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Machines beyond the limit of area with parameters made smaller, one after the other in random order, until they are not."""
        over = np.flatnonzero(self.problem.oversize(machines) > 0)
        if not len(over) or self.problem.limits.area is None:
            return machines
        order = self.run.rng.permuted(np.tile(np.arange(len(machines)), (len(over), 1)), axis=1)
        part = {k: v[over] for k, v in machines.items()}
        for turn in range(len(machines)):
            for n, p in enumerate(self.space.family.parameters):
                low, high = np.full(len(over), float(p.least)), part[p.name].copy()
                mine = (order[:, turn] == n) & (self.problem.oversize(part) > 0)
                for _ in range(HALVINGS):
                    middle = np.sqrt(low * high)
                    fits = self.problem.oversize({**part, p.name: middle}) <= 0
                    low, high = np.where(fits, middle, low), np.where(fits, high, middle)
                smaller = np.maximum(np.floor(low / p.step + SLACK) * p.step, p.least)
                part[p.name] = np.where(mine, smaller, part[p.name])
        for name, v in machines.items():
            v[over] = part[name]
        return machines

    def _combine(self, site: Site | None, away: float | None = None, reach: float = CLOSE) -> Site | None:
        """The best of the pool on machines around ``site``, if better; ``away``: on one that far away and not refined, better or not."""
        if site is None:
            return None
        run = self.run
        machines = self._around(site, self.settings.machines, reach if away is None else 1.0)
        # Where the machine is limited, mappings are good for few machines.
        self.pool.prune(machines, site.latency, site.total, self.refined if self.problem.limited else ())
        value, picked = self.pool.select(machines, site.latency, site.total)
        if away is not None:
            offered = np.stack([machines[k] for k in site.machine], axis=1)
            known = np.array([list(s.machine.values()) for s in self.refined])
            far = np.abs(np.log(offered[:, None] / known)).max(axis=2).min(axis=1)
            moved = np.abs(np.log(offered / np.array(list(site.machine.values())))).max(axis=1)
            value = np.where((far < NEAR) | (moved < away), np.inf, value)
        best = np.argsort(value, kind="stable")[: 3 if away is None else 1]
        best = best[np.isfinite(value[best])]
        if not len(best):
            return None
        points = self.pool.points(picked[best])
        scores = run.evaluate(points)
        first = int(scores.argmin())
        if not np.isfinite(scores[first]) or (scores[first] >= site.score * (1 - 1e-9) and away is None):
            return None
        return self._site(float(scores[first]), points[first])

    def refine(self) -> None:
        """Moves around the best point, then around points on other machines, which the pool makes as good as it can."""
        site = self.best
        for hop in range(1 + (self.settings.hops if self.problem.hardware is None else 0)):
            if hop:
                site = self._combine(self.best, away=AWAY[hop % len(AWAY)])
            if self.run.done:
                return
            if site is None:
                continue
            site = self._climb(site, patience=2)
            self.refined.append(site)
            if self.best is None or site.score < self.best.score:
                self.best = site

    def _climb(self, site: Site, patience: int) -> Site:
        """Sweeps of moves until ``patience`` of them in a row find nothing."""
        run, failed = self.run, 0
        while failed < patience and not run.done:
            rows, layers = self._moves(site, failed)
            new = np.flatnonzero(self.pool.fresh(rows, layers))
            new = new[: int(max(run.left - 4 * len(self.space.layers), 0))]
            if len(new):
                run.charge(len(new))
                self.pool.add(rows[new], layers[new], self.problem.evaluator.rows(rows[new], layers[new]))
            better = self._combine(site)
            site, failed = (site, failed + 1) if better is None else (better, 0)
        return site

    def _moves(self, site: Site, failed: int) -> tuple[np.ndarray, np.ndarray]:
        """The point itself, its neighbours, and random changes of two to four moves of the pool's best on its machine."""
        count, rng = len(self.space.layers), self.run.rng
        near = [self.space.neighbours(row, x) for x, row in enumerate(site.point)]
        rows = np.concatenate([site.point, *near])
        layers = np.concatenate([np.arange(count), *(np.full(len(v), x) for x, v in enumerate(near))])
        far_layers = np.repeat(np.arange(count), self.settings.jumps * (1 + failed))
        elite = self.pool.elite(site.machine, site.latency, site.total, ELITE)
        far = np.concatenate([elite[x][rng.integers(0, len(elite[x]), self.settings.jumps * (1 + failed))] for x in range(count)])
        for k in range(4):
            on = rng.random(len(far)) < (1.0 if k < 2 else 0.5)
            far[on] = self.space.moved(far[on], far_layers[on], rng)
        return np.concatenate([rows, far]), np.concatenate([layers, far_layers])


def ablations() -> dict[str, Settings]:
    """The search without one of its parts, by what is left out."""
    full = Settings()
    return {
        "nothing": full,
        "descent": replace(full, steps=0),
        "importance": replace(full, share=1.0),
        # Descent alone: long, as nothing comes after it.
        "combination": replace(full, combine=False, refine=False, starts=8, steps=300, interval=50),
        "refinement": replace(full, refine=False),
        "orders": replace(full, reorder=False),
    }
