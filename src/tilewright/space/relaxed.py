"""Sketches with real numbers for knobs: the logarithm of the estimate, and its gradient by the logarithms of the knobs.

Formulas are of whole numbers: tiles are rounded up, and vectors are aligned or are not. So the estimate is taken where each knob has
the nearest of its values, and only the gradient takes quotients as they are, with nothing rounded. Constraints that do not
hold there are penalties.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np

from tilewright.cost.adjoint import Adjoint
from tilewright.cost.formula import Formula, Graph
from tilewright.cost.tape import Tape
from tilewright.ir.expr import Compare, Expr, Logical
from tilewright.space.knob import Knob

#: Weight of a violated constraint: of the logarithm of what is too much, in units of that of seconds.
PENALTY = 8.0


class Relaxed:
    """A sketch, by its ``number``, with its structural knobs at ``fixed`` values.

    ``knobs`` are all of the sketch, in the order of a point's ``columns``; those ``moving`` (places in ``knobs``) are real numbers here.
    ``cycles`` makes the tape that is differentiated when it is first asked for.
    """

    def __init__(
        self,
        number: int,
        knobs: Sequence[Knob],
        constraints: Sequence[Expr],
        fixed: Mapping[str, int],
        columns: int,
        cycles: Callable[[], Tape],
    ):
        self.number, self.knobs = number, tuple(knobs)
        self._constraints, self._columns, self._cycles = tuple(constraints), columns, cycles
        self.fixed = {**{k.name: k.values[0] for k in knobs if len(k.values) == 1}, **fixed}
        self.moving = tuple(n for n, k in enumerate(knobs) if k.name not in self.fixed)
        self._values = [np.array(knobs[n].values) for n in self.moving]
        self._ticks = [_logs(v) for v in self._values]

    def within(self, points: np.ndarray) -> Relaxed:
        """The same with only those values of each knob that occur in ``points`` of this form (some at least)."""
        own = points[self.holds(points)]
        knobs = [Knob(k.name, tuple(int(v) for v in np.unique(own[:, n]))) for n, k in enumerate(self.knobs, 1)]
        return Relaxed(self.number, knobs, self._constraints, self.fixed, self._columns, self._cycles)

    # --- between points and real numbers ----------------------------------------------------------

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Which of ``points`` are of this form: bool [n]."""
        out = points[:, 0] == self.number
        for n, k in enumerate(self.knobs, 1):
            if k.name in self.fixed:
                out &= points[:, n] == self.fixed[k.name]
        return np.asarray(out)

    def logs(self, points: np.ndarray) -> np.ndarray:
        """Logarithms of the moving knobs of ``points``: [n, moving]."""
        return _logs(points[:, 1:][:, list(self.moving)])

    def nearest(self, logs: np.ndarray) -> np.ndarray:
        """Points whose moving knobs have the nearest of their values, each by itself, whatever constraints say: int64 [n, columns]."""
        out = np.zeros((len(logs), self._columns), np.int64)
        out[:, 0] = self.number
        out[:, 1 : 1 + len(self.knobs)] = [self.fixed.get(k.name, 0) for k in self.knobs]
        for c, n in enumerate(self.moving):
            ticks = self._ticks[c]
            out[:, 1 + n] = self._values[c][np.searchsorted(0.5 * (ticks[1:] + ticks[:-1]), logs[:, c])]
        return out

    def clipped(self, logs: np.ndarray) -> np.ndarray:
        """``logs`` between those of the least and of the largest value of each knob."""
        if not self.moving:
            return logs
        return np.clip(logs, [t[0] for t in self._ticks], [t[-1] for t in self._ticks])

    # --- what is minimised ------------------------------------------------------------------------

    def __call__(self, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logarithm of cycles with penalties [n], and its gradient [n, moving]."""
        points = self.nearest(logs)
        env: dict[str, np.ndarray | int] = {**self.fixed, **{self.knobs[n].name: points[:, 1 + n].astype(np.float64) for n in self.moving}}
        value, slope = np.zeros(len(logs)), np.zeros(logs.shape)
        for adjoint, weight in ((self._estimate, 1.0), (self._excess, PENALTY)):
            slots = adjoint.forward(env)
            results = [np.maximum(r, 1e-300) for r in adjoint.results(slots)]
            value += weight * sum(np.log(r) for r in results)
            for name, part in adjoint.backward(slots, [weight / r for r in results]).items():
                slope[:, self._place[name]] += part * env[name]
        return value, slope

    @cached_property
    def _place(self) -> dict[str, int]:
        return {self.knobs[n].name: c for c, n in enumerate(self.moving)}

    @cached_property
    def _estimate(self) -> Adjoint:
        tape = self._cycles()
        return Adjoint(tape, [name for name in self._place if name in tape.variables])

    @cached_property
    def _excess(self) -> Adjoint:
        g = Graph()
        env = {
            k.name: g.const(self.fixed[k.name]) if k.name in self.fixed else g.var(k.name, k.values[0], k.values[-1]) for k in self.knobs
        }
        found = [f for c in self._constraints if not (f := _excess(g, c, env)).is_const]
        tape = Tape(found)
        return Adjoint(tape, [name for name in self._place if name in tape.variables])


def _logs(values: np.ndarray) -> np.ndarray:
    """Knobs of 0 are next to those of 1."""
    return np.asarray(np.log(np.maximum(values, 1.0)))


def _excess(g: Graph, e: Expr, env: Mapping[str, Formula]) -> Formula:
    """How many times a constraint on whole numbers is exceeded: 1 where it holds, and where there is no way towards it to be seen."""
    one = g.const(1)
    match e:
        case Compare(op="<=" | "<" | ">=" | ">"):
            a, b = (e.a, e.b) if e.op[0] == "<" else (e.b, e.a)
            less, more = g.expr(a, env), g.expr(b, env)
            return g.max(g.max(less if "=" in e.op else less + 1, 1) / g.max(more, 1), 1)
        case Compare(op="=="):
            sides = g.max(g.expr(e.a, env), 1), g.max(g.expr(e.b, env), 1)
            return g.max(sides[0] / sides[1], sides[1] / sides[0])
        case Compare(op="!="):
            known = g.negate(g.equal(g.expr(e.a, env), g.expr(e.b, env)))
            return g.const(np.inf) if known.is_const and not known.value else one
        case Logical():
            first, second = (_excess(g, part, env) for part in (e.a, e.b))
            return g.max(first, second) if e.op == "and" else g.min(first, second)
    return one
