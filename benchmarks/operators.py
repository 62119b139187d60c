"""Operators without tuning against PyTorch, ONNX Runtime and NumPy, and against what the machine can do.

    python -m benchmarks.operators [--threads 1 2] [--only REGEX] [--json FILE] [--markdown FILE]

All contenders of a workload take turns in one process at equal threads. ``ratio`` is the median over
the rounds of the best peer's time over ours (above 1: we are faster); the best peer is the one with
the smallest median. ``of bound`` compares with the least time the measured peak allows: operations
at the peak rate of multiply-adds, or bytes at the rate of main memory, whichever takes longer. What
stays in caches can be faster than the latter. ``rate`` is in the unit of the bound.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from benchmarks.peers import contenders, limited_threads
from benchmarks.report import Table, conditions, geometric_mean, matching, parser, publish, threads_option, threads_text
from benchmarks.workloads import WORKLOADS, Workload

from tilewright.runtime import build
from tilewright.runtime.measurement import Measurement, measure
from tilewright.runtime.peak import Peak, measure_peak
from tilewright.space.default import default_schedule

OURS, SECTION = "tilewright", "operators"
#: Results further apart than this, relative to the largest element, are wrong and not merely rounded otherwise.
TOLERANCE = 1e-4
GEMM_TARGET = 0.85


@dataclass(frozen=True, slots=True)
class Row:
    """One workload on ``threads`` threads; ``error`` is our largest difference from any peer, relative to the largest element."""

    workload: Workload
    threads: int
    measurement: Measurement
    error: float
    peak: Peak

    @property
    def best(self) -> str:
        """The fastest peer."""
        peers = [t for t in self.measurement.timings if t.name != OURS]
        return min(peers, key=lambda t: t.median).name

    @property
    def ratio(self) -> float:
        return self.measurement.ratio(OURS, over=self.best)

    @property
    def bound(self) -> tuple[str, float]:
        """What limits the operator on this machine, and the least seconds it allows."""
        compute, memory = self.workload.flops / self.peak.flops, self.workload.nbytes / self.peak.bandwidth
        return ("compute", compute) if compute >= memory else ("memory", memory)

    def to_json(self) -> dict[str, Any]:
        w, (limit, seconds) = self.workload, self.bound
        return {
            "workload": w.name, "threads": self.threads, "flops": w.flops, "bytes": w.nbytes, "target": w.target, "error": self.error,
            "best": self.best, "ratio": self.ratio, "bound": limit, "bound_seconds": seconds, **asdict(self.measurement),
        }  # fmt: skip


def run(w: Workload, threads: int, peak: Peak, *, repeats: int, min_time: float) -> Row:
    """Measure one workload; SystemExit when results differ."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s, dtype=np.float32) for s in w.inputs]
    module = build(default_schedule(w.kernel(), threads=threads).kernel, threads=threads)
    call = module.bind(*arrays, out=np.empty(w.output, np.float32))
    with limited_threads(threads):
        peers = contenders(w, arrays, threads)
        if not peers:
            raise SystemExit("no peer is installed: pip install onnxruntime torch")
        ours = np.array(call())
        error = max(float(np.abs(ours - result()).max() / np.abs(ours).max()) for _, result in peers.values())
        if not error <= TOLERANCE:
            raise SystemExit(f"{w.name}: results differ by {error:.1e} of the largest element")
        functions = {OURS: call, **{name: function for name, (function, _) in peers.items()}}
        settle = 0.02 if threads > 1 else 0.0
        measured = measure(functions, warmup=3, repeats=repeats, min_time=min_time, settle=settle, threads=threads)
    return Row(w, threads, measured, error, peak)


def table(rows: Sequence[Row], threads: int, peak: Peak) -> Table:
    """One line for each workload, with the geometric mean of each group of operators below."""
    peers = list(dict.fromkeys(t.name for r in rows for t in r.measurement.timings if t.name != OURS))
    lines = []
    for r in rows:
        times = {t.name: t for t in r.measurement.timings}
        limit, seconds = r.bound
        rate, unit = (r.workload.flops, "GFLOP/s") if limit == "compute" else (r.workload.nbytes, "GB/s")
        median, target = times[OURS].median, r.workload.target
        lines.append((
            r.workload.name, f"{times[OURS].min * 1e3:.3g}", f"{median * 1e3:.3g}",
            *(f"{times[p].median * 1e3:.3g}{'*' if p == r.best else ''}" if p in times else "" for p in peers),
            f"{r.ratio:.2f}", "" if target is None else f"{target:.2f}{'' if r.ratio >= target else ' missed'}",
            f"{rate / median / 1e9:.0f} {unit}", f"{100 * seconds / median:.0f}%",
        ))  # fmt: skip
    groups = {g: [r.ratio for r in rows if r.workload.group == g] for g in dict.fromkeys(r.workload.group for r in rows)}
    means = ", ".join(f"{g} {geometric_mean(v):.2f}" for g, v in groups.items())
    goal = f" (target for gemm on one thread: {GEMM_TARGET})" if threads == 1 and "gemm" in groups else ""
    columns = ("operator", "min", "median", *peers, "ratio", "target", "rate", "of bound")
    notes = (
        "Times in milliseconds, medians but for the first column; * marks the best peer.",
        f"Geometric mean of the ratios: {means}; all {geometric_mean([r.ratio for r in rows]):.2f}{goal}.",
        f"Measured peak: {peak.flops / 1e9:.0f} GFLOP/s ({peak.vector_bits}-bit vectors), {peak.bandwidth / 1e9:.1f} GB/s of main memory.",
    )
    return Table(f"Operators, {threads_text(threads)}", columns, tuple(lines), notes)


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    threads_option(p)
    p.add_argument("--repeats", type=int, default=31, help="rounds (default: %(default)s)")
    p.add_argument("--min-time", type=float, default=0.01, help="seconds of one sample (default: %(default)s)")
    options: argparse.Namespace = p.parse_args(arguments)
    names = matching(p, options.only, (w.name for w in WORKLOADS), "workload")
    chosen = [w for w in WORKLOADS if w.name in names]
    where = conditions()
    tables, rows = [], []
    for threads in options.threads:
        # Afresh: a figure from the cache may stem from a time when the machine was busy.
        peak = measure_peak(threads, cache=False)
        here = []
        for n, w in enumerate(chosen, 1):
            here.append(run(w, threads, peak, repeats=options.repeats, min_time=options.min_time))
            print(f"[{threads} threads, {n}/{len(chosen)}] {w.name}: {here[-1].ratio:.2f}", file=sys.stderr)
        rows += here
        tables.append(table(here, threads, peak))
    publish(options, SECTION, tables, where, [r.to_json() for r in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
