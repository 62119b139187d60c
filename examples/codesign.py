"""A machine made for a network: side of the array and memories found together with the mappings, and how good that is.

    python examples/codesign.py [--budget 10s] [--network NAME] [--out DIR]

By default a small network of three layers (or resnet50, bert, a JSON file, an ONNX model). The search is compared with
Gemmini's default machine, mapped as well as it can be, and for the small network with the proven optimum.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tilewright.cli.codesign import budget_of, export
from tilewright.codesign.baselines.mapper import elite_mutation
from tilewright.codesign.exact import proven
from tilewright.codesign.layer import Layer
from tilewright.codesign.problem import Budget, Problem, Run
from tilewright.codesign.study import Study, study
from tilewright.codesign.workloads import workload
from tilewright.hw.load import load_family, load_machine

SMALL = (
    Layer("stem", {"K": 32, "C": 4, "P": 32, "Q": 32, "R": 3, "S": 3}),
    Layer("block", {"K": 32, "C": 32, "P": 32, "Q": 32, "R": 3, "S": 3}, count=4),
    Layer.gemm("head", 1, 100, 512),
)


def default_machine(found: Study) -> Run:
    """The same layers on Gemmini's default machine."""
    machine = load_machine("gemmini").parameters
    hardware = {p.name: float(machine[p.name]) for p in found.problem.space.family.parameters}
    run = Run(Problem(found.problem.space, hardware=hardware), Budget(evaluations=4000 * len(found.layers)))
    elite_mutation(run)
    return run


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--network", help="default: three small layers")
    p.add_argument("--budget", default="20000", help="60s, 5m, or a number of evaluations (default: %(default)s)")
    p.add_argument("--out", type=Path, help="for the report and the exports (default: a temporary folder)")
    options = p.parse_args()
    layers = workload(options.network) if options.network else SMALL
    found = study(layers, load_family("gemmini"), budget=budget_of(options.budget))
    reference = default_machine(found)
    print("machine:", ", ".join(f"{k} {v:g}" for k, v in found.hardware.items()))
    for layer, nest in zip(found.layers, found.nests, strict=True):
        print(f"  {layer.name} x{layer.count}: {nest}")
    print(f"energy-delay product of Gemmini's default machine / ours: {reference.best / found.run.best:.2f}")
    if not options.network:
        print(f"ours / proven optimum of a grid of machines: {found.run.best / proven(found.problem).score:.3f}")
    folder = options.out or Path(tempfile.mkdtemp(prefix="codesign-"))
    print(f"written to {folder}: {', '.join(export(found, options.network or 'small', folder, reference))}")


if __name__ == "__main__":
    main()
