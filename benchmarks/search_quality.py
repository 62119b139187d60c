"""How many trials a search needs: best-in-k curves of all authors on completely measured spaces.

    python -m benchmarks.search_quality [--seeds 10] [--json FILE] [--markdown FILE]

Each author searches each space of benchmarks/data with every seed; the figures are the best seconds
of all points over the best found in the first k trials, in percent: mean over the seeds, and the worst
seed. Nothing is measured here: outcomes come from the files (made by benchmarks.search_spaces). Estimates and features are those of
the present model, for the points that are in the present space; ``--stored`` takes all points and those of the day of measurement.
``gradient`` follows the present formulas between the values of knobs that were measured, and rounds to measured points; stored estimates
have no formulas.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.report import Table, conditions, parser, publish
from benchmarks.search_spaces import DATA, Measured, renewed

from tilewright.tune.authors import make_author
from tilewright.tune.budget import BATCH

SECTION = "search quality"
AUTHORS = ("random", "annealing", "evolutionary", "xgb-plain", "analytical", "gradient", "xgb-features", "xgb")
TRIALS = (1, 10, 20, 50, 100)
STORED = "Estimates and features are of the day of measurement."
#: The author taken when none is named: what is wanted is wanted of it, and that it is clearly above those that know no estimate.
DEFAULT, BLIND = "xgb", ("random", "xgb-plain")
#: Shares of the best that are wanted after so many trials.
WANTED = {10: 0.95, 50: 0.99}
#: Differences of means count as clear from so many of their standard errors on.
CLEAR = 2.0


def curve(space: Measured, author: str, seed: int, trials: int, **options: Any) -> np.ndarray:
    """Best seconds of the space over the best found after 1, 2, ... trials; ``options`` are the author's own."""
    writer, found = make_author(author, space, seed, **options), np.empty(0)
    while len(found) < trials and len(points := writer.propose(min(BATCH, trials - len(found)))):
        seconds = space.measure(points)
        writer.observe(points, seconds)
        found = np.concatenate([found, seconds])
    return space.best / np.minimum.accumulate(found)


def table(space: Measured, curves: dict[str, np.ndarray], provenance: str) -> Table:
    """One line for each author; ``curves`` are [seeds, trials], ``provenance`` says whose estimates the authors saw."""
    rows = []
    for author, c in curves.items():
        at = [c[:, min(k, c.shape[1]) - 1] for k in TRIALS]
        rows.append((author, *(f"{100 * v.mean():.1f} ({100 * v.min():.1f})" for v in at)))
    finite = space.seconds[np.isfinite(space.seconds)]
    ranks = [np.argsort(np.argsort(v)) for v in (space.estimates, space.seconds)]
    note = (
        f"{space.size} points, {space.best * 1e3:.3f} ms to {finite.max() * 1e3:.1f} ms, median {np.median(finite) * 1e3:.2f} ms; "
        f"rank correlation of estimate and time {np.corrcoef(*ranks)[0, 1]:.2f}.{space.scatter}"
    )
    return Table(
        f"{space.name}: percent of the best after k trials, mean (worst seed)",
        ("author", *map(str, TRIALS)),
        tuple(rows),
        (note, provenance),
    )


def overview(curves: Mapping[str, Mapping[str, np.ndarray]]) -> Table:
    """One line for each author, all spaces side by side; ``curves`` by space and author."""
    at = [(space, k) for space in curves for k in WANTED]
    everywhere = [a for a in AUTHORS if all(a in c for c in curves.values())]
    lines = [(author, *(f"{100 * curves[space][author][:, k - 1].mean():.1f}" for space, k in at)) for author in everywhere]
    reached = {
        k: ", ".join(f"{s} {'yes' if curves[s][DEFAULT][:, k - 1].mean() >= least else 'no'}" for s in curves)
        for k, least in WANTED.items()
    }
    notes = [f"Wanted of {DEFAULT}: {100 * least:g} % after {k} trials: {reached[k]}." for k, least in WANTED.items()]
    notes += [f"Wanted of {DEFAULT}: clearly above {other}. {_unclear(curves, other)}" for other in BLIND]
    return Table(
        "Best in k: percent of the best, mean over the seeds", ("author", *(f"{s}, {k}" for s, k in at)), tuple(lines), tuple(notes)
    )


def clearly_above(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether ``a`` [seeds] is larger than ``b`` in the mean by more than chance between seeds explains."""
    difference = a - b
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return bool(difference.mean() > CLEAR * error)


def _unclear(curves: Mapping[str, Mapping[str, np.ndarray]], other: str) -> str:
    """Where the default author is not clearly above ``other``, with both shares."""
    places = []
    for space, c in curves.items():
        for k in TRIALS[1:]:
            ours, theirs = c[DEFAULT][:, k - 1], c[other][:, k - 1]
            if not clearly_above(ours, theirs):
                places.append(f"{space} after {k} ({100 * ours.mean():.1f} and {100 * theirs.mean():.1f})")
    return f"It is not: {', '.join(places)}." if places else "It is everywhere."


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    p.add_argument("--seeds", type=int, default=10, help="searches of each kind (default: %(default)s)")
    p.add_argument("--folder", type=Path, default=DATA, help="where the spaces are (default: %(default)s)")
    p.add_argument("--stored", action="store_true", help="estimates and features of the day of measurement")
    options: argparse.Namespace = p.parse_args(arguments)
    names = sorted(f.stem for f in options.folder.glob("*.npz") if not f.stem.endswith(".part") and re.search(options.only, f.stem))
    if not names:
        p.error(f"no measured space in {options.folder}: run python -m benchmarks.search_spaces")
    tables: list[Table] = []
    found: dict[str, dict[str, np.ndarray]] = {}
    results: list[dict[str, Any]] = []
    for name in names:
        space, provenance = (Measured.load(name, options.folder), STORED) if options.stored else renewed(name, options.folder)
        curves = found.setdefault(name, {})
        for author in (a for a in AUTHORS if a != "gradient" or space.forms):
            curves[author] = np.array([curve(space, author, seed, max(TRIALS)) for seed in range(options.seeds)])
            results.append({"space": name, "author": author, "curves": curves[author].round(5).tolist()})
            print(f"{name}, {author}: {100 * curves[author][:, 9].mean():.1f} % after 10", file=sys.stderr)
        tables.append(table(space, curves, provenance))
    publish(options, SECTION, [overview(found), *tables], conditions(), results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
