"""What the cost models make of the sketches of a space: formulas over the knobs, made for a sketch when it is first asked for."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from tilewright.cost import explicit, units
from tilewright.cost.estimate import Estimator, analysed
from tilewright.cost.explicit import ExplicitEstimator
from tilewright.cost.features import Extractor
from tilewright.cost.formula import Graph
from tilewright.cost.traffic import Analysis
from tilewright.cost.units import UnitsEstimator
from tilewright.hw import Machine
from tilewright.space.sketch import Sketch


class Costs:
    """Estimates and features of ``sketches``, by their numbers.

    All sketches share one graph of formulas: they differ in parts. The values of their knobs bound it, which decides
    most questions of what fits where for all points of a sketch.
    """

    def __init__(self, sketches: Sequence[Sketch], machine: Machine, threads: int):
        self.sketches, self.machine, self.threads = sketches, machine, threads
        self._graph = Graph()
        self._analyses: dict[int, Analysis] = {}
        self._estimators: dict[int, Estimator | ExplicitEstimator | UnitsEstimator] = {}
        self._extractors: dict[tuple[int, bool], Extractor] = {}

    def analysis(self, number: int) -> Analysis:
        """Footprints of a sketch's program."""
        if number not in self._analyses:
            sketch = self.sketches[number]
            ranges = {k.name: (k.values[0], k.values[-1]) for k in sketch.knobs}
            self._analyses[number] = analysed(sketch.program, self.machine, self._graph, ranges)
        return self._analyses[number]

    def estimator(self, number: int) -> Estimator | ExplicitEstimator | UnitsEstimator:
        """Seconds of a sketch's points."""
        if number not in self._estimators:
            sketch = self.sketches[number]
            if self._filled(number):
                ranges = {k.name: (k.values[0], k.values[-1]) for k in sketch.knobs}
                own = UnitsEstimator if units.applies(sketch.program) else ExplicitEstimator
                self._estimators[number] = own(sketch.program, self.machine, self._graph, ranges)
            else:
                with uncollected():
                    self._estimators[number] = Estimator(self.analysis(number), self.machine, self.threads)
        return self._estimators[number]

    def forget(self) -> None:
        """Drop all models at once: formulas and their graph refer to each other, and would wait for the garbage collector."""
        self._graph.clear()
        self._graph = Graph()
        self._analyses.clear()
        self._estimators.clear()
        self._extractors.clear()

    def described(self, number: int, env: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Features and seconds of a sketch's points, by one pass where the estimate is of the same formulas."""
        if self._filled(number):
            return self.extractor(number)(env)[0], self.estimator(number)(env)
        return self.extractor(number, seconds=True)(env)

    def _filled(self, number: int) -> bool:
        """Whether a sketch's program fills its memories itself: those have estimates of their own."""
        program = self.sketches[number].program
        return units.applies(program) or explicit.applies(program, self.machine)

    def extractor(self, number: int, seconds: bool = False) -> Extractor:
        """Features of a sketch's points, and their ``seconds`` if wanted."""
        key = number, seconds
        if key not in self._extractors:
            with uncollected():
                self._extractors[key] = Extractor(self.analysis(number), self.machine, self.threads if seconds else None)
        return self._extractors[key]


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
