"""How fast co-design evaluates: mappings a second as a NumPy population, and a gradient step of a thousand starts.

    python -m benchmarks.codesign_throughput [--threads 2] [--json out.json]

A population is random points of the network's map space; what is timed is :meth:`Evaluator.evaluate` (words, the smallest
machine, cycles, energy), and one call of :class:`Relaxation` (objective and gradient of all layers), wall time, median of seven
runs. With several threads each takes a part of the rows: nothing else in the process runs meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.report import Table, conditions, conditions_text, write_json
from rich.console import Console

from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.problem import Problem
from tilewright.codesign.relaxed import Relaxation
from tilewright.codesign.workloads import workload
from tilewright.hw.library.gemmini import family

NETWORKS = ("resnet50", "bert", "unet", "retinanet")
POINTS, STARTS, PART = 2000, 1000, 250


def median(f: Callable[[], object]) -> float:
    """Seconds: the median of seven runs after one that is not counted."""
    f()
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measured(network: str, pool: ThreadPoolExecutor, threads: int) -> dict[str, Any]:
    """Evaluations a second and milliseconds of a gradient step."""
    problem = Problem(MapSpace(workload(network), family()))
    space, rng = problem.space, np.random.default_rng(0)
    points = space.sample(POINTS, rng)
    parts = np.array_split(points, threads)
    whole = median(lambda: list(pool.map(problem.evaluator.evaluate, parts)))
    relaxed = Relaxation(problem)
    starts = space.sample(STARTS, rng)
    logs, order = np.log(starts[..., :-1]), starts[..., -1]
    cuts = range(0, STARTS, PART)
    step = median(lambda: list(pool.map(lambda k: relaxed(logs[k : k + PART], order[k : k + PART]), cuts)))
    return {"layers": len(space.layers), "evaluations_a_second": POINTS * len(space.layers) / whole, "step_ms": step * 1e3}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows = []
    with ThreadPoolExecutor(options.threads) as pool:
        for network in NETWORKS:
            rows.append({"network": network, **measured(network, pool, options.threads)})
    cells = tuple((r["network"], str(r["layers"]), f"{r['evaluations_a_second']:,.0f}", f"{r['step_ms']:.1f}") for r in rows)
    columns = ("network", "layers", "evaluations /s", f"gradient step of {STARTS:,} starts, ms")
    Table(f"Co-design: evaluations of one mapping of one layer, {options.threads} threads", columns, cells).print(Console(width=120))
    around = {**conditions(), "threads": options.threads}
    print(conditions_text(around))
    if options.json:
        write_json(options.json, around, rows)


if __name__ == "__main__":
    main()
