"""Search with the tree model on exhaustively measured spaces of GPU kernels.

    python -m benchmarks.gpu_spaces DATA [--seeds 5] [--trials 100] [--json out.json]

DATA is a folder of ``<kernel>_<device>.csv.gz`` files: tuning parameters as columns, then ``time_ms`` and
``status``. Every configuration has been measured, so the best is known and a curve says what
fraction of it is reached after k trials. Failed configurations are trials too. Authors:

random      draws without repetition;
model       the tree model: batches of ten, eight favourites and two random ones;
transferred the same, pre-trained on another device's measurements of the same kernel.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from tilewright.cost.model import Training, TreeModel

#: Space and the device whose measurements a transferred model starts from.
SPACES = (
    ("gemm_RTX_2080_Ti", "gemm_RTX_Titan"),
    ("gemm_RTX_Titan", "gemm_RTX_2080_Ti"),
    ("conv_A100", "conv_A4000"),
    ("conv_A4000", "conv_A100"),
    ("conv_W6600", "conv_A4000"),
)
#: Trials of a batch: the model's favourites, and random ones.
FAVOURITES, RANDOM = 8, 2
#: Configurations of the other device that a transferred model learns.
SOURCE = 4000
AT = (10, 50, 100, 200)


@dataclass(frozen=True)
class Measured:
    """A space: parameter values [n, parameters] and seconds [n] (infinite: failed)."""

    name: str
    parameters: np.ndarray
    seconds: np.ndarray

    @property
    def best(self) -> float:
        return float(self.seconds.min())

    def features(self) -> np.ndarray:
        """[n, 1, columns]: logarithms of the parameters, and of their products and ratios in pairs (tiles per thread, footprints)."""
        logs = np.log2(1.0 + self.parameters)
        logs = logs[:, logs.std(axis=0) > 0]
        pairs = [op(logs[:, a], logs[:, b]) for a, b in combinations(range(logs.shape[1]), 2) for op in (np.add, np.subtract)]
        # One more column keeps a configuration of zeros apart from padding.
        return np.column_stack([np.ones(len(logs)), logs, *pairs]).astype(np.float32)[:, None, :]


def load(folder: Path, name: str) -> Measured:
    """Read one file; a missing folder or column is named."""
    with gzip.open(folder / f"{name}.csv.gz", "rt") as f:
        rows = list(csv.DictReader(f))
    columns = [c for c in rows[0] if c not in ("time_ms", "status")]
    seconds = [float(r["time_ms"]) * 1e-3 if r["status"] == "ok" else np.inf for r in rows]
    return Measured(name, np.array([[float(r[c]) for c in columns] for r in rows]), np.array(seconds))


def curve(space: Measured, tried: list[int]) -> np.ndarray:
    """Fraction of the best reached after 1, 2, ... trials."""
    return space.best / np.minimum.accumulate(space.seconds[tried])


def search_random(space: Measured, trials: int, rng: np.random.Generator) -> np.ndarray:
    return curve(space, list(rng.permutation(len(space.seconds))[:trials]))


def search_model(space: Measured, features: np.ndarray, trials: int, rng: np.random.Generator, source: Measured | None) -> np.ndarray:
    """Model-guided search; ``source`` is the space of the other device (None: from scratch)."""
    model = TreeModel(Training(seed=int(rng.integers(1 << 30)), columns=0.5))
    if source is not None:
        rows = rng.permutation(len(source.seconds))[:SOURCE]
        model.pretrain([source.features()[rows]], [source.seconds[rows]])
    tried: list[int] = []
    left = np.ones(len(space.seconds), bool)
    while len(tried) < trials:
        batch: list[int] = []
        if model.ready:
            order = np.argsort(-np.where(left, model.predict(features), -np.inf))
            batch = [int(i) for i in order[:FAVOURITES]]
        left[batch] = False
        chance = rng.permutation(np.flatnonzero(left))[: FAVOURITES + RANDOM - len(batch)]
        batch += [int(i) for i in chance]
        left[batch] = False
        tried += batch
        if np.isfinite(space.seconds[tried]).any():
            model.fit([features[tried]], [1.0 / space.seconds[tried]])
    return curve(space, tried[:trials])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--spaces", nargs="*", help="only these (default: all)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    at = [k for k in AT if k <= options.trials]
    results: dict[str, dict[str, list[float]]] = {}
    print(f"fraction of the best after {'/'.join(map(str, at))} trials, mean of {options.seeds} seeds (random: 300 draws)")
    for name, other in SPACES:
        if options.spaces and name not in options.spaces:
            continue
        space, source = load(options.data, name), load(options.data, other)
        features = space.features()
        rng = [np.random.default_rng(s) for s in range(options.seeds)]
        curves = {
            "random": np.mean([search_random(space, options.trials, np.random.default_rng(s)) for s in range(300)], axis=0),
            "model": np.mean([search_model(space, features, options.trials, r, None) for r in rng], axis=0),
            f"from {other}": np.mean([search_model(space, features, options.trials, r, source) for r in rng], axis=0),
        }
        results[name] = {author: [float(c[k - 1]) for k in at] for author, c in curves.items()}
        print(f"{name} ({len(space.seconds)} configurations, {np.isinf(space.seconds).mean():.0%} fail)")
        for author, values in results[name].items():
            print(f"  {author:28s} {'  '.join(f'{v:.3f}' for v in values)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"at": at, "seeds": options.seeds, "spaces": results}, indent=1))


if __name__ == "__main__":
    main()
