"""How long compiling takes: a network cold and from the cache, one kernel, and the import.

    python -m benchmarks.compile_time [--network NAME] [--repeats N] [--json FILE] [--markdown FILE]

Every figure comes from fresh processes with a build cache of their own. Python's byte code is
written beforehand, as an installed package has it; without it (PYTHONDONTWRITEBYTECODE) every
process compiles the package's source first.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Table, conditions, parser, publish

SECTION = "compile time"

IMPORT = "import time; t = time.perf_counter(); import tilewright; print(time.perf_counter() - t)"

#: Schedules and builds three matrix products of different sizes; prints the seconds of the first and the last.
KERNELS = """
import time
from tilewright import lang
from tilewright.ir.types import f32
from tilewright.runtime import build
from tilewright.space.default import default_schedule

def compiled(m, n, k):
    start = time.perf_counter()
    a, b = lang.tensor("a", f32, (m, k)), lang.tensor("b", f32, (k, n))
    kernel = lang.build("gemm", [a, b], [lang.einsum("ik,kj->ij", a, b)])
    build(default_schedule(kernel, threads=1).kernel, threads=1, cache=False)
    return time.perf_counter() - start

print(*[compiled(512, 512, 512), compiled(512, 512, 640), compiled(512, 512, 768)])
"""

#: Compiles a network; prints seconds from before the first import, and of the call alone.
NETWORK = """
import sys, time
start = time.perf_counter()
from benchmarks.networks import SYMBOLIC, model
proto = model(sys.argv[1]).SerializeToString()
ready = time.perf_counter()
from tilewright.graph import compile
network = compile(proto, threads=1, dims={"batch": 1} if sys.argv[1] in SYMBOLIC else None)
print(time.perf_counter() - ready, len({s.call.kernel for s in network.steps}))
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """Seconds of one thing, one sample a process; ``limit`` is what is wanted of the median."""

    name: str
    samples: tuple[float, ...]
    limit: float | None = None

    def row(self) -> tuple[str, ...]:
        median = statistics.median(self.samples)
        wanted = "" if self.limit is None else f"{_text(self.limit)}{'' if median <= self.limit else ' missed'}"
        return self.name, str(len(self.samples)), _text(min(self.samples)), _text(median), wanted

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "samples": self.samples, "limit": self.limit}


def _text(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"


@dataclass(frozen=True, slots=True)
class Processes:
    """Runs code in fresh interpreters that share byte code and, unless told otherwise, a build cache below ``folder``."""

    folder: Path

    def numbers(self, code: str, *arguments: str, cache: str = "cache") -> list[float]:
        """What the code prints, as numbers."""
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"), "TILEWRIGHT_CACHE": str(self.folder / cache)}
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        return [float(v) for v in done.stdout.split()]


def figures(network: str, repeats: int, only: str) -> list[Figure]:
    """All figures whose name matches ``only``."""
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(Path(folder))
        out = []
        if re.search(only, "import"):
            processes.numbers(IMPORT)
            out.append(Figure("import tilewright", tuple(processes.numbers(IMPORT)[0] for _ in range(repeats)), 0.3))
        if re.search(only, "kernel"):
            processes.numbers(KERNELS)
            runs = [processes.numbers(KERNELS) for _ in range(repeats)]
            out.append(Figure("GEMM kernel, first of a process (imports, host detection)", tuple(r[0] for r in runs)))
            out.append(Figure("GEMM kernel, later", tuple(r[2] for r in runs), 0.15))
        if re.search(only, network):
            processes.numbers(NETWORK, network, cache="filled")
            cold = [processes.numbers(NETWORK, network, cache=f"cold{n}")[0] for n in range(max(1, repeats // 4))]
            warm = [processes.numbers(NETWORK, network, cache="filled")[0] for _ in range(repeats)]
            out += [Figure(f"{network}, cold", tuple(cold), 60.0), Figure(f"{network}, from the cache", tuple(warm), 3.0)]
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    p.add_argument("--network", default="resnet50", help="one of benchmarks/networks.py (default: %(default)s)")
    p.add_argument("--repeats", type=int, default=9, help="processes for each figure (default: %(default)s)")
    options: argparse.Namespace = p.parse_args(arguments)
    where = conditions()
    found = figures(options.network, options.repeats, options.only)
    if not found:
        p.error(f"nothing matches {options.only!r}; there are: import, kernel, {options.network}")
    columns = ("what", "processes", "min", "median", "wanted")
    publish(options, SECTION, [Table("Compile time", columns, tuple(f.row() for f in found))], where, [f.to_json() for f in found])
    return 0


if __name__ == "__main__":
    sys.exit(main())
