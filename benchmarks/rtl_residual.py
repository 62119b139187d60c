"""Analytical models against measured cycles of a real array: the roofline, and the one with what a roofline leaves out.

    python -m benchmarks.rtl_residual DATA [--markdown] [--learned] [--json out.json] [--constants]

DATA is a table (csv.gz) of layers (``prob.*``), mappings (``mapping.mapping``) and cycles of Gemmini's RTL (``target.cycle``). Models are
fitted to five sixths of the layers and judged on the others, six times. ``--constants`` prints those fitted to all rows, which
``hw/library/gemmini_costs.py`` holds. Nothing here is a time: the tables are the same everywhere.

Three things the table does not say, but its cycles do:

- The array of a run is not the one in ``arch.*`` (128 x 128): it has as many units a side as the mapping spreads out, up to a
  power of two. No row then computes faster than its array can, and many as fast.
- Matrix products took tiles in blocks of 16, of which the array made blocks of its own side.
- Of four layers Q is a tenth of what ran (P = 480, Q = 48, and so on); they are fitted without, and judged with and without.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.report import WIDTH, Table, write_json
from benchmarks.timeloop import LAYER
from rich.console import Console

from tilewright.cost.loopnest import LoopNest, parse_nest
from tilewright.cost.nestcost import Population
from tilewright.cost.residual import ArrayTime, tile_environment
from tilewright.hw.library.gemmini import hierarchy

FOLDS, BLOCK, SMALLEST_ARRAY = 6, 16, 4
#: Of the mappings of each layer these are what a search would end with: the best by the plain model.
SEARCHED = 0.2
_DIMS = "NKCPQRS"


@dataclass(frozen=True)
class Measured:
    """Mappings with the environment of what ran (columns), the plain model's cycles, the measured ones, the layer of each row."""

    env: Mapping[str, np.ndarray]
    plain: np.ndarray
    cycles: np.ndarray
    layer: np.ndarray
    misprinted: np.ndarray


def load(path: Path) -> Measured:
    """Read the table."""
    with gzip.open(path, "rt", newline="") as f:
        table = list(csv.DictReader(f))
    nests = [parse_nest(r["mapping.mapping"]) for r in table]
    sizes = [{d: int(r[f"prob.{d}"]) for d in _DIMS} for r in table]
    column = {k: np.array([float(r[k]) for r in table]) for k in ("prob.Hstride", "prob.Wstride", "prob.Hdilation", "prob.Wdilation")}
    strides = dict(zip(("SH", "SW", "DH", "DW"), column.values(), strict=True))
    declared = {
        "dim": np.array([float(r["arch.meshX"]) for r in table]),
        "scratchpad_bytes": np.array([float(r["arch.mem2_entries"]) for r in table]),
        "accumulator_bytes": np.array([4 * float(r["arch.meshX"]) * float(r["arch.mem1_entries"]) for r in table]),
    }
    plain, _ = Population(LAYER, hierarchy()).evaluate(nests, {**strides, **declared})
    ran = [_ran(n, s) for n, s in zip(nests, sizes, strict=True)]
    env = {k: np.array([r[k] for r in ran], dtype=np.float64) for k in ran[0]}
    layers = [(*s.values(), r["prob.Hstride"]) for s, r in zip(sizes, table, strict=True)]
    known = {x: n for n, x in enumerate(dict.fromkeys(layers))}
    return Measured(
        {**env, "SH": strides["SH"], "SW": strides["SW"]},
        plain,
        np.array([float(r["target.cycle"]) for r in table]),
        np.array([known[x] for x in layers]),
        np.array([s["P"] == 10 * s["Q"] for s in sizes]),
    )


def _ran(nest: LoopNest, sizes: Mapping[str, int]) -> dict[str, int]:
    """Tiles and array of the run that a row reports."""
    env: dict[str, int] = dict(tile_environment(nest))
    spread = max([SMALLEST_ARRAY, *(int(p.factor.trips) for p in nest.loops() if p.spatial)])
    dim = 1 << (spread - 1).bit_length()
    if sizes["Q"] == sizes["R"] == sizes["S"] == 1:
        env["tiles"] = 1
        for d in "PKC":
            tile = min(-(-env[f"tile.{d}"] // BLOCK) * dim, sizes[d])
            env[f"tile.{d}"], env["tiles"] = tile, env["tiles"] * -(-sizes[d] // tile)
    return {**env, "dim": dim}


def predictions(data: Measured, fit: Callable[[Mapping[str, np.ndarray], np.ndarray], Any] = ArrayTime.fit) -> np.ndarray:
    """Cycles of each row by a model that never saw its layer."""
    out = np.empty(len(data.cycles))
    fold = np.random.default_rng(0).permutation(data.layer.max() + 1)[data.layer] % FOLDS
    for n in range(FOLDS):
        seen, held = (fold != n) & ~data.misprinted, fold == n
        out[held] = fit(_rows(data.env, seen), data.cycles[seen]).predict(_rows(data.env, held))
    return out


def _rows(env: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    return {k: v[chosen] for k, v in env.items()}


def searched(data: Measured) -> np.ndarray:
    """Which rows a search by the plain model would end with."""
    out = np.zeros(len(data.cycles), dtype=bool)
    for n in range(data.layer.max() + 1):
        own = np.flatnonzero(data.layer == n)
        out[own[np.argsort(data.plain[own], kind="stable")[: max(1, round(SEARCHED * len(own)))]]] = True
    return out


def summary(rows: str, model: str, predicted: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    """Rank correlation and errors of one model on some rows."""
    error = predicted / measured - 1
    size = np.abs(np.log(predicted / measured))
    return {
        "rows": rows,
        "number": len(measured),
        "model": model,
        "spearman": float(np.corrcoef(_ranks(predicted), _ranks(measured))[0, 1]),
        "mean_error": float(np.abs(error).mean()),
        "median_error": float(np.median(np.abs(error))),
        "median_ratio": float(np.median(measured / predicted)),
        "p90_factor": float(np.exp(np.quantile(size, 0.9))),
    }


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties shared."""
    _, place, count = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count + 1) / 2)[place]


def chosen(data: Measured, predicted: np.ndarray) -> float:
    """Measured cycles of the mapping that a model thinks best of each layer, over the best measured: geometric mean."""
    lost = []
    for n in range(data.layer.max() + 1):
        own = np.flatnonzero(data.layer == n)
        lost.append(np.log(data.cycles[own[np.argmin(predicted[own])]] / data.cycles[own].min()))
    return float(np.exp(np.mean(lost)))


def results(data: Measured, learned: bool = False) -> list[dict[str, Any]]:
    """All tables' figures."""
    models = {"roofline": data.plain, "with array and tile terms": predictions(data)}
    if learned:
        from tilewright.cost.residual_attention import AttentionTime

        models["with a learned correction"] = predictions(data, AttentionTime.fit)
    best = searched(data)
    groups = {
        "all": np.ones(len(best), dtype=bool),
        "all but the four misprinted layers": ~data.misprinted,
        "best fifth of each layer": best,
        "best fifth, but the four layers": best & ~data.misprinted,
    }
    out = [summary(g, m, p[rows], data.cycles[rows]) for g, rows in groups.items() for m, p in models.items()]
    return [{**r, "chosen": chosen(data, models[r["model"]])} if r["rows"] == "all" else r for r in out]


def table(found: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("rows", "number", "model", "Spearman", "mean error", "median error", "measured/model", "90 % within", "choice over best")
    rows = tuple(
        (
            r["rows"],
            f"{r['number']:,}",
            r["model"],
            f"{r['spearman']:.3f}",
            *(f"{r[k]:.0%}" for k in ("mean_error", "median_error")),
            *(f"{r[k]:.2f}x" for k in ("median_ratio", "p90_factor")),
            f"{r['chosen']:.2f}x" if "chosen" in r else "",
        )
        for r in found
    )
    return Table("Models and measured cycles, layers held out", columns, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path, metavar="DATA")
    p.add_argument("--markdown", action="store_true")
    p.add_argument("--constants", action="store_true")
    p.add_argument("--learned", action="store_true", help="also the learned correction (torch; half a minute)")
    p.add_argument("--json", type=Path)
    options = p.parse_args(arguments)
    if not options.data.is_file():
        p.error(f"{options.data} is not a file")
    data = load(options.data)
    found = results(data, options.learned)
    t = table(found)
    print(t.markdown()) if options.markdown else t.print(Console(width=WIDTH))
    fitted = ArrayTime.fit(_rows(data.env, ~data.misprinted), data.cycles[~data.misprinted])
    if options.constants:
        print(", ".join(f"{x:.4g}" for x in astuple(fitted.rates)), fitted.rates)
    if options.json:
        write_json(options.json, {"data": options.data.name, "rows": len(data.cycles)}, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
