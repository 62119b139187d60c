"""A small schedule space of a matrix product, with the interface of tilewright.space.Space and none of its rules."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright import lang
from tilewright.cost.formula import Graph
from tilewright.cost.tape import Tape
from tilewright.hw import Machine
from tilewright.ir.expr import compare
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import f32
from tilewright.schedule.schedule import Schedule
from tilewright.space.knob import Knob
from tilewright.space.relaxed import Relaxed

KNOBS = ("rows", "lanes", "depth", "unroll")
VALUES = ((1, 2, 4, 8, 16), (8, 16, 32), (4, 8, 16, 32, 64), (1, 2, 4))


def gemm(m: int = 32, n: int = 32, k: int = 64) -> Kernel:
    a, b = lang.tensor("a", f32, (m, k)), lang.tensor("b", f32, (k, n))
    return lang.build("gemm", [a, b], [lang.einsum("ik,kj->ij", a, b, name="c")])


@dataclass(frozen=True)
class GemmSpace:
    """Rows of the tile, vector lanes, depth of the split of k, unrolling. Rows times unrolling stay below 33."""

    kernel: Kernel
    machine: Machine
    threads: int = 1
    constants: tuple[str, ...] = ()

    @staticmethod
    def of(m: int = 32, n: int = 32, k: int = 64) -> GemmSpace:
        return GemmSpace(gemm(m, n, k), Machine.host())

    @property
    def size(self) -> int:
        return int(np.prod([len(v) for v in VALUES]))

    def valid(self, points: np.ndarray) -> np.ndarray:
        known = np.all([np.isin(points[:, d + 1], v) for d, v in enumerate(VALUES)], axis=0)
        return known & (points[:, 1] * points[:, 4] <= 32)

    def enumerate(self, limit: int) -> np.ndarray:
        points = np.array([(0, *p) for p in itertools.product(*VALUES)], np.int64)
        return points[self.valid(points)][:limit]

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        every = self.enumerate(self.size)
        return every[rng.integers(len(every), size=n)]

    def neighbours(self, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        out = points.copy()
        for p in out:
            for _ in range(20):
                q = p.copy()
                d = int(rng.integers(len(VALUES)))
                q[d + 1] = rng.choice(VALUES[d])
                if self.valid(q[None])[0]:
                    p[:] = q
                    break
        return out

    def crossover(self, a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        child = np.where(rng.random(a.shape) < 0.5, a, b)
        return np.where(self.valid(child)[:, None], child, a)

    def estimate(self, points: np.ndarray) -> np.ndarray:
        """Deliberately rough: prefers many rows and lanes."""
        return 1e-5 * (1 + 1 / points[:, 1] + 16 / points[:, 2] + 4 / points[:, 3])

    def relaxed(self) -> tuple[Relaxed, ...]:
        """What :meth:`estimate` computes, as a formula."""
        g = Graph()
        rows, lanes, depth, unroll = (Knob(n, v) for n, v in zip(KNOBS, VALUES, strict=True))
        parts = [g.const(1), 1 / g.var("rows"), 16 / g.var("lanes"), 4 / g.var("depth")]
        limit = compare("<=", rows.var * unroll.var, 32)
        return (Relaxed(0, (rows, lanes, depth, unroll), (limit,), {}, 5, lambda: Tape([g.sum(parts) * 1e-5])),)

    def nearest(self, points: np.ndarray) -> np.ndarray:
        every = self.enumerate(self.size)
        return every[np.abs(np.log(points[:, None, 1:]) - np.log(every[:, 1:])).sum(axis=2).argmin(axis=1)]

    def features(self, points: np.ndarray) -> np.ndarray:
        return points[:, None, :].astype(np.float32)

    def default(self) -> np.ndarray:
        return np.array([0, 1, 8, 64, 1], np.int64)

    def schedule(self, point: np.ndarray) -> Schedule:
        rows, lanes, depth, unroll = (int(v) for v in point[1:])
        sch = Schedule(self.kernel, self.machine)
        io, ii = sch.split("i_1", rows)
        jo, ji = sch.split("j_1", lanes)
        ko, ki = sch.split("k", depth)
        sch.reorder(io, jo, ko, ki, ii, ji)
        sch.vectorize(ji)
        if rows <= 4 * unroll:
            sch.unroll(ii)
        return sch

    def encode(self, point: np.ndarray) -> dict[str, Any]:
        return dict(zip(KNOBS, map(int, point[1:]), strict=True))

    def decode(self, data: Mapping[str, Any]) -> np.ndarray:
        return np.array([0, *(data[k] for k in KNOBS)], np.int64)
