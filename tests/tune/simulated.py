"""An executor without processes: outcomes come from a formula, as fast as they can be asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tilewright.runtime.jobs import Done, Job, Outcome
from tilewright.tune.recipe import OwnPoint

Point = tuple[int, ...]


def landscape(point: Point) -> float:
    """Seconds of a point of GemmSpace: fastest at 4 rows, 16 lanes, depth 32, unroll 2; not what the space's estimate says."""
    _, rows, lanes, depth, unroll = point
    away = [np.log2(rows / 4), np.log2(lanes / 16), 0.5 * np.log2(depth / 32), 0.5 * np.log2(unroll / 2)]
    return float(1e-5 * (1.0 + 0.3 * sum(a * a for a in away)))


BEST: Point = (0, 4, 16, 32, 2)


class Simulated:
    """Takes ``seconds(point)`` for the truth; ``fails`` may give a point another outcome."""

    def __init__(
        self,
        seconds: Callable[[Point], float] = landscape,
        fails: Callable[[Point], Outcome | None] = lambda point: None,
        before: Callable[[int], None] = lambda number: None,
    ):
        self.seconds, self.fails, self.before = seconds, fails, before
        self.jobs: list[Job] = []
        self.asked: list[Point] = []
        self.compared: list[list[Point]] = []

    @property
    def width(self) -> int:
        return 2

    def run(self, jobs: Sequence[Job], done: Done | None = None) -> list[Outcome]:
        out = []
        for index, job in enumerate(jobs):
            point = point_of(job)
            self.before(len(self.asked))
            self.jobs.append(job)
            self.asked.append(point)
            out.append(self.fails(point) or Outcome("ok", (self.seconds(point),) * 5, build_seconds=0.001, run_seconds=0.001))
            if done is not None:
                done(index, out[-1])
        return out

    def compare(self, jobs: Sequence[Job], rounds: int = 15) -> list[Outcome]:
        points = [point_of(j) for j in jobs]
        self.compared.append(points)
        return [Outcome("ok", (self.seconds(p),) * rounds) for p in points]

    def close(self) -> None:
        pass


def point_of(job: Job) -> Point:
    assert isinstance(job.trace, OwnPoint)
    return job.trace.point
