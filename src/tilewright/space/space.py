"""The schedule space of a kernel on a machine.

A space is a list of sketches (structures) with integer knobs. Its points are rows of an integer
array, so that whole populations are sampled, changed, checked and estimated at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from tilewright.hw import Machine
from tilewright.ir import expr as ex
from tilewright.ir.stmt import Kernel
from tilewright.schedule.schedule import Schedule
from tilewright.schedule.trace import Trace
from tilewright.space import moves, rule
from tilewright.space.best import best
from tilewright.space.context import Context
from tilewright.space.costs import Costs, Part
from tilewright.space.diagram import Diagram
from tilewright.space.plan import Plan
from tilewright.space.relaxed import Relaxed
from tilewright.space.sketch import Sketch
from tilewright.util.errors import SpaceError

#: Points among which a default is looked for where no rule finds any likely.
DRAWN = 1024
#: int64 [n, 1 + most knobs of a sketch]: the sketch's number, then values of its knobs in order, then zeros.
Points = np.ndarray


class Space:
    """All schedules of ``kernel`` on ``machine`` (default: this host) that the rules describe.

    ``threads`` defaults to the machine's cores; ``constants`` are arguments whose contents are known
    before the kernel runs (their layout may be changed). ``rules`` are used instead of the built-in ones
    (:func:`tilewright.space.rule.discover` returns those). Sizes of the kernel must be bound.

    SpaceError when no sketch has a valid point; it says which constraint cannot be satisfied.
    """

    def __init__(
        self,
        kernel: Kernel,
        machine: Machine | None = None,
        threads: int | None = None,
        constants: Iterable[str] = (),
        rules: Sequence[rule.Rule] | None = None,
    ):
        self.kernel = kernel
        self.machine = machine or Machine.host()
        self.rules = None if rules is None else tuple(rules)
        self.context = Context.of(kernel, self.machine, threads or self.machine.cores, constants)
        self.sketches: tuple[Sketch, ...] = tuple(s for r in (rule.discover() if rules is None else rules) for s in r(self.context))
        if not self.sketches:
            raise SpaceError(f"no rule has a schedule for {kernel.name} on {self.machine.name}", hint="pass rules=[...] that apply to it")

    @cached_property
    def diagrams(self) -> tuple[Diagram | None, ...]:
        """The valid assignments of each sketch (None: it has none)."""
        found: list[Diagram | None] = []
        reasons: list[tuple[str, SpaceError]] = []
        for s in self.sketches:
            try:
                found.append(Diagram(s.knobs, s.constraints))
            except SpaceError as error:
                found.append(None)
                reasons.append((s.name, error))
        if not any(found):
            (name, why), others = reasons[0], [f"{name}: {error.message}" for name, error in reasons[1:4]]
            where = f"{self.kernel.name} has no valid schedule on {self.machine.name}"
            raise SpaceError(f"{where}: {name}: {why.message}", hint="; ".join(filter(None, [why.hint, *others])) or None)
        return tuple(found)

    @property
    def threads(self) -> int:
        return self.context.threads

    @property
    def constants(self) -> tuple[str, ...]:
        """Arguments known before the kernel runs, sorted."""
        return tuple(sorted(self.context.constants))

    @property
    def size(self) -> int:
        """Number of valid points."""
        return sum(d.size for d in self.diagrams if d)

    @property
    def columns(self) -> int:
        """Columns of a point array."""
        return 1 + max(len(s.knobs) for s in self.sketches)

    # --- points -----------------------------------------------------------------------------

    def sample(self, n: int, rng: np.random.Generator) -> Points:
        """``n`` valid points, with replacement: sketches by the logarithm of their sizes, points of a sketch uniformly.

        None is drawn and thrown away: the diagrams hold what is valid, and nothing else.
        """
        weights = np.array([np.log2(1 + d.size) if d else 0.0 for d in self.diagrams])
        number = np.sort(rng.choice(len(weights), n, p=weights / weights.sum()))
        out = np.zeros((n, self.columns), np.int64)
        out[:, 0] = number
        for s, rows in self.groups(out):
            d = self.diagrams[s]
            assert d is not None  # its weight is zero
            out[rows, 1 : 1 + len(self.sketches[s].knobs)] = d.sample(len(rows), rng)
        return rng.permutation(out, axis=0)

    def enumerate(self, limit: int) -> Points:
        """The first ``limit`` valid points, sketch by sketch (all of them when there are fewer)."""
        parts: list[Points] = []
        for s, d in enumerate(self.diagrams):
            left = limit - sum(map(len, parts))
            if d and left > 0:
                values = d.enumerate(left)
                part = np.zeros((len(values), self.columns), np.int64)
                part[:, 0], part[:, 1 : 1 + values.shape[1]] = s, values
                parts.append(part)
        return np.concatenate(parts) if parts else np.zeros((0, self.columns), np.int64)

    def valid(self, points: Points) -> np.ndarray:
        """Which points are in the space: bool [n]."""
        out = np.zeros(len(points), bool)
        if points.shape[1] != self.columns:
            return out
        inside = (points[:, 0] >= 0) & (points[:, 0] < len(self.sketches))
        for s, rows in self.groups(np.where(inside[:, None], points, -1)):
            if s < 0:
                continue
            sketch = self.sketches[s]
            holds = (points[rows, 1 + len(sketch.knobs) :] == 0).all(axis=1)
            for c, k in enumerate(sketch.knobs, 1):
                holds &= np.isin(points[rows, c], k.values)
            env = self.environment(s, np.where(holds[:, None], points[rows], 1))
            for constraint in sketch.constraints:
                holds &= np.asarray(ex.evaluate(constraint, env), bool)
            out[rows] = holds
        return out

    def neighbours(self, points: Points, rng: np.random.Generator) -> Points:
        """For each point a valid one near it: one knob moved, a factor moved between two, or another structure."""
        return moves.neighbours(self, points, rng)

    def crossover(self, a: Points, b: Points, rng: np.random.Generator) -> Points:
        """For each pair a valid point that takes structure from one and each knob from either."""
        return moves.crossover(self, a, b, rng)

    def nearest(self, points: Points) -> Points:
        """For each of ``points``, valid or not, the valid one of its sketch whose knobs are the fewest factors away."""
        out = points.copy()
        for s, rows in self.groups(points):
            diagram = self.diagrams[s]
            if diagram is None:
                raise SpaceError(f"{self.kernel.name}: {self.sketches[s].name} has no valid point", hint="take another sketch")
            knobs = slice(1, 1 + len(self.sketches[s].knobs))
            out[rows, knobs] = diagram.nearest(points[rows, knobs])
        return out

    def groups(self, points: Points) -> Iterator[tuple[int, np.ndarray]]:
        """The sketches that occur in ``points``, each with the rows of its points."""
        order = np.argsort(points[:, 0], kind="stable")
        numbers, first = np.unique(points[order, 0], return_index=True)
        for n, rows in zip(numbers, np.split(order, first[1:]), strict=True) if len(points) else ():
            yield int(n), rows

    def environment(self, sketch: int, points: Points) -> dict[str, np.ndarray]:
        """Values of the knobs of a sketch by name, one array entry a point."""
        return {k.name: points[:, c] for c, k in enumerate(self.sketches[sketch].knobs, 1)}

    # --- cost -------------------------------------------------------------------------------

    @cached_property
    def costs(self) -> Costs:
        """The cost models' view of the sketches."""
        return Costs(self.sketches, self.machine, self.threads)

    def estimate(self, points: Points) -> np.ndarray:
        """Analytical latency of each point: seconds, float64 [n]."""
        return self.costs.estimate(self._parts(points))

    def features(self, points: Points) -> np.ndarray:
        """Features of each point for learned models: float32 [n, statements, 194], zeros where a sketch has fewer statements."""
        return self.costs.features(self._parts(points))

    def predict(self, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`features` and :meth:`estimate` together: most of the work is the same."""
        return self.costs.described(self._parts(points))

    def _parts(self, points: Points) -> Iterator[Part]:
        return ((s, rows, self.environment(s, points[rows])) for s, rows in self.groups(points))

    def default(self) -> np.ndarray:
        """The point for a kernel that is not tuned: int64 [columns].

        The best by :meth:`estimate` of those that the sketches find likely (:mod:`tilewright.space.best`), or of a sample where none does.
        """
        found = best(self.sketches, self.costs)
        if found is not None:
            return moves.nearest(self, found.sketch, found.values)
        points = self.sample(DRAWN, np.random.default_rng(0))
        return points[int(np.argmin(self.estimate(points)))]

    def relaxed(self) -> tuple[Relaxed, ...]:
        """What descents follow: one for each form that the program of a sketch takes, where that has any points."""
        return tuple(
            Relaxed(
                n,
                s.knobs,
                s.constraints,
                dict(zip((k.name for k in s.structural), variant, strict=True)),
                self.columns,
                partial(self.costs.tape, n, variant),
            )
            for n, (s, d) in enumerate(zip(self.sketches, self.diagrams, strict=True))
            if d
            for variant in itertools.product(*(k.values for k in s.structural))
        )

    # --- one point --------------------------------------------------------------------------

    def sketch(self, point: Any) -> Sketch:
        """The structure of a point; SpaceError when there is no such sketch."""
        number = int(point[0])
        if not 0 <= number < len(self.sketches):
            raise SpaceError(f"there is no sketch {number}", hint=f"sketches are 0 to {len(self.sketches) - 1}")
        return self.sketches[number]

    def values(self, point: Any) -> dict[str, int]:
        """Knob values of a point by name."""
        return {k.name: int(v) for k, v in zip(self.sketch(point).knobs, point[1:], strict=False)}

    def schedule(self, point: Any) -> Schedule:
        """The schedule of a point, made by primitives. SpaceError when the point is not of the space."""
        self.require(point)
        return self.sketch(point).steps(self.values(point))

    def plan(self, point: Any) -> Plan:
        """The schedule of a point with the decisions behind it."""
        self.require(point)
        sketch = self.sketch(point)
        return sketch.plan(self.values(point)) if sketch.plan else Plan(sketch.steps(self.values(point)))

    def require(self, point: Any) -> None:
        """SpaceError unless ``point`` is of the space."""
        if not self.valid(np.asarray(point, np.int64).reshape(1, -1))[0]:
            shown = list(map(int, point))
            raise SpaceError(f"point {shown} is not of the space of {self.kernel.name}", hint="use sample, neighbours or decode")

    def trace(self, point: Any) -> Trace:
        """The primitives that make the schedule of a point."""
        return self.schedule(point).trace

    def describe(self, point: Any) -> str:
        """A point for people: its structure and numbers."""
        return f"{self.sketch(point).name} ({', '.join(f'{k}={v}' for k, v in self.values(point).items())})"

    def encode(self, point: Any) -> dict[str, Any]:
        """A point as data that means the same in the space of another shape: {"sketch": name, "knobs": {name: value}}."""
        return {"sketch": self.sketch(point).name, "knobs": self.values(point)}

    def decode(self, data: Mapping[str, Any]) -> np.ndarray:
        """The point :meth:`encode` described, or the valid one nearest to it: int64 [columns].

        A record of another shape names values that are not legal here; they are moved to legal ones.
        SpaceError when no sketch of that name exists.
        """
        try:
            name, knobs = str(data["sketch"]), {str(k): int(v) for k, v in data["knobs"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SpaceError(f"not an encoded point: {error!r}", hint="pass what Space.encode returned") from error
        number = next((n for n, s in enumerate(self.sketches) if s.name == name), None)
        if number is None:
            raise SpaceError(f"{self.kernel.name} has no sketch {name!r}", hint=f"it has: {'; '.join(s.name for s in self.sketches[:8])}")
        return moves.nearest(self, number, knobs)
