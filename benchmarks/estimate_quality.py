"""How well the analytical estimate and the tree model order schedules: random points of a space, measured.

    python -m benchmarks.estimate_quality [--points 200] [--only REGEX] [--seed 0] [--json FILE] [--markdown FILE]

One thread; processor time of the thread, the fastest of several runs. Columns: rank correlation with the measurements
(Spearman); the fastest among the first 1 and 10 by estimate, relative to the fastest of all; rank correlation on the other
half of the tree model fitted to one half, from scratch and pre-trained on the estimate.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from benchmarks.report import Table, conditions, matching, parser, publish
from benchmarks.workloads import Workload, batched, conv, gemm
from scipy.stats import spearmanr

from tilewright.cost.model import TreeModel
from tilewright.runtime import build
from tilewright.space import Space
from tilewright.util.errors import TilewrightError

SECTION = "estimate quality"
CASES = (
    gemm(197, 768, 768),
    gemm(512, 512, 512),
    batched(12, 197, 64, 197),
    conv("3x3 14x14x256", 14, 256, 256),
    conv("3x3 56x56x64", 56, 64, 64),
    conv("1x1 28x28x512->128", 28, 512, 128, 1),
)
#: Seconds spent on one point after it is built.
EACH = 0.1
#: Points whose estimate a pre-trained model learns.
DRAWN = 3000


def measured(workload: Workload, space: Space, points: np.ndarray) -> np.ndarray:
    """Seconds of each point (infinite: it could not be built)."""
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(s, dtype=np.float32) for s in workload.inputs]
    out = np.empty(workload.output, np.float32)
    seconds = np.full(len(points), np.inf)
    for n, p in enumerate(points):
        try:
            module = build(space.schedule(p).kernel, space.machine, threads=1, cache=False)
        except TilewrightError as error:
            print(f"{space.describe(p)}: {error}")
            continue
        spent = 0.0
        while spent < EACH or seconds[n] == np.inf:
            start = time.thread_time()
            module(*arrays, out=out)
            took = time.thread_time() - start
            spent += took
            seconds[n] = min(seconds[n], took)
    return seconds


def ordering(workload: Workload, count: int, seed: int) -> dict[str, Any]:
    """Measure ``count`` random points and compare what predicts them."""
    space = Space(workload.kernel(), threads=1)
    points = np.unique(space.sample(count, np.random.default_rng(seed)), axis=0)
    seconds = measured(workload, space, points)
    points, seconds = points[np.isfinite(seconds)], seconds[np.isfinite(seconds)]
    estimate, features = space.estimate(points), space.features(points)
    order = np.argsort(estimate, kind="stable")
    half = np.random.default_rng(seed).permutation(len(points))
    train, test = half[: len(half) // 2], half[len(half) // 2 :]
    plain, informed = TreeModel(), TreeModel()
    drawn = space.sample(DRAWN, np.random.default_rng(seed + 1))
    informed.pretrain([space.features(drawn)], [space.estimate(drawn)])
    models = {}
    for name, model in (("scratch", plain), ("pretrained", informed)):
        model.fit([features[train]], [1 / seconds[train]])
        models[name] = float(spearmanr(-model.predict(features[test]), seconds[test])[0])
    return {
        "points": len(points),
        "spearman": float(spearmanr(estimate, seconds)[0]),
        "first": float(seconds.min() / seconds[order[0]]),
        "first_ten": float(seconds.min() / seconds[order[:10]].min()),
        **models,
        "measurements": [(space.encode(p), float(s), float(e)) for p, s, e in zip(points, seconds, estimate, strict=True)],
    }


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line for each space."""
    shown = ("spearman", "first", "first_ten", "scratch", "pretrained")
    lines = tuple((r["space"], str(r["points"]), *(f"{r[c]:.3f}" for c in shown)) for r in rows)
    columns = ("space", "points", "estimate", "best of first", "best of first 10", "trees, half", "trees + estimate, half")
    notes = (
        "Rank correlation with the measurements: of the estimate, and of the tree model fitted to one half on the other half.",
        "Best of first: the fastest of all points over the fastest among the first 1 and 10 by estimate.",
    )
    return Table("How predictions order random points of a space", columns, lines, notes)


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    p.add_argument("--points", type=int, default=200, help="random points of each space (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the points (default: %(default)s)")
    options = p.parse_args(arguments)
    cases = {w.name: w for w in CASES}
    names = matching(p, options.only, cases, "space")
    seen = conditions()
    rows = []
    for name in names:
        rows.append({"space": name, **ordering(cases[name], options.points, options.seed)})
        print(f"{name}: {rows[-1]['spearman']:.3f}", file=sys.stderr)
    publish(options, SECTION, [table(rows)], seen, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
