"""How many points of a schedule space are drawn, moved, estimated and described by features in a second of one core.

    python -m benchmarks.space_throughput [--points N] [--repeats N] [--only REGEX] [--json FILE] [--markdown FILE]

CPU time of the calling thread (the machine may be shared), the best of the repeats; the walk over the
symbolic programs, made once for each space, is listed apart as "first".
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from benchmarks.report import Table, conditions, duration, parser, publish
from benchmarks.workloads import attention, batched, conv, gemm, padded, softmax

from tilewright import lang
from tilewright.ir import expr as ex
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import f32
from tilewright.space import Space

SECTION = "schedule spaces"


@dataclass(frozen=True, slots=True)
class Consumed:
    """A padded 3x3 convolution whose sums bias and ReLU take, at a place that is a knob."""

    size: int
    channels: int

    @property
    def name(self) -> str:
        return f"conv 3x3, bias, relu {self.size}x{self.size}x{self.channels}"

    def kernel(self) -> Kernel:
        n, size = self.channels, self.size
        x, w = lang.tensor("x", f32, (1, n, size, size)), lang.tensor("w", f32, (n, n, 3, 3))
        bias, source = lang.tensor("bias", f32, (n,)), padded(x, 1)
        c, r, s = (lang.reduce_axis(0, e, name) for name, e in (("c", n), ("r", 3), ("s", 3)))
        shape = (1, n, size, size)
        z = lang.compute("z", shape, lambda b, k, p, q: lang.sum(source[b, c, p + r, q + s] * w[k, c, r, s], [c, r, s]))
        y = lang.compute("y", shape, lambda b, k, p, q: ex.binary("max", z[b, k, p, q] + bias[k], ex.const(0.0, f32)))
        return lang.build("consumed", [x, w, bias], [y])


SPACES = [
    gemm(512, 512, 512), gemm(197, 768, 3072), batched(12, 197, 64, 197), conv("3x3", 56, 64, 64),
    conv("3x3", 14, 256, 256), conv("3x3 depthwise", 56, 144, 144, groups=144), Consumed(56, 64), Consumed(14, 256),
    softmax(1024, 1024), attention(12, 197, 64),
]  # fmt: skip
#: Points a second that are wanted of conv2d spaces.
SAMPLED, PREDICTED = 20_000, 100_000


@dataclass(frozen=True, slots=True)
class Row:
    """One space: ``rates`` in points a second; ``first`` the seconds until estimate and features have been made once."""

    name: str
    threads: int
    sketches: int
    size: int
    rejection_rate: float
    first: float
    default: float
    rates: dict[str, float]


def spent(work: Callable[[], object]) -> float:
    """Seconds of CPU time of this thread."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def run(workload: Any, threads: int, points: int, repeats: int) -> Row:
    space = Space(workload.kernel(), threads=threads)
    rng = np.random.default_rng(0)
    drawn = space.sample(points, rng)
    rejected = float(1 - space.valid(drawn).mean())
    first = spent(lambda: (space.estimate(drawn), space.predict(drawn)))
    actions: dict[str, Callable[[], object]] = {
        "sampled": lambda: space.sample(points, rng),
        "neighbours": lambda: space.neighbours(drawn, rng),
        "estimate": lambda: space.estimate(drawn),
        "features": lambda: space.features(drawn),
        "both": lambda: space.predict(drawn),
    }
    rates = {name: points / min(spent(action) for _ in range(repeats)) for name, action in actions.items()}

    def plan() -> None:
        again = Space(space.kernel, space.machine, threads)
        again.plan(again.default())

    default = min(spent(plan) for _ in range(repeats))
    return Row(workload.name, threads, len(space.sketches), space.size, rejected, first, default, rates)


def table(rows: Sequence[Row]) -> Table:
    names = list(rows[0].rates)
    lines = [
        (
            r.name, str(r.threads), str(r.sketches), f"{r.size:,}", *(f"{r.rates[n] / 1e3:.0f}" for n in names),
            duration(r.first), duration(r.default),
        )
        for r in rows
    ]  # fmt: skip
    convs = [r for r in rows if r.name.startswith("conv")]
    reached = [sum(r.rates[what] >= limit for r in convs) for what, limit in (("sampled", SAMPLED), ("both", PREDICTED))]
    notes = (
        "Thousands of points a second of one core; 'both' is estimate and features; 'default' is scheduling an untuned kernel.",
        f"Drawn points that are invalid and have to be rejected: {max(r.rejection_rate for r in rows):.2%}.",
        f"Of {len(convs)} conv2d spaces {reached[0]} reach {SAMPLED:,} points a second in sampling, {reached[1]} {PREDICTED:,} in both.",
    )
    return Table("Schedule spaces", ("space", "threads", "sketches", "points", *names, "first", "default"), tuple(lines), notes)


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    p.add_argument("--points", type=int, default=20_000, help="points of a population (default: %(default)s)")
    p.add_argument("--repeats", type=int, default=5, help="runs of which the best counts (default: %(default)s)")
    options = p.parse_args(arguments)
    chosen = [w for w in SPACES if re.search(options.only, w.name)]
    if not chosen:
        p.error(f"no space matches {options.only!r}; there are: {', '.join(w.name for w in SPACES)}")
    seen = conditions()
    rows = []
    for w in chosen:
        for threads in (1, 2):
            rows.append(run(w, threads, options.points, options.repeats))
            print(f"{w.name}, {threads} threads: {rows[-1].rates}", file=sys.stderr)
    publish(options, SECTION, [table(rows)], seen, [asdict(r) for r in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
