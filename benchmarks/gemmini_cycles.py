"""The Gemmini cycle model against cycles of the real RTL.

    python -m benchmarks.gemmini_cycles DATA [--calibrate] [--json out.json]

DATA is the published table of RTL runs of the vendor library's command streams (``gemmini_rtl_cycles_16x16.csv``). Shapes are
sorted by (M, N, K): those at even places calibrate, those at odd places are held back. ``--calibrate`` repeats the search for
the latencies of ``Timing`` (coordinate descent on the calibration runs below 20,000 cycles) and prints what it finds.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from tilewright.hw import load_machine
from tilewright.sim.gemmini import Configuration
from tilewright.sim.gemmini.baseline import Gemm, default_os, default_ws, tiled_ws
from tilewright.sim.gemmini.cycles import simulate
from tilewright.sim.gemmini.isa import Command
from tilewright.sim.gemmini.memory_timing import Timing

#: Where A starts; B and C follow at the next page.
BASE, PAGE = 0x8000_0000, 4096
#: How far the calibration moves each latency at a time.
STEPS = {
    "request": (2, 4),
    "arrival": (3, 6),
    "write": (3, 6),
    "gather": (1,),
    "station": (2, 4),
    "feed": (3, 6),
    "drain": (6, 12),
    "loop": (3, 8),
    "moves": (1,),
    "in_flight": (1, 4),
}
ROUNDS, QUICK = 3, 20_000


@dataclass(frozen=True)
class Measured:
    """One RTL run: the stream, the problem, the tile in blocks (tiled_ws), memory latency, idle cycles between commands, cycles."""

    stream: str
    shape: tuple[int, int, int]
    tile: tuple[int, int, int] | None
    memory: int
    gap: int
    cycles: int

    def commands(self, c: Configuration) -> Iterator[Command]:
        m, n, k = self.shape
        a, b = BASE, BASE + -(-m * k // PAGE) * PAGE
        g = Gemm(m, n, k, a, b, b + -(-k * n // PAGE) * PAGE)
        if self.tile:
            return tiled_ws(c, g, self.tile)
        return default_os(c, g) if self.stream == "default_os" else default_ws(c, g)


def load(path: Path) -> list[Measured]:
    """Read a table; lines that start with # are comments."""
    with path.open() as f:
        rows = list(csv.DictReader(line for line in f if not line.startswith("#")))
    return [_measured(r) for r in rows]


def _measured(r: Mapping[str, str]) -> Measured:
    tile = (int(r["tile_I"]), int(r["tile_J"]), int(r["tile_K"])) if r["tile_I"] else None
    shape = int(r["M"]), int(r["N"]), int(r["K"])
    return Measured(r["stream"], shape, tile, int(r["mem_latency"]), int(r["issue_gap"]), int(r["cycles"]))


def split(runs: list[Measured]) -> tuple[list[Measured], list[Measured]]:
    """Calibration and held-back runs: no shape is in both."""
    shapes = sorted({r.shape for r in runs})
    ours = set(shapes[::2])
    return [r for r in runs if r.shape in ours], [r for r in runs if r.shape not in ours]


def predict(runs: list[Measured], c: Configuration, timing: Timing) -> np.ndarray:
    """Cycles of the model [runs]."""
    return np.array([simulate(r.commands(c), c, replace(timing, memory=r.memory, gap=r.gap)).cycles for r in runs], float)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of the ranks (ties share theirs)."""

    def ranks(v: np.ndarray) -> np.ndarray:
        _, inverse, counts = np.unique(v, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def errors(runs: list[Measured], model: np.ndarray) -> dict[str, float]:
    """Median, mean and 90th percentile of the absolute relative error, spread of model / RTL, rank correlation."""
    rtl = np.array([r.cycles for r in runs], float)
    ratio = model / rtl
    error = np.abs(ratio - 1)
    return {
        "runs": len(runs),
        "median": float(np.median(error)),
        "mean": float(error.mean()),
        "p90": float(np.percentile(error, 90)),
        "p90/p10 of model/RTL": float(np.percentile(ratio, 90) / np.percentile(ratio, 10)),
        "spearman": spearman(model, rtl),
    }


def calibrate(runs: list[Measured], c: Configuration) -> Timing:
    """Coordinate descent from the defaults: the mean absolute log ratio over the quick runs."""
    quick = [r for r in runs if r.cycles < QUICK]
    rtl = np.array([r.cycles for r in quick], float)

    def loss(t: Timing) -> float:
        return float(np.abs(np.log(predict(quick, c, t) / rtl)).mean())

    timing = Timing()
    best = loss(timing)
    for _ in range(ROUNDS):
        before = best
        for name, steps in STEPS.items():
            for step in (s * sign for s in steps for sign in (1, -1)):
                value = getattr(timing, name) + step
                if value < (1 if name in ("moves", "in_flight") else 0):
                    continue
                changed = replace(timing, **{name: value})
                if (now := loss(changed)) < best - 1e-4:
                    best, timing = now, changed
        print(f"mean absolute log ratio {best:.4f}", flush=True)
        if best == before:
            break
    return timing


def table(named: dict[str, dict[str, float]]) -> str:
    """One line for each group of runs."""
    lines = [f"{'':28}{'runs':>6}{'median':>9}{'mean':>9}{'p90':>9}{'p90/p10':>9}{'spearman':>10}"]
    for name, e in named.items():
        spread = e["p90/p10 of model/RTL"]
        lines.append(f"{name:28}{e['runs']:>6}{e['median']:>9.1%}{e['mean']:>9.1%}{e['p90']:>9.1%}{spread:>9.2f}{e['spearman']:>10.4f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    c = Configuration.of(load_machine("gemmini"))
    ours, held = split(load(arguments.data))
    if arguments.calibrate:
        print(calibrate(ours, c))
        return
    groups = {"calibration": ours, "held back": held}
    groups |= {f"held back, {s}": [r for r in held if r.stream == s] for s in ("default_ws", "tiled_ws", "default_os")}
    found = {name: errors(rs, predict(rs, c, Timing())) for name, rs in groups.items() if rs}
    print(table(found))
    if arguments.json:
        timing = {f.name: getattr(Timing(), f.name) for f in fields(Timing) if f.name not in ("memory", "gap")}
        arguments.json.write_text(json.dumps({"timing": timing, "errors": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
