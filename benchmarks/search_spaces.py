"""Spaces in which every point was measured once: how good a search is can then be known exactly.

    python -m benchmarks.search_spaces gemm conv attention [--limit 4000]

builds, verifies and times every point of a space (or of a regular part of it, when it is larger than
the limit: each knob keeps values spread over its range) and writes ``benchmarks/data/NAME.npz``. The
file is all that a search needs: points, their seconds, estimates and features, so it stays valid when
the spaces of later versions differ. Run it on a quiet machine: 1,500 points take about five minutes.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from benchmarks.report import conditions, conditions_text
from benchmarks.workloads import attention, conv, gemm
from rich.progress import Progress

from tilewright.ir.stmt import Kernel
from tilewright.runtime.jobs import Job
from tilewright.runtime.workers import Workers
from tilewright.space.space import Space
from tilewright.tune.recipe import recipe

DATA = Path(__file__).parent / "data"
#: What is collected; all on one thread.
KERNELS: dict[str, Callable[[], Kernel]] = {
    "gemm": gemm(512, 512, 512).kernel,
    "conv": conv("3x3", 56, 64, 64).kernel,
    "attention": attention(12, 197, 64).kernel,
}
#: Points that are worth measuring, and values of a knob that are looked at.
ENOUGH, MOST_VALUES = 1500, 16
#: With each batch of so many points the default is measured once more: how much the machine changed meanwhile.
BATCH = 40


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured space, with the interface authors expect of a space.

    ``points`` [n, columns], ``seconds`` [n] (infinite where a trial failed), ``estimates`` [n] seconds,
    ``columns`` [n, statements, features]. Neighbours differ in one knob where there are such points.
    """

    name: str
    points: np.ndarray
    seconds: np.ndarray
    estimates: np.ndarray
    columns: np.ndarray
    index: dict[bytes, int]
    beside: dict[bytes, list[int]]

    @staticmethod
    def load(name: str, folder: Path = DATA) -> Measured:
        """The space collected under ``name``."""
        with np.load(folder / f"{name}.npz") as data:
            return Measured.of(
                name, data["points"].astype(np.int64), *(data[k].astype(np.float64) for k in ("seconds", "estimates", "features"))
            )

    @staticmethod
    def of(name: str, points: np.ndarray, seconds: np.ndarray, estimates: np.ndarray, columns: np.ndarray) -> Measured:
        """With lists of which points differ in one knob."""
        beside: dict[bytes, list[int]] = {}
        for n, p in enumerate(points):
            for d in range(1, points.shape[1]):
                beside.setdefault(_without(p, d), []).append(n)
        return Measured(name, points, seconds, estimates, columns, {p.tobytes(): n for n, p in enumerate(points)}, beside)

    @property
    def size(self) -> int:
        return len(self.points)

    @property
    def best(self) -> float:
        """Seconds of the fastest point."""
        return float(self.seconds.min())

    def rows(self, points: np.ndarray) -> np.ndarray:
        """Where ``points`` are in the list."""
        return np.array([self.index[p.tobytes()] for p in points], np.int64)

    def measure(self, points: np.ndarray) -> np.ndarray:
        """Seconds of ``points``."""
        return self.seconds[self.rows(points)]

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self.points[rng.integers(self.size, size=n)]

    def enumerate(self, limit: int) -> np.ndarray:
        return self.points[:limit]

    def estimate(self, points: np.ndarray) -> np.ndarray:
        return self.estimates[self.rows(points)]

    def features(self, points: np.ndarray) -> np.ndarray:
        return self.columns[self.rows(points)].astype(np.float32)

    def default(self) -> np.ndarray:
        return self.points[int(self.estimates.argmin())]

    def neighbours(self, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.array([self._beside(p, rng) for p in points], np.int64).reshape(points.shape)

    def crossover(self, a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        same = a[:, :1] == b[:, :1]
        children = np.where(same & (rng.random(a.shape) < 0.5), b, a)
        return np.array(
            [c if c.tobytes() in self.index else self._beside(p, rng) for c, p in zip(children, a, strict=True)], np.int64
        ).reshape(a.shape)

    def _beside(self, point: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for d in 1 + rng.permutation(self.points.shape[1] - 1):
            near = self.beside[_without(point, int(d))]
            if len(near) > 1:
                return self.points[near[rng.integers(len(near))]]
        return self.points[rng.integers(self.size)]


def _without(point: np.ndarray, column: int) -> bytes:
    masked = point.copy()
    masked[column] = -column
    return masked.tobytes()


def regular_part(space: Space, limit: int) -> np.ndarray:
    """All points of ``space``, or a grid of at most ``limit``: some sketches, and of their knobs values spread over the range.

    Sketches with the best estimates go first. As many are taken as leave room for a grid of at least ENOUGH points.
    """
    if space.size <= limit:
        return space.enumerate(limit)
    drawn = space.sample(20_000, np.random.default_rng(0))
    order = list(dict.fromkeys(drawn[np.argsort(space.estimate(drawn), kind="stable"), 0].tolist()))
    largest = drawn[:0]
    for count in range(len(order), 0, -1):
        for values in range(2, MOST_VALUES):
            points = _within(space, order[:count], values, limit)
            if points is None:
                break
            if len(points) > len(largest):
                largest = points
        if len(largest) >= ENOUGH:
            break
    return largest


def _within(space: Space, sketches: Sequence[int], values: int, limit: int) -> np.ndarray | None:
    """The grids of several sketches; None when they have more than ``limit`` points."""
    parts: list[np.ndarray] = []
    for s in sketches:
        parts.append(_grid(space, s, values))
        if sum(map(len, parts)) > limit:
            return None
    return np.concatenate(parts)


@cache
def _grid(space: Space, sketch: int, values: int) -> np.ndarray:
    """Valid points of one sketch whose knobs have one of ``values`` values spread over their range."""
    spread = [
        sorted({k.values[i] for i in np.linspace(0, len(k.values) - 1, values).round().astype(int)}) for k in space.sketches[sketch].knobs
    ]
    points = np.zeros((math.prod(map(len, spread)), space.columns), np.int64)
    points[:, 0] = sketch
    points[:, 1 : 1 + len(spread)] = list(itertools.product(*spread))
    return points[space.valid(points)]


def collect(name: str, limit: int, folder: Path) -> None:
    """Measure the space ``name`` and write its file to ``folder``."""
    kernel = KERNELS[name]()
    space = Space(kernel, threads=1)
    points = regular_part(space, limit)
    default, estimates, features = space.default(), space.estimate(points), space.features(points)
    seconds, control, failed = np.full(len(points), np.inf), [], 0
    with Workers() as workers, Progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=len(points))
        for start in range(0, len(points), BATCH):
            chunk = points[start : start + BATCH]
            jobs = [Job(kernel, recipe(space, p), space.machine) for p in (default, *chunk)]
            first, *outcomes = workers.run(jobs)
            if not first.ok:
                raise SystemExit(f"{name}: the default schedule fails: {first.status}: {first.message}")
            control.append(first.seconds)
            seconds[start : start + len(chunk)] = [o.seconds for o in outcomes]
            for o in (o for o in outcomes if not o.ok):
                failed += 1
                if failed <= 5:
                    print(f"{name}: {o.status}: {o.message[:200]}", file=sys.stderr)
            bar.advance(task, len(chunk))
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        folder / f"{name}.npz",
        points=points.astype(np.int32), seconds=seconds.astype(np.float32), estimates=estimates.astype(np.float32),
        features=features.astype(np.float32), control=np.array(control, np.float32),
        program=str(kernel), sketches=[s.name for s in space.sketches], conditions=conditions_text(conditions()),
    )  # fmt: skip
    drift = np.percentile(control, [0, 50, 100]) * 1e3
    print(
        f"{name}: {len(points)} of {space.size} points, {failed} failed, best {seconds.min() * 1e3:.3f} ms, "
        f"control {drift[0]:.3f} / {drift[1]:.3f} / {drift[2]:.3f} ms (min, median, max)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="+", choices=sorted(KERNELS))
    p.add_argument("--limit", type=int, default=4000, help="points to measure at most (default: %(default)s)")
    p.add_argument("--folder", type=Path, default=DATA, help="where to write (default: %(default)s)")
    options = p.parse_args(arguments)
    for name in options.names:
        collect(name, options.limit, options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
