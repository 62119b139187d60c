"""The best mappings and machine of a network, proven within a grid of machines: what searches are judged against.

One enumeration of each layer's mappings serves all machines of the grid, by dominance: of two mappings that spread the same
loops over units, one that accesses no level less, pads no less and holds no less anywhere is never needed. Holdings count in classes: what
fits the same machines of the grid is alike (unless one memory serves several levels). What is left is a few thousand mappings of a layer.

On one machine the objective is a product of powers of sums (of energy and cycles over layers), which has its minimum at a corner of
the convex hull of the attainable sums. A corner of a sum of sets is a sum of corners that face the same way, so following each
layer's hull from the fastest mapping to the one of least energy, all layers together, meets the optimum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from tilewright.codesign.divisors import chains
from tilewright.codesign.evaluator import SLACK, Usage
from tilewright.codesign.layer import DIMS
from tilewright.codesign.problem import Problem
from tilewright.codesign.relaxed import need_tapes
from tilewright.hw.family import Family, Use
from tilewright.util.errors import SpaceError

#: Mappings compared at once, weighted sums whose best mappings sift the others first, machines costed at once.
_BLOCK, _SIEVES, _MACHINES = 1024, 48, 32
#: Relative difference below which two costs are equal.
_CLOSE = 1e-12


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best ``point`` [layers, width] on the best machine of the grid; ``scores`` [machines] of all (infinite: nothing fits).

    ``mappings`` were enumerated, ``kept`` were left by dominance.
    """

    score: float
    hardware: Mapping[str, float]
    point: np.ndarray
    cycles: np.ndarray
    energy: np.ndarray
    grid: Mapping[str, np.ndarray]
    scores: np.ndarray
    mappings: int
    kept: int


@dataclass(frozen=True, slots=True)
class _Kept:
    rows: np.ndarray
    usage: Usage


def grid_of(problem: Problem, machines: int = 1000) -> dict[str, np.ndarray]:
    """About ``machines`` machines: powers of two for parameters of small range, ladders of ratio 2 or root of 2 for the others.

    Parameters stay within the family's and the problem's limits, and below what whole layers would need.
    """
    space = problem.space
    most = _largest_needs(problem)
    top = {p.name: min(p.most, problem.limits.most.get(p.name, p.most), max(most[p.name], p.least)) for p in space.family.parameters}
    ladders: dict[str, np.ndarray] = {}
    for ratio in (2.0, 2.0**0.5, 2.0**0.25):
        tried = {p.name: _ladder(p.least, top[p.name], ratio if p.step > 1 else 2.0, p.step) for p in space.family.parameters}
        if ladders and np.prod([len(v) for v in tried.values()]) > 1.5 * machines:
            break
        ladders = tried
    return machines_of(ladders)


def finer(problem: Problem, around: Mapping[str, float], reach: float = 2.0, count: int = 10) -> dict[str, np.ndarray]:
    """Machines between ``around`` / ``reach`` and ``around`` * ``reach``: ``count`` values of a parameter of steps, divisors else."""
    ladders = {}
    for p in problem.space.family.parameters:
        low, high = max(around[p.name] / reach, p.least), min(around[p.name] * reach, p.most, problem.limits.most.get(p.name, np.inf))
        if p.step > 1:
            ratio = max((high / low) ** (1 / count), 1 + 1e-9)
            ladders[p.name] = np.unique(np.append(_ladder(low, high, ratio, p.step), around[p.name]))
        else:
            useful = {int(d) for table in problem.space.divisors.values() for d in table.values if low <= d <= high}
            ladders[p.name] = np.array(sorted(useful | {around[p.name]}), dtype=np.float64)
    return machines_of(ladders)


def machines_of(ladders: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every combination of values of the parameters, [machines] each."""
    found = np.array(list(product(*ladders.values())), dtype=np.float64)
    return dict(zip(ladders, found.T, strict=True))


def _ladder(low: float, high: float, ratio: float, step: int) -> np.ndarray:
    count = int(np.ceil(np.log(max(high / low, 1)) / np.log(ratio) - SLACK)) + 1
    return np.unique(np.minimum(np.ceil(low * ratio ** np.arange(count) / step - SLACK) * step, np.ceil(high / step) * step))


def _largest_needs(problem: Problem) -> dict[str, float]:
    """Needs of the mappings that spread what they can, and keep the rest as far in as it goes."""
    space = problem.space
    wanted = np.full((1, len(space.layers), len(space.columns)), 1e30)
    least, _ = problem.evaluator.infer(problem.evaluator.usage(space.round(wanted, np.zeros((1, len(space.layers)), dtype=np.int64))))
    return {k: float(v[0]) for k, v in least.items()}


def proven(problem: Problem, machines: int = 1000, progress: Callable[[int], Any] | None = None) -> Optimum:
    """:func:`optimum` on :func:`grid_of`, then on a finer grid around the smallest machine that its best point fits."""
    coarse = optimum(problem, None if problem.hardware else grid_of(problem, machines), progress)
    if problem.hardware is not None:
        return coarse
    least = {k: float(v[0]) for k, v in problem.evaluator.evaluate(coarse.point[None]).hardware.items()}
    fine = optimum(problem, finer(problem, least), progress)
    return fine if fine.score <= coarse.score else coarse


def optimum(problem: Problem, grid: Mapping[str, np.ndarray] | None = None, progress: Callable[[int], Any] | None = None) -> Optimum:
    """The best point of ``problem`` on the machines of ``grid`` ([machines] for each parameter; default :func:`grid_of`, or the fixed one).

    ``progress`` is called with the number of each layer done. SpaceError for several networks, limits of power and cycles that are not the
    roofline's (what is said above does not hold for them), and when no machine of the grid runs all layers within the limits.
    """
    if len(problem.networks) > 1 or problem.limits.power is not None:
        raise SpaceError("the exact optimum is known for one network without a limit of power", hint="search (method gradient) instead")
    if problem.evaluator.array is not None:
        raise SpaceError(
            "the exact optimum is known for the roofline's cycles: others depend on more than words",
            hint="search (method gradient) instead",
        )
    if grid is None:
        fixed = problem.hardware
        grid = {k: np.array([float(v)]) for k, v in fixed.items()} if fixed is not None else grid_of(problem)
    allowed = problem.oversize(grid) <= _CLOSE
    machines = {k: np.asarray(v, dtype=np.float64)[allowed] for k, v in grid.items()}
    kept: list[_Kept] = []
    enumerated = 0
    for x in range(len(problem.space.layers)):
        layer, count = _undominated_mappings(problem, machines, x)
        kept.append(layer)
        enumerated += count
        if progress is not None:
            progress(x)
    found, best = _sweep(problem, machines, kept)
    if best is None:
        raise SpaceError(
            "no machine of the grid runs all layers within the limits", hint="raise the limits, or give a grid of larger machines"
        )
    picked, cycles, energy = best
    scores = np.full(len(allowed), np.inf)
    scores[allowed] = found
    at = int(np.argmin(scores))
    point = np.stack([k.rows[n] for k, n in zip(kept, picked, strict=True)])
    hardware = {k: float(v[at]) for k, v in grid.items()}
    return Optimum(float(scores[at]), hardware, point, cycles, energy, grid, scores, enumerated, sum(len(k.rows) for k in kept))


# --- mappings of one layer ----------------------------------------------------------------------


def _undominated_mappings(problem: Problem, machines: Mapping[str, np.ndarray], x: int) -> tuple[_Kept, int]:
    """Mappings of layer ``x`` that may be needed on some machine, and the number of all."""
    rows, parts, count = [], [], 0
    for group in enumerate_layer(problem, x):
        count += len(group)
        usage = problem.evaluator.rows(group, np.full(len(group), x))
        classes, fits = _classes(problem, machines, usage)
        group, usage, classes = group[fits], usage.map(lambda v, fits=fits: v[fits]), classes[:, fits]  # type: ignore[misc]
        if not len(group):
            continue
        # Steps and operations are alike in a group unless some mappings pad.
        work = [v for v in (usage.steps, usage.operations) if len(v) and np.ptp(v) > 0]
        values = np.stack([*usage.words.values(), *work, *classes], axis=1)
        chosen = undominated(values)
        rows.append(group[chosen])
        parts.append(usage.map(lambda v, chosen=chosen: v[chosen]))  # type: ignore[misc]
    if not rows:
        return _Kept(
            np.empty((0, problem.space.width), dtype=np.int64),
            problem.evaluator.rows(np.ones((0, problem.space.width), np.int64), np.empty(0, np.int64)),
        ), count
    usage = parts[0]
    for part in parts[1:]:
        usage = usage.joined(part)
    return _Kept(np.concatenate(rows), usage), count


def enumerate_layer(problem: Problem, x: int) -> Iterator[np.ndarray]:
    """All mappings of layer ``x``, [m, width], in groups that spread the same factors over units."""
    space = problem.space
    choices = []
    for k, d in enumerate(DIMS):
        spread = [n for n in space.by_dim[d] if space.columns[n].spatial]
        rest = [n for n in space.by_dim[d] if not space.columns[n].spatial]
        size = int(space.sizes[x, k])
        by_units = []
        for *units, left in chains(size, len(spread), space.padding):
            if all((m := space.columns[n].most) is None or f <= m for n, f in zip(spread, units, strict=True)):
                by_units.append((units, np.array(chains(left, len(rest) - 1, space.padding))))
        choices.append((spread, rest, by_units))
    for chosen in product(*(c[2] for c in choices)):
        lengths = [len(inner) for _, inner in chosen]
        total = int(np.prod(lengths))
        index = np.unravel_index(np.arange(total), lengths)
        rows = np.ones((total, space.width), dtype=np.int64)
        for (spread, rest, _), (units, inner), own in zip(choices, chosen, index, strict=True):
            rows[:, spread] = units
            rows[:, rest] = inner[own]
        out = np.repeat(rows, len(space.variants), axis=0)
        out[:, -1] = np.tile(np.arange(len(space.variants)), total)
        yield out


def _classes(problem: Problem, machines: Mapping[str, np.ndarray], usage: Usage) -> tuple[np.ndarray, np.ndarray]:
    """For each level the number of machines that what is held there alone rules out [levels, m], and whether some machine has room.

    Where what several levels hold is needed together (one memory for them), it counts as it is.
    """
    names, together = list(usage.held), _held_together(problem.space.family)
    nothing = dict.fromkeys(names, np.zeros((1, 1)))
    units = {s: v[:1, None] for s, v in usage.units.items()}  # alike in a group
    classes = []
    for s in names:
        values, place = np.unique(usage.held[s], return_inverse=True)
        use = Use({**nothing, s: values[:, None]}, units)
        room = np.ones((len(values), len(next(iter(machines.values())))), dtype=bool)
        for p in problem.space.family.parameters:
            for need in p.needs:
                room &= np.asarray(need(use, machines)) <= machines[p.name] * (1 + SLACK)
        classes.append((~room).sum(axis=1)[place])
    found = np.stack(classes)
    room_somewhere = np.asarray((found < len(next(iter(machines.values())))).all(axis=0))
    return np.stack([usage.held[s] if s in together else own for s, own in zip(names, found, strict=True)]), room_somewhere


def _held_together(family: Family) -> set[str]:
    """Levels of which a need asks for what several hold."""
    asked = [{v for v in tape.variables if v.startswith("held.")} for tapes in need_tapes(family).values() for tape in tapes]
    return {v.removeprefix("held.") for held in asked if len(held) > 1 for v in held}


def undominated(values: np.ndarray) -> np.ndarray:
    """Indices of rows of ``values`` [n, k], none negative, that no other row is as low as in all columns; one of equal rows."""
    scaled = np.ascontiguousarray(np.log1p(values))
    weights = np.random.default_rng(0).dirichlet(np.full(values.shape[1], 0.5), _SIEVES)
    alive = np.arange(len(values))
    best = np.unique([int(np.argmin(scaled @ w)) for w in weights])
    alive = np.union1d(alive[~_covered(values, values[best])], best)
    alive = alive[np.argsort(scaled[alive].sum(axis=1), kind="stable")]
    kept = np.empty(0, dtype=np.int64)
    for start in range(0, len(alive), _BLOCK):
        block = alive[start : start + _BLOCK]
        block = block[~_covered(values[block], values[kept])]
        # Of equal rows the first stays: sums that differ by rounding stand in either order, so look both ways.
        inside = _covers(values[block], values[block])
        equal = inside & inside.T
        later = np.tri(len(block), k=-1, dtype=bool).T  # column j is later than row i
        drop = (inside & ~equal).any(axis=0) | (equal & later).any(axis=0)
        block = block[~drop]
        if len(kept):
            kept = kept[~_covered(values[kept], values[block])]
        kept = np.concatenate([kept, block])
    return kept


def _covers(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[len(a), len(b)]: whether a row of ``a`` is as low as one of ``b`` in all columns."""
    out = np.ones((len(a), len(b)), dtype=bool)
    for k in range(a.shape[1]):
        out &= a[:, k, None] <= b[None, :, k] * (1 + _CLOSE)
    return out


def _covered(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    out = np.zeros(len(values), dtype=bool)
    for start in range(0, len(values), 16 * _BLOCK) if len(by) else ():
        part = slice(start, start + 16 * _BLOCK)
        out[part] = _covers(by, values[part]).any(axis=0)
    return out


# --- machines -----------------------------------------------------------------------------------


def _sweep(problem: Problem, machines: Mapping[str, np.ndarray], kept: list[_Kept]) -> tuple[np.ndarray, Any]:
    """Score of every machine; mappings, cycles and energy of the layers on the best one (None when nothing fits)."""
    count = len(next(iter(machines.values())))
    scores, least, best = np.full(count, np.inf), np.inf, None
    for start in range(0, count, _MACHINES):
        some = {k: v[start : start + _MACHINES] for k, v in machines.items()}
        hulls = [_hulls(problem, k, x, some) for x, k in enumerate(kept)]
        for h in range(len(next(iter(some.values())))):
            on = [layer[h] for layer in hulls]
            if all(len(hull[0]) for hull in on):
                value, picked = _along(problem, on)
                scores[start + h] = np.exp(value)
                if scores[start + h] < least:
                    least = scores[start + h]
                    cycles, energy = (np.array([hull[n][p] for hull, p in zip(on, picked, strict=True)]) for n in (1, 2))
                    best = [int(hull[0][p]) for hull, p in zip(on, picked, strict=True)], cycles, energy
    return scores, best


Hull = tuple[np.ndarray, np.ndarray, np.ndarray]


def _hulls(problem: Problem, kept: _Kept, x: int, machines: Mapping[str, np.ndarray]) -> list[Hull]:
    """For each machine the corners of what layer ``x`` can have: mappings, cycles (growing), energy (falling)."""
    ev, usage = problem.evaluator, kept.usage
    at = {k: v[:, None] for k, v in machines.items()}
    cycles, energy = ev.costs(usage, at)
    fits = np.ones(cycles.shape, dtype=bool)
    for name, need in ev.needs(usage, machines).items():
        fits &= need <= at[name] * (1 + SLACK)
    return [_hull(c, e, np.flatnonzero(f)) for c, e, f in zip(cycles, energy, fits, strict=True)]


def _hull(cycles: np.ndarray, energy: np.ndarray, rows: np.ndarray) -> Hull:
    if not len(rows):
        return rows, cycles[rows], energy[rows]
    c, e = cycles[rows], energy[rows]
    near = (c <= c[e == e.min()].min()) & (e <= e[c == c.min()].min())
    rows = rows[near]
    corners: list[int] = []
    for n in rows[np.lexsort((energy[rows], cycles[rows]))]:
        if corners and energy[n] >= energy[corners[-1]]:
            continue
        while len(corners) > 1 and _above(cycles, energy, corners[-2], corners[-1], n):
            corners.pop()
        corners.append(int(n))
    out = np.array(corners)
    return out, cycles[out], energy[out]


def _above(cycles: np.ndarray, energy: np.ndarray, a: int, b: int, c: int) -> bool:
    """Whether corner b lies on or above the line from a to c."""
    return bool((energy[b] - energy[a]) * (cycles[c] - cycles[a]) >= (energy[c] - energy[a]) * (cycles[b] - cycles[a]))


def _along(problem: Problem, hulls: list[Hull]) -> tuple[float, np.ndarray]:
    """The least logarithm of the objective along the hull of the network, and the corner of each layer there."""
    weights = problem.networks[0]
    steps = [
        (w * np.diff(c), w * np.diff(e), np.full(len(c) - 1, x))
        for x, (w, (_, c, e)) in enumerate(zip(weights, hulls, strict=True))
        if w > 0
    ]
    slower, saved, layer = (np.concatenate(v) for v in zip(*steps, strict=True))
    order = np.argsort(saved / slower, kind="stable")  # the steepest first; along one hull they grow flatter
    first = (
        sum(w * hull[1][0] for w, hull in zip(weights, hulls, strict=True)),
        sum(w * hull[2][0] for w, hull in zip(weights, hulls, strict=True)),
    )
    cycles = first[0] + np.concatenate([[0.0], np.cumsum(slower[order])])
    energy = first[1] + np.concatenate([[0.0], np.cumsum(saved[order])])
    a, b = problem.powers
    value = a * np.log(energy) + b * np.log(cycles)
    at = int(np.argmin(value))
    return float(value[at]), np.bincount(layer[order[:at]], minlength=len(hulls))
