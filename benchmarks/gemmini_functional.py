"""How fast the functional model of Gemmini runs: int8 matrix products, as the vendor's library would issue them.

    python -m benchmarks.gemmini_functional [--repeats 3] [--only REGEX] [--json FILE] [--markdown FILE]

Each product is run as runs of the hardware's loop (``loop_ws``), as the commands which these expand to, and as the words of those,
which are decoded on the way. Its result is compared with NumPy's, bit by bit. Wall time, median of the runs; making the
commands is not timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from benchmarks.report import Table, conditions, duration, matching, parser, publish

from tilewright.hw import load_machine
from tilewright.sim.gemmini import Configuration, Functional, MainMemory, isa
from tilewright.sim.gemmini.baseline import Gemm, default_ws
from tilewright.sim.gemmini.expansion import Loops
from tilewright.sim.gemmini.loop_ws import matmul
from tilewright.sim.gemmini.words import encode

SECTION = "functional model"
#: m, n, k.
SHAPES = {f"{n}^3": (n, n, n) for n in (256, 512, 1024)} | {"1 x 4096 x 4096": (1, 4096, 4096)}
FORMS = ("loop_ws", "commands", "words")
_SCALE = 2.0**-10


def issued(form: str, c: Configuration, gemm: Gemm) -> list[Any]:
    """The product as loops, as what these expand to, or as the words of that (a fence has none)."""
    if form == "loop_ws":
        return list(default_ws(c, gemm))
    loops, out = Loops(c), list[isa.Command]()
    for x in default_ws(c, gemm):
        if isinstance(x, isa.LOOP_REGISTERS):
            loops.configure(x)
        else:
            out += matmul(loops, x) if isinstance(x, isa.LoopWs) else [x]
    return [encode(x) for x in out if not isinstance(x, isa.Fence)] if form == "words" else list(out)


def measured(name: str, form: str, repeats: int) -> dict[str, Any]:
    """Seconds of each run; SystemExit where a result differs from NumPy's."""
    m, n, k = SHAPES[name]
    rng = np.random.default_rng(0)
    c = Configuration.of(load_machine("gemmini"))
    a, b = rng.integers(-128, 128, (m, k), np.int8), rng.integers(-128, 128, (k, n), np.int8)
    sums = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)  # exact: below 2^53
    want = np.clip(np.rint(sums * np.float32(_SCALE)), -128, 127).astype(np.int8)
    samples, count = [], 0
    for _ in range(repeats):
        memory = MainMemory(1 << 23 if max(a.size, b.size) < 1 << 21 else 1 << 25)
        gemm = Gemm(m, n, k, memory.place(a), memory.place(b), memory.place(np.zeros((m, n), np.int8)), isa.f32_bits(_SCALE))
        program = issued(form, c, gemm)
        model = Functional(c, memory)
        start = time.perf_counter()
        model.run(program)
        samples.append(time.perf_counter() - start)
        count = len(program)
        if not np.array_equal(memory.array(gemm.c, (m, n), np.int8), want):
            raise SystemExit(f"{name} by {form}: the result differs from NumPy's")
    blocks = [-(-extent // c.dim) for extent in (m, n, k)]
    return {"name": name, "form": form, "commands": count, "computes": blocks[0] * blocks[1] * blocks[2], "samples": samples}


def table(rows: Iterable[dict[str, Any]], repeats: int) -> Table:
    """Time, computes a second, and multiplications a second of each product."""
    cells = []
    for r in rows:
        seconds = statistics.median(r["samples"])
        m, n, k = SHAPES[r["name"]]
        rates = (f"{r['computes'] / seconds:,.0f}", f"{m * n * k / seconds / 1e6:,.0f}")
        cells.append((r["name"], r["form"], f"{r['commands']:,}", f"{r['computes']:,}", duration(seconds), *rates))
    columns = ("m x n x k", "as", "issued", "computes", "time", "computes / s", "million products / s")
    return Table("Functional model, 16 x 16, int8", columns, tuple(cells), (f"One thread, median of {repeats} runs.",))


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    p.add_argument("--repeats", type=int, default=3, help="runs of each (default: %(default)s)")
    options: argparse.Namespace = p.parse_args(arguments)
    names = matching(p, options.only, (f"{s} {f}" for s in SHAPES for f in FORMS), "product")
    around = conditions()
    rows = [measured(*name.rsplit(" ", 1), options.repeats) for name in names]
    publish(options, SECTION, [table(rows, options.repeats)], around, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
