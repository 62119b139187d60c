"""How many candidates a second one core costs: features and analytical estimate, by kernel and structure.

    python -m benchmarks.cost_throughput [--points 20000] [--json out.json]

Points are drawn from the schedule space beforehand; what is timed is the evaluation of the space's
symbolic programs, in processor time of the thread (other processes do not count), best of five.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from benchmarks.report import Table, conditions, conditions_text
from rich.console import Console

from benchmarks import workloads
from tilewright.hw import Machine
from tilewright.space.space import Space

CASES = {
    "conv 3x3 256 14x14": lambda: workloads.conv("3x3", 14, 256, 256, 3),
    "conv 3x3 64 56x56": lambda: workloads.conv("3x3", 56, 64, 64, 3),
    "gemm 197x768x768": lambda: workloads.gemm(197, 768, 768),
}


def rate(f: Callable[[], object], points: int) -> float:
    """Candidates a second: the best of five runs."""
    best = float("inf")
    for _ in range(5):
        start = time.thread_time()
        f()
        best = min(best, time.thread_time() - start)
    return points / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    around = conditions()
    print(conditions_text(around))
    machine = Machine.host()
    rows, data = [], {}
    for label, make in CASES.items():
        space = Space(make().kernel(), machine, threads=1)
        points = space.sample(options.points, np.random.default_rng(0))
        groups = [(s, space.environment(s, points[r])) for s, r in space.groups(points)]
        programs = [space.sketches[s].program for s, _ in groups]
        start = time.thread_time()
        extractors = [(space.costs.extractor(s, seconds=True), env) for s, env in groups]
        built = (time.thread_time() - start) / len(programs)
        estimators = [(space.costs.estimator(s), env) for s, env in groups]
        both = rate(lambda e=extractors: [x(env) for x, env in e], options.points)
        alone = rate(lambda e=estimators: [x(env) for x, env in e], options.points)
        data[label] = {"features_and_estimate": both, "estimate": alone, "seconds_to_compile_a_program": built, "sketches": len(groups)}
        rows.append((label, str(len(groups)), f"{both:,.0f}", f"{alone:,.0f}", f"{built * 1e3:.0f}"))
    columns = ("space", "structures", "features + estimate /s", "estimate alone /s", "compile, ms each")
    Table("Candidates costed a second on one core", columns, tuple(rows)).print(Console(width=120))
    if options.json:
        options.json.write_text(json.dumps({"conditions": around, "spaces": data}, indent=1))


if __name__ == "__main__":
    main()
