"""Operators tuned within a stated budget, against no tuning and against PyTorch, ONNX Runtime and NumPy.

    python -m benchmarks.tune_operators [--threads 1 2] [--seconds 30] [--trials N] [--records FILE] [--only REGEX]

Each workload is tuned for so many seconds; then its default schedule, its tuned schedule and all peers
take turns in one process, at equal threads. ``gain`` is default over tuned, ``ratio`` best peer over
tuned (above 1: we are faster), both medians over the rounds. ``trials/s`` counts everything
that happened while tuning: start of the workers, learning, builds, runs, the final comparison.
With ``--records`` trials are kept, and what an earlier run found is used.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.operators import TOLERANCE
from benchmarks.peers import contenders, limited_threads
from benchmarks.report import Table, conditions, geometric_mean, parser, publish
from benchmarks.workloads import TUNED, Workload

from tilewright.runtime import build
from tilewright.runtime.measurement import Measurement, measure
from tilewright.runtime.pool import available_cpus
from tilewright.space.space import Space
from tilewright.tune import TuneResult, tune

DEFAULT, OURS, SECTION = "default", "tuned", "tuned operators"


@dataclass(frozen=True, slots=True)
class Row:
    """One workload on ``threads`` threads: how it was tuned, and the comparison after it."""

    workload: Workload
    threads: int
    tuning: TuneResult
    choice: str
    measurement: Measurement

    @property
    def best(self) -> str:
        """The fastest peer."""
        return min((t for t in self.measurement.timings if t.name not in (DEFAULT, OURS)), key=lambda t: t.median).name

    @property
    def ratio(self) -> float:
        return self.measurement.ratio(OURS, over=self.best)

    @property
    def gain(self) -> float:
        return self.measurement.ratio(OURS, over=DEFAULT)

    @property
    def trials(self) -> int:
        """Candidates tried now (those read from records do not count)."""
        return sum(not t.recorded for t in self.tuning.history)

    def to_json(self) -> dict[str, Any]:
        t = self.tuning
        return {
            "workload": self.workload.name, "threads": self.threads,
            "trials": self.trials, "failed": sum(not h.outcome.ok for h in t.history),
            "seconds": t.elapsed, "ended by": t.reason, "point": self.choice, "gain": self.gain, "best": self.best, "ratio": self.ratio,
            "history": [h.seconds if h.outcome.ok else None for h in t.history], **asdict(self.measurement),
        }  # fmt: skip


def run(w: Workload, threads: int, options: argparse.Namespace) -> Row:
    """Tune one workload and compare; SystemExit when results differ."""
    space = Space(w.kernel(), threads=threads)
    found = tune(
        space, trials=options.trials, seconds=options.seconds, author=options.author, seed=options.seed, records=options.records,
        subject=w.name,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s, dtype=np.float32) for s in w.inputs]
    schedules = {DEFAULT: space.schedule(space.default()), OURS: found.schedule()}
    calls = {n: build(s, threads=threads).bind(*arrays, out=np.empty(w.output, np.float32)) for n, s in schedules.items()}
    with limited_threads(threads):
        peers = contenders(w, arrays, threads)
        ours = np.array(calls[OURS]())
        error = max((float(np.abs(ours - result()).max() / np.abs(ours).max()) for _, result in peers.values()), default=0.0)
        if not error <= TOLERANCE:
            raise SystemExit(f"{w.name}: results differ by {error:.1e} of the largest element")
        functions = {**calls, **{name: function for name, (function, _) in peers.items()}}
        settle = 0.02 if threads > 1 else 0.0
        measured = measure(functions, warmup=3, repeats=options.repeats, min_time=0.01, settle=settle, threads=threads)
    return Row(w, threads, found, space.describe(found.point), measured)


def table(rows: Sequence[Row], threads: int, budget: str) -> Table:
    """One line for each workload."""
    peers = list(dict.fromkeys(t.name for r in rows for t in r.measurement.timings if t.name not in (DEFAULT, OURS)))
    lines = []
    for r in rows:
        times = {t.name: t for t in r.measurement.timings}
        lines.append((
            r.workload.name, f"{times[DEFAULT].median * 1e3:.3g}", f"{times[OURS].median * 1e3:.3g}", f"{r.gain:.2f}",
            *(f"{times[p].median * 1e3:.3g}{'*' if p == r.best else ''}" if p in times else "" for p in peers),
            f"{r.ratio:.2f}", str(r.trials), f"{r.trials / r.tuning.elapsed:.1f}",
        ))  # fmt: skip
    groups = {g: [r.ratio for r in rows if r.workload.group == g] for g in dict.fromkeys(r.workload.group for r in rows)}
    means = ", ".join(f"{g} {geometric_mean(v):.2f}" for g, v in groups.items())
    columns = ("operator", DEFAULT, OURS, "gain", *peers, "ratio", "trials", "trials/s")
    notes = (
        "Times in milliseconds, medians; * marks the best peer.",
        f"Geometric mean of the gain: {geometric_mean([r.gain for r in rows]):.3f}.",
        f"Geometric mean of the ratio: {means}; all {geometric_mean([r.ratio for r in rows]):.2f}.",
    )
    return Table(f"Operators tuned for {budget} each, {threads} thread{'s' if threads > 1 else ''}", columns, tuple(lines), notes)


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    p.add_argument("--threads", type=int, nargs="+", default=sorted({1, min(2, len(available_cpus()))}), help="default: 1 2")
    p.add_argument("--seconds", type=float, default=30.0, help="budget of each workload (default: %(default)s)")
    p.add_argument("--trials", type=int, help="at most so many trials of each workload")
    p.add_argument("--author", default="xgb", help="who searches (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--records", type=Path, metavar="FILE", help="keep all trials there")
    p.add_argument("--repeats", type=int, default=31, help="rounds of the comparison (default: %(default)s)")
    options = p.parse_args(arguments)
    chosen = [w for w in TUNED if re.search(options.only, w.name)]
    if not chosen:
        p.error(f"no workload matches {options.only!r}; there are: {', '.join(w.name for w in TUNED)}")
    tables, rows = [], []
    for threads in options.threads:
        here = []
        for n, w in enumerate(chosen, 1):
            here.append(run(w, threads, options))
            print(f"[{threads} threads, {n}/{len(chosen)}] {w.name}: gain {here[-1].gain:.2f}, ratio {here[-1].ratio:.2f}", file=sys.stderr)
        rows += here
        tables.append(table(here, threads, f"{options.seconds:g} s"))
    publish(options, SECTION, tables, conditions(), [r.to_json() for r in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
