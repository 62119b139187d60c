"""How many trials a search needs on exhaustively measured spaces of GPU kernels, and what measurements on another device are worth.

    python -m benchmarks.gpu_spaces DATA [--seeds 10] [--trials 100] [--json FILE] [--markdown FILE]

DATA is a folder of ``<kernel>_<device>.csv.gz`` files: tuning parameters as columns, then ``time_ms`` and ``status``. Every
configuration has been measured, so the best is known; nothing is measured here. Failed configurations are trials too.

These kernels are not ours, so there is no program to estimate. Authors that need an estimate get the times on another device
("from ..."): of a configuration that failed there, twice the slowest time. Features are logarithms of the parameters, and of
their products and ratios in pairs.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.report import Table, conditions, matching, parser, publish
from benchmarks.search_quality import clearly_above, curve
from benchmarks.search_spaces import Measured

SECTION = "gpu spaces"
#: Space and the device whose measurements are known.
SPACES = {
    "gemm_RTX_2080_Ti": "gemm_RTX_Titan",
    "gemm_RTX_Titan": "gemm_RTX_2080_Ti",
    "conv_A100": "conv_A4000",
    "conv_A4000": "conv_A100",
    "conv_W6600": "conv_A4000",
    "dedispersion_MI250X": "dedispersion_A100",
}
AT = (10, 20, 50, 100, 200)
#: Draws by which random search is judged, and what the data's own description says of it (after 10, 50, 100, 200 trials).
DRAWS = 300
PUBLISHED = {
    "gemm_RTX_2080_Ti": {10: 0.74, 50: 0.84, 100: 0.87, 200: 0.90},
    "conv_A100": {10: 0.57, 50: 0.68, 100: 0.73, 200: 0.78},
    "conv_W6600": {10: 0.50, 50: 0.73, 100: 0.81, 200: 0.85},
}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to search: ``author`` with its ``options``; ``transferred`` if it knows the other device."""

    label: str
    author: str
    transferred: bool = False
    scratch: str | None = None
    options: Mapping[str, Any] | None = None


#: ``scratch`` is the same search without the other device, below which it must not end.
WAYS = (
    Way("random", "random"),
    Way("annealing", "annealing"),
    Way("xgb-plain", "xgb-plain"),
    Way("xgb-features, no estimate", "xgb-features", options={"assisted": False}),
    Way("analytical", "analytical", True, "random"),
    Way("evolutionary", "evolutionary", True, "annealing"),
    Way("xgb-features", "xgb-features", True, "xgb-features, no estimate"),
    Way("xgb", "xgb", True, "xgb-plain"),
)


def load(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """One file: parameters int64 [n, columns] and seconds [n], infinite where a configuration failed."""
    path = folder / f"{name}.csv.gz"
    if not path.is_file():
        raise SystemExit(f"{path} is not there: DATA has to be a folder of <kernel>_<device>.csv.gz files")
    with gzip.open(path, "rt") as f:
        rows = list(csv.DictReader(f))
    if not rows or not {"time_ms", "status"} <= set(rows[0]):
        raise SystemExit(f"{path} has no configurations with the columns time_ms and status")
    columns = [c for c in rows[0] if c not in ("time_ms", "status")]
    seconds = [float(r["time_ms"]) * 1e-3 if r["status"] == "ok" else np.inf for r in rows]
    return np.array([[int(float(r[c])) for c in columns] for r in rows]), np.array(seconds)


def described(parameters: np.ndarray) -> np.ndarray:
    """float64 [n, 1, columns]: logarithms of the parameters, and of their products and ratios in pairs (tiles per thread, footprints)."""
    logs = np.log2(1.0 + parameters)
    logs = logs[:, logs.std(axis=0) > 0]
    pairs = [op(logs[:, a], logs[:, b]) for a, b in combinations(range(logs.shape[1]), 2) for op in (np.add, np.subtract)]
    # One more column keeps a configuration of zeros apart from padding.
    return np.column_stack([np.ones(len(logs)), logs, *pairs])[:, None, :]


def spaces(folder: Path, name: str, other: str) -> tuple[Measured, Measured]:
    """The space ``name`` without estimates (all are equal), and with the times of ``other`` for estimates."""
    parameters, seconds = load(folder, name)
    known = {p.tobytes(): s for p, s in zip(*load(folder, other), strict=True)}
    worst = 2 * max(s for s in known.values() if np.isfinite(s))
    there = [known.get(p.tobytes(), np.inf) for p in parameters]
    points = np.column_stack([np.zeros(len(parameters), np.int64), parameters])
    blind = Measured.of(name, points, seconds, np.ones(len(points)), described(parameters))
    return blind, replace(blind, estimates=np.minimum(there, worst))


def search(way: Way, blind: Measured, informed: Measured, seeds: int, trials: int) -> np.ndarray:
    """Share of the best after 1, 2, ... trials [seeds, trials]."""
    space = informed if way.transferred else blind
    count, length = (max(DRAWS, seeds), max(AT)) if way.author == "random" else (seeds, trials)
    curves = [curve(space, way.author, seed, min(length, space.size), **(way.options or {})) for seed in range(count)]
    return np.array([np.pad(c, (0, length - len(c)), mode="edge") for c in curves])


def table(space: Measured, other: str, curves: Mapping[str, np.ndarray], ways: Sequence[Way] = WAYS) -> Table:
    """One line for each way of searching; ``curves`` by its label."""
    rows = []
    for w in ways:
        c = curves[w.label]
        cells = (f"{100 * c[:, k - 1].mean():.1f} ({100 * c[:, k - 1].min():.1f})" if k <= c.shape[1] else "" for k in AT)
        rows.append((f"{w.label} from {other}" if w.transferred else w.label, *cells))
    failed = np.isinf(space.seconds).mean()
    notes = [f"{space.size} configurations, {failed:.0%} of them fail; random search: {len(curves['random'])} draws."]
    if space.name in PUBLISHED:
        known = ", ".join(f"{100 * v:.0f} after {k}" for k, v in PUBLISHED[space.name].items())
        notes.append(f"The data's description gives for random search: {known}.")
    below = [text for w in ways if w.scratch and (text := harm(w, curves))]
    notes.append(f"Below the same search without the other device: {'; '.join(below) or 'none'}.")
    return Table(
        f"{space.name}: percent of the best after k trials, mean (worst seed)", ("search", *map(str, AT)), tuple(rows), tuple(notes)
    )


def harm(way: Way, curves: Mapping[str, np.ndarray]) -> str:
    """Where a transferred search is clearly below the same one from scratch; empty if nowhere."""
    own, scratch = curves[way.label], curves[str(way.scratch)][: len(curves[way.label])]
    at = [k for k in AT if k <= min(own.shape[1], scratch.shape[1]) and clearly_above(scratch[:, k - 1], own[:, k - 1])]
    shares = (f"{k} ({100 * own[:, k - 1].mean():.1f} and {100 * scratch[:, k - 1].mean():.1f})" for k in at)
    return f"{way.label} after {', '.join(shares)}" if at else ""


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    p.add_argument("data", type=Path, help="folder of measured spaces")
    p.add_argument("--seeds", type=int, default=10, help="searches of each kind (default: %(default)s)")
    p.add_argument("--trials", type=int, default=100, help="trials of each search but the random one (default: %(default)s)")
    options = p.parse_args(arguments)
    tables: list[Table] = []
    results: list[dict[str, Any]] = []
    for name in matching(p, options.only, SPACES, "space"):
        blind, informed = spaces(options.data, name, SPACES[name])
        curves: dict[str, np.ndarray] = {}
        for way in WAYS:
            c = curves[way.label] = search(way, blind, informed, options.seeds, options.trials)
            print(f"{name}, {way.label}: {100 * c[:, min(50, c.shape[1]) - 1].mean():.1f} % after 50", file=sys.stderr)
            shares = {k: c[:, k - 1].round(5).tolist() for k in AT if k <= c.shape[1]}
            results.append({"space": name, "search": way.label, "from": SPACES[name] if way.transferred else None, "shares": shares})
        tables.append(table(blind, SPACES[name], curves))
    publish(options, SECTION, tables, conditions(), results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
