"""Words that move between explicit memories when a program runs with given tiles in them.

A cache decides by its size what stays (:mod:`tilewright.cost.traffic`); here the program decides. Of each tensor a memory
keeps the box that the loops at and below its level touch. With B words in a box, t iterations of a loop outside it and V
words that two boxes share, one iteration of the loop apart, the words fetched while the loop runs are

    F(loop) = t * F(inside) - (t - 1) * V,        F(innermost) = B.

V follows from the displacement of the box: forward by this loop, back by all loops inside it, which start again. A loop that does
not move the tensor, with none inside that does, has V = B = F: stationarity. Where the box moves by its own size V is 0. In
between are sliding windows. This is exact for any tiles and orders, and a :class:`~tilewright.cost.formula.Formula` of the trips.

Units side by side that need the same box are served by one read (multicast), and their results for one box are summed on the
way out. Boxes that differ are served one by one, also where they overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from tilewright.cost.formula import Formula, Graph
from tilewright.cost.loopnest import LoopNest
from tilewright.cost.program import Access, Linear, Loop, Program
from tilewright.hw.hierarchy import RESIDENT, Hierarchy
from tilewright.util.errors import MappingError


@dataclass(frozen=True, slots=True, eq=False)
class Movement:
    """What one level does for one tensor, in words, summed over the level's instances.

    ``reads`` go inwards, ``fills`` come from outside (a result's first visit counts as one), ``updates`` come from
    inside. ``held`` is the box in one of ``instances``.
    """

    tensor: str
    level: str
    reads: Formula
    fills: Formula
    updates: Formula
    held: Formula
    instances: Formula


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    loop: Loop
    depth: int
    spatial: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Family:
    """Loops (innermost first) that together count ``base``, 2 base, ... without gaps or overlap."""

    base: Formula
    loops: tuple[Loop, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Dim:
    """One dimension of an access. A ``window`` has gaps, or boxes that overlap: several families, or steps of more than one."""

    index: Linear
    families: tuple[_Family, ...]

    @property
    def window(self) -> bool:
        base = self.families[0].base
        return len(self.families) > 1 or not (base.is_const and base.value == 1)


def movements(program: Program, nest: LoopNest, hierarchy: Hierarchy) -> list[Movement]:
    """Words moved by ``program``, which is ``mapping_program(layer, nest)``, level by level from the innermost, for each of its tensors.

    MappingError when the levels of mapping and hierarchy differ, a tensor is not kept outermost, or an index is not linear.
    """
    names, known = [v.name for v in nest.levels], [s.name for s in hierarchy.levels]
    if names != known:
        raise MappingError(
            f"the mapping has levels {' '.join(names)}, {hierarchy.name} has {' '.join(known)}", hint="name them alike, the outermost first"
        )
    statement = program.statements[0]
    placed = [_Placed(x, p.depth, p.spatial) for x, p in zip(statement.loops, nest.loops(), strict=True)]
    return [m for a in statement.accesses for m in _Tensor(program.graph, a, placed, nest, hierarchy).movements()]


class _Tensor:
    """One access under a mapping."""

    def __init__(self, g: Graph, access: Access, placed: Sequence[_Placed], nest: LoopNest, hierarchy: Hierarchy):
        self.g, self.access = g, access
        self.placed = list(reversed(placed))
        self.name = access.buffer.name
        self.storages = list(reversed(hierarchy.levels))
        self.chain = [d for d, level in enumerate(reversed(nest.levels)) if self.name in level.keeps]
        self.outermost = len(nest.levels) - 1
        if self.chain[-1:] != [self.outermost]:
            raise MappingError(f"level {nest.levels[0].name} does not keep {self.name}", hint="the outermost level holds every tensor")
        if any(i.irregular or i.floors for i in access.logical):
            raise MappingError(f"an index of {self.name} is not a sum of loops", hint="use sums of constants times loops")
        order = [p.loop for p in self.placed]
        self.dims = [_Dim(i, _families(i, order)) for i in access.logical if i.coefficients]

    def movements(self) -> list[Movement]:
        return [self._movement(n) for n in range(len(self.chain))]

    def _movement(self, n: int) -> Movement:
        g, depth = self.g, self.chain[n]
        child = self.chain[n - 1] if n else -1
        spread = [p for p in self.placed if p.spatial]
        instances = g.product(p.loop.trips for p in spread if p.depth > depth)
        apart = g.product(p.loop.trips for p in spread if child < p.depth <= depth and p.loop in self.access.loops)
        served = self._fetched(child) * apart * instances
        fills = g.const(0) if depth == self.outermost else self._fetched(depth) * instances
        held, name = g.product(self._box(depth, depth)), self.storages[depth].name
        if not self.access.writes:
            return Movement(self.name, name, served, fills, g.const(0), held, instances)
        distinct = g.product(self._box(self.outermost, depth)) * instances
        return Movement(self.name, name, served - distinct, fills, served, held, instances)

    def _fetched(self, depth: int) -> Formula:
        """Words that one unit at ``depth`` takes in (-1: the arithmetic, which keeps nothing)."""
        outside = [p.loop for p in self.placed if not p.spatial and p.depth > depth]
        if depth < 0:
            return self.g.product(x.trips for x in outside)
        return self._walk(outside, self._box(depth, depth), self.storages[depth].reuse == RESIDENT)

    def _box(self, temporal: int, spatial: int) -> list[Formula]:
        """Size in each dimension of what loops in time and in space touch, each to its depth."""
        active = frozenset(p.loop for p in self.placed if p.depth <= (spatial if p.spatial else temporal))
        return [_size(self.g, d, active) for d in self.dims]

    def _walk(self, outside: Sequence[Loop], box: Sequence[Formula], resident: bool) -> Formula:
        """The recursion above. ``outside`` runs from the innermost loop out."""
        g = self.g
        moving = {x for d in self.dims for x in d.index.coefficients}
        slides = [n for n, d in enumerate(self.dims) if d.window and any(x in d.index.coefficients for x in outside)]
        rigid = {x for n, d in enumerate(self.dims) if n not in slides for x in d.index.coefficients}
        whole = g.product(b for n, b in enumerate(box) if n not in slides)
        # Words in units of the part that does not slide: tensors without windows then share one walk.
        unit = g.product(box[n] for n in slides)
        fetched, back = unit, {n: g.const(0) for n in slides}
        parked = still = first = g.const(1)
        for x in outside:
            shift = {n: c for n in slides if (c := self.dims[n].index.coefficients.get(x)) is not None}
            if x in rigid:
                common = g.const(0)
            elif resident:
                common = g.where(parked, g.product(_common(g, box[n], back[n] + shift.get(n, 0)) for n in slides), 0)
            elif shift:
                common = g.where(first, g.product(_common(g, box[n], g.lift(shift.get(n, 0))) for n in slides), 0)
            else:
                common = g.where(still, unit, 0)
            fetched = fetched if common is fetched else fetched * x.trips - common * (x.trips - 1)
            once = g.le(x.trips, 1)
            first = g.both(first, once)
            parked = g.both(parked, once) if x in rigid else parked
            still = g.both(still, once) if x in moving else still
            back = {n: d - shift[n] * (x.trips - 1) if n in shift else d for n, d in back.items()}
        return fetched * whole


def _common(g: Graph, size: Formula, displacement: Formula) -> Formula:
    """Places that an interval shares with itself displaced."""
    return g.max(size - g.max(displacement, displacement * -1), 0)


def _families(index: Linear, order: Iterable[Loop]) -> tuple[_Family, ...]:
    """Loops of an index, split into tiles of tiles."""
    found: list[tuple[Formula, Formula, list[Loop]]] = []
    for x in order:
        c = index.coefficients.get(x)
        if c is None:
            continue
        for n, (base, reach, loops) in enumerate(found):
            if c is reach:
                found[n] = base, reach * x.trips, [*loops, x]
                break
        else:
            found.append((c, c * x.trips, [x]))
    return tuple(_Family(base, tuple(loops)) for base, _, loops in found)


def _size(g: Graph, dim: _Dim, active: Set[Loop]) -> Formula:
    """Places of a dimension from first to last while ``active`` loops run: of each family the innermost ones."""
    runs = [g.product(x.trips for x in f.loops if x in active) for f in dim.families]
    return g.sum((run - 1) * f.base for run, f in zip(runs, dim.families, strict=True)) + 1 if dim.window else runs[0]
