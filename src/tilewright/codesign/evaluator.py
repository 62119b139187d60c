"""Costs of populations of points: words moved (whatever the machine), the smallest machine, its cycles and energy.

All numbers come from one :class:`~tilewright.cost.nestcost.NestModel` for each variant of the space (not rounded: whole lines and cycles
would make tile sizes jump). Layers are rows like any others: their sizes are products of factors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from tilewright.codesign.layer import DIMS, KERNEL, STEPS
from tilewright.codesign.mapspace import MapSpace
from tilewright.cost.nestcost import NestModel, Roofline
from tilewright.cost.residual import ArrayTime
from tilewright.hw.family import Use
from tilewright.util.errors import SpaceError

#: Rows evaluated together: their intermediate values stay in the cache.
BLOCK = 4096
#: Of a parameter's need, what rounding errors may add.
SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Usage:
    """What mappings do on any machine of a family; arrays of one shape, by name of level.

    ``words`` accessed, those ``held`` by one of ``instances``, ``units`` side by side below; ``steps`` one after the other, and all
    ``operations``, padding with them. ``tile``: what an array's own cycles depend on, by name of variable, where such cycles are asked for.
    """

    words: Mapping[str, np.ndarray]
    held: Mapping[str, np.ndarray]
    instances: Mapping[str, np.ndarray]
    units: Mapping[str, np.ndarray]
    steps: np.ndarray
    operations: np.ndarray
    tile: Mapping[str, np.ndarray] = field(default_factory=dict)

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Usage:
        """The same with every array changed alike: a selection, another shape."""
        groups = (self.words, self.held, self.instances, self.units, self.tile)
        words, held, instances, units, tile = ({k: change(v) for k, v in d.items()} for d in groups)
        return Usage(words, held, instances, units, change(self.steps), change(self.operations), tile)

    def joined(self, other: Usage) -> Usage:
        """This and then the other, along the first axis."""
        pairs = [(getattr(self, k), getattr(other, k)) for k in ("words", "held", "instances", "units", "tile")]
        words, held, instances, units, tile = ({k: np.concatenate([a[k], b[k]]) for k in a} for a, b in pairs)
        steps, operations = (np.concatenate([getattr(self, k), getattr(other, k)]) for k in ("steps", "operations"))
        return Usage(words, held, instances, units, steps, operations, tile)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``cycles`` and ``energy`` (pJ) of one run of each layer [n, layers] on ``hardware`` ([n] each); whether it ``fits`` them [n]."""

    cycles: np.ndarray
    energy: np.ndarray
    hardware: Mapping[str, np.ndarray]
    fits: np.ndarray


class Evaluator:
    """Evaluates points of one ``space``. ``array``: its cycles, fitted to measured ones, where they are more than the roofline's
    (they count no results, so a search would hide its work there).

    SpaceError when the family's machines have no array of one side ``dim`` that such cycles are of.
    """

    def __init__(self, space: MapSpace, array: ArrayTime | None = None):
        if array is not None and "dim" not in (p.name for p in space.family.parameters):
            raise SpaceError(
                f"{space.family.name} has no parameter dim: fitted cycles are of square arrays", hint="use the roofline's cycles"
            )
        self.space, self.array = space, array
        self.roofline = Roofline(space.family.hierarchy)
        self._names = [s.name for s in space.family.hierarchy.levels]
        self._knobs = [c.knob for c in space.columns]
        #: Columns that are 1 in every point stay numbers: what they multiply costs nothing.
        self._fixed = {n for n, c in enumerate(space.columns) if all(x.sizes[c.dim] == 1 for x in space.layers)}
        self._units = {
            s.name: [n for n, c in enumerate(space.columns) if c.spatial and c.depth == depth]
            for depth, s in zip(reversed(range(len(self._names))), space.family.hierarchy.levels, strict=True)
        }

        outermost = len(self._names) - 1
        #: Columns whose product is the tiles of a mapping, and of each dimension what a tile has; for the array's cycles.
        self.tile_columns: dict[str, list[int]] = {}
        if array is not None:
            outside = [n for n, c in enumerate(space.columns) if c.depth == outermost and not c.spatial]
            own = {f"tile.{d}": [n for n in space.by_dim[d] if n not in outside] for d in DIMS}
            self.tile_columns = {"tiles": outside, **own}

    @cached_property
    def models(self) -> tuple[NestModel, ...]:
        """A model for each variant."""
        return tuple(NestModel(KERNEL, s, self.space.family.hierarchy, rounded=False) for s in self.space.structures)

    def usage(self, points: np.ndarray) -> Usage:
        """What ``points`` [n, layers, width] do on any machine."""
        n = len(points)
        rows = points.reshape(n * len(self.space.layers), -1)
        layers = np.tile(np.arange(len(self.space.layers)), n)
        return self.rows(rows, layers).map(lambda v: v.reshape(n, -1))

    def rows(self, rows: np.ndarray, layers: np.ndarray) -> Usage:
        """The same for mappings ``rows`` [m, width] of ``layers`` [m]."""
        levels = len(self._names)
        out = np.empty((2 + 3 * levels, len(rows)))
        variant = rows[:, -1]
        for k in range(len(self.space.variants)):
            own = np.flatnonzero(variant == k) if len(self.space.variants) > 1 else np.arange(len(rows))
            for start in range(0, len(own), BLOCK):
                part = own[start : start + BLOCK]
                for at, value in enumerate(self.models[k].traffic(self._environment(rows[part], layers[part]))):
                    out[at, part] = value
        units = {s: rows[:, c].prod(axis=1).astype(np.float64) for s, c in self._units.items()}
        words, held, instances = (dict(zip(self._names, out[2 + k * levels : 2 + (k + 1) * levels], strict=True)) for k in range(3))
        tile = {k: rows[:, c].prod(axis=1).astype(np.float64) for k, c in self.tile_columns.items()}
        return Usage(words, held, instances, units, out[0], out[1], {**tile, **self.strides(layers)} if tile else {})

    def strides(self, layers: np.ndarray | slice) -> dict[str, np.ndarray]:
        """Strides of ``layers``, by name."""
        return {name: self.space.steps[layers, n].astype(np.float64) for n, name in enumerate(STEPS) if name in ("SH", "SW")}

    def _environment(self, rows: np.ndarray, layers: np.ndarray) -> dict[str, np.ndarray | int]:
        columns = np.ascontiguousarray(rows[:, :-1].T, dtype=np.float64)
        env: dict[str, np.ndarray | int] = {k: 1 if n in self._fixed else columns[n] for n, k in enumerate(self._knobs)}
        for n, name in enumerate(STEPS):
            values = self.space.steps[:, n]
            env[name] = int(values[0]) if (values == values[0]).all() else values[layers].astype(np.float64)
        return env

    def needs(self, usage: Usage, hardware: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What each layer needs of each parameter [n, layers], other parameters being ``hardware``; not rounded up."""
        at = {k: np.asarray(v)[..., None] for k, v in hardware.items()}
        use = Use(usage.held, usage.units)
        return {p.name: _most([np.asarray(need(use, at)) for need in p.needs]) for p in self.space.family.parameters}

    def infer(self, usage: Usage) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The smallest machine for all layers ([n] for each parameter), and whether the family has one that large [n]."""
        use = Use(usage.held, usage.units)
        found: dict[str, np.ndarray] = {}
        fits = np.ones(usage.steps.shape[:-1], dtype=bool)
        for p in self.space.family.parameters:
            at = {k: v[..., None] for k, v in found.items()}
            need = _most([np.asarray(f(use, at)) for f in p.needs]).max(axis=-1)
            found[p.name] = np.maximum(np.ceil(need / p.step - SLACK) * p.step, p.least)
            fits &= found[p.name] <= p.most
        return found, fits

    def cost(self, usage: Usage, hardware: Mapping[str, np.ndarray | float]) -> tuple[np.ndarray, np.ndarray]:
        """Cycles and pJ of each layer [n, layers] on ``hardware`` ([n] or one number for each parameter)."""
        at = {k: np.asarray(v, dtype=np.float64)[..., None] for k, v in hardware.items()}
        return self.costs(usage, at)

    def costs(self, usage: Usage, at: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The same for arrays of any shapes that broadcast against each other."""
        cycles, energy = self.roofline(usage.steps, usage.operations, usage.words, usage.instances, at)
        if self.array is not None:
            cycles = np.maximum(cycles, self.array.predict({**usage.tile, "dim": at["dim"]}))
        cycles, energy, _ = np.broadcast_arrays(cycles, energy, next(iter(at.values())))  # a machine's rates may be plain numbers
        return cycles, energy

    def evaluate(self, points: np.ndarray, hardware: Mapping[str, float] | None = None) -> Evaluation:
        """Costs on the smallest machine of each point, or on a given one (``fits`` then says whether it is large enough)."""
        usage = self.usage(points)
        least, fits = self.infer(usage)
        if hardware is None:
            return Evaluation(*self.cost(usage, least), least, fits)
        given = {p.name: np.full(len(points), float(hardware[p.name])) for p in self.space.family.parameters}
        needed = self.needs(usage, given)
        for name, need in needed.items():
            fits = fits & (need.max(axis=-1) <= given[name] * (1 + SLACK))
        return Evaluation(*self.cost(usage, given), given, fits)


def _most(values: list[np.ndarray]) -> np.ndarray:
    out = values[0]
    for v in values[1:]:
        out = np.maximum(out, v)
    return out
