"""Orders of loops that cost the same: one representative for each class.

Of the order at a level only this matters to a tensor without windows: which loops stand inside the innermost one that moves
it. A streamed window also depends on which loop is the innermost. So of the 5,040 orders of a convolution's loops a
few dozen differ, and a population with any orders is served by as many compiled models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tilewright.cost.loopnest import Factor, LoopNest
from tilewright.cost.program import read
from tilewright.hw.hierarchy import RESIDENT, Hierarchy
from tilewright.ir.stmt import Kernel


@dataclass(frozen=True, slots=True)
class Orders:
    """What orders mean to a layer on a hierarchy: the dimensions that move each tensor, and those that move a window of it."""

    moving: Mapping[str, frozenset[str]]
    windows: Mapping[str, frozenset[str]]
    hierarchy: Hierarchy

    @staticmethod
    def of(layer: Kernel, hierarchy: Hierarchy) -> Orders:
        """Read off the layer's accesses."""
        accesses = read(layer).statements[0].accesses
        moving = {a.buffer.name: frozenset(x.name.upper() for x in a.loops) for a in accesses}
        windows = {
            a.buffer.name: frozenset(
                x.name.upper()
                for i in a.logical
                for x in i.loops
                if len(i.loops) > 1 or not (i.coefficients[x].is_const and i.coefficients[x].value == 1)
            )
            for a in accesses
        }
        return Orders(moving, windows, hierarchy)

    def canonical(self, nest: LoopNest) -> LoopNest:
        """The representative of the mappings that cost what ``nest`` does and differ from it only in order."""
        levels = [
            replace(level, temporal=self._sorted(nest, n, level.temporal), spatial=tuple(sorted(level.spatial, key=_dim)))
            for n, level in enumerate(nest.levels)
        ]
        return LoopNest(tuple(levels))

    def _sorted(self, nest: LoopNest, n: int, loops: Sequence[Factor]) -> tuple[Factor, ...]:
        """The loops of level ``n``, sorted where their order does not matter; those of one trip go outside."""
        inside = {t for level in nest.levels[n + 1 :] for t in level.keeps}
        for level, storage in zip(nest.levels[n + 1 :], self.hierarchy.levels[n + 1 :], strict=True):
            if storage.reuse == RESIDENT and any(self.windows[t] for t in level.keeps):
                return tuple(loops)
        real, idle = [f for f in loops if f.trips != 1], [f for f in loops if f.trips == 1]
        # Lengths of the runs at the inner end that leave a tensor where it is, and the tensors whose runs they are.
        ends: dict[int, list[str]] = {}
        for t in inside:
            still = next((k for k, f in enumerate(reversed(real)) if f.dim in self.moving[t]), len(real))
            ends.setdefault(still, []).append(t)
        fixed = 1 if real and any(self.windows[t] for t in inside) else 0
        bounds = sorted({fixed, len(real), *(e for e in ends if fixed < e < len(real))})
        out = real[len(real) - fixed :]
        for lo, hi in zip(bounds, [*bounds[1:], len(real)], strict=True):
            part = real[len(real) - hi : len(real) - lo] + (idle if hi == len(real) else [])
            idle = [] if hi == len(real) else idle
            # Inside stand loops that end the runs that ended here (one of them at least has several trips).
            out += sorted(part, key=partial(self._place, tuple(ends.get(lo, ()))))
        return tuple(reversed(out))

    def _place(self, ended: Sequence[str], f: Factor) -> tuple[bool, str]:
        return any(f.dim not in self.moving[t] for t in ended), f.dim

    def completed(self, nests: Sequence[LoopNest]) -> list[LoopNest]:
        """Canonical mappings, each with all the loops that any of them has: those it lacks have one trip."""
        seen: dict[tuple[int, bool], set[str]] = {}
        for nest in nests:
            for p in nest.loops():
                seen.setdefault((p.depth, p.spatial), set()).add(p.factor.dim)
        known = {place: sorted(dims) for place, dims in seen.items()}
        return [self.canonical(_filled(nest, known)) for nest in nests]


def _filled(nest: LoopNest, known: Mapping[tuple[int, bool], Sequence[str]]) -> LoopNest:
    levels = []
    for depth, level in zip(reversed(range(len(nest.levels))), nest.levels, strict=True):
        temporal, spatial = known.get((depth, False), ()), known.get((depth, True), ())
        levels.append(replace(level, temporal=_with(temporal, level.temporal), spatial=_with(spatial, level.spatial)))
    return LoopNest(tuple(levels))


def _with(dims: Sequence[str], loops: tuple[Factor, ...]) -> tuple[Factor, ...]:
    present = {f.dim for f in loops}
    return (*(Factor(d, 1) for d in dims if d not in present), *loops)


def _dim(f: Factor) -> str:
    return f.dim
