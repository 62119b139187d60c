"""Generated command programs against the vendor library's heuristic, both on the cycle model of a 16 x 16 Gemmini.

    python -m benchmarks.gemmini_codegen [--measured N] [--json FILE] [--markdown FILE] [--only TEXT]

For each product the bounds (cycles in which the array is fed, cycles in which the bus moves every input or every result once), the
cycles of the default (`default_ws`) and of the best of N schedules of our space, and the share of the gap between the default and the
larger bound that is closed. Nothing is timed: the figures depend on the models alone.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tilewright.hw import load_machine
from tilewright.lang import parse
from tilewright.sim.gemmini import Configuration, simulate
from tilewright.sim.gemmini.baseline import Gemm, default_ws
from tilewright.sim.gemmini.tuning import tuned

#: m, k, n of the layers that published searches on Gemmini use.
PUBLISHED = (
    (256, 256, 256),
    (512, 512, 512),
    (1024, 1024, 1024),
    (12544, 64, 256),
    (12544, 256, 64),
    (3136, 128, 512),
    (3136, 512, 128),
    (784, 256, 1024),
    (6272, 64, 256),
    (12544, 64, 128),
    (128, 1024, 1024),
    (64, 1024, 1024),
    (32, 1024, 1024),
)
#: Odd, skinny and small ones.
ODD = (
    (1, 512, 512),
    (1, 1000, 256),
    (1, 64, 1000),
    (2, 256, 256),
    (4, 512, 512),
    (7, 77, 777),
    (8, 1024, 128),
    (16, 16, 16),
    (16, 512, 16),
    (16, 1024, 64),
    (17, 17, 17),
    (17, 300, 33),
    (31, 63, 127),
    (32, 32, 512),
    (48, 48, 48),
    (50, 200, 50),
    (64, 64, 64),
    (64, 16, 256),
    (80, 96, 112),
    (100, 100, 100),
    (128, 512, 32),
    (129, 65, 257),
    (150, 40, 10),
    (197, 64, 197),
    (200, 33, 200),
    (256, 16, 256),
    (300, 300, 17),
    (333, 111, 55),
    (500, 20, 20),
    (1000, 10, 100),
)


@dataclass(frozen=True, slots=True)
class Row:
    m: int
    k: int
    n: int
    array: int
    bus: int
    default: int
    ours: int
    measured: int
    schedule: str

    @property
    def bound(self) -> int:
        return max(self.array, self.bus)

    @property
    def above(self) -> float:
        """By how much the default exceeds the bound."""
        return self.default / self.bound - 1

    @property
    def closed(self) -> float:
        """The share of the default's gap that is closed."""
        return (self.default - self.ours) / (self.default - self.bound)


def row(m: int, k: int, n: int, measured: int) -> Row:
    """One product. The array takes at least ``dim`` cycles for the weights of a block; reads and writes have a bus each."""
    machine = load_machine("gemmini")
    c = Configuration.of(machine)
    array = -(-k // c.dim) * -(-n // c.dim) * max(m, c.dim)
    bus = max(m * k + k * n, m * n) // c.bus_bytes
    at = 0x8000_0000
    default = simulate(default_ws(c, Gemm(m, n, k, at, at + m * k + 64, at + m * k + k * n + 128)), c).cycles
    kernel = parse(f"""
@kernel
def gemm(a: i8[{m}, {k}], b: i8[{k}, {n}], c: i8[{m}, {n}]):
    acc = alloc(i32[{m}, {n}])
    for i in range({m}):
        for j in range({n}):
            acc[i, j] = 0
    for i_1 in range({m}):
        for j_1 in range({n}):
            for k in range({k}):
                acc[i_1, j_1] += a[i_1, k] * b[k, j_1]
    for i_2 in range({m}):
        for j_2 in range({n}):
            c[i_2, j_2] = i8(min(max(acc[i_2, j_2], -128), 127))
""")
    found = tuned(kernel, machine, measured=measured)
    return Row(m, k, n, array, bus, default, found.cycles, found.measured, found.schedule)


def line(r: Row) -> str:
    closed = f"{r.closed:.0%}" if r.above > 0.05 else "-"
    use = f"{r.m * r.n * r.k / 256 / r.ours:.1%}"
    return f"| {r.m} x {r.k} x {r.n} | {r.array:,} | {r.bus:,} | {r.default:,} | {r.ours:,} | {r.ours / r.default:.3f} | {use} | {closed} |"


HEAD = "| m x k x n | array | bus | default | ours | ours/default | utilisation | gap closed |\n|---|---|---|---|---|---|---|---|"


def summary(rows: list[Row]) -> str:
    far = [r for r in rows if r.above > 0.05]
    slower = [f"{r.m} x {r.k} x {r.n}" for r in rows if r.ours > r.default]
    named = f" (slower: {', '.join(slower)})" if slower else ""
    return (
        f"Not slower than the default: {len(rows) - len(slower)} of {len(rows)}{named}. "
        f"At least half of the gap closed: {sum(r.closed >= 0.5 for r in far)} of the {len(far)} with a gap of more than 5 %."
    )


def insert(page: Path, rows: list[Row]) -> None:
    """Replaces the table of a page, from its head to the sentence that sums it up."""
    text = page.read_text()
    start = text.index(HEAD)
    end = text.index("\n", text.index("Not slower than the default:", start))
    page.write_text(text[:start] + "\n".join([HEAD, *map(line, rows), "", summary(rows)]) + text[end:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=int, default=20, help="schedules measured for each product")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--markdown", type=Path, help="put the table into this page, in place of the one there")
    parser.add_argument("--only", default="", help="only products whose MxKxN contains this")
    options = parser.parse_args()
    print(HEAD)
    rows = []
    for shape in (*PUBLISHED, *ODD):
        if options.only in "x".join(map(str, shape)):
            rows.append(row(*shape, options.measured))
            print(line(rows[-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")
    print(f"\n{summary(rows)}")
    if options.markdown:
        insert(options.markdown, rows)


if __name__ == "__main__":
    main()
