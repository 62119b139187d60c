"""The analytical model of explicit memories against published evaluations of many mappings.

    python -m benchmarks.timeloop DATA [--rows N] [--speed] [--markdown] [--json out.json]

DATA is a table (csv.gz) of layers (``prob.*``), mappings (``mapping.mapping``), machines (``arch.*``) and what Timeloop and
Accelergy say of them: cycles and energy in microjoules. ``--rows`` takes a sample, ``--markdown`` prints tables for
docs/codesign.md. Nothing in them is a time: they are the same everywhere. ``--speed`` prints how many mappings a second
one thread costs, in its processor time.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.report import WIDTH, Table, write_json
from rich.console import Console

from tilewright.cost.loopnest import LoopNest, convolution, parse_nest
from tilewright.cost.nestcost import NestModel, Population
from tilewright.hw.hierarchy import RESIDENT, Hierarchy
from tilewright.hw.library.gemmini import hierarchy

LAYER = convolution(("SH", "SW"), ("DH", "DW"))
#: Cycles count as equal within this.
CLOSE = 1e-3
#: A structure for the speed: every loop at every level where the data have it.
EVERY_LOOP = "L3[WIO] K2 C2 P2 Q2 R2 S2 - L2[WI] N1 K2X - L1[O] K2 S2 R2 C2 Q2 P2 C2X - L0[W] P2"


@dataclass(frozen=True)
class Published:
    """Mappings with the parameters of layer and machine (columns), the published cycles and picojoules."""

    nests: tuple[LoopNest, ...]
    parameters: Mapping[str, np.ndarray]
    window: np.ndarray
    cycles: np.ndarray
    energy: np.ndarray


def load(path: Path, rows: int | None = None) -> Published:
    """Read the table, or ``rows`` of it drawn at random."""
    with gzip.open(path, "rt", newline="") as f:
        table = list(csv.DictReader(f))
    if rows is not None and rows < len(table):
        table = [table[n] for n in np.sort(np.random.default_rng(0).choice(len(table), rows, replace=False))]

    def column(name: str) -> np.ndarray:
        return np.array([float(r[name]) for r in table])

    dim = column("arch.meshX")
    parameters = {
        "SH": column("prob.Hstride"),
        "SW": column("prob.Wstride"),
        "DH": column("prob.Hdilation"),
        "DW": column("prob.Wdilation"),
        "dim": dim,
        "scratchpad_bytes": column("arch.mem2_entries"),
        "accumulator_bytes": 4 * dim * column("arch.mem1_entries"),
    }
    window = (column("prob.R") > 1) | (column("prob.S") > 1)
    nests = tuple(parse_nest(r["mapping.mapping"]) for r in table)
    return Published(nests, parameters, window, column("target.cycle"), 1e6 * column("target.energy"))


def resumes(nest: LoopNest, stride: Sequence[float]) -> bool:
    """Whether the innermost outer loop moves a window, and another loop moves the same window twice as far.

    The evaluator runs two iterations of each loop and takes the others to be like the second. Where the outer
    loop's step follows the inner loop's second iteration in line, it counts as one more step of the inner loop.
    """
    outer = nest.levels[0].temporal
    if not outer:
        return False
    step = {"P": stride[0], "Q": stride[1], "R": 1.0, "S": 1.0}
    for p in nest.loops():
        if p.factor.dim in step and p.depth < len(nest.levels) - 1:
            step[p.factor.dim] *= int(p.factor.trips)
    last = outer[-1].dim
    beside = {"P": "R", "R": "P", "Q": "S", "S": "Q"}.get(last)
    return any(f.dim == beside and step[f.dim] == 2 * step[last] for f in outer)


def errors(data: Published, machine: Hierarchy) -> tuple[np.ndarray, np.ndarray]:
    """Relative errors of cycles and energy."""
    cycles, energy = Population(LAYER, machine).evaluate(data.nests, data.parameters)
    return cycles / data.cycles - 1, energy / data.energy - 1


def kinds(data: Published) -> dict[str, np.ndarray]:
    """Disjoint kinds of rows, in the order of the table."""
    strided = data.parameters["SH"] > 1
    resumed = np.array(
        [resumes(n, s) for n, s in zip(data.nests, zip(data.parameters["SH"], data.parameters["SW"], strict=True), strict=True)]
    )
    return {
        "1x1 and matrix products": ~data.window & ~strided,
        "1x1, strided": ~data.window & strided,
        "windows": data.window & ~strided & ~resumed,
        "windows, strided": data.window & strided & ~resumed,
        "windows whose outer loop resumes the inner": data.window & resumed,
    }


def table(data: Published, cycles: np.ndarray, energy: np.ndarray) -> tuple[Table, list[dict[str, Any]]]:
    """Errors by kind of row."""
    chosen = {**kinds(data), "all without a window": ~data.window, "all with a window": data.window}
    results = [_summary(name, cycles[m], energy[m]) for name, m in chosen.items() if m.any()]
    columns = ("rows", "number", "cycles within 0.1 %", "energy: mean error", "99th percentile", "largest")
    percent = ("close_cycles", "mean_energy_error", "p99_energy_error", "largest_energy_error")
    rows = tuple(
        (r["kind"], f"{r['rows']:,}", *(f"{r[k]:.2%}" if k == "close_cycles" else f"{r[k]:.3%}" for k in percent)) for r in results
    )
    return Table("Model and published evaluation", columns, rows), results


def _summary(kind: str, cycles: np.ndarray, energy: np.ndarray) -> dict[str, Any]:
    size = np.abs(energy)
    return {
        "kind": kind,
        "rows": len(size),
        "close_cycles": float(np.mean(np.abs(cycles) <= CLOSE)),
        "mean_energy_error": float(size.mean()),
        "p99_energy_error": float(np.quantile(size, 0.99)),
        "largest_energy_error": float(size.max()),
    }


def keeping(data: Published, energy: np.ndarray) -> tuple[Table, list[dict[str, Any]]]:
    """What memories that keep all they can (exact residence) would save of the energy."""
    machine = hierarchy()
    exact = replace(machine, levels=tuple(replace(s, reuse=RESIDENT) for s in machine.levels))
    saved = 1 - (1 + errors(data, exact)[1]) / (1 + energy)
    results = [
        {"kind": n, "mean_saved": float(saved[m].mean()), "most_saved": float(saved[m].max())} for n, m in kinds(data).items() if m.any()
    ]
    rows = tuple((r["kind"], f"{r['mean_saved']:.2%}", f"{r['most_saved']:.2%}") for r in results)
    return Table("Energy saved if all that the next tile shares were kept", ("rows", "mean", "most"), rows), results


def speed(population: int = 4096, repeats: int = 20) -> float:
    """Mappings a second of one thread, with random trips for every loop: the best of ``repeats``."""
    nest = parse_nest(EVERY_LOOP)
    model = NestModel(LAYER, nest.structure(), hierarchy())
    rng = np.random.default_rng(0)
    env = {name: rng.integers(1, 9, population).astype(np.float64) for name in model.variables}
    best = float("inf")
    for _ in range(repeats):
        start = time.thread_time()
        model(env)
        best = min(best, time.thread_time() - start)
    return population / best


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path, metavar="DATA")
    p.add_argument("--rows", type=int)
    p.add_argument("--speed", action="store_true")
    p.add_argument("--markdown", action="store_true")
    p.add_argument("--json", type=Path)
    options = p.parse_args(arguments)
    if not options.data.is_file():
        p.error(f"{options.data} is not a file")
    data = load(options.data, options.rows)
    cycles, energy = errors(data, hierarchy())
    compared, results = table(data, cycles, energy)
    kept, saved = keeping(data, energy)
    for t in (compared, kept):
        print(t.markdown()) if options.markdown else t.print(Console(width=WIDTH))
    if options.json:
        write_json(options.json, {"data": options.data.name, "rows": len(data.nests)}, [*results, *saved])
    if options.speed:
        print(f"{speed():,.0f} mappings a second of processor time, one thread")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
