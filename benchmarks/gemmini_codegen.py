"""Generated command programs against the vendor library's heuristic, both on the cycle model of a 16 x 16 Gemmini.

    python -m benchmarks.gemmini_codegen [--measured N] [--orders N] [--jobs N] [--json FILE [--resume]] [--markdown FILE] [--only TEXT]

For each product and convolution the bounds (cycles in which the array is fed, cycles in which the bus moves every input or every result
once), the cycles of the default (``default_ws``, ``default_conv``) and of the best of N schedules of our space, and the share of the gap
between the default and the larger bound that is closed. A tighter bound counts the requests in which blocks are moved
(:mod:`tilewright.sim.gemmini.bounds`), and adds what every program pays besides: the cycles of a product of 2 x 2 x 2. Nothing is
timed: the figures depend on the models alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tilewright.hw import load_machine
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.sim.gemmini import Configuration, simulate
from tilewright.sim.gemmini.baseline import Gemm, default_ws
from tilewright.sim.gemmini.baseline_conv import Convolution, default_conv
from tilewright.sim.gemmini.bounds import Stored, read_cycles, write_cycles
from tilewright.sim.gemmini.default_mapping import convolution_tile
from tilewright.sim.gemmini.generated import timed
from tilewright.sim.gemmini.memory_timing import Timing
from tilewright.sim.gemmini.tuning import tuned

#: Rows that a move of a product takes.
BLOCK = 16
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
#: The convolutions that published searches on Gemmini use, then others: windows of 1, 5 and 7, strides, few channels, odd sizes.
CONVOLUTIONS = (
    Convolution(4, 56, 56, 64, 64, 3, 1, 1),
    Convolution(4, 28, 28, 128, 128, 3, 1, 1),
    Convolution(4, 14, 14, 256, 256, 3, 1, 1),
    Convolution(1, 112, 112, 3, 64, 7, 2, 3),
    Convolution(1, 28, 28, 128, 256, 1, 1, 0),
    Convolution(1, 28, 28, 256, 128, 1, 2, 0),
    Convolution(1, 56, 56, 32, 64, 3, 2, 1),
    Convolution(1, 27, 27, 48, 128, 5, 1, 2),
    Convolution(1, 7, 7, 256, 256, 3, 1, 1),
    Convolution(2, 17, 17, 100, 50, 3, 1, 1),
    Convolution(1, 14, 14, 32, 32, 3, 1, 1),
    Convolution(1, 9, 9, 20, 12, 3, 1, 0),
    Convolution(1, 33, 20, 16, 48, 3, 2, 1),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One workload. ``moves``: the bound by requests to main memory; ``least``: the tighter bound of the whole."""

    workload: str
    macs: int
    array: int
    bus: int
    moves: int
    least: int
    default: int
    ours: int
    measured: int
    orders: int
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

    @property
    def closed_of_possible(self) -> float:
        """The share of the default's distance to the tighter bound that is closed."""
        return (self.default - self.ours) / (self.default - self.least)


def product(m: int, k: int, n: int) -> Kernel:
    """An int8 matrix product that saturates."""
    return parse(f"""
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


def convolution(v: Convolution) -> Kernel:
    """An int8 convolution of zero-padded inputs that saturates, channels last."""
    rows, cols, pad = v.rows + 2 * v.padding, v.cols + 2 * v.padding, v.padding
    inside = f"h >= {pad} and h < {pad + v.rows} and w >= {pad} and w < {pad + v.cols}"
    padded = f"""
    xp = alloc(i8[{v.batch}, {rows}, {cols}, {v.channels}])
    for n in range({v.batch}):
        for h in range({rows}):
            for w in range({cols}):
                for c in range({v.channels}):
                    xp[n, h, w, c] = where({inside}, x[n, h - {pad}, w - {pad}, c], i8(0))"""
    source, row, col = "xp" if pad else "x", f"p_1 * {v.stride} + r", f"q_1 * {v.stride} + s"

    def every(suffix: str) -> str:
        return f"""
    for n{suffix} in range({v.batch}):
        for p{suffix} in range({v.out_rows}):
            for q{suffix} in range({v.out_cols}):
                for k{suffix} in range({v.kernels}):
                    """

    return parse(f"""
@kernel
def conv(x: i8[{v.batch}, {v.rows}, {v.cols}, {v.channels}], f: i8[{v.window}, {v.window}, {v.channels}, {v.kernels}],
         y: i8[{v.batch}, {v.out_rows}, {v.out_cols}, {v.kernels}]):{padded if pad else ""}
    acc = alloc(i32[{v.batch}, {v.out_rows}, {v.out_cols}, {v.kernels}]){every("_0")}acc[n_0, p_0, q_0, k_0] = 0{every("_1")}\
for r in range({v.window}):
                        for s in range({v.window}):
                            for c_1 in range({v.channels}):
                                acc[n_1, p_1, q_1, k_1] += {source}[n_1, {row}, {col}, c_1] * f[r, s, c_1, k_1]\
{every("_2")}y[n_2, p_2, q_2, k_2] = i8(min(max(acc[n_2, p_2, q_2, k_2], -128), 127))
""")


@dataclass(frozen=True, slots=True)
class Workload:
    """What is run: its kernel, the default's cycles, rows that pass the array for weights of ``depth`` x ``width``, the arrays that are
    read and written, loop forms that may be used, values of knobs where the search starts.
    """

    name: str
    kernel: Callable[[], Kernel]
    default: Callable[[Configuration], int]
    rows: int
    depth: int
    width: int
    read: tuple[Stored, ...]
    written: Stored
    forms: tuple[str, ...]
    starts: tuple[Mapping[str, int], ...] = ()

    @staticmethod
    def of_product(m: int, k: int, n: int) -> Workload:
        a, b, c = _starts(m * k, k * n)
        gemm = Gemm(m, n, k, a, b, c)
        return Workload(
            f"{m} x {k} x {n}",
            lambda: product(m, k, n),
            lambda c: simulate(default_ws(c, gemm), c).cycles,
            *(m, k, n),
            (Stored(m, k, BLOCK), Stored(k, n, BLOCK)),
            Stored(m, n, BLOCK),
            ("loop_ws",),
        )

    @staticmethod
    def of_convolution(v: Convolution) -> Workload:
        pixels, outputs = v.batch * v.rows * v.cols, v.batch * v.out_rows * v.out_cols
        depth = v.window**2 * v.channels
        x, f, y = _starts(pixels * v.channels, depth * v.kernels)
        name = f"{v.batch} x {v.rows} x {v.cols} x {v.channels} to {v.kernels}, {v.window} x {v.window}" + (
            f", stride {v.stride}" if v.stride > 1 else ""
        )
        # Pixels between the windows are not needed. Which rows a move takes is open here.
        needed = pixels if v.stride <= v.window else outputs * v.window**2
        return Workload(
            name,
            # Without a window, and with each pixel read once, it is a product: the library's default says so, too.
            lambda: product(outputs, v.channels, v.kernels) if v.window == v.stride == 1 else convolution(v),
            lambda c: simulate(default_conv(c, v, x, f, y), c).cycles,
            *(outputs, depth, v.kernels),
            (Stored(needed, v.channels, 1), Stored(depth, v.kernels, 1)),
            Stored(outputs, v.kernels, 1),
            ("loop_ws", "loop_conv_ws") if v.window == 1 else ("loop_conv_ws",),
            () if v.window == v.stride == 1 else (library_tiles(v),),
        )


def library_tiles(v: Convolution) -> dict[str, int]:
    """The tiles of the library's heuristic as values of our knobs: blocks of columns and channels, single rows and pixels of the window."""
    c = Configuration.of(load_machine("gemmini"))
    whole = {"N": v.batch, "P": v.out_rows, "Q": v.out_cols, "K": v.kernels, "R": v.window, "S": v.window, "C": v.channels}
    tile = convolution_tile(c, whole, (v.apart, v.apart))
    loops = {"N": "n_1", "P": "p_1", "Q": "q_1", "K": "k_1", "R": "r", "S": "s", "C": "c_1"}
    return {f"{loop}_tiles": -(-tile[d] // (c.dim if d in "QKC" else 1)) for d, loop in loops.items()}


def _starts(*sizes: int) -> list[int]:
    """Where arrays begin: each where a request may, as those of timed programs."""
    out = [0x8000_0000]
    for size in sizes:
        out.append(out[-1] + -(-size // 64) * 64)
    return out


def row(w: Workload, measured: int, orders: int, paid: int) -> Row:
    """One workload. The array takes at least ``dim`` cycles for the weights of a block; reads and writes have a bus each.

    ``paid`` are the cycles that every program takes besides those.
    """
    machine = load_machine("gemmini")
    c = Configuration.of(machine)
    array = -(-w.depth // c.dim) * -(-w.width // c.dim) * max(w.rows, c.dim)
    read = sum(s.rows * s.cols for s in w.read)
    bus = max(read, w.written.rows * w.written.cols) // c.bus_bytes
    timing = Timing(in_flight=c.requests)
    moves = max(read_cycles(c, timing, w.read), write_cycles(c, timing, (w.written,)))
    found = tuned(w.kernel(), machine, measured=measured, orders=orders, forms=w.forms, starts=w.starts)
    macs, least = w.rows * w.depth * w.width, max(array, bus, moves) + paid
    return Row(w.name, macs, array, bus, moves, least, w.default(c), found.cycles, found.measured, found.orders, found.schedule)


def workloads(kind: str, only: str) -> list[Workload]:
    """Those of a table whose names without spaces contain ``only``."""
    every = (
        [Workload.of_product(*shape) for shape in (*PUBLISHED, *ODD)]
        if kind == "products"
        else [Workload.of_convolution(v) for v in CONVOLUTIONS]
    )
    return [w for w in every if only in w.name.replace(" ", "")]


def numbered(kind: str, only: str, measured: int, orders: int, paid: int, number: int) -> Row:
    """The row of one of :func:`workloads`, for another process: workloads hold functions, which do not travel."""
    return row(workloads(kind, only)[number], measured, orders, paid)


def rows_of(pool: ProcessPoolExecutor, kind: str, options: argparse.Namespace, least: int, kept: Mapping[str, Row]) -> list[Future[Row]]:
    """The rows of a table in its order: those that are ``kept``, by their workloads, and those that the pool makes."""
    out: list[Future[Row]] = []
    for number, w in enumerate(workloads(kind, options.only)):
        if w.name in kept:
            out.append(Future())
            out[-1].set_result(kept[w.name])
        else:
            out.append(pool.submit(numbered, kind, options.only, options.measured, options.orders, least, number))
    return out


def earlier(options: argparse.Namespace) -> dict[str, dict[str, Row]]:
    """By kind and workload the rows that an earlier run left in its file; nothing unless it is to be resumed."""
    if not (options.resume and options.json and options.json.exists()):
        return {kind: {} for kind in HEADS}
    found = json.loads(options.json.read_text())
    return {kind: {r["workload"]: Row(**r) for r in found.get(kind, ())} for kind in HEADS}


def paid() -> int:
    """What every program pays for its first load, the way through the array and its last store: a product of 2 x 2 x 2, without the
    cycles in which its only weights are in the array's way, and those of its own six requests.
    """
    machine = load_machine("gemmini")
    found = tuned(product(2, 2, 2), machine, measured=1)
    return timed(found.program, machine).cycles - Configuration.of(machine).dim - 6


def line(r: Row) -> str:
    far = r.above > 0.05
    closed, possible = (f"{r.closed:.0%}", f"{r.closed_of_possible:.0%}") if far else ("-", "-")
    use = f"{r.macs / 256 / r.ours:.1%}"
    figures = f"{r.array:,} | {r.bus:,} | {r.moves:,} | {r.least:,} | {r.default:,} | {r.ours:,} | {r.ours / r.default:.3f}"
    return f"| {r.workload} | {figures} | {use} | {closed} | {possible} |"


COLUMNS = "array | bus | moves | least | default | ours | ours/default | utilisation | gap closed | of what can be |"
HEADS = {kind: f"| {first} | {COLUMNS}\n|{'---|' * 11}" for kind, first in (("products", "m x k x n"), ("convolutions", "convolution"))}


def summary(rows: Sequence[Row]) -> str:
    far = [r for r in rows if r.above > 0.05]
    slower = [r.workload for r in rows if r.ours > r.default]
    named = f" (slower: {', '.join(slower)})" if slower else ""
    never = sum((r.default + r.bound) / 2 < r.least for r in far)
    return (
        f"Not slower than the default: {len(rows) - len(slower)} of {len(rows)}{named}. "
        f"At least half of the gap closed: {sum(r.closed >= 0.5 for r in far)} of the {len(far)} with a gap of more than 5 %; "
        f"for {never} of those half of the gap is below `least`."
    )


def insert(page: Path, kind: str, rows: Sequence[Row]) -> None:
    """Replaces what is between the marks of a table in a page."""
    text = page.read_text()
    start, end = (text.index(mark) for mark in (f"<!-- {kind} -->", f"<!-- end of {kind} -->"))
    table = "\n".join(["", HEADS[kind], *map(line, rows), "", summary(rows), ""])
    page.write_text(text[:start] + f"<!-- {kind} -->" + table + text[end:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=int, default=20, help="schedules measured for each workload")
    parser.add_argument("--orders", type=int, default=800, help="orders of the commands of short programs tried for each workload")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time; the figures do not depend on it")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--resume", action="store_true", help="keep the rows that the file has: an earlier run was cut short")
    parser.add_argument("--markdown", type=Path, help="put the tables into this page, in place of those there")
    parser.add_argument("--only", default="", help="only workloads whose name without spaces contains this")
    options = parser.parse_args()
    least, kept = paid(), earlier(options)
    with ProcessPoolExecutor(options.jobs) as pool:
        found = {kind: rows_of(pool, kind, options, least, kept[kind]) for kind in HEADS}
        for kind, head in HEADS.items():
            print(head)
            rows = []
            for r in (future.result() for future in found[kind]):
                rows.append(r)
                kept[kind][r.workload] = r
                print(line(r), flush=True)
                if options.json:
                    written = {k: [asdict(x) for x in v.values()] for k, v in kept.items()}
                    options.json.write_text(json.dumps(written, indent=1) + "\n")
            print(f"\n{summary(rows)}\n", flush=True)
            if options.markdown:
                insert(options.markdown, kind, rows)


if __name__ == "__main__":
    main()
