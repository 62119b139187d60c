"""Networks tuned within a stated budget, against no tuning and against PyTorch, ONNX Runtime and OpenVINO.

    python -m benchmarks.tune_networks --records networks.db --json FILE [--minutes 20] [--threads 1 2] [--only REGEX] [--resume]

Each network is tuned for so many minutes; then its untuned and its tuned compilation and all peers take turns in one process,
at equal threads, on the same input, batch 1, in float32. ``gain`` is untuned over tuned (fused in the same way), ``x best`` tuned
over the best peer (below 1: we are faster), both medians over the rounds. A network that tuning did not make clearly faster as a
whole keeps its default schedules (``tuned`` is then the same program as ``default``); the notes name it. With ``--json`` a network's
row is written when it is known, and the time spent on one that is being tuned; with ``--resume`` rows in the file are not made
again, and a network whose tuning was cut goes on from its records with what is left of its budget.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from benchmarks.models import MODELS
from benchmarks.network_peers import network_peers
from benchmarks.networks import batch_of, disagreement, inputs_of, model
from benchmarks.peers import limited_threads
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

from tilewright.graph import Network, compile
from tilewright.graph.fusion import Fusion
from tilewright.runtime.measurement import measure
from tilewright.runtime.records import RecordStore
from tilewright.tune.network import NetworkProgress, tune_network
from tilewright.util.errors import TuneError

DEFAULT, OURS, SECTION = "default", "tuned", "tuned networks"
#: Seconds given at least to a network whose tuning was cut: its kernels are first measured again as they are without tuning.
LEAST = 120.0
#: What names a row.
KEY = ("name", "threads", "minutes", "fusion", "author", "seed")


def run(name: str, threads: int, rows: Rows, options: argparse.Namespace, records: RecordStore) -> dict[str, Any]:
    """Tune (or go on tuning) one network, compare, keep the row."""
    key = {
        "name": name, "threads": threads, "minutes": options.minutes,
        "fusion": options.fusion, "author": options.author, "seed": options.seed,
    }  # fmt: skip
    found = rows.find(*(key[k] for k in KEY))
    if found is not None and "timings" in found:
        return found
    before, start = (found["spent"] if found else 0.0), time.monotonic()

    def spent() -> float:
        return before + time.monotonic() - start

    def note(p: NetworkProgress) -> None:
        rows.put({**key, "spent": spent()})
        print(
            f"\r{name}, {threads_text(threads)}: {spent() / 60:.1f} min, {p.trials} trials, kernels {p.baseline * 1e3:.3g} -> "
            f"{p.seconds * 1e3:.3g} ms", end="", file=sys.stderr,
        )  # fmt: skip

    proto, whole = model(name), 60 * options.minutes
    tuning = tune_network(
        proto, records=records, seconds=max(whole - before, min(LEAST, whole)), trials=options.trials, threads=threads,
        dims=batch_of(name), fusion=options.fusion, author=options.author, seed=options.seed, progress=note,
    )  # fmt: skip
    print(file=sys.stderr)
    if records.session(tuning.session).state == "stopped":
        raise KeyboardInterrupt  # tuning itself ends with the best so far, but this row is to be made with all of its budget
    row = {
        **key, "spent": spent(), "trials": sum(t.trials for t in tuning.tasks), "kernels": len(tuning.network.steps),
        "ended by": tuning.reason, "verdict": asdict(tuning.verdict) if tuning.verdict else None,
        "tasks": [
            {"operators": t.operators, "weight": t.weight, "baseline": t.baseline, "seconds": t.seconds, "trials": t.trials}
            for t in tuning.tasks
        ],
    }  # fmt: skip
    default = compile(proto, threads=threads, dims=batch_of(name), fusion=options.fusion)
    row |= compared(name, {DEFAULT: default, OURS: tuning.network}, threads, options.repeats)
    rows.put(row)
    return row


def compared(name: str, networks: dict[str, Network], threads: int, repeats: int) -> dict[str, Any]:
    """Compilations of one network and all peers in one interleaved run; SystemExit when results differ."""
    proto = model(name)
    inputs = inputs_of(next(iter(networks.values())).graph)
    with limited_threads(threads):
        runs = {n: lambda network=network: list(network(inputs).values()) for n, network in networks.items()}
        peers = network_peers(proto, inputs, threads)
        expected = next(iter((peers or runs).values()))()
        errors = {n: disagreement(f"{name}, {n}", proto, f(), expected)[0] for n, f in (runs | peers).items()}
        settle = 0.03 if threads > 1 else 0.0
        measured = measure(runs | peers, warmup=2, repeats=repeats, min_time=0.0, settle=settle, threads=threads)
    return {"errors": errors, **asdict(measured)}


def best_peer(row: dict[str, Any], own: Sequence[str] = (DEFAULT, OURS)) -> str:
    """The contender with the smallest median that is not ours."""
    return min((t for t in measurement_of(row).timings if t.name not in own), key=lambda t: t.median).name


def table(rows: Sequence[dict[str, Any]], threads: int) -> Table:
    """One line for each network."""
    measured = {r["name"]: measurement_of(r) for r in rows}
    peers = list(dict.fromkeys(t.name for m in measured.values() for t in m.timings if t.name not in (DEFAULT, OURS)))
    lines, gains, shares = [], [], []
    for r in rows:
        m, best = measured[r["name"]], best_peer(r)
        times = {t.name: t.median for t in m.timings}
        gains.append(m.ratio(OURS, over=DEFAULT))
        shares.append(m.ratio(best, over=OURS))
        lines.append((
            r["name"], str(r["kernels"]), f"{times[DEFAULT] * 1e3:.3g}", f"{times[OURS] * 1e3:.3g}", f"{gains[-1]:.2f}",
            *(f"{times[p] * 1e3:.3g}{'*' if p == best else ''}" if p in times else "" for p in peers),
            f"{shares[-1]:.2f}", str(r["trials"]), f"{r['spent'] / 60:.1f} of {r['minutes']:g}", r.get("ended by", ""),
        ))  # fmt: skip
    columns = ("network", "kernels", DEFAULT, OURS, "gain", *peers, "x best", "trials", "minutes", "ended by")
    judged = {r["name"]: r.get("verdict") for r in rows}
    kept = [name for name, v in judged.items() if v and not v["kept"]]
    notes = (
        "Times in milliseconds, medians; * marks the best peer. `x best`: tuned over the best peer, below 1 we are faster.",
        f"Geometric means: gain {geometric_mean(gains):.3f}, x best {geometric_mean(shares):.3f}; at most the best peer's time on "
        f"{sum(s <= 1 for s in shares)} of {len(shares)}, worst {max(shares):.2f}.",
        *([f"Not clearly faster with tuned schedules as a whole, so used as they were without tuning: {', '.join(kept)}."] if kept else []),
        *noise(measured),
    )
    return Table(f"Networks tuned for {rows[0]['minutes']:g} minutes each, {threads_text(threads)}", columns, tuple(lines), notes)


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    threads_option(p)
    p.add_argument("--minutes", type=float, default=20.0, help="budget of each network and number of threads (default: %(default)s)")
    p.add_argument("--trials", type=int, help="at most so many trials of each network")
    p.add_argument("--fusion", choices=get_args(Fusion), default="dp", help="how operators become kernels (default: %(default)s)")
    p.add_argument("--author", default="xgb", help="who searches (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--records", type=Path, metavar="FILE", help="keep all trials there (default: nowhere)")
    p.add_argument("--repeats", type=int, default=15, help="rounds of the comparison (default: %(default)s)")
    p.add_argument("--resume", action="store_true", help="go on with what --json has")
    options = p.parse_args(arguments)
    names = matching(p, options.only, MODELS, "network")
    rows = Rows(options.json, KEY, conditions(), resume=options.resume)
    tables = []
    with tempfile.TemporaryDirectory() as folder, RecordStore(options.records or Path(folder) / "records.db") as records:
        for threads in options.threads:
            here = []
            for name in names:
                try:
                    here.append(run(name, threads, rows, options, records))
                except TuneError as error:
                    print(f"\n{name}, {threads_text(threads)}: {error}", file=sys.stderr)
                gc.collect()  # a network's weights are large, and packed once more by each contender
            if here:
                tables.append(table(here, threads))
    publish(options, SECTION, tables, rows.conditions, rows.rows)
    return 0 if tables else 1


if __name__ == "__main__":
    sys.exit(main())
