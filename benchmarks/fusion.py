"""Kernels and latency of networks under each way of fusion: none, greedy rules, dynamic programming.

    python -m benchmarks.fusion [--threads 1] [--only REGEX] [--measured] [--layers N] [--counts] [--json FILE] [--markdown FILE]

Kernel calls and distinct kernels, how often each is called as in table 3.2 of the GTCO thesis ("{[6 * 7], [12 * 2]}": seven
kernels called 6 times, two called 12 times), and latencies of untuned networks that run in turns. --counts only divides.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
from benchmarks.models import MODELS, bert_base, detr_transformer, random_inputs, vit_base
from benchmarks.report import Table, conditions, parser, publish, threads_text
from onnx import ModelProto

from tilewright.graph import Network, load
from tilewright.graph.compiler import Prepared, prepare
from tilewright.graph.fusion import Fusion
from tilewright.graph.model import Graph
from tilewright.runtime.measurement import Measurement, measure

SECTION, COUNTS = "fusion", "fusion counts"


@dataclass(frozen=True, slots=True)
class Row:
    """One network divided in one way; ``weights`` maps numbers of calls to how many kernels are called so often."""

    name: str
    way: str
    kernels: int
    weights: dict[int, int]
    seconds: float
    states: int
    exact: bool

    def weights_text(self) -> str:
        return "{" + ", ".join(f"[{calls} * {kinds}]" for calls, kinds in sorted(self.weights.items())) + "}"


def loaded(name: str, layers: int | None) -> Graph:
    """The network, imported."""
    return load(model(name, layers), dims={"batch": 1} if name == "vit_b16" else None)


def model(name: str, layers: int | None) -> ModelProto:
    """The network; ``layers`` shortens transformers."""
    match name:
        case "vit_b16" if layers is not None:
            return vit_base(layers)
        case "bert_base" if layers is not None:
            return bert_base(layers=layers)
        case "detr" if layers is not None:
            return detr_transformer(layers, layers)
    return MODELS[name]()


def divide(graph: Graph, name: str, ways: Sequence[Fusion], threads: int) -> tuple[list[Row], dict[Fusion, Prepared]]:
    """The network divided in every way."""
    rows, divided = [], {}
    for way in ways:
        start = time.perf_counter()
        prepared = prepare(graph, threads=threads, fusion=way)
        seconds = time.perf_counter() - start
        calls = Counter(prepared.task(s) for s in prepared.steps)
        plan = prepared.fusion
        rows.append(Row(name, way, len(prepared.steps), dict(Counter(calls.values())), seconds, plan.states, plan.exact))
        divided[way] = prepared
    return rows, divided


def run(name: str, ways: Sequence[Fusion], threads: int, layers: int | None, repeats: int) -> tuple[list[Row], Measurement]:
    """Divide, compile and time ``name`` in every way; SystemExit when two ways disagree about the result."""
    graph = loaded(name, layers)
    inputs = random_inputs({v.name: (v.buffer.dtype.to_numpy(), v.buffer.static_shape) for v in graph.inputs})
    rows, divided = divide(graph, name, ways, threads)
    networks = {way: prepared.compile() for way, prepared in divided.items()}
    agree(name, networks, inputs)
    return rows, measure({w: lambda n=n: n(inputs) for w, n in networks.items()}, repeats=repeats, min_time=0.0, threads=threads)


def agree(name: str, networks: Mapping[str, Network], inputs: dict[str, np.ndarray]) -> None:
    """SystemExit unless all ``networks``, ways to the same thing, compute the same."""
    first, *others = (list(n(inputs).values()) for n in networks.values())
    for other in others:
        for a, b in zip(first, other, strict=True):
            if not np.allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max()):
                raise SystemExit(f"{name}: two ways give results that differ by {np.abs(a - b).max():.1e}")


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    p.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    p.add_argument("--repeats", type=int, default=9, help="rounds (default: %(default)s)")
    p.add_argument("--layers", type=int, help="encoder (and decoder) layers of the transformers (default: all)")
    p.add_argument("--counts", action="store_true", help=f"only divide, and count kernels (between the {COUNTS!r} marks)")
    p.add_argument("--measured", action="store_true", help="also divide by measured cost: builds and times every kind of group")
    options: argparse.Namespace = p.parse_args(arguments)
    ways = [w for w in get_args(Fusion) if w != "measured" or options.measured]
    names = [n for n in MODELS if re.search(options.only, n)]
    if not names:
        p.error(f"no network matches {options.only!r}; there are: {', '.join(MODELS)}")
    if options.counts:
        every = [divide(loaded(n, options.layers), n, ways, options.threads)[0] for n in names]
        publish(options, COUNTS, [counts(every, options.threads)], conditions(), [[asdict(r) for r in rows] for rows in every])
        return 0
    lines, shares, results = [], [], []
    for name in names:
        rows, measured = run(name, ways, options.threads, options.layers, options.repeats)
        for r in rows:
            gain = measured.ratio(r.way, over="none")
            lines.append((
                name, r.way, str(r.kernels), str(sum(r.weights.values())), f"{measured[r.way].median * 1e3:.3g}",
                f"{gain:.3f}", f"{r.seconds:.1f}", str(r.states or "") + ("" if r.exact else " (beam)"),
            ))  # fmt: skip
        shares += [(name, r.way, r.weights_text()) for r in rows if r.way != "none"]
        results.append(_json(rows, measured))
        print(f"{name}: {', '.join(f'{r.way} {r.kernels}' for r in rows)}", file=sys.stderr)
    columns = ("network", "fusion", "kernels", "distinct", "ms", "gain", "division s", "states")
    title = f"Fusion, untuned, {threads_text(options.threads)}"
    cut = (f"Transformers have {options.layers} layers.",) if options.layers else ()
    notes = (*cut, "Gain: time without fusion over the time, median over the rounds.")
    tables = [
        Table(title, columns, tuple(lines), notes),
        Table("Calls of distinct kernels", ("network", "fusion", "weights"), tuple(shares)),
    ]
    publish(options, SECTION, tables, conditions(), results)
    return 0


def counts(every: Sequence[Sequence[Row]], threads: int) -> Table:
    """Kernels of each network in each way, distinct ones in parentheses, and the states that dynamic programming visited."""
    lines = [
        (rows[0].name, *(f"{sum(n * k for n, k in r.weights.items())} ({sum(r.weights.values())})" for r in rows), *(
            f"{r.states}{'' if r.exact else ' (beam)'}" for r in rows if r.way == "dp"
        ))
        for rows in every
    ]  # fmt: skip
    ways = tuple(r.way for r in every[0])
    notes = ("Kernel calls of a run, distinct kernels in parentheses. Prices, and so plans of dp, depend on the threads.",)
    return Table(f"Kernels, {threads_text(threads)}", ("network", *ways, "states of dp"), tuple(lines), notes)


def _json(rows: Sequence[Row], measured: Measurement) -> dict[str, Any]:
    return {"ways": [asdict(r) for r in rows], **asdict(measured)}


if __name__ == "__main__":
    sys.exit(main())
