"""The mappings of several layers on a family of machines, as integer arrays that every search method shares.

A *point* is one mapping for each layer: ``points[n, layer, column]``. A column is the factor of one dimension at one place (a
level, in time or over units); the product over a dimension's columns is its size, or more where padding is allowed. The last column is the
number of the variant: the loop orders, and what levels keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from tilewright.codesign.divisors import Divisors, factors_of, prime_factors, splits
from tilewright.codesign.layer import DIMS, STEPS, TENSORS, Layer
from tilewright.cost.loopnest import Factor, Level, LoopNest, Placed
from tilewright.hw.family import Family
from tilewright.util.errors import SpaceError


@dataclass(frozen=True, slots=True)
class Column:
    """A place for a factor: the ``depth`` of the level (0: innermost), the dimension, whether over units side by side, the most there."""

    depth: int
    dim: str
    spatial: bool
    most: int | None = None

    @property
    def knob(self) -> str:
        """The name that the cost model gives this factor."""
        return Placed(Factor(self.dim, 1), self.depth, self.spatial).knob


@dataclass(frozen=True, slots=True)
class Variant:
    """What a mapping chooses besides factors: the tensors that levels keep and the orders of their loops, the outermost level first."""

    keeps: tuple[str, ...]
    orders: tuple[str, ...]


class MapSpace:
    """Factorisations of ``layers`` over the places of ``family``, in its loop orders, with what its levels may keep.

    With ``padding`` 0 factors divide. Otherwise each split of a loop in two may overshoot by up to that part (0.25: a quarter), where
    sizes such as 7, 17 or 197 have too few divisors. Padding is computed and moved like everything else.
    SpaceError when there is no layer, the family's outermost level leaves out a dimension, or padding is negative or above 1.
    """

    def __init__(self, layers: Sequence[Layer], family: Family, padding: float = 0.0):
        if not layers:
            raise SpaceError("there are no layers to map", hint="give one layer or more")
        if missing := sorted(set(DIMS) - set(family.orders[0][0])):
            raise SpaceError(
                f"{family.name} has no loop over {missing[0]} at its outermost level",
                hint="what other levels leave runs there: name every dimension",
            )
        if unknown := sorted({d for dims in (*(o for own in family.orders for o in own), *family.spatial) for d in dims} - set(DIMS)):
            raise SpaceError(f"{family.name} has loops over {unknown[0]!r}", hint=f"dimensions of layers are {', '.join(DIMS)}")
        if (kept := set(family.keeps[0][0])) != set(TENSORS):
            raise SpaceError(
                f"{family.name} keeps {', '.join(sorted(kept)) or 'nothing'} at its outermost level",
                hint=f"tensors of layers are {', '.join(TENSORS)}",
            )
        if not 0 <= padding <= 1:
            raise SpaceError(f"padding is {padding:g}", hint="give a part from 0 (factors divide) to 1")
        self.layers, self.family, self.padding = tuple(layers), family, padding
        self.columns = self._columns()
        #: For each dimension its columns in the order in which factors are rounded: units, then from the innermost loop out.
        #: The last one, at the outermost level, takes what the others leave.
        self.by_dim = {d: self._sequence(d) for d in DIMS}
        self.sizes = np.array([[x.sizes[d] for d in DIMS] for x in self.layers], dtype=np.int64)
        self.steps = np.array([[x.parameters[s] for s in STEPS] for x in self.layers], dtype=np.int64)
        self.counts = np.array([x.count for x in self.layers], dtype=np.int64)
        self.variants = tuple(Variant(k, o) for k in product(*family.keeps) for o in product(*family.orders))
        self.divisors = {size: Divisors(size, padding) for size in sorted({int(s) for s in self.sizes.ravel()})}

    def _columns(self) -> tuple[Column, ...]:
        f, out = self.family, []
        for depth, orders, spatial, fanout in zip(reversed(range(len(f.orders))), f.orders, f.spatial, f.fanout, strict=True):
            out += [Column(depth, d, False) for d in DIMS if d in orders[0]]
            out += [Column(depth, d, True, fanout) for d in spatial]
        return tuple(out)

    def _sequence(self, dim: str) -> tuple[int, ...]:
        own = [n for n, c in enumerate(self.columns) if c.dim == dim]
        return tuple(sorted(own, key=lambda n: (not self.columns[n].spatial, self.columns[n].depth)))

    @property
    def width(self) -> int:
        """Columns of a point with the variant."""
        return len(self.columns) + 1

    @cached_property
    def structures(self) -> tuple[LoopNest, ...]:
        """For each variant the mapping with knobs for factors."""
        return tuple(self._nest(None, n) for n in range(len(self.variants)))

    @cached_property
    def size(self) -> float:
        """Number of points."""
        total = 1.0
        for x in self.layers:
            total *= len(self.variants)
            for d, n in x.sizes.items():
                total *= self.divisors[n].count(len(self.by_dim[d]))
        return total

    @cached_property
    def outermost(self) -> np.ndarray:
        """The point [layers, width] whose loops all run at the outermost level, in the first variant: it needs the least of a machine."""
        point = np.ones((len(self.layers), self.width), dtype=np.int64)
        for k, own in enumerate(self.by_dim.values()):
            point[:, own[-1]] = self.sizes[:, k]
        point[:, -1] = 0
        return point

    # --- points ---------------------------------------------------------------------------------

    def check(self, points: np.ndarray) -> np.ndarray:
        """Whether factors are some of the sizes, units fit and the variant exists: bool [n, layers]."""
        known = (points[..., -1] >= 0) & (points[..., -1] < len(self.variants))
        return np.asarray(known & self._valid(points, self.sizes))

    def _valid(self, rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The same for mappings [.., width] of layers of ``sizes`` [.., dims], whatever their variant."""
        good = (rows[..., :-1] >= 1).all(axis=-1) & (rows[..., :-1] <= self._most).all(axis=-1)
        factors = np.maximum(rows, 1)
        for k, d in enumerate(DIMS):
            *inner, last = self.by_dim[d]
            left = sizes[..., k]
            for n in inner:
                good &= splits(left, factors[..., n], self.padding)
                left = -(-left // factors[..., n])
            good &= factors[..., last] == left
        return np.asarray(good)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Random points: every prime factor at a place of its own choice, units that overflow at the outermost level. With padding random
        reals, rounded."""
        if self.padding:
            return self.round(np.exp(self.relaxed(n, rng)), rng.integers(0, len(self.variants), (n, len(self.layers))))
        points = np.ones((n, len(self.layers), self.width), dtype=np.int64)
        points[..., -1] = rng.integers(0, len(self.variants), points.shape[:2])
        for x in range(len(self.layers)):
            for k, d in enumerate(DIMS):
                places = np.array(self.by_dim[d])
                for prime, power in prime_factors(int(self.sizes[x, k])):
                    for _ in range(power):
                        points[np.arange(n), x, rng.choice(places, n)] *= prime
        return self._within_fanout(points)

    def relaxed(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Logarithms [n, layers, columns] of real factors whose products are the sizes, drawn evenly from all such."""
        logs = np.zeros((n, len(self.layers), len(self.columns)))
        for k, d in enumerate(DIMS):
            own = list(self.by_dim[d])
            logs[..., own] = rng.dirichlet(np.ones(len(own)), (n, len(self.layers))) * np.log(self.sizes[:, k, None])
        return logs

    def _within_fanout(self, points: np.ndarray) -> np.ndarray:
        for n, c in enumerate(self.columns):
            if c.most is not None:
                over = points[..., n] > c.most
                points[..., self.by_dim[c.dim][-1]] *= np.where(over, points[..., n], 1)
                points[..., n] = np.where(over, 1, points[..., n])
        return points

    def mutate(self, points: np.ndarray, rng: np.random.Generator, moves: int = 1) -> np.ndarray:
        """Copies with ``moves`` random changes each (:meth:`moved`), of any layers."""
        out = points.copy()
        rows = np.arange(len(out))
        for _ in range(moves):
            layers = rng.integers(0, len(self.layers), len(out))
            out[rows, layers] = self.moved(out[rows, layers], layers, rng)
        return out

    def moved(self, rows: np.ndarray, layers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Mappings [m, width] of ``layers`` [m], each with one random change: a prime factor goes elsewhere, or, with padding, two places
        share anew what they cover. One in eight gets another variant."""
        out = self._shared_anew(rows, layers, rng) if self.padding else self._prime_moved(rows, layers, rng)
        same = (out == rows).all(axis=1)
        fresh = (out[:, -1] + rng.integers(1, max(len(self.variants), 2), len(out))) % len(self.variants)
        out[:, -1] = np.where(same, fresh, out[:, -1])
        return out

    def _shared_anew(self, rows: np.ndarray, layers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        out, m, sizes = rows.copy(), np.arange(len(rows)), self.sizes[layers]
        source = _any_of(self._shared & (sizes[:, self._dim_of] > 1), rng)
        target = _any_of(self._siblings[source], rng)
        size = sizes[m, self._dim_of[source]]
        others = np.where(self._dim_of == self._dim_of[source][:, None], rows[:, :-1], 1).prod(axis=1) // (
            rows[m, source] * rows[m, target]
        )
        covered = -(-size // others)
        factor = np.rint(covered ** rng.random(len(rows))).astype(np.int64)
        out[m, target] = -(-covered // factor)
        out[m, source] = -(-covered // out[m, target])
        good = (source >= 0) & (target >= 0) & self._valid(out, sizes) & (rng.random(len(out)) >= 1 / (1 + len(DIMS)))
        return np.where(good[:, None], out, rows)

    def _prime_moved(self, rows: np.ndarray, layers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        out, m = rows.copy(), np.arange(len(rows))
        primes = self._primes[layers[:, None], self._dim_of]
        source = _any_of((out[:, :-1, None] % primes == 0) & (primes > 1) & self._shared[:, None], rng)
        column, which = np.divmod(np.maximum(source, 0), primes.shape[2])
        prime = np.where(source >= 0, primes[m, column, which], 1)
        prime = np.where(rng.random(len(out)) < 1 / (1 + len(DIMS)), 1, prime)
        target = _any_of(self._siblings[column], rng)
        prime = np.where((target < 0) | (out[m, target] * prime > self._most[target]), 1, prime)
        out[m, column] //= prime
        out[m, target] *= prime
        return out

    @cached_property
    def _primes(self) -> np.ndarray:
        """[layers, dims, k]: distinct primes of each size, filled up with 1."""
        found = [[[p for p, _ in prime_factors(int(s))] for s in row] for row in self.sizes]
        most = max((len(p) for row in found for p in row), default=0) or 1
        return np.array([[[*p, *[1] * (most - len(p))] for p in row] for row in found], dtype=np.int64)

    @cached_property
    def _dim_of(self) -> np.ndarray:
        return np.array([DIMS.index(c.dim) for c in self.columns])

    @cached_property
    def _siblings(self) -> np.ndarray:
        """[columns, columns]: whether both are places of one dimension, and two."""
        return (self._dim_of[:, None] == self._dim_of) & ~np.eye(len(self.columns), dtype=bool)

    @cached_property
    def _shared(self) -> np.ndarray:
        return np.asarray(self._siblings.any(axis=1))

    @cached_property
    def _most(self) -> np.ndarray:
        return np.array([np.iinfo(np.int64).max if c.most is None else c.most for c in self.columns])

    def neighbours(self, row: np.ndarray, x: int) -> np.ndarray:
        """All mappings of layer ``x`` one move away from its ``row`` [width]: a factor shrinks and another grows, as far as it divides or
        padding allows, or another variant."""
        out = []
        for k, own in enumerate(self.by_dim.values()):
            for source, target in product(own, own):
                if source != target and row[source] > 1:
                    others = int(row[list(own)].prod() // (row[source] * row[target]))
                    covered = -(-int(self.sizes[x, k]) // others)
                    for factor in reversed(factors_of(covered if self.padding else int(row[source]), self.padding)):
                        if factor < row[source]:
                            moved = row.copy()
                            moved[source], moved[target] = factor, -(-covered // factor)
                            out.append(moved)
        for n in range(len(self.variants)):
            if n != row[-1]:
                other = row.copy()
                other[-1] = n
                out.append(other)
        found = np.array(out, dtype=np.int64).reshape(-1, self.width)
        return found[self._valid(found, self.sizes[x])]

    def round(self, factors: np.ndarray, variant: np.ndarray) -> np.ndarray:
        """Points near real ``factors`` [n, layers, columns]: each in turn the factor of what is left that is nearest in ratio.

        Units first, then loops from the innermost level out; the outermost level takes the rest.
        """
        points = np.ones((*factors.shape[:2], self.width), dtype=np.int64)
        points[..., -1] = variant
        for x in range(len(self.layers)):
            for k, d in enumerate(DIMS):
                size = int(self.sizes[x, k])
                *inner, last = self.by_dim[d]
                if size == 1:
                    continue
                table = self.divisors[size]
                left = np.full(len(factors), table.last)
                for n in inner:
                    nearest = table.nearest(factors[:, x, n], left, self.columns[n].most)
                    points[:, x, n] = table.values[nearest]
                    left = table.quotient[left, nearest]
                points[:, x, last] = table.values[left]
        return points

    # --- text -----------------------------------------------------------------------------------

    def nests(self, point: np.ndarray) -> tuple[LoopNest, ...]:
        """The mappings of one point [layers, width]."""
        return tuple(self._nest(row, int(row[-1])) for row in point)

    def _nest(self, row: np.ndarray | None, number: int) -> LoopNest:
        """Loops of one iteration are left out of a mapping; a structure has them all."""
        at = {(c.depth, c.dim, c.spatial): n for n, c in enumerate(self.columns)}
        levels = []
        depths = reversed(range(len(self.family.orders)))
        chosen = self.variants[number]
        for depth, storage, keeps, loops, spatial in zip(
            depths, self.family.hierarchy.levels, chosen.keeps, chosen.orders, self.family.spatial, strict=True
        ):
            kinds = []
            for dims, side in ((loops, False), (spatial, True)):
                columns = [at[depth, d, side] for d in dims]
                trips = [self.columns[n].knob if row is None else int(row[n]) for n in columns]
                kinds.append(tuple(Factor(d, t) for d, t in zip(dims, trips, strict=True) if t != 1))
            levels.append(Level(storage.name, keeps, *kinds))
        return LoopNest(tuple(levels))

    def encode(self, nests: Sequence[LoopNest]) -> np.ndarray:
        """The point of mappings, one for each layer; SpaceError names one that the space does not have.

        Of orders that differ only in loops of one iteration the first is taken.
        """
        point = np.ones((len(self.layers), self.width), dtype=np.int64)
        at = {(c.depth, c.dim, c.spatial): n for n, c in enumerate(self.columns)}
        for x, nest in enumerate(nests):
            for p in nest.loops():
                where = at.get((p.depth, p.factor.dim, p.spatial))
                if where is None:
                    raise SpaceError(
                        f"{self.family.name} has no place for loop {p.factor} of {nest}", hint="see its orders and spatial dimensions"
                    )
                point[x, where] = int(p.factor.trips)
            variants = (n for n in range(len(self.variants)) if self._nest(np.array([*point[x, :-1], n]), n) == nest)
            point[x, -1] = next(variants, -1)
        if len(nests) != len(self.layers) or not self.check(point[None]).all():
            raise SpaceError(
                f"the mappings are no point of {self.family.name}",
                hint="one for each layer, with factors of its sizes, an order and kept tensors of the family",
            )
        return point


def _any_of(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row a random place (of the flattened rest) where it is true; -1: nowhere."""
    flat = allowed.reshape(len(allowed), -1)
    drawn = np.where(flat, rng.random(flat.shape), -1.0)
    return np.where(flat.any(axis=1), drawn.argmax(axis=1), -1)
