"""Whole networks against ONNX Runtime (and OpenVINO where it is installed), at equal threads.

    python -m benchmarks.networks [--threads 1 2] [--only REGEX] [--json FILE] [--markdown FILE]

The networks of :mod:`benchmarks.models` and the light models of the onnx wheel, all with random weights. All
runtimes take turns in one process on the same input, in float32. ``error`` is the largest difference
of an output from ONNX Runtime's, relative to its largest element, beside the bound on rounding
errors that the depth of the network's reductions gives.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from benchmarks.models import MODELS, random_inputs
from benchmarks.network_peers import Inputs, Run, onnxruntime_run, openvino_run
from benchmarks.report import Table, conditions, geometric_mean, installed, matching, parser, publish, threads_option, threads_text
from examples.light import light_model
from onnx import ModelProto
from tests.graph.oracle import accumulated_bound, reduction_depths

from tilewright.graph import compile
from tilewright.graph.model import Graph
from tilewright.runtime.measurement import Measurement, measure
from tilewright.runtime.peak import Peak, measure_peak

OURS, ORACLE, SECTION = "tilewright", "onnxruntime", "networks"
LIGHT = ("resnet50", "squeezenet", "densenet121", "vgg19", "inception_v1", "inception_v2", "shufflenet", "zfnet512", "bvlc_alexnet")
#: Networks whose batch is left open.
SYMBOLIC = ("vit_b16",)
NAMES = (*MODELS, *(n for n in LIGHT if n not in MODELS))
#: Wanted: ResNet-50 at most this many times ONNX Runtime's time.
RESNET_LIMIT = 1.6


@dataclass(frozen=True, slots=True)
class Row:
    """One network; ``error`` and ``allowed`` are relative to the largest output."""

    name: str
    threads: int
    kernels: int
    flops: int
    compile_seconds: float
    error: float
    allowed: float
    measurement: Measurement
    peak: Peak

    def times(self, peer: str) -> float:
        """Our time over ``peer``'s, median over the rounds."""
        return self.measurement.ratio(peer, over=OURS)

    def to_json(self) -> dict[str, Any]:
        figures = {n: getattr(self, n) for n in ("name", "threads", "kernels", "flops", "compile_seconds", "error", "allowed")}
        return {**figures, "peak_flops": self.peak.flops, **asdict(self.measurement)}


def model(name: str) -> ModelProto:
    """The network called ``name`` with random weights."""
    return MODELS[name]() if name in MODELS else light_model(name)


def batch_of(name: str) -> dict[str, int] | None:
    """What binds the open batch of a network; None where it has none."""
    return {"batch": 1} if name in SYMBOLIC else None


def inputs_of(graph: Graph) -> Inputs:
    """Random inputs by name."""
    return random_inputs({v.name: (v.buffer.dtype.to_numpy(), v.buffer.static_shape) for v in graph.inputs})


def disagreement(name: str, proto: ModelProto, got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> tuple[float, float]:
    """The largest difference, and the largest allowed, relative to the largest output; SystemExit when it is larger."""
    scale = max(float(np.abs(e).max()) for e in expected)
    error = max(float(np.abs(g - e).max()) for g, e in zip(got, expected, strict=True)) / scale
    allowed = accumulated_bound(reduction_depths(proto), 1.0)
    if not error <= allowed:
        raise SystemExit(f"{name}: results differ by {error:.1e} of the largest output, more than {allowed:.1e}")
    return error, allowed


def run(name: str, threads: int, peak: Peak, *, repeats: int) -> Row:
    """Compile, check and measure one network; SystemExit when it disagrees with ONNX Runtime."""
    proto = model(name)
    start = time.perf_counter()
    network = compile(proto, threads=threads, dims=batch_of(name))
    seconds = time.perf_counter() - start
    inputs = inputs_of(network.graph)
    runs: dict[str, Run] = {OURS: lambda: list(network(inputs).values()), ORACLE: onnxruntime_run(proto, inputs, threads)}
    if installed("openvino"):
        runs["openvino"] = openvino_run(proto, inputs, threads)
    error, allowed = disagreement(name, proto, runs[OURS](), runs[ORACLE]())
    settle = 0.03 if threads > 1 else 0.0
    measured = measure(runs, warmup=2, repeats=repeats, min_time=0.0, settle=settle, threads=threads)
    flops = sum(row.flops for row in network.summary())
    return Row(name, threads, len(network.steps), flops, seconds, error, allowed, measured, peak)


def table(rows: Sequence[Row], threads: int, peak: Peak) -> Table:
    """One line for each network, geometric means below."""
    peers = [t.name for t in rows[0].measurement.timings if t.name != OURS]
    lines = []
    for r in rows:
        times = {t.name: t for t in r.measurement.timings}
        median = times[OURS].median
        lines.append((
            r.name, str(r.kernels), f"{r.flops / 1e9:.2f}", f"{times[OURS].min * 1e3:.3g}", f"{median * 1e3:.3g}",
            *(f"{times[p].median * 1e3:.3g}" for p in peers), *(f"{r.times(p):.2f}" for p in peers),
            f"{100 * r.flops / median / peak.flops:.0f}%", f"{r.error:.0e}", f"{r.allowed:.0e}",
        ))  # fmt: skip
    columns = (
        "network", "kernels", "GFLOP", "min", "median", *peers, *(f"x {p}" for p in peers), "of peak", "error", "allowed"
    )  # fmt: skip
    means = ", ".join(f"{geometric_mean([r.times(p) for r in rows]):.2f} of {p}'s" for p in peers)
    resnet = next((r for r in rows if r.name == "resnet50"), None)
    goal = f" ResNet-50: {resnet.times(ORACLE):.2f} of ONNX Runtime's, wanted at most {RESNET_LIMIT}." if resnet else ""
    notes = (
        "Times in milliseconds, medians but for the first; `x` columns: our time over the peer's (below 1: we are faster).",
        f"Geometric mean of our time: {means}.{goal}",
        f"Measured peak: {peak.flops / 1e9:.0f} GFLOP/s.",
    )
    return Table(f"Networks, {threads_text(threads)}", columns, tuple(lines), notes)


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    threads_option(p)
    p.add_argument("--repeats", type=int, default=15, help="rounds (default: %(default)s)")
    options: argparse.Namespace = p.parse_args(arguments)
    names = matching(p, options.only, NAMES, "network")
    if not installed(ORACLE):
        raise SystemExit("ONNX Runtime is not installed: pip install onnxruntime")
    where = conditions()
    tables, rows = [], []
    for threads in options.threads:
        peak = measure_peak(threads, cache=False)
        here = []
        for n, name in enumerate(names, 1):
            here.append(run(name, threads, peak, repeats=options.repeats))
            print(f"[{threads} threads, {n}/{len(names)}] {name}: {here[-1].times(ORACLE):.2f} x {ORACLE}", file=sys.stderr)
        rows += here
        tables.append(table(here, threads, peak))
    publish(options, SECTION, tables, where, [r.to_json() for r in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
