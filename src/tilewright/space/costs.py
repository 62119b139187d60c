"""What the cost models make of the sketches of a space: formulas over the knobs, made for a sketch when it is first asked for."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from tilewright.cost import explicit, units
from tilewright.cost.estimate import Estimator, analysed
from tilewright.cost.explicit import ExplicitEstimator
from tilewright.cost.features import Extractor
from tilewright.cost.formula import Graph
from tilewright.cost.tape import Tape
from tilewright.cost.traffic import Analysis
from tilewright.cost.units import UnitsEstimator
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.space.sketch import Sketch, Variant

#: Values of knobs, one entry a point.
Env = Mapping[str, np.ndarray]
#: The number of a sketch, and one of the variants of its program.
_Key = tuple[int, Variant]
_Describe = Callable[[_Key, Env], tuple[np.ndarray, np.ndarray]]


class Costs:
    """Estimates and features of ``sketches``, by their numbers.

    All sketches share one graph of formulas: they differ in parts. The values of their knobs bound it, which decides
    most questions of what fits where for all points of a sketch.
    """

    def __init__(self, sketches: Sequence[Sketch], machine: Machine, threads: int):
        self.sketches, self.machine, self.threads = sketches, machine, threads
        self._graph = Graph()
        self._analyses: dict[_Key, Analysis] = {}
        self._estimators: dict[_Key, Estimator | ExplicitEstimator | UnitsEstimator] = {}
        self._extractors: dict[tuple[_Key, bool], Extractor] = {}

    def seconds(self, number: int, env: Env) -> np.ndarray:
        """Seconds of points of a sketch, by the values of its knobs: float64 [points]."""
        out = np.zeros(_length(env))
        for variant, rows in self._variants(number, env):
            out[rows] = self._estimator((number, variant))(_part(env, rows))
        return out

    def features(self, number: int, env: Env) -> np.ndarray:
        """Features of points of a sketch: [points, statements, columns]."""
        return self._described(number, env, lambda key, part: (self._extractor(key)(part)[0], np.zeros(1)))[0]

    def described(self, number: int, env: Env) -> tuple[np.ndarray, np.ndarray]:
        """Features and seconds of a sketch's points, by one pass where the estimate is of the same formulas."""

        def both(key: _Key, part: Env) -> tuple[np.ndarray, np.ndarray]:
            if self._filled(key):
                return self._extractor(key)(part)[0], self._estimator(key)(part)
            return self._extractor(key, seconds=True)(part)

        return self._described(number, env, both)

    def tape(self, number: int, variant: Variant) -> Tape:
        """What computes the cycles of a sketch's points from its other knobs when the structural ones have the values of ``variant``."""
        return self._estimator((number, variant)).tape

    def forget(self) -> None:
        """Drop all models at once: formulas and their graph refer to each other, and would wait for the garbage collector."""
        self._graph.clear()
        self._graph = Graph()
        self._analyses.clear()
        self._estimators.clear()
        self._extractors.clear()

    # --- programs ---------------------------------------------------------------------------

    def _variants(self, number: int, env: Env) -> Iterator[tuple[Variant, np.ndarray | slice]]:
        """Values of the structural knobs that occur in ``env``, and where."""
        knobs = self.sketches[number].structural
        if not knobs:
            yield (), slice(None)
            return
        table = np.stack([np.broadcast_to(env[k.name], _length(env)) for k in knobs], axis=1)
        found, at = np.unique(table, axis=0, return_inverse=True)
        for n, variant in enumerate(found):
            yield tuple(map(int, variant)), np.flatnonzero(at.reshape(-1) == n)

    def _described(self, number: int, env: Env, describe: _Describe) -> tuple[np.ndarray, np.ndarray]:
        """What ``describe`` finds for each variant; those with fewer statements than others end in rows of zeros."""
        found = [(rows, *describe((number, variant), _part(env, rows))) for variant, rows in self._variants(number, env)]
        if len(found) == 1:
            return found[0][1:]
        features = np.zeros((_length(env), max(f.shape[1] for _, f, _ in found), found[0][1].shape[2]), np.float32)
        seconds = np.zeros(len(features))
        for rows, own, spent in found:
            features[rows, : own.shape[1]], seconds[rows] = own, spent
        return features, seconds

    def _program(self, key: _Key) -> Kernel:
        return self.sketches[key[0]].program_of(key[1])

    def _ranges(self, key: _Key) -> dict[str, tuple[int, int]]:
        return {k.name: (k.values[0], k.values[-1]) for k in self.sketches[key[0]].knobs}

    def _filled(self, key: _Key) -> bool:
        """Whether a program fills its memories itself: those have estimates of their own."""
        return units.applies(self._program(key)) or explicit.applies(self._program(key), self.machine)

    def _analysis(self, key: _Key) -> Analysis:
        """Footprints of a program."""
        if key not in self._analyses:
            self._analyses[key] = analysed(self._program(key), self.machine, self._graph, self._ranges(key))
        return self._analyses[key]

    def _estimator(self, key: _Key) -> Estimator | ExplicitEstimator | UnitsEstimator:
        if key not in self._estimators:
            if self._filled(key):
                own = UnitsEstimator if units.applies(self._program(key)) else ExplicitEstimator
                self._estimators[key] = own(self._program(key), self.machine, self._graph, self._ranges(key))
            else:
                with uncollected():
                    self._estimators[key] = Estimator(self._analysis(key), self.machine, self.threads)
        return self._estimators[key]

    def _extractor(self, key: _Key, seconds: bool = False) -> Extractor:
        """Features of a program, and its ``seconds`` if wanted."""
        if (key, seconds) not in self._extractors:
            with uncollected():
                self._extractors[key, seconds] = Extractor(self._analysis(key), self.machine, self.threads if seconds else None)
        return self._extractors[key, seconds]


def _length(env: Env) -> int:
    return max((np.size(v) for v in env.values()), default=1)


def _part(env: Env, rows: np.ndarray | slice) -> Env:
    return env if isinstance(rows, slice) else {n: v[rows] for n, v in env.items()}


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection: formulas are many objects that all stay, and looking through them takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
