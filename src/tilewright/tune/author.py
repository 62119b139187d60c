"""Authors: who decides which points of a space are tried next.

All speak one protocol, so a session does not know which one it serves: ``propose`` gives points that
were never proposed before, ``observe`` tells how they went. Given the same seed and the same
outcomes an author proposes the same points.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

#: A space no larger than this is listed when random draws no longer find anything new.
ENUMERABLE = 200_000


class SearchSpace(Protocol):
    """What authors need of :class:`tilewright.space.Space`. Points are int64 rows, all of one length."""

    @property
    def size(self) -> int:
        """Number of points, valid or not."""

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """``n`` valid points, drawn independently."""

    def neighbours(self, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A valid point near each of ``points``."""

    def crossover(self, a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A valid child of each pair of rows."""

    def enumerate(self, limit: int) -> np.ndarray:
        """The valid points, at most ``limit`` of them."""

    def estimate(self, points: np.ndarray) -> np.ndarray:
        """Predicted seconds of each point."""

    def features(self, points: np.ndarray) -> np.ndarray:
        """What a learned model sees: [n, statements, columns]."""

    def default(self) -> np.ndarray:
        """The point taken without tuning."""


class Author(Protocol):
    """Proposes points and learns from what became of them."""

    def propose(self, n: int) -> np.ndarray:
        """Up to ``n`` points that are new to this author; fewer or none when it has nothing more to try."""

    def observe(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """Seconds per call of ``points`` (its own proposals or anybody's); infinite for those that failed."""


class History:
    """Every point an author has seen, in the order it saw them, and the seconds of those that were tried."""

    def __init__(self) -> None:
        self._seconds: dict[bytes, float] = {}
        self._points: dict[bytes, np.ndarray] = {}

    def propose(self, points: np.ndarray, n: int | None = None) -> np.ndarray:
        """The first ``n`` of ``points`` that are new and distinct; from now on they are known."""
        fresh: list[np.ndarray] = []
        for p in points:
            if n is not None and len(fresh) == n:
                break
            key = p.tobytes()
            if key not in self._points:
                self._points[key] = p
                fresh.append(p)
        return np.array(fresh, np.int64).reshape(len(fresh), points.shape[1])

    def observe(self, points: np.ndarray, seconds: np.ndarray) -> None:
        """Remember what ``points`` took; seen again, the shorter time counts."""
        for p, s in zip(points, seconds, strict=True):
            key = p.tobytes()
            self._points.setdefault(key, p)
            self._seconds[key] = min(float(s), self._seconds.get(key, np.inf))

    def new(self, points: np.ndarray) -> np.ndarray:
        """Those of ``points`` nobody has proposed, without repetitions."""
        rows = {key: p for p in points if (key := p.tobytes()) not in self._points}
        return np.array(list(rows.values()), np.int64).reshape(len(rows), points.shape[1])

    def sketches(self) -> np.ndarray:
        """The sketches (first entries) of all points seen."""
        return np.unique([p[0] for p in self._points.values()])

    def measured(self) -> tuple[np.ndarray, np.ndarray]:
        """(points, seconds) of all that were tried and worked, in the order they were first observed."""
        good = [(self._points[k], s) for k, s in self._seconds.items() if np.isfinite(s)]
        if not good:
            return np.empty((0, 0), np.int64), np.empty(0)
        return np.array([p for p, _ in good], np.int64), np.array([s for _, s in good])

    def best(self, n: int) -> np.ndarray:
        """The ``n`` fastest points, fastest first."""
        points, seconds = self.measured()
        return points[np.argsort(seconds, kind="stable")[:n]]

    def __len__(self) -> int:
        """Points tried, failed ones included."""
        return len(self._seconds)


def draw(space: SearchSpace, history: History, n: int, rng: np.random.Generator) -> np.ndarray:
    """Up to ``n`` random points that are new; fewer only when the space has no more (or is too large to know)."""
    found = space.sample(0, rng)
    for _ in range(4):
        found = history.new(np.concatenate([found, space.sample(2 * (n - len(found)) + 8, rng)]))
        if len(found) >= n:
            return found[:n]
    if space.size <= ENUMERABLE:
        rest = history.new(space.enumerate(ENUMERABLE))
        found = rest[rng.permutation(len(rest))]
    return found[:n]
