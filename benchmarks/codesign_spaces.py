"""What more general map spaces are worth: padding, levels that tensors may pass by, outputs stationary.

    python -m benchmarks.codesign_spaces [--json out.json] [--resume] [--networks ..] [--seeds 0 1 2] [--budget 3000]

All on Gemmini's default machine (``--cap``: also on any with no more area), searched with as many evaluations for each layer shape.
The bypass is hypothetical: a Gemmini whose array can take weights, or inputs, from main memory. All figures follow from seeds: they are
the same on any machine, busy or not.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from benchmarks.codesign import DEFAULT
from benchmarks.report import Rows, Table, conditions, parser, publish

from tilewright.codesign.gradient import gradient
from tilewright.codesign.problem import Budget, Limits, Problem, Run
from tilewright.codesign.workloads import workload
from tilewright.hw.family import Family
from tilewright.hw.library import gemmini, gemmini_os
from tilewright.hw.library.gemmini_costs import area

SECTION = "co-design spaces"
NETWORKS = ("vit-b16", "bert", "resnet50", "retinanet")
KEY = ("network", "capped", "space", "seed")
PADDING = 0.25
PLAIN = "weights stationary"
#: Whether outputs are stationary, whether tensors may pass the scratchpad by, and the padding.
SPACES: dict[str, tuple[bool, bool, float]] = {
    PLAIN: (False, False, 0.0),
    "with padding": (False, False, PADDING),
    "with a bypass": (False, True, 0.0),
    "outputs stationary": (True, False, 0.0),
    "outputs stationary, with padding": (True, False, PADDING),
}


@cache
def family_of(outputs: bool, bypass: bool) -> Family:
    """Gemminis of one kind."""
    made = gemmini_os.family() if outputs else gemmini.family()
    return replace(made, keeps=(("WIO",), ("WI", "W", "I"), *made.keeps[2:])) if bypass else made


def searched(network: str, capped: bool, space: str, seed: int, budget: int) -> dict[str, Any]:
    """One run's energy-delay product."""
    outputs, bypass, padding = SPACES[space]
    limits = Limits(area=float(area(DEFAULT)), area_model=area) if capped else None
    problem = Problem.of(workload(network), family_of(outputs, bypass), "edp", limits, None if capped else DEFAULT, padding=padding)
    run = Run(problem, Budget(evaluations=budget * len(problem.space.layers)), seed)
    gradient(run)
    return {"network": network, "capped": capped, "space": space, "seed": seed, "budget": budget, "best": run.best}


def tables(results: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Medians over seeds, over the plain space's on the same machines."""
    networks = list(dict.fromkeys(r["network"] for r in results))

    def median(network: str, capped: bool, space: str) -> float:
        return float(
            np.median([r["best"] for r in results if (r["network"], r["capped"], r["space"]) == (network, capped, space)] or [np.nan])
        )

    out = []
    for capped in sorted({r["capped"] for r in results}):
        lines = tuple(
            (space, *(f"{median(n, capped, space) / median(n, capped, PLAIN):.3f}" for n in networks))
            for space in SPACES
            if any(r["space"] == space for r in results)
        )
        seeds = ", ".join(map(str, sorted({r["seed"] for r in results})))
        where = f"Machines of at most {area(DEFAULT):.2f} mm2" if capped else "Gemmini's default machine"
        notes = (f"Medians of seeds {seeds}. Padding: a split of a loop may overshoot by {PADDING:.0%}.",)
        out.append(Table(f"{where}: energy-delay product over that of plain spaces", ("space", *networks), lines, notes))
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    p.add_argument("--resume", action="store_true", help="take over the rows of --json")
    p.add_argument("--networks", nargs="+", default=NETWORKS)
    p.add_argument("--seeds", type=int, nargs="+", default=range(3), help="default: 0 1 2")
    p.add_argument("--budget", type=int, default=3_000, help="evaluations for each layer shape (default: %(default)s)")
    p.add_argument("--cap", action="store_true", help="also machines of any size within the default machine's area")
    options = p.parse_args(arguments)
    rows = Rows(options.json, KEY, conditions(), resume=options.resume)
    for seed in options.seeds:
        for network in options.networks:
            for capped in (False, True) if options.cap else (False,):
                for space in SPACES:
                    if rows.find(network, capped, space, seed) is None:
                        row = searched(network, capped, space, seed, options.budget)
                        rows.put(row)
                        print(
                            f"{network}{', capped' if capped else ''}: {space}, seed {seed}: {row['best']:.4g}", file=sys.stderr, flush=True
                        )
    publish(options, SECTION, tables(rows.rows), rows.conditions, rows.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
