"""The mappings of several layers on a family of machines, as integer arrays that every search method shares.

A *point* is one mapping for each layer: ``points[n, layer, column]``. A column is the factor of one dimension at one place (a
level, in time or over units); the product over a dimension's columns is its size. The last column is the number of the loop order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import comb

import numpy as np

from tilewright.codesign.divisors import Divisors, prime_factors
from tilewright.codesign.layer import DIMS, STEPS, Layer
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


class MapSpace:
    """Perfect factorisations of ``layers`` over the places of ``family``, in its loop orders.

    SpaceError when there is no layer, or the family's outermost level leaves out a dimension.
    """

    def __init__(self, layers: Sequence[Layer], family: Family):
        if not layers:
            raise SpaceError("there are no layers to map", hint="give one layer or more")
        if missing := sorted(set(DIMS) - set(family.orders[0][0])):
            raise SpaceError(
                f"{family.name} has no loop over {missing[0]} at its outermost level",
                hint="what other levels leave runs there: name every dimension",
            )
        self.layers, self.family = tuple(layers), family
        self.columns = self._columns()
        #: For each dimension its columns in the order in which factors are rounded: units, then from the innermost loop out.
        #: The last one, at the outermost level, takes what the others leave.
        self.by_dim = {d: self._sequence(d) for d in DIMS}
        self.sizes = np.array([[x.sizes[d] for d in DIMS] for x in self.layers], dtype=np.int64)
        self.steps = np.array([[x.parameters[s] for s in STEPS] for x in self.layers], dtype=np.int64)
        self.counts = np.array([x.count for x in self.layers], dtype=np.int64)
        self._orders = tuple(product(*family.orders))
        self._divisors = {size: Divisors(size) for size in {int(s) for s in self.sizes.ravel()}}

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
        """Columns of a point with the order."""
        return len(self.columns) + 1

    @property
    def orders(self) -> int:
        """Number of loop orders."""
        return len(self._orders)

    @cached_property
    def structures(self) -> tuple[LoopNest, ...]:
        """For each order the mapping with knobs for factors."""
        return tuple(self._nest(None, n) for n in range(self.orders))

    @cached_property
    def size(self) -> float:
        """Number of points."""
        total = 1.0
        for x in self.layers:
            total *= self.orders
            for d, n in x.sizes.items():
                for _, power in prime_factors(n):
                    places = len(self.by_dim[d])
                    total *= comb(places + power - 1, power)
        return total

    # --- points ---------------------------------------------------------------------------------

    def check(self, points: np.ndarray) -> np.ndarray:
        """Whether factors multiply to the sizes, units fit and the order exists: bool [n, layers]."""
        good = (points >= 1).all(axis=2) | ((points[..., :-1] >= 1).all(axis=2) & (points[..., -1] == 0))
        good &= points[..., -1] < self.orders
        for k, d in enumerate(DIMS):
            good &= points[..., list(self.by_dim[d])].prod(axis=2) == self.sizes[:, k]
        for n, c in enumerate(self.columns):
            if c.most is not None:
                good &= points[..., n] <= c.most
        return good

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Random points: every prime factor at a place of its own choice, units that overflow at the outermost level."""
        points = np.ones((n, len(self.layers), self.width), dtype=np.int64)
        points[..., -1] = rng.integers(0, self.orders, points.shape[:2])
        for x in range(len(self.layers)):
            for k, d in enumerate(DIMS):
                places = np.array(self.by_dim[d])
                for prime, power in prime_factors(int(self.sizes[x, k])):
                    for _ in range(power):
                        points[np.arange(n), x, rng.choice(places, n)] *= prime
        return self._within_fanout(points)

    def _within_fanout(self, points: np.ndarray) -> np.ndarray:
        for n, c in enumerate(self.columns):
            if c.most is not None:
                over = points[..., n] > c.most
                points[..., self.by_dim[c.dim][-1]] *= np.where(over, points[..., n], 1)
                points[..., n] = np.where(over, 1, points[..., n])
        return points

    def mutate(self, points: np.ndarray, rng: np.random.Generator, moves: int = 1) -> np.ndarray:
        """Copies with ``moves`` random changes each: a prime factor goes elsewhere, or a layer gets another order."""
        out = points.copy()
        rows = np.arange(len(out))
        for _ in range(moves):
            layers = rng.integers(0, len(self.layers), len(out))
            out[rows, layers] = self.moved(out[rows, layers], layers, rng)
        return out

    def moved(self, rows: np.ndarray, layers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Mappings [m, width] of ``layers`` [m], each with one random change. One in eight gets another order."""
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
        fresh = (out[:, -1] + rng.integers(1, max(self.orders, 2), len(out))) % self.orders
        out[:, -1] = np.where(prime == 1, fresh, out[:, -1])
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

    def neighbours(self, row: np.ndarray) -> np.ndarray:
        """All mappings of one layer one move away from ``row`` [width]: a divisor of a factor goes elsewhere, or another order."""
        out = []
        for own in self.by_dim.values():
            for source, target in product(own, own):
                if source != target:
                    for d in Divisors.of(int(row[source]))[1:]:
                        most = self.columns[target].most
                        if most is None or row[target] * d <= most:
                            moved = row.copy()
                            moved[source] //= d
                            moved[target] *= d
                            out.append(moved)
        for n in range(self.orders):
            if n != row[-1]:
                other = row.copy()
                other[-1] = n
                out.append(other)
        return np.array(out, dtype=np.int64).reshape(-1, self.width)

    def round(self, factors: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Points near real ``factors`` [n, layers, columns]: each in turn the divisor of what is left that is nearest in ratio.

        Units first, then loops from the innermost level out; the outermost level takes the rest.
        """
        points = np.ones((*factors.shape[:2], self.width), dtype=np.int64)
        points[..., -1] = order
        for x in range(len(self.layers)):
            for k, d in enumerate(DIMS):
                size = int(self.sizes[x, k])
                *inner, last = self.by_dim[d]
                if size == 1:
                    continue
                table = self._divisors[size]
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

    def _nest(self, row: np.ndarray | None, order: int) -> LoopNest:
        """Loops of one iteration are left out of a mapping; a structure has them all."""
        at = {(c.depth, c.dim, c.spatial): n for n, c in enumerate(self.columns)}
        levels = []
        depths = reversed(range(len(self.family.orders)))
        chosen = self._orders[order]
        for depth, storage, keeps, loops, spatial in zip(
            depths, self.family.hierarchy.levels, self.family.keeps, chosen, self.family.spatial, strict=True
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
            orders = (n for n in range(self.orders) if self._nest(np.array([*point[x, :-1], n]), n) == nest)
            point[x, -1] = next(orders, -1)
        if len(nests) != len(self.layers) or not self.check(point[None]).all():
            raise SpaceError(
                f"the mappings are no point of {self.family.name}",
                hint="one for each layer, with factors of its sizes and an order of the family",
            )
        return point


def _any_of(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row a random place (of the flattened rest) where it is true; -1: nowhere."""
    flat = allowed.reshape(len(allowed), -1)
    drawn = np.where(flat, rng.random(flat.shape), -1.0)
    return np.where(flat.any(axis=1), drawn.argmax(axis=1), -1)
