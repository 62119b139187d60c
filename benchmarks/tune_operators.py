"""Operators tuned within a stated budget, against no tuning and against PyTorch, ONNX Runtime, OpenVINO and NumPy.

    python -m benchmarks.tune_operators [--threads 1 2] [--seconds 30] [--trials N] [--records FILE] [--only REGEX] [--json FILE] [--resume]

Each workload is tuned for so many seconds; then its default schedule, its tuned schedule and all peers
take turns in one process, at equal threads, on arrays as NumPy allocates large ones (``--aligned``: that begin at cache lines), on
which candidates were measured, too. ``gain`` is default over tuned, ``ratio`` best peer over
tuned (above 1: we are faster), both medians over the rounds. ``trials/s`` counts everything
that happened while tuning: start of the workers, learning, builds, runs, the final comparison.
With ``--records`` trials are kept, and what an earlier run found is used. With ``--json`` each row is written when it is known;
``--resume`` takes rows over from that file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.operators import TOLERANCE
from benchmarks.peers import contenders, limited_threads
from benchmarks.report import (
    Rows,
    Table,
    conditions,
    geometric_mean,
    matching,
    measurement_of,
    noise,
    parser,
    publish,
    threads_option,
    threads_text,
)
from benchmarks.workloads import TUNED, Workload

from tilewright.runtime import build
from tilewright.runtime.measurement import measure
from tilewright.runtime.memory import NUMPY_OFFSET, aligned, aligned_empty
from tilewright.runtime.module import BoundCall
from tilewright.schedule.schedule import Schedule
from tilewright.space.space import Space
from tilewright.tune import tune
from tilewright.util.errors import TuneError

DEFAULT, OURS, SECTION = "default", "tuned", "tuned operators"
#: What names a row.
KEY = ("workload", "threads", "budget", "trials at most", "author", "seed", "arrays")


def run(w: Workload, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """Tune one workload and compare; SystemExit when results differ."""
    kernel = w.kernel()
    space = Space(kernel, threads=threads, constants=[kernel.args[n].name for n in w.constants])
    found = tune(
        space, trials=options.trials, seconds=options.seconds, author=options.author, seed=options.seed, records=options.records,
        subject=w.name, unaligned=() if options.aligned else None,
    )  # fmt: skip
    if found.reason == "interrupted":
        raise KeyboardInterrupt  # tuning itself ends with the best so far, but this row is to be made with all of its budget
    rng, past = np.random.default_rng(0), 0 if options.aligned else NUMPY_OFFSET
    arrays = [aligned(rng.standard_normal(s, dtype=np.float32), past=past) for s in w.inputs]
    calls = {n: _bound(w, s, arrays, threads, past) for n, s in {DEFAULT: space.schedule(space.default()), OURS: found.schedule()}.items()}
    with limited_threads(threads):
        peers = contenders(w, arrays, threads)
        ours = np.array(calls[OURS]())
        others = {DEFAULT: calls[DEFAULT], **{name: result for name, (_, result) in peers.items()}}
        for name, result in others.items():
            error = float(np.abs(ours - result()).max() / np.abs(ours).max())
            if not error <= TOLERANCE:
                raise SystemExit(f"{w.name}: the result of {name} differs by {error:.1e} of the largest element")
        functions = {**calls, **{name: function for name, (function, _) in peers.items()}}
        settle = 0.02 if threads > 1 else 0.0
        measured = measure(functions, warmup=3, repeats=options.repeats, min_time=0.01, settle=settle, threads=threads, lead=True)
    return {
        **dict(zip(KEY, _key(w, threads, options), strict=True)), "group": w.group,
        "trials": sum(not t.recorded for t in found.history), "failed": sum(not t.outcome.ok for t in found.history),
        "seconds": found.elapsed, "ended by": found.reason, "point": space.describe(found.point),
        "changed": tuple(found.point) != tuple(space.default()),
        "history": [t.seconds if t.outcome.ok else None for t in found.history], **asdict(measured),
    }  # fmt: skip


def _bound(w: Workload, schedule: Schedule, arrays: Sequence[np.ndarray], threads: int, past: int) -> BoundCall:
    """The call, with constants in the layouts that the schedule wants them in, and the result ``past`` bytes behind a cache line."""
    module = build(schedule, threads=threads)
    given: list[Any] = list(arrays)
    for n in w.constants:
        p = module.signature.parameters[n]
        given[n] = module.pack(p.name, arrays[n]) if p.buffer.layout is not None else arrays[n]
    return module.bind(*given, out=aligned_empty(w.output, np.dtype(np.float32), past=past))


def _key(w: Workload, threads: int, options: argparse.Namespace) -> tuple[Any, ...]:
    arrays = "aligned" if options.aligned else f"{NUMPY_OFFSET} bytes past a cache line"
    return w.name, threads, options.seconds, options.trials, options.author, options.seed, arrays


def table(rows: Sequence[dict[str, Any]], threads: int) -> Table:
    """One line for each workload, with the geometric mean of each group below."""
    measured = {r["workload"]: measurement_of(r) for r in rows}
    peers = list(dict.fromkeys(t.name for m in measured.values() for t in m.timings if t.name not in (DEFAULT, OURS)))
    lines, gains, groups = [], [], dict[str, list[float]]()
    for r in rows:
        m = measured[r["workload"]]
        times = {t.name: t.median for t in m.timings}
        best = min((n for n in times if n not in (DEFAULT, OURS)), key=lambda n: times[n])
        gain, ratio = m.ratio(OURS, over=DEFAULT), m.ratio(OURS, over=best)
        gains.append(gain)
        groups.setdefault(r["group"], []).append(ratio)
        lines.append((
            r["workload"], f"{times[DEFAULT] * 1e3:.3g}", f"{times[OURS] * 1e3:.3g}", f"{gain:.2f}",
            *(f"{times[p] * 1e3:.3g}{'*' if p == best else ''}" if p in times else "" for p in peers),
            f"{ratio:.2f}", str(r["trials"]), f"{r['trials'] / r['seconds']:.1f}",
        ))  # fmt: skip
    means = ", ".join(f"{g} {geometric_mean(v):.2f}" for g, v in groups.items())
    every = geometric_mean([x for v in groups.values() for x in v])
    same = [r["workload"] for r in rows if r.get("changed") is False]
    columns = ("operator", DEFAULT, OURS, "gain", *peers, "ratio", "trials", "trials/s")
    notes = (
        "Times in milliseconds, medians; * marks the best peer.",
        f"Geometric mean of the gain: {geometric_mean(gains):.3f}.",
        f"Geometric mean of the ratio: {means}; all {every:.2f}.",
        *([f"Nothing clearly faster than the default was found, so both columns time one program: {', '.join(same)}."] if same else []),
        *noise(measured),
    )
    title = f"Operators tuned for {rows[0]['budget']:g} s each, {threads_text(threads)}, arrays {rows[0]['arrays']}"
    return Table(title, columns, tuple(lines), notes)


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    threads_option(p)
    p.add_argument("--seconds", type=float, default=30.0, help="budget of each workload (default: %(default)s)")
    p.add_argument("--trials", type=int, help="at most so many trials of each workload")
    p.add_argument("--author", default="xgb", help="who searches (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--records", type=Path, metavar="FILE", help="keep all trials there")
    p.add_argument("--repeats", type=int, default=31, help="rounds of the comparison (default: %(default)s)")
    p.add_argument("--aligned", action="store_true", help="tune for arrays that begin at cache lines, and compare on such")
    p.add_argument("--resume", action="store_true", help="take over the rows that --json has")
    options = p.parse_args(arguments)
    names = matching(p, options.only, (w.name for w in TUNED), "workload")
    rows = Rows(options.json, KEY, conditions(), resume=options.resume)
    tables = []
    for threads in options.threads:
        here = []
        for n, w in enumerate((w for w in TUNED if w.name in names), 1):
            row = rows.find(*_key(w, threads, options))
            if row is None:
                try:
                    rows.put(run(w, threads, options))
                except TuneError as error:
                    print(f"{w.name}, {threads_text(threads)}: {error}", file=sys.stderr)
                    continue
                row = rows.find(*_key(w, threads, options))
                assert row is not None  # it was put a moment ago
            here.append(row)
            print(f"[{threads_text(threads)}, {n}/{len(names)}] {w.name}: {row['point']}", file=sys.stderr)
        if here:
            tables.append(table(here, threads))
    publish(options, SECTION, tables, rows.conditions, rows.rows)
    return 0 if tables else 1


if __name__ == "__main__":
    sys.exit(main())
