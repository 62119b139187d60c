"""How well the analytical estimate and the tree model order schedules: random points of a space, measured.

    python -m benchmarks.estimate_quality [--points 200] [--only REGEX] [--seed 0] [--json FILE]

One thread; processor time of the thread, the fastest of several runs. Columns: rank correlation with the measurements
(Spearman); the fastest among the first 1 and 10 by estimate, relative to the fastest of all; rank correlation on the other
half of the tree model fitted to one half, from scratch and pre-trained on the estimate.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.report import Table, conditions, conditions_text
from benchmarks.workloads import Workload, batched, conv, gemm
from rich.console import Console
from scipy.stats import spearmanr

from tilewright.cost.model import TreeModel
from tilewright.runtime import build
from tilewright.space import Space
from tilewright.util.errors import TilewrightError

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--only", default="", help="workloads whose name matches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    around = conditions()
    print(conditions_text(around))
    found = {w.name: ordering(w, options.points, options.seed) for w in CASES if re.search(options.only, w.name)}
    shown = ("spearman", "first", "first_ten", "scratch", "pretrained")
    rows = tuple((name, str(r["points"]), *(f"{r[c]:.3f}" for c in shown)) for name, r in found.items())
    columns = ("space", "points", "estimate", "best of first", "best of first 10", "trees, half", "trees + estimate, half")
    Table("How predictions order measured schedules", columns, rows).print(Console(width=140))
    if options.json:
        options.json.write_text(json.dumps({"conditions": around, "spaces": found}))


if __name__ == "__main__":
    main()
