"""Features of scheduled programs: one row of 194 columns for each innermost statement, for a whole population at once.

:mod:`tilewright.cost.columns` says what each column holds. Columns are formulas over the knobs; they
share one tape with each other (and with the analytical estimate), so each distinct sub-expression is
evaluated once, and a population costs no Python per candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tilewright.cost.columns import COLUMN, COLUMNS, PLAIN
from tilewright.cost.estimate import CHUNK, analysis_of, program_cycles
from tilewright.cost.formula import Formula
from tilewright.cost.joint import Joint
from tilewright.cost.statement_features import statement_columns
from tilewright.cost.traffic import Analysis
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.util.errors import IRTypeError


class Description:
    """How the feature rows of one symbolic program are made of its formulas.

    ``outputs`` are those that vary with the knobs, each once, magnitudes first; ``columns`` is how many numbers a point's rows have.
    """

    def __init__(self, analysis: Analysis, machine: Machine):
        self.statements = len(analysis.program.statements)
        self.columns = self.statements * len(COLUMNS)
        magnitudes: list[tuple[int, Formula]] = []
        plain: list[tuple[int, Formula]] = []
        for n, s in enumerate(analysis.program.statements):
            for name, f in statement_columns(analysis, s, machine).items():
                (plain if name in PLAIN else magnitudes).append((n * len(COLUMNS) + COLUMN[name], f))
        # Constants are filled in once; what varies is written in place, magnitudes first (they share the logarithm).
        self._template = np.zeros(self.columns, np.float32)
        outputs: list[Formula] = []
        places: list[tuple[int, int]] = []
        for group, log in ((magnitudes, True), (plain, False)):
            known: dict[int, int] = {}
            for c, f in group:
                if f.is_const:
                    self._template[c] = np.log2(1 + f.value) if log else f.value
                    continue
                if f.number not in known:
                    known[f.number] = len(outputs)
                    outputs.append(f)
                places.append((c, known[f.number]))
            if log:
                self._logged = len(outputs)
        self.outputs = tuple(outputs)
        table = np.array(sorted(places), np.intp).reshape(-1, 2)
        self._targets, self._sources = table[:, 0], table[:, 1]

    def write(self, values: Sequence[np.ndarray], out: np.ndarray) -> None:
        """Fill ``out``, float32 [n, columns], from float64 [n] for each output."""
        out[...] = self._template
        if not values:
            return
        block = np.empty((len(values), len(out)), np.float32)
        np.concatenate(values, out=block.reshape(-1), casting="same_kind")
        logged = block[: self._logged]
        logged += 1
        np.log2(logged, out=logged)
        out[:, self._targets] = block[self._sources].T


class Extractor:
    """Features and estimated seconds of one symbolic program, compiled once.

    Call it with the knobs' values: ``features, seconds = extractor({"m": array, "n": array})``. With ``threads=None``
    there is no estimate (its seconds are zero) and features cost less.
    """

    def __init__(self, analysis: Analysis, machine: Machine, threads: int | None = 1):
        self.machine = machine
        self._description = Description(analysis, machine)
        cycles = analysis.graph.const(0) if threads is None else program_cycles(analysis, machine, threads)
        self._joint = Joint([[*self._description.outputs, cycles]])

    def __call__(self, env: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """float32 [n, statements, 194] and seconds float64 [n] for n assignments (arrays of one length; numbers count as n = 1).

        IRTypeError when a knob has no value or lengths differ.
        """
        arrays = {k: np.atleast_1d(np.asarray(v, np.float64)) for k, v in env.items()}
        lengths = {len(v) for v in arrays.values()} or {1}
        if len(lengths) > 1:
            raise IRTypeError(f"knobs have different numbers of values: {sorted(lengths)}", hint="pass arrays of one length")
        n = lengths.pop()
        features = np.empty((n, self._description.columns), np.float32)
        cycles = np.empty(n, np.float64)
        for part in self._joint(arrays, [n], CHUNK):
            *values, cycles[part.rows] = part.values
            self._description.write(values, features[part.rows])
        return features.reshape(n, self._description.statements, len(COLUMNS)), cycles / self.machine.clock_hz


@lru_cache(maxsize=256)
def extractor(program: Kernel, machine: Machine, threads: int | None = 1) -> Extractor:
    """The :class:`Extractor` of a program, kept for the next call."""
    return Extractor(analysis_of(program, machine), machine, threads)


def features(program: Kernel, machine: Machine, env: Mapping[str, Any] | None = None) -> np.ndarray:
    """float32 [n, statements, 194]: features of ``program`` for n assignments of its knobs (see :data:`COLUMNS`).

    Statements are in program order. IRTypeError when a knob has no value.
    """
    return extractor(program, machine, None)(env or {})[0]


def padded(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Feature arrays of programs with different numbers of statements as one array, short ones padded with zero rows."""
    most = max((p.shape[1] for p in parts), default=0)
    out = np.zeros((sum(len(p) for p in parts), most, len(COLUMNS)), np.float32)
    row = 0
    for p in parts:
        out[row : row + len(p), : p.shape[1]] = p
        row += len(p)
    return out
