"""Explicit commands against runs of the hardware's loop form, both on the cycle model of a 16 x 16 Gemmini.

    python -m benchmarks.gemmini_forms [--measured N] [--json FILE] [--only TEXT]

For each product of the list of ``gemmini_codegen``: words and cycles of the vendor's default (``default_ws``); of the same tiles as runs of
``loop_ws`` that the compiler recognised; and of the best of N schedules of our space, as explicit commands and as runs. Nothing is
timed: the figures depend on the models alone.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.gemmini_codegen import ODD, PUBLISHED, product

from tilewright.codegen.commands import Program, check, generate, stream
from tilewright.hw import Machine, load_machine
from tilewright.ir.stmt import Kernel
from tilewright.schedule import Schedule
from tilewright.sim.gemmini import Configuration, simulate
from tilewright.sim.gemmini.baseline import Gemm, default_tiles, default_ws
from tilewright.sim.gemmini.generated import timed
from tilewright.sim.gemmini.tuning import tuned

FORMS = ("loop_ws",)


@dataclass(frozen=True, slots=True)
class Row:
    """Words and cycles of the default, of its tiles as runs, of our best explicit program, and of our best with runs to choose from."""

    m: int
    k: int
    n: int
    default_words: int
    default: int
    tiles_words: int
    tiles: int
    explicit_words: int
    explicit: int
    best_words: int
    best: int
    schedule: str


def in_tiles(kernel: Kernel, machine: Machine, tile: tuple[int, ...]) -> Kernel:
    """Scheduled by hand in tiles of so many elements along m, n and k."""
    s, dim = Schedule(kernel, machine), machine.parameters["dim"]
    io, ii = s.split("i_2", tile[0], "clip")
    jo, ji = s.split("j_2", tile[1], "clip")
    s.reorder(io, jo, ii, ji)
    s.compute_at("acc", jo)
    s.set_memory("acc", "acc")
    ko, ki = s.split("k", tile[2], "clip")
    s.reorder(ko, "i_1", "j_1", ki)
    for name in ("a", "b"):
        s.cache_read(name, ko, "spad", f"1/{dim} 0 1")
    it, ii = s.split("i_1", dim, "clip")
    jt, ji = s.split("j_1", dim, "clip")
    kt, ki = s.split(ki, dim, "clip")
    s.reorder(kt, jt, it, ii, ji, ki)
    s.layout("acc", f"1/{dim} 0 1")
    s.tensorize(ii, "matmul")
    return s.kernel


def words(program: Program, machine: Machine) -> int:
    """What the host issues, fences included."""
    addresses = {b.name: n << 32 for n, b in enumerate(program.args, 1)}
    return sum(1 for _ in stream(program, machine, addresses))


def row(m: int, k: int, n: int, measured: int) -> Row:
    machine = load_machine("gemmini")
    c = Configuration.of(machine)
    starts = [0x8000_0000]
    for size in (m * k, k * n):
        starts.append(starts[-1] + -(-size // 64) * 64)
    issued = list(default_ws(c, Gemm(m, n, k, *starts)))
    default = simulate(iter(issued), c).cycles
    kernel = product(m, k, n)
    tile = tuple(c.dim * blocks for blocks in default_tiles(c, m, n, k))
    tiles = generate(in_tiles(kernel, machine, tile), machine, forms=FORMS)
    check(tiles, machine)
    explicit, best = (tuned(kernel, machine, measured=measured, forms=forms) for forms in ((), FORMS))
    return Row(
        *(m, k, n, len(issued), default, words(tiles, machine), timed(tiles, machine).cycles),
        *(words(explicit.program, machine), explicit.cycles, words(best.program, machine), best.cycles, best.schedule),
    )


def line(r: Row) -> str:
    by = "loop_ws" if r.schedule.endswith("by loop_ws") else "explicit"
    return (
        f"| {r.m} x {r.k} x {r.n} | {r.default_words:,} | {r.default:,} | {r.tiles_words:,} | {r.tiles:,} "
        f"| {r.explicit_words:,} | {r.explicit:,} | {r.best_words:,} | {r.best:,} | {by} |"
    )


COLUMNS = ("m x k x n", *(f"{who}: {what}" for who in ("default", "its tiles", "explicit", "best") for what in ("words", "cycles")), "by")
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def summary(rows: list[Row]) -> str:
    by = sum(r.schedule.endswith("by loop_ws") for r in rows)
    apart = sorted({r.tiles - r.default for r in rows})
    return (
        f"Cycles of the default's tiles by our runs less those of the default: {', '.join(map(str, apart))}. "
        f"The form is chosen for {by} of {len(rows)}; of them {sum(r.best < r.explicit for r in rows)} take fewer cycles than by commands."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=int, default=20, help="schedules measured for each product")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--only", default="", help="only products whose MxKxN contains this")
    options = parser.parse_args()
    print(HEAD)
    rows = []
    for shape in (*ODD, *PUBLISHED):
        if options.only in "x".join(map(str, shape)):
            rows.append(row(*shape, options.measured))
            print(line(rows[-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")
    print(f"\n{summary(rows)}")


if __name__ == "__main__":
    main()
