"""Latency of networks under each layout of the values between kernels: plain, channels last, blocks of one vector, the estimated best.

    python -m benchmarks.layouts [--threads 1] [--only REGEX] [--repeats 9] [--json FILE] [--markdown FILE]

Untuned networks of windowed operations, divided greedily, that run in turns. "best" prices the kernels on both sides of every
value, conversions included (tilewright/graph/layout_search.py); "seconds" is what choosing and dividing takes, "estimate" what the
default schedules of all kernels are estimated at.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from benchmarks.fusion import agree
from benchmarks.models import MODELS, random_inputs
from benchmarks.report import Table, conditions, parser, publish, threads_text

from tilewright.graph import load
from tilewright.graph.compiler import prepare
from tilewright.graph.layout import Layouts
from tilewright.graph.layout_search import estimated
from tilewright.runtime.measurement import Measurement, measure

SECTION = "layouts"
#: The networks of :mod:`benchmarks.models` whose values have channels.
NETWORKS = ("resnet18", "resnet50", "mobilenet_v2")


@dataclass(frozen=True, slots=True)
class Row:
    """One network in one way: how many of its values lie how, seconds to choose, seconds of its kernels by the estimate."""

    name: str
    way: str
    stored: dict[str, int]
    seconds: float
    estimate: float


def run(name: str, threads: int, repeats: int) -> tuple[list[Row], Measurement]:
    """Choose, compile and time ``name`` in every way; SystemExit when two ways disagree about the result."""
    graph = load(MODELS[name]())
    inputs = random_inputs({v.name: (v.buffer.dtype.to_numpy(), v.buffer.static_shape) for v in graph.inputs})
    rows, networks = [], {}
    for way in get_args(Layouts):
        start = time.perf_counter()
        prepared = prepare(graph, threads=threads, layouts=way)
        seconds = time.perf_counter() - start
        stored = Counter("channels last" if str(b.layout) == "0 2 3 1" else "blocked" for b in prepared.graph.buffers.values() if b.layout)
        calls = Counter(prepared.task(s) for s in prepared.steps)
        total = sum(n * estimated(t.kernel, prepared.machine, threads, t.constants) for t, n in calls.items())
        rows.append(Row(name, way, dict(stored), seconds, total))
        networks[way] = prepared.compile()
    agree(name, networks, inputs)
    return rows, measure({w: lambda n=n: n(inputs) for w, n in networks.items()}, repeats=repeats, min_time=0.0, threads=threads)


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    p.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    p.add_argument("--repeats", type=int, default=9, help="rounds (default: %(default)s)")
    options: argparse.Namespace = p.parse_args(arguments)
    names = [n for n in NETWORKS if re.search(options.only, n)]
    if not names:
        p.error(f"no network matches {options.only!r}; there are: {', '.join(NETWORKS)}")
    lines: list[tuple[str, ...]] = []
    results: list[dict[str, Any]] = []
    for name in names:
        rows, measured = run(name, options.threads, options.repeats)
        for r in rows:
            stored = ", ".join(f"{n} {how}" for how, n in sorted(r.stored.items())) or "all plain"
            gain = measured.ratio(r.way, over="plain")
            lines.append((
                name, r.way, stored, f"{r.estimate * 1e3:.3g}", f"{measured[r.way].median * 1e3:.3g}", f"{gain:.3f}", f"{r.seconds:.1f}",
            ))  # fmt: skip
        results.append({"ways": [asdict(r) for r in rows], **asdict(measured)})
        print(f"{name}: {', '.join(f'{r.way} {measured[r.way].median * 1e3:.3g} ms' for r in rows)}", file=sys.stderr)
    columns = ("network", "layouts", "values", "estimate ms", "ms", "gain", "seconds")
    title = f"Layouts, untuned, {threads_text(options.threads)}"
    notes = ("Gain: time with plain layouts over the time, median over the rounds.",)
    publish(options, SECTION, [Table(title, columns, tuple(lines), notes)], conditions(), results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
