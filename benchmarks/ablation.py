"""What each part of the search is worth: one network tuned with and without it, within equal budgets of trials.

    python -m benchmarks.ablation [--network vit_b16] [--trials 600] [--seeds 1] [--threads 1] --records FOLDER --json FILE [--resume]

The thesis' ablation (GTCO, table 3.4) and trials to match a baseline (table 3.5). Variants switch one part off:

all             everything on: fusion by dynamic programming, all rules, every mapping, rounds by gradient
greedy fusion   operators are divided into kernels by fixed rules
no fusion       every operator is a kernel
plain tiles     one rule and one structure for each mapping: no copies of operands, no blocks of a reduction, no chains
one mapping     the loops on rows and lanes are those of the schedule without tuning
turns           every kernel gets as many rounds as any other
none            all of that off

Every variant has its own records (in FOLDER), the same seeds and the same number of trials. As always when a network is tuned, kernels
whose tuned schedules do not pay inside it keep their default, all of them if need be (the notes name such variants). In the end all
variants, the untuned network and its peers run in turns. *Trials to match* are read from the records: the estimated latency after n
trials is the sum over all kernels of the best time known by then, scaled so that the last one equals the measured latency of the variant.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.models import MODELS
from benchmarks.networks import batch_of, model
from benchmarks.report import Rows, Table, conditions, matching, measurement_of, noise, parser, publish, threads_text
from benchmarks.tune_networks import DEFAULT, compared

from tilewright.graph import compile
from tilewright.graph.fusion import Fusion
from tilewright.runtime.records import Record, RecordStore
from tilewright.space.narrow import OneMapping, PlainTiles
from tilewright.space.rule import Rule, discover
from tilewright.space.rules.vectors import vector_nests
from tilewright.tune.network import NetworkProgress, NetworkTuning, tune_network

SECTION = "ablation"
KEY = ("network", "variant", "seed", "threads", "trials", "author")


@dataclass(frozen=True, slots=True)
class Variant:
    """What is searched: the space of each kernel is made by ``rules`` (None: all)."""

    fusion: Fusion = "dp"
    rules: tuple[Rule, ...] | None = None
    scheduler: str = "gradient"


VARIANTS: Mapping[str, Variant] = {
    "all": Variant(),
    "greedy fusion": Variant(fusion="greedy"),
    "no fusion": Variant(fusion="none"),
    "plain tiles": Variant(rules=(PlainTiles((vector_nests,)),)),
    "one mapping": Variant(rules=(OneMapping(discover()),)),
    "turns": Variant(scheduler="turns"),
    "none": Variant("none", (PlainTiles((OneMapping((vector_nests,)),)),), "turns"),
}


def tuned(variant: str, seed: int, store: RecordStore, options: argparse.Namespace) -> NetworkTuning:
    """Tune the network with what the variant has; trials in ``store`` count."""
    v = VARIANTS[variant]

    def show(p: NetworkProgress) -> None:
        print(f"\r{variant}, seed {seed}: {p.trials} of {options.trials} trials, kernels {p.seconds * 1e3:.4g} ms", end="", file=sys.stderr)

    found = tune_network(
        model(options.network), records=store, trials=options.trials, threads=options.threads, dims=batch_of(options.network),
        fusion=v.fusion, author=options.author, seed=seed, patience=options.trials, progress=show, rules=v.rules,
        scheduler=v.scheduler,
    )  # fmt: skip
    print(file=sys.stderr)
    if store.session(found.session).state == "stopped":
        raise KeyboardInterrupt  # tuning itself ends with the best so far, but variants are compared after equal trials
    return found


def history(records: Sequence[Record], weights: Mapping[str, float]) -> list[float]:
    """Seconds of one run of all kernels with the best known after 0, 1, 2, ... trials; infinite while some kernel was never measured."""
    best = dict.fromkeys(weights, inf)
    found: list[float] = []
    for r in records:
        if r.role == "final" or r.task.key not in best:
            continue
        if r.role == "trial" and not found:
            found.append(_latency(best, weights))  # without a trial
        best[r.task.key] = min(best[r.task.key], inf if r.seconds is None else r.seconds)
        if r.role == "trial":
            found.append(_latency(best, weights))
    return found or [_latency(best, weights)]


def _latency(best: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return sum(w * best[key] for key, w in weights.items())


def trials_to(curve: Sequence[float], measured: float, wanted: float) -> int | None:
    """Trials until the estimated latency is at most ``wanted`` seconds; None when it never is.

    ``curve`` (of :func:`history`) is scaled to end at ``measured``.
    """
    scale = measured / curve[-1]
    return next((n for n, seconds in enumerate(curve) if seconds * scale <= wanted), None)


def run(seed: int, chosen: Sequence[str], rows: Rows, folder: Path, options: argparse.Namespace) -> None:
    """Tune with every variant, then compare all in one interleaved run; rows are kept."""

    def key(variant: str) -> tuple[Any, ...]:
        return options.network, variant, seed, options.threads, options.trials, options.author

    found = {v: rows.find(*key(v)) for v in chosen}
    if all(r is not None and "timings" in r for r in found.values()):
        return
    networks = {DEFAULT: compile(model(options.network), threads=options.threads, dims=batch_of(options.network))}
    for variant in chosen:
        name = f"{options.network} {variant} {seed} {options.threads} {options.author}".replace(" ", "-")
        with RecordStore(folder / f"{name}.db") as store:
            done = tuned(variant, seed, store, options)
            curve = history(store.records(), store.session(done.session).tasks)
        networks[variant] = done.network
        kinds = {"kernels": len(done.network.steps), "distinct": len(done.tasks), "seconds": done.elapsed}
        kinds |= {"kept": done.verdict.kept, "reverted": len(done.verdict.reverted)} if done.verdict is not None else {}
        rows.put({**dict(zip(KEY, key(variant), strict=True)), **kinds, "curve": curve})
    together = compared(options.network, networks, options.threads, options.repeats)
    for variant in chosen:
        row = rows.find(*key(variant))
        assert row is not None  # it was put a moment ago
        rows.put({**row, **together})


def tables(rows: Sequence[dict[str, Any]], chosen: Sequence[str], options: argparse.Namespace) -> list[Table]:
    """Latency of the variants, and trials until they match what they are compared with; means over the seeds."""
    first = measurement_of(rows[0])
    peers = [t.name for t in first.timings if t.name not in VARIANTS]
    latencies, matches = [], []
    for variant in chosen:
        mine = [r for r in rows if r["variant"] == variant]
        runs = [measurement_of(r) for r in mine]
        times = [m[variant].median for m in runs]
        latencies.append((
            variant, str(mine[0]["kernels"]), f"{1e3 * mean(times):.4g}", f"{1e3 * min(times):.4g} - {1e3 * max(times):.4g}",
            f"{mean(m.ratio(variant, over=DEFAULT) for m in runs):.3f}",
            f"{mean(m.ratio('all', over=variant) for m in runs):.3f}" if "all" in chosen else "",
            f"{mean(r['seconds'] for r in mine) / 60:.1f}",
        ))  # fmt: skip
        counts = {p: [trials_to(r["curve"], m[variant].median, m[p].median) for r, m in zip(mine, runs, strict=True)] for p in peers}
        matches.append((variant, *(", ".join("never" if n is None else str(n) for n in counts[p]) for p in peers)))
    peer_times = ", ".join(f"{p} {1e3 * mean(measurement_of(r)[p].median for r in rows):.4g}" for p in peers)
    budget = f"{options.network} tuned with {options.trials} trials, {threads_text(options.threads)}"
    seeds = len({r["seed"] for r in rows})
    untuned = list(dict.fromkeys(r["variant"] for r in rows if r.get("kept") is False))
    reverted = ", ".join(f"{r['variant']} {r['reverted']}" for r in rows if r.get("reverted"))
    return [
        Table(
            f"Ablation: {budget}", ("variant", "kernels", "ms", "range", "gain", "x all", "minutes"), tuple(latencies),
            (
                f"Medians, means over {seeds} seeds. Gain: untuned network over the variant. `x all`: the variant over everything on "
                f"(above 1: the part it lacks helps). In the same rounds, in milliseconds: {peer_times}.",
                *([f"Kernels that went back to their defaults inside the network: {reverted}."] if reverted else []),
                *([f"Not clearly faster than untuned as a whole, so with default schedules: {', '.join(untuned)}."] if untuned else []),
                *noise({f"seed {r['seed']}": measurement_of(r) for r in rows}),
            ),
        ),
        Table(
            f"Trials to match: {budget}", ("variant", *peers), tuple(matches),
            ("Trials until the estimated latency is at most that of the column, for each seed; 0: without a trial.",),
        ),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    p.add_argument("--network", choices=list(MODELS), default="vit_b16", help="default: %(default)s")
    p.add_argument("--trials", type=int, default=600, help="budget of each variant and seed (default: %(default)s)")
    p.add_argument("--seeds", type=int, default=1, help="searches of each variant (default: %(default)s)")
    p.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    p.add_argument("--author", default="xgb", help="who searches (default: %(default)s)")
    p.add_argument("--records", type=Path, metavar="FOLDER", help="keep all trials there (default: nowhere)")
    p.add_argument("--repeats", type=int, default=15, help="rounds of the comparison (default: %(default)s)")
    p.add_argument("--resume", action="store_true", help="go on with what --json and --records have")
    options = p.parse_args(arguments)
    chosen = matching(p, options.only, VARIANTS, "variant")
    rows = Rows(options.json, KEY, conditions(), resume=options.resume)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.records or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for seed in range(options.seeds):
            run(seed, chosen, rows, folder, options)
    wanted = {k: getattr(options, k) for k in ("network", "threads", "trials", "author")}
    here = [r for r in rows.rows if all(r[k] == v for k, v in wanted.items()) and r["variant"] in chosen and r["seed"] < options.seeds]
    publish(options, SECTION, tables(here, chosen, options), rows.conditions, rows.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
