"""The valid assignments of a sketch's knobs, as a decision diagram.

Knobs are decided in order. A constraint is checked as soon as its last knob is decided, and what
later constraints still need to know (the values of the knobs they share with the past) is the
state. Assignments that agree in that state have the same continuations, so the diagram stays small
where the set is astronomically large, and counting continuations backwards gives the exact size of
the set, uniform samples without rejection, and enumeration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr
from tilewright.space.knob import Knob
from tilewright.util.errors import SpaceError

#: Distances that are held at a time when assignments near given ones are looked for.
MOST_DISTANCES = 4_000_000


@dataclass(frozen=True, slots=True)
class _Layer:
    """The decision of one knob: edges sorted by the state they leave."""

    first: np.ndarray  # of each state, its first edge; one more entry at the end
    value: np.ndarray  # of each edge
    target: np.ndarray  # of each edge: state of the next layer
    ahead: np.ndarray  # valid assignments through the edges before it (one more entry at the end): float64


class Diagram:
    """The set of assignments of ``knobs`` that satisfy ``constraints``.

    SpaceError when there is none; it names the constraint that leaves no value.
    """

    __slots__ = ("_layers", "size")

    def __init__(self, knobs: Sequence[Knob], constraints: Sequence[Expr]):
        self._layers: list[_Layer] = []
        edges = _forward(knobs, constraints)
        ahead: np.ndarray = np.ones(1)
        for origin, value, target, states in reversed(edges):
            weight = ahead[target]
            self._layers.append(_layer(origin, value, target, weight, states))
            ahead = np.bincount(origin, weight, states)
        self._layers.reverse()
        #: Number of valid assignments.
        self.size = int(ahead[0])

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """``n`` assignments, uniformly drawn with replacement: int64 [n, knobs]."""
        state = np.zeros(n, np.int64)
        columns = []
        for layer in self._layers:
            low, high = layer.ahead[layer.first[state]], layer.ahead[layer.first[state + 1]]
            edge = np.searchsorted(layer.ahead, low + rng.random(n) * (high - low), side="right") - 1
            # Rounding may land on an edge without continuation or one beyond the state's.
            edge = np.clip(edge, layer.first[state], layer.first[state + 1] - 1)
            columns.append(layer.value[edge])
            state = layer.target[edge]
        return np.stack(columns, axis=1) if columns else np.zeros((n, 0), np.int64)

    def nearest(self, wanted: np.ndarray) -> np.ndarray:
        """For each row of ``wanted`` [n, knobs] the assignment whose values are, summed over the knobs, the fewest factors away: int64."""
        edges = sum(len(layer.value) for layer in self._layers)
        rows = max(MOST_DISTANCES // max(edges, 1), 1)
        parts = [self._nearest(wanted[n : n + rows]) for n in range(0, len(wanted), rows)]
        return np.concatenate(parts) if parts else np.zeros(wanted.shape, np.int64)

    def _nearest(self, wanted: np.ndarray) -> np.ndarray:
        """The same, with a table of all distances at once."""
        logs = np.log(np.maximum(wanted, 1))
        far = [np.abs(np.log(np.maximum(layer.value, 1)) - logs[:, c, None]) for c, layer in enumerate(self._layers)]
        ahead = np.zeros((len(wanted), 1))
        least = []  # of each state, the distance of the best way on from it
        for layer, own in zip(reversed(self._layers), reversed(far), strict=True):
            own += ahead[:, layer.target]
            ahead = np.full((len(wanted), len(layer.first) - 1), np.inf)
            alive = layer.first[:-1] < layer.first[1:]
            if alive.any():
                ahead[:, alive] = np.minimum.reduceat(own, layer.first[:-1][alive], axis=1)
            least.append(ahead)
        every, state, out = np.arange(len(wanted)), np.zeros(len(wanted), np.int64), np.zeros(wanted.shape, np.int64)
        for c, (layer, own) in enumerate(zip(self._layers, far, strict=True)):
            origin = np.repeat(np.arange(len(layer.first) - 1), np.diff(layer.first))
            best = (origin == state[:, None]) & (own == least[-1 - c][every, state][:, None])
            edge = best.argmax(axis=1)
            out[:, c], state = layer.value[edge], layer.target[edge]
        return out

    def enumerate(self, limit: int) -> np.ndarray:
        """The first ``limit`` assignments in lexicographic order: int64 [at most limit, knobs]."""
        table, state = np.zeros((1, 0), np.int64), np.zeros(1, np.int64)
        for layer in self._layers:
            counts = layer.first[state + 1] - layer.first[state]
            # Every edge has a continuation, so ``limit`` prefixes are enough for ``limit`` assignments.
            rows = np.repeat(np.arange(len(state)), counts)[:limit]
            edge = layer.first[state][rows] + np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)[:limit]
            table = np.concatenate([table[rows], layer.value[edge][:, None]], axis=1)
            state = layer.target[edge]
        return table


def _layer(origin: np.ndarray, value: np.ndarray, target: np.ndarray, weight: np.ndarray, states: int) -> _Layer:
    alive = weight > 0
    origin, value, target, weight = origin[alive], value[alive], target[alive], weight[alive]
    first = np.searchsorted(origin, np.arange(states + 1))
    return _Layer(first, value, target, np.concatenate([[0.0], np.cumsum(weight)]))


def _forward(knobs: Sequence[Knob], constraints: Sequence[Expr]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
    """For each knob its edges (state, value, next state), sorted by state, and the number of states."""
    position = {k.name: n for n, k in enumerate(knobs)}
    needed = [sorted((position[v] for v in ex.free_vars(c)), reverse=True) for c in constraints]
    for constraint, names in zip(constraints, needed, strict=True):
        if not names and not ex.evaluate(constraint, {}):
            raise SpaceError(f"{constraint} does not hold, whatever the knobs", hint="the kernel or the machine rules this sketch out")
    kept: list[int] = []  # the knobs whose values make up the state
    states = np.zeros((1, 0), np.int64)
    out = []
    for n, knob in enumerate(knobs):
        values = np.array(knob.values, np.int64)
        origin = np.repeat(np.arange(len(states)), len(values))
        table = np.concatenate([states[origin], np.tile(values, len(states))[:, None]], axis=1)
        now = [*kept, n]
        for constraint, names in zip(constraints, needed, strict=True):
            if names and names[0] == n:
                holds = np.broadcast_to(ex.evaluate(constraint, {knobs[p].name: table[:, c] for c, p in enumerate(now)}), len(table))
                if not holds.any():
                    raise SpaceError(
                        f"no values of {', '.join(knobs[p].name for p in reversed(names))} satisfy {constraint}",
                        hint=f"{knob.name} may be {', '.join(map(str, knob.values[:12]))}; relax the constraint or add values",
                    )
                origin, table = origin[holds], table[holds]
        kept = [p for p in now if any(p in names and names[0] > n for names in needed)]
        following, target = np.unique(table[:, [now.index(p) for p in kept]], axis=0, return_inverse=True)
        out.append((origin, table[:, -1], target.reshape(-1), len(states)))
        states = following
    return out
