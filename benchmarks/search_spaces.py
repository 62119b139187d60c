"""Spaces in which every point was measured once: how good a search is can then be known exactly.

    python -m benchmarks.search_spaces gemm conv attention [--limit 2500]

builds, verifies and times every point of a space (or of a regular part of it, when it is larger than
the limit: grids around the best estimates, each knob with values spread over its range) and writes ``benchmarks/data/NAME.npz``. The
file is all that a search needs: points, their seconds, and the estimates and features of the day of measurement. Sketches and knobs are
kept by name, so points are found again in the spaces of later versions, where rules were added or dropped (``--missing`` says how many).

Run it on a quiet machine: 1,500 points take about five minutes. A run that was cut, or
ended by --minutes, goes on when it is started again (``NAME.part.npz``). The default schedule is measured with each batch:
batches during which it was slow are measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

import numpy as np
from benchmarks.report import conditions, conditions_text
from benchmarks.workloads import attention, conv, gemm
from rich.progress import Progress

from tilewright.ir.stmt import Kernel
from tilewright.runtime.jobs import Job
from tilewright.runtime.workers import Workers
from tilewright.space.relaxed import Relaxed
from tilewright.space.space import Space
from tilewright.tune.recipe import recipe

DATA = Path(__file__).parent / "data"
#: What is collected; all on one thread.
KERNELS: dict[str, Callable[[], Kernel]] = {
    "gemm": gemm(512, 512, 512).kernel,
    "conv": conv("3x3", 56, 64, 64).kernel,
    "attention": attention(12, 197, 64).kernel,
}
#: Sketches of a space of which a part is measured, and combinations of values looked at for each point that is kept.
MOST_SKETCHES, LARGEST = 8, 50
#: With each batch of so many points the default is measured once more: how much the machine changed meanwhile.
BATCH = 40
#: Batches during which it took so many times its median are measured again in the end, so often.
DRIFT, REPEATED = 1.05, 2


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured space, with the interface authors expect of a space.

    ``points`` [n, columns], ``seconds`` [n] (infinite where a trial failed), ``estimates`` [n] seconds,
    ``columns`` [n, statements, features]. Neighbours differ in one knob where there are such points. ``forms`` are the present
    space's, with the values of knobs that occur; none for estimates of the day of measurement. ``control`` are the seconds of one
    schedule that was measured again with each batch (empty: not kept).
    """

    name: str
    points: np.ndarray
    seconds: np.ndarray
    estimates: np.ndarray
    columns: np.ndarray
    index: dict[bytes, int]
    beside: dict[bytes, list[int]]
    forms: tuple[Relaxed, ...] = ()
    control: np.ndarray = field(default_factory=lambda: np.empty(0))

    @staticmethod
    def load(name: str, folder: Path = DATA) -> Measured:
        """The space collected under ``name``."""
        with np.load(folder / f"{name}.npz") as data:
            return Measured.of(
                name, data["points"].astype(np.int64), *(data[k].astype(np.float64) for k in ("seconds", "estimates", "features"))
            )

    @staticmethod
    def of(
        name: str, points: np.ndarray, seconds: np.ndarray, estimates: np.ndarray, columns: np.ndarray, forms: tuple[Relaxed, ...] = ()
    ) -> Measured:
        """With lists of which points differ in one knob."""
        beside: dict[bytes, list[int]] = {}
        for n, p in enumerate(points):
            for d in range(1, points.shape[1]):
                beside.setdefault(_without(p, d), []).append(n)
        return Measured(name, points, seconds, estimates, columns, {p.tobytes(): n for n, p in enumerate(points)}, beside, forms)

    @property
    def size(self) -> int:
        return len(self.points)

    @property
    def scatter(self) -> str:
        """How far repeated measurements are apart, and how many points are that near to the best; empty where none was repeated."""
        known = self.control[np.isfinite(self.control)]
        if len(known) < 2:
            return ""
        share = known.std(ddof=1) / known.mean()
        near = [int((self.seconds <= self.best * (1 + n * share)).sum()) for n in (1, 2)]
        return (
            f" One schedule measured {len(known)} times has a standard deviation of {100 * share:.1f} %: "
            f"{near[0]} points are within one of the best, {near[1]} within two."
        )

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

    def relaxed(self) -> tuple[Relaxed, ...]:
        return self.forms

    def nearest(self, points: np.ndarray) -> np.ndarray:
        """The measured point of the same sketch whose knobs are the fewest factors away."""
        out, logs = points.copy(), np.log(np.maximum(self.points[:, 1:], 1))
        for s in np.unique(points[:, 0]):
            rows, own = points[:, 0] == s, self.points[:, 0] == s
            far = np.abs(np.log(np.maximum(points[rows, None, 1:], 1)) - logs[own]).sum(axis=2)
            out[rows] = self.points[own][far.argmin(axis=1)]
        return out

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


@dataclass(frozen=True, slots=True)
class Presence:
    """Which points of a stored space are in the present one: ``there`` [n] of them, numbered as now in ``points`` [sum(there), columns]."""

    there: np.ndarray
    points: np.ndarray
    gone: tuple[str, ...]
    new: tuple[str, ...]

    @staticmethod
    def of(space: Space, points: np.ndarray, sketches: Sequence[str], knobs: Sequence[Sequence[str]]) -> Presence:
        """``sketches`` and ``knobs`` name the rows' structures and columns as they were stored.

        Where a result is consumed became a knob later: stored schedules did that on tiles, or else at the end.
        """
        now = {s.name: n for n, s in enumerate(space.sketches)}
        found = np.full((len(points), space.columns), 0, np.int64)
        there = np.zeros(len(points), bool)
        used = np.unique(points[:, 0])
        for old in used:
            if (new := now.get(sketches[old])) is None:
                continue
            rows = np.flatnonzero(points[:, 0] == old)
            stored = list(knobs[old])
            later = {k.name: 0 if 0 in k.values else k.values[-1] for k in space.sketches[new].structural if k.name not in stored}
            place = {k.name: n for n, k in enumerate(space.sketches[new].knobs, 1)}
            if sorted(place.keys() - later.keys()) != sorted(stored) or len(stored) >= points.shape[1]:
                continue
            found[rows, 0] = new
            for name, column in place.items():
                found[rows, column] = later[name] if name in later else points[rows, 1 + stored.index(name)]
            there[rows] = space.valid(found[rows])
        stored_names = set(sketches)
        return Presence(
            there, found[there], tuple(sketches[n] for n in used if not there[points[:, 0] == n].any()),
            tuple(n for n in now if n not in stored_names),
        )  # fmt: skip


def renewed(name: str, folder: Path = DATA) -> tuple[Measured, str]:
    """The space stored under ``name`` as :func:`_renewed` has it, with its repeated measurements."""
    space, text = _renewed(name, folder)
    with np.load(folder / f"{name}.npz") as data:
        return replace(space, control=data["control"].astype(np.float64) if "control" in data.files else np.empty(0)), text


def _renewed(name: str, folder: Path) -> tuple[Measured, str]:
    """The space stored under ``name`` with the estimates and features of the present model, and a sentence on what became of it.

    Points that are in the present space no more are left out: no search would find them. The space is as it was stored where the
    file does not say what its points mean, or the program has changed.
    """
    with np.load(folder / f"{name}.npz") as data:
        if not {"sketches", "knobs", "program"} <= set(data.files):
            return Measured.load(name, folder), "Estimates and features are of the day of measurement: the file does not name its knobs."
        points, seconds, program = data["points"].astype(np.int64), data["seconds"].astype(np.float64), str(data["program"])
        sketches = [str(s) for s in data["sketches"]]
        knobs = json.loads(str(data["knobs"]))
    kernel = KERNELS[name]()
    if str(kernel) != program:
        return Measured.load(name, folder), "Estimates and features are of the day of measurement: the program is another one now."
    space = Space(kernel, threads=1)
    p = Presence.of(space, points, sketches, knobs)
    if not p.there.any():
        return Measured.load(name, folder), "Estimates and features are of the day of measurement: no point is in the present space."
    left = (
        f" (best {seconds[p.there].min() * 1e3:.3f} ms, of the others {seconds[~p.there].min() * 1e3:.3f} ms)" if not p.there.all() else ""
    )
    changes = "".join(f"; sketches {word}: {_listed(names)}" for word, names in (("gone", p.gone), ("new", p.new)) if names)
    found = f"{p.there.sum()} of {len(points)} stored points are in the present space{left}"
    text = f"{found}; estimates and features are the present model's{changes}."
    forms = tuple(f.within(p.points) for f in space.relaxed() if f.holds(p.points).any())
    return Measured.of(name, p.points, seconds[p.there], space.estimate(p.points), space.features(p.points).astype(np.float64), forms), text


def _listed(names: Sequence[str], most: int = 3) -> str:
    """The names in quotes, or how many they are."""
    return ", ".join(f"'{n}'" for n in names) if len(names) <= most else str(len(names))


def _without(point: np.ndarray, column: int) -> bytes:
    masked = point.copy()
    masked[column] = -column
    return masked.tobytes()


def regular_part(space: Space, limit: int) -> np.ndarray:
    """All points of ``space``, or grids of at most ``limit`` in all: one in each of the sketches with the best estimates.

    A grid holds the point of its sketch that is taken without tuning, or else has the best estimate, and spreads around it.
    """
    if space.size <= limit:
        return space.enumerate(limit)
    drawn = np.concatenate([space.default()[None], space.sample(20_000, np.random.default_rng(0))])
    estimates = space.estimate(drawn)
    estimates[0] = 0.0  # the default leads
    first = drawn[np.argsort(estimates, kind="stable")]
    anchors = first[np.sort(np.unique(first[:, 0], return_index=True)[1])][:MOST_SKETCHES]
    parts: list[np.ndarray] = []
    for n, anchor in enumerate(anchors):
        parts.append(_grid(space, anchor, (limit - sum(map(len, parts))) // (len(anchors) - n)))
    return np.concatenate(parts)


def _grid(space: Space, anchor: np.ndarray, limit: int) -> np.ndarray:
    """At most ``limit`` valid points around ``anchor``: knobs take turns to get one more value, far from those they have."""
    knobs = space.sketches[int(anchor[0])].knobs
    taken = [{k.values.index(int(v))} for k, v in zip(knobs, anchor[1:], strict=False)]
    growing = [n for n, k in enumerate(knobs) if len(k.values) > 1]
    points = anchor[None]
    while growing:
        n = min(growing, key=lambda g: len(taken[g]))
        left = set(range(len(knobs[n].values))) - taken[n]
        more = max(left, key=lambda i: min(abs(i - t) for t in taken[n]))
        wider = [t | {more} if g == n else t for g, t in enumerate(taken)]
        found = _product(space, anchor, wider, LARGEST * limit)
        if found is None or len(found) > limit:
            growing.remove(n)
            continue
        taken, points = wider, found
        if len(left) == 1:
            growing.remove(n)
    return points


def _product(space: Space, anchor: np.ndarray, taken: Sequence[set[int]], most: int) -> np.ndarray | None:
    """Valid combinations of the knobs' values; None for more than ``most`` combinations."""
    count = math.prod(map(len, taken))
    if count > most:
        return None
    points = np.zeros((count, space.columns), np.int64)
    points[:, 0] = anchor[0]
    knobs = space.sketches[int(anchor[0])].knobs
    points[:, 1 : 1 + len(knobs)] = list(itertools.product(*([k.values[i] for i in sorted(t)] for k, t in zip(knobs, taken, strict=True))))
    return points[space.valid(points)]


@dataclass(slots=True)
class Sitting:
    """The measurements of a space so far: ``seconds`` of each point (NaN: not measured), ``control`` of each batch of points.

    It lives in ``path`` until the space is complete, so that a run that was cut goes on.
    """

    path: Path
    points: np.ndarray
    seconds: np.ndarray
    control: np.ndarray

    @staticmethod
    def open(path: Path, points: np.ndarray) -> Sitting:
        """What was measured of exactly these points; nothing where the space has changed since."""
        if path.exists():
            with np.load(path) as data:
                if np.array_equal(data["points"], points):
                    return Sitting(path, points, data["seconds"].copy(), data["control"].copy())
            print(f"{path}: another set of points than now: measured afresh", file=sys.stderr)
        return Sitting(path, points, np.full(len(points), np.nan), np.full(-(-len(points) // BATCH), np.nan))

    def todo(self) -> list[int]:
        """Batches without measurements."""
        return [b for b, c in enumerate(self.control) if np.isnan(c)]

    def drifted(self) -> list[int]:
        """Batches measured while the default took clearly longer than it usually does."""
        usual = np.nanmedian(self.control) if len(self.todo()) < len(self.control) else inf
        return [b for b, c in enumerate(self.control) if c > DRIFT * usual]

    def put(self, batch: int, control: float, seconds: Sequence[float]) -> None:
        """Keep the measurements of a batch, unless there are better ones from a calmer moment."""
        if np.isnan(self.control[batch]) or control < self.control[batch]:
            self.control[batch] = control
            self.seconds[batch * BATCH : batch * BATCH + len(seconds)] = seconds
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".new.npz")
        np.savez(part, points=self.points, seconds=self.seconds, control=self.control)
        os.replace(part, self.path)


def collect(name: str, limit: int, folder: Path, minutes: float = inf) -> bool:
    """Measure the space ``name`` and write its file to ``folder``; False when time ran out (the next run goes on)."""
    kernel = KERNELS[name]()
    space = Space(kernel, threads=1)
    points = regular_part(space, limit)
    sitting = Sitting.open(folder / f"{name}.part.npz", points)
    start, before = time.monotonic(), len(sitting.todo())
    complete = _measured(name, kernel, space, sitting, start + 60 * minutes)
    if len(sitting.todo()) == len(sitting.control):
        print(f"{name}: nothing was measured within {minutes:g} minutes, all {len(points)} points to go")
        return False
    batches, taken = before - len(sitting.todo()), time.monotonic() - start
    left = len(sitting.todo()) * taken / max(batches, 1) / 60
    failed = int(np.isinf(sitting.seconds).sum())
    drift = np.nanpercentile(sitting.control, [0, 50, 100]) * 1e3
    noisy = sitting.drifted()
    print(
        f"{name}: {np.isfinite(sitting.seconds).sum()} of {len(points)} points measured in {taken:.0f} s"
        f"{'' if complete else f' (about {left:.0f} minutes to go)'}, {failed} failed; space of {space.size} points; "
        f"best {np.nanmin(sitting.seconds) * 1e3:.3f} ms, control {drift[0]:.3f} / {drift[1]:.3f} / {drift[2]:.3f} ms "
        f"(min, median, max){f', {len(noisy)} batches measured on a busy machine' if noisy else ''}"
    )
    if complete:
        np.savez_compressed(
            folder / f"{name}.npz",
            points=points.astype(np.int32), seconds=sitting.seconds.astype(np.float32),
            estimates=space.estimate(points).astype(np.float32), features=space.features(points).astype(np.float32),
            control=sitting.control.astype(np.float32), program=str(kernel), sketches=[s.name for s in space.sketches],
            knobs=json.dumps([[k.name for k in s.knobs] for s in space.sketches]),
            conditions=conditions_text(conditions()),
        )  # fmt: skip
        sitting.path.unlink()
    return complete


def _measured(name: str, kernel: Kernel, space: Space, sitting: Sitting, end: float) -> bool:
    """Batch after batch until all are measured, then once more those during which the machine was busy; False when time ran out."""
    default, reported = space.default(), 0
    with Workers() as workers, Progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=len(sitting.control), completed=len(sitting.control) - len(sitting.todo()))
        for again in range(1 + REPEATED):
            for batch in sitting.drifted() if again else sitting.todo():
                if time.monotonic() >= end:
                    return not sitting.todo()
                chunk = sitting.points[batch * BATCH : (batch + 1) * BATCH]
                first, *outcomes = workers.run([Job(kernel, recipe(space, p), space.machine) for p in (default, *chunk)])
                if not first.ok:
                    raise SystemExit(f"{name}: the default schedule fails: {first.status}: {first.message}")
                sitting.put(batch, first.seconds, [o.seconds for o in outcomes])
                for o in (o for o in outcomes if not o.ok and reported < 5):
                    reported += 1
                    print(f"{name}: {o.status}: {o.message[:200]}", file=sys.stderr)
                bar.advance(task, 0 if again else 1)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="+", choices=sorted(KERNELS))
    p.add_argument("--limit", type=int, default=2500, help="points to measure at most (default: %(default)s)")
    p.add_argument("--minutes", type=float, default=inf, help="time for each space; a later run goes on (default: no limit)")
    p.add_argument("--missing", action="store_true", help="leave out spaces that have been measured")
    p.add_argument("--folder", type=Path, default=DATA, help="where to write (default: %(default)s)")
    options = p.parse_args(arguments)
    known = [n for n in options.names if options.missing and (options.folder / f"{n}.npz").exists()]
    for name in known:
        space, text = renewed(name, options.folder)
        print(f"{name}: measured before. {text}{space.scatter}")
    names = [n for n in options.names if n not in known]
    complete = [collect(name, options.limit, options.folder, options.minutes) for name in names]
    return 0 if all(complete) else 1


if __name__ == "__main__":
    sys.exit(main())
