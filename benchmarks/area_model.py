"""Area of an array with its memories, fitted to published evaluations (Accelergy) of many architectures.

    python -m benchmarks.area_model DATA [--markdown]

DATA is a table (csv.gz) with ``arch.*`` and ``target.area`` (mm2). An array has dim x dim units, dim columns with an accumulator each,
one scratchpad; memories count by size. The script prints
the constants of ``hw/library/gemmini_costs.py`` and the error on architectures left out of the fit, one at a time.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks.report import WIDTH, Table
from rich.console import Console

from tilewright.hw.library.gemmini_costs import AREA_TERMS


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Terms [architectures, terms] and areas [architectures] of the table, each architecture once."""
    found: dict[tuple[float, float, float], float] = {}
    with gzip.open(path, "rt", newline="") as f:
        for row in csv.DictReader(f):
            dim, words, scratchpad = (float(row[f"arch.{k}"]) for k in ("meshX", "mem1_entries", "mem2_entries"))
            found[dim, 4 * dim * words, scratchpad] = float(row["target.area"])
    dim, accumulator, scratchpad = np.array(list(found)).T
    machine = {"dim": dim, "accumulator_bytes": accumulator, "scratchpad_bytes": scratchpad}
    return np.stack(np.broadcast_arrays(*(term(machine) for term in AREA_TERMS.values())), axis=1), np.array(list(found.values()))


def fit(terms: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Constants with the least squares of relative errors, none negative: terms that would be are left out."""
    used = np.ones(terms.shape[1], dtype=bool)
    while True:
        out = np.zeros(len(used))
        out[used] = np.linalg.lstsq(terms[:, used] / areas[:, None], np.ones(len(areas)), rcond=None)[0]
        if (out >= 0).all():
            return out
        used[np.argmin(out)] = False


def held_out(terms: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Relative error on each architecture by a fit to the others."""
    rows = np.arange(len(areas))
    return np.array([terms[n] @ fit(terms[rows != n], areas[rows != n]) / areas[n] - 1 for n in rows])


def table(terms: np.ndarray, areas: np.ndarray) -> Table:
    rows = []
    for name, error in (("fitted", terms @ fit(terms, areas) / areas - 1), ("left out", held_out(terms, areas))):
        size = np.abs(error)
        rows.append((name, str(len(areas)), *(f"{x:.1%}" for x in (size.mean(), np.quantile(size, 0.9), size.max()))))
    return Table("Area: model and published", ("architectures", "number", "mean error", "90 % within", "largest"), tuple(rows))


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path, metavar="DATA")
    p.add_argument("--markdown", action="store_true")
    options = p.parse_args(arguments)
    if not options.data.is_file():
        p.error(f"{options.data} is not a file")
    terms, areas = load(options.data)
    found = table(terms, areas)
    print(found.markdown()) if options.markdown else found.print(Console(width=WIDTH))
    print({name: float(f"{x:.4g}") for name, x in zip(AREA_TERMS, fit(terms, areas), strict=True)})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
