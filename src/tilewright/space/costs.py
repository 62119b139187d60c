"""What the cost models make of the sketches of a space: formulas over the knobs, made for a sketch when it is first asked for."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tilewright.cost import explicit, units
from tilewright.cost.columns import COLUMNS
from tilewright.cost.estimate import CHUNK, analysed, program_cycles
from tilewright.cost.explicit import ExplicitEstimator
from tilewright.cost.features import Description
from tilewright.cost.formula import Formula, Graph
from tilewright.cost.joint import Joint
from tilewright.cost.tape import Tape
from tilewright.cost.traffic import Analysis
from tilewright.cost.units import UnitsEstimator
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.space.sketch import Sketch, Variant

#: Values of knobs, one entry a point.
Env = Mapping[str, np.ndarray]
#: Points of one sketch: its number, their rows in the result, and the values of its knobs.
Part = tuple[int, np.ndarray, Env]
#: The number of a sketch, and one of the variants of its program.
_Key = tuple[int, Variant]
#: What is evaluated.
SECONDS, FEATURES, BOTH = "seconds", "features", "both"


@dataclass(frozen=True, slots=True)
class _Population:
    """Points by program, ``counts`` of each: their ``rows`` in the result, and a column for each knob (1 where a sketch has none)."""

    keys: tuple[_Key, ...]
    counts: list[int]
    rows: np.ndarray
    columns: Mapping[str, np.ndarray]

    @property
    def points(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class _Programs:
    """Formulas of programs, in the order of ``keys``."""

    keys: tuple[_Key, ...]
    joint: Joint


class Costs:
    """Estimates and features of ``sketches``, by their numbers.

    All sketches share one graph of formulas: they differ in parts. The values of their knobs bound it, which decides
    most questions of what fits where for all points of a sketch. Points of different sketches are evaluated together.
    """

    def __init__(self, sketches: Sequence[Sketch], machine: Machine, threads: int):
        self.sketches, self.machine, self.threads = sketches, machine, threads
        self._graph = Graph()
        self._analyses: dict[_Key, Analysis] = {}
        self._cycles: dict[_Key, Formula] = {}
        self._descriptions: dict[_Key, Description] = {}
        self._tapes: dict[_Key, Tape] = {}
        #: By what they evaluate: of all programs asked for together so far, and of those of one sketch.
        self._joints: dict[str, _Programs] = {}
        self._single: dict[tuple[str, tuple[_Key, ...]], _Programs] = {}

    def seconds(self, number: int, env: Env) -> np.ndarray:
        """Seconds of points of one sketch, by the values of its knobs: float64 [points]."""
        return self.estimate([(number, np.arange(_length(env)), env)])

    def estimate(self, parts: Iterable[Part]) -> np.ndarray:
        """Seconds of the points of all ``parts``: float64 [points]."""
        population = self._population(parts)
        seconds = np.empty(population.points)
        for _, rows, (cycles,) in self._evaluated(SECONDS, population):
            seconds[rows] = cycles
        return seconds / self.machine.clock_hz

    def features(self, parts: Iterable[Part]) -> np.ndarray:
        """Features of the points of all ``parts``: float32 [points, statements, columns], rows of zeros where a program has fewer."""
        population = self._population(parts)
        features = self._empty(population)
        for key, rows, values in self._evaluated(FEATURES, population):
            self._write(features, key, rows, values)
        return features.reshape(population.points, -1, len(COLUMNS))

    def described(self, parts: Iterable[Part]) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`features` and :meth:`estimate`, by one pass: most of the work is the same."""
        population = self._population(parts)
        features, seconds = self._empty(population), np.empty(population.points)
        for key, rows, (*values, cycles) in self._evaluated(BOTH, population):
            self._write(features, key, rows, values)
            seconds[rows] = cycles
        return features.reshape(population.points, -1, len(COLUMNS)), seconds / self.machine.clock_hz

    def tape(self, number: int, variant: Variant) -> Tape:
        """What computes the cycles of a sketch's points from its other knobs when the structural ones have the values of ``variant``."""
        key = number, variant
        if key not in self._tapes:
            with uncollected():
                self._tapes[key] = Tape([self._cycles_of(key)])
        return self._tapes[key]

    def forget(self) -> None:
        """Drop all models at once: formulas and their graph refer to each other, and would wait for the garbage collector."""
        self._graph.clear()
        self._graph = Graph()
        self._analyses.clear()
        self._cycles.clear()
        self._descriptions.clear()
        self._tapes.clear()
        self._joints.clear()
        self._single.clear()

    # --- populations ------------------------------------------------------------------------

    def _population(self, parts: Iterable[Part]) -> _Population:
        """Points by program."""
        keys: list[_Key] = []
        rows: list[np.ndarray] = []
        pieces: list[Env] = []
        for number, at, env in sorted(parts, key=lambda p: p[0]):
            for variant, own in self._variants(number, env, len(at)):
                keys.append((number, variant))
                rows.append(at[own])
                pieces.append({n: v[own] for n, v in env.items()})
        counts = [len(r) for r in rows]
        columns: dict[str, np.ndarray] = {}
        end = 0
        for count, piece in zip(counts, pieces, strict=True):
            for name, values in piece.items():
                columns.setdefault(name, np.ones(sum(counts)))[end : end + count] = values
            end += count
        return _Population(tuple(keys), counts, np.concatenate(rows) if rows else np.zeros(0, np.intp), columns)

    def _variants(self, number: int, env: Env, points: int) -> Iterator[tuple[Variant, np.ndarray | slice]]:
        """Values of the structural knobs that occur in ``env``, in order, and where."""
        knobs = self.sketches[number].structural
        if not knobs:
            yield (), slice(None)
            return
        table = np.stack([np.broadcast_to(env[k.name], points) for k in knobs], axis=1)
        found, at = np.unique(table, axis=0, return_inverse=True)
        for n, variant in enumerate(found):
            yield tuple(map(int, variant)), np.flatnonzero(at.reshape(-1) == n)

    def _evaluated(self, what: str, population: _Population) -> Iterator[tuple[_Key, np.ndarray, list[np.ndarray]]]:
        """Programs, rows of points, and the values of what is asked for."""
        programs = self._programs(what, population.keys)
        counts = dict(zip(population.keys, population.counts, strict=True))
        for part in programs.joint(population.columns, [counts.get(k, 0) for k in programs.keys], CHUNK):
            yield programs.keys[part.program], population.rows[part.rows], part.values

    def _programs(self, what: str, keys: tuple[_Key, ...]) -> _Programs:
        """Formulas that serve at least ``keys``, compiled."""
        known = self._single.get((what, keys)) or self._joints.get(what)
        if known is not None and set(keys) <= set(known.keys):
            return known
        with uncollected():
            if len({number for number, _ in keys}) <= 1:
                made = self._single[what, keys] = self._compiled(what, keys)
            else:
                made = self._joints[what] = self._compiled(what, tuple(sorted({*keys, *(known.keys if known else ())})))
        return made

    def _compiled(self, what: str, keys: tuple[_Key, ...]) -> _Programs:
        outputs: list[list[Formula]] = []
        for key in keys:
            own = [] if what == SECONDS else list(self._description(key).outputs)
            outputs.append(own if what == FEATURES else [*own, self._cycles_of(key)])
        return _Programs(keys, Joint(outputs))

    def _empty(self, population: _Population) -> np.ndarray:
        with uncollected():
            most = max((self._description(k).columns for k in population.keys), default=0)
        return np.zeros((population.points, most), np.float32)

    def _write(self, features: np.ndarray, key: _Key, rows: np.ndarray, values: Sequence[np.ndarray]) -> None:
        description = self._description(key)
        own = np.empty((len(rows), description.columns), np.float32)
        description.write(values, own)
        features[rows, : description.columns] = own

    # --- programs ---------------------------------------------------------------------------

    def _program(self, key: _Key) -> Kernel:
        return self.sketches[key[0]].program_of(key[1])

    def _ranges(self, key: _Key) -> dict[str, tuple[int, int]]:
        return {k.name: (k.values[0], k.values[-1]) for k in self.sketches[key[0]].knobs}

    def _analysis(self, key: _Key) -> Analysis:
        """Footprints of a program."""
        if key not in self._analyses:
            self._analyses[key] = analysed(self._program(key), self.machine, self._graph, self._ranges(key))
        return self._analyses[key]

    def _cycles_of(self, key: _Key) -> Formula:
        if key not in self._cycles:
            program = self._program(key)
            if units.applies(program):
                self._cycles[key] = UnitsEstimator(program, self.machine, self._graph, self._ranges(key)).cycles
            elif explicit.applies(program, self.machine):
                self._cycles[key] = ExplicitEstimator(program, self.machine, self._graph, self._ranges(key)).cycles
            else:
                self._cycles[key] = program_cycles(self._analysis(key), self.machine, self.threads)
        return self._cycles[key]

    def _description(self, key: _Key) -> Description:
        if key not in self._descriptions:
            self._descriptions[key] = Description(self._analysis(key), self.machine)
        return self._descriptions[key]


def _length(env: Env) -> int:
    return max((np.size(v) for v in env.values()), default=1)


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
