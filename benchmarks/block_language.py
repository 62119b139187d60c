"""Block programs against NumPy and PyTorch: the six programs of examples/block_*.py on sizes of common tutorials.

    python -m benchmarks.block_language [--threads 1 2] [--repeats 15] [--only REGEX] [--json FILE] [--markdown FILE]

Every result is checked before it is timed. Contenders run in turns: a ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np
from benchmarks.report import Table, conditions, duration, geometric_mean, matching, noise, parser, publish, threads_option, threads_text
from examples.block_attention import attention
from examples.block_matmul import grouped_matmul, matmul
from examples.block_vectors import add, layer_norm, softmax

import tilewright as tw
from tilewright.runtime.measurement import Measurement

SECTION = "block programs"
#: What is timed: a launch bound once, and NumPy's (and PyTorch's) way to the same result.
Contenders = dict[str, Callable[[], Any]]


def bound(program: Any, grid: Any, *arguments: Any, **keywords: Any) -> Callable[[], Any]:
    """The launch with its arguments checked once, compiled for as many threads as are allowed now."""
    function = tw.jit(program.block_function)
    launch, values = function.specialized(grid, function.bound(arguments, keywords), build=True)
    return launch.module.bind(*values)


def vector_add(n: int, rng: np.random.Generator, torch: Any) -> tuple[Contenders, np.ndarray, np.ndarray]:
    x, y = rng.standard_normal((2, n), np.float32)
    out, other = np.zeros_like(x), np.zeros_like(x)
    run: Contenders = {"block": bound(add, (tw.cdiv(n, 1024),), x, y, out, n, BLOCK=1024), "numpy": lambda: np.add(x, y, out=other)}
    if torch:
        a, b, c = torch.from_numpy(x), torch.from_numpy(y), torch.zeros(n)
        run["torch"] = lambda: torch.add(a, b, out=c)
    return run, out, x + y


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def fused_softmax(rows: int, cols: int, rng: np.random.Generator, torch: Any) -> tuple[Contenders, np.ndarray, np.ndarray]:
    x = rng.standard_normal((rows, cols), np.float32)
    out = np.zeros_like(x)
    sizes = {"PROGRAMS": 8, "BLOCK": tw.next_power_of_2(cols)}
    run: Contenders = {"block": bound(softmax, (8,), out, x, cols, cols, rows, cols, **sizes), "numpy": lambda: _softmax(x)}
    if torch:
        t = torch.from_numpy(x)
        run["torch"] = lambda: torch.softmax(t, -1)
    return run, out, _softmax(x)


def normalisation(rows: int, n: int, rng: np.random.Generator, torch: Any) -> tuple[Contenders, np.ndarray, np.ndarray]:
    x, (w, b) = rng.standard_normal((rows, n), np.float32), rng.standard_normal((2, n), np.float32)
    out, mean, rstd = np.zeros_like(x), np.zeros(rows, np.float32), np.zeros(rows, np.float32)

    def plain() -> np.ndarray:
        return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * w + b

    run: Contenders = {"block": bound(layer_norm, (rows,), x, out, w, b, mean, rstd, n, n, 1e-5, BLOCK=1024), "numpy": plain}
    if torch:
        t, tw_, tb = torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(b)
        run["torch"] = lambda: torch.nn.functional.layer_norm(t, (n,), tw_, tb, 1e-5)
    return run, out, plain()


def product(m: int, n: int, k: int, rng: np.random.Generator, torch: Any) -> tuple[Contenders, np.ndarray, np.ndarray]:
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    c, other = np.zeros((m, n), np.float32), np.zeros((m, n), np.float32)
    grid = (tw.cdiv(m, 64) * tw.cdiv(n, 64),)
    sizes = {"BM": 64, "BN": 64, "BK": 32, "GROUP": 8}
    run: Contenders = {
        "block": bound(matmul, grid, a, b, c, m, n, k, k, 1, n, 1, n, 1, **sizes),
        "numpy": lambda: np.matmul(a, b, out=other),
    }
    if torch:
        ta, tb, tc = torch.from_numpy(a), torch.from_numpy(b), torch.zeros(m, n)
        run["torch"] = lambda: torch.matmul(ta, tb, out=tc)
    return run, c, a @ b


def heads(count: int, n: int, width: int, causal: bool, rng: np.random.Generator, torch: Any) -> tuple[Contenders, np.ndarray, np.ndarray]:
    q, k, v = rng.standard_normal((3, 1, count, n, width), np.float32)
    out = np.zeros_like(q)
    seen = np.tril(np.ones((n, n), bool)) | (not causal)

    def plain() -> np.ndarray:
        return _softmax(np.where(seen, q @ k.swapaxes(-1, -2) * width**-0.5, -np.inf)) @ v

    strides = (count * n * width, n * width, width, 1)
    sizes = {"CAUSAL": causal, "WIDTH": width, "BM": 64, "BN": 32}
    run: Contenders = {
        "block": bound(attention, (tw.cdiv(n, 64), count), q, k, v, out, width**-0.5, *strides, count, n, **sizes),
        "numpy": plain,
    }
    if torch:
        tq, tk, tv = (torch.from_numpy(x) for x in (q, k, v))
        run["torch"] = lambda: torch.nn.functional.scaled_dot_product_attention(tq, tk, tv, is_causal=causal)
    return run, out, plain()


def group(shapes: tuple[tuple[int, int, int], ...], rng: np.random.Generator, torch: Any) -> tuple[Contenders, np.ndarray, np.ndarray]:
    left = tuple(rng.standard_normal((m, k), np.float32) for m, _, k in shapes)
    right = tuple(rng.standard_normal((k, n), np.float32) for _, n, k in shapes)
    out = tuple(np.zeros((m, n), np.float32) for m, n, _ in shapes)
    sizes = {"PROGRAMS": 8, "BM": 64, "BN": 64, "BK": 32}
    run: Contenders = {
        "block": bound(grouped_matmul, (8,), left, right, out, shapes, **sizes),
        "numpy": lambda: [a @ b for a, b in zip(left, right, strict=True)],
    }
    if torch:
        tl, tr = [torch.from_numpy(a) for a in left], [torch.from_numpy(b) for b in right]
        run["torch"] = lambda: [a @ b for a, b in zip(tl, tr, strict=True)]
    return run, out[0], left[0] @ right[0]


#: Name -> what makes the contenders.
WORKLOADS: dict[str, Callable[[np.random.Generator, Any], tuple[Contenders, np.ndarray, np.ndarray]]] = {
    "add 98432": lambda r, t: vector_add(98_432, r, t),
    "add 4M": lambda r, t: vector_add(1 << 22, r, t),
    "softmax 1823x781": lambda r, t: fused_softmax(1823, 781, r, t),
    "softmax 512x4096": lambda r, t: fused_softmax(512, 4096, r, t),
    "layer_norm 1151x8192": lambda r, t: normalisation(1151, 8192, r, t),
    "matmul 512": lambda r, t: product(512, 512, 512, r, t),
    "matmul 1000x700x300": lambda r, t: product(1000, 700, 300, r, t),
    "attention 8x1024x64": lambda r, t: heads(8, 1024, 64, False, r, t),
    "attention causal 8x1024x64": lambda r, t: heads(8, 1024, 64, True, r, t),
    "grouped 1024,512,256,128": lambda r, t: group(tuple((n, n, n) for n in (1024, 512, 256, 128)), r, t),
}


def measured(name: str, threads: int, repeats: int) -> Measurement:
    """``name`` timed against its peers; SystemExit when the block program computes something else."""
    torch = _torch(threads)
    run, got, want = WORKLOADS[name](np.random.default_rng(0), torch)
    run["block"]()
    if not np.allclose(got, want, rtol=1e-3, atol=1e-3):
        raise SystemExit(f"{name}: results differ by {np.abs(got - want).max():.1e}")
    with torch.no_grad() if torch else nullcontext():
        return tw.measure(run, repeats=repeats, threads=threads)


def table(results: dict[str, Measurement], threads: int) -> Table:
    """Times of the block programs, and how many times as long the others take."""
    peers = list(dict.fromkeys(t.name for m in results.values() for t in m.timings if t.name != "block"))
    ratios = {p: [m.ratio("block", over=p) for m in results.values()] for p in peers}
    rows = tuple(
        (name, duration(m["block"].median), *(f"{ratios[p][n]:.2f}" for p in peers)) for n, (name, m) in enumerate(results.items())
    )
    means = ", ".join(f"{p} {geometric_mean(ratios[p]):.2f}" for p in peers)
    notes = (f"Time of the others over that of the block program: above 1, it is faster. Geometric means: {means}.", *noise(results))
    return Table(f"Block programs, {threads_text(threads)}", ("program", "median", *(f"{p} / block" for p in peers)), rows, notes)


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    threads_option(p)
    p.add_argument("--repeats", type=int, default=15, help="rounds (default: %(default)s)")
    options: argparse.Namespace = p.parse_args(arguments)
    names = matching(p, options.only, WORKLOADS, "program")
    around, tables, rows = conditions(), [], []
    for threads in options.threads:
        with _threads(threads):
            results = {name: measured(name, threads, options.repeats) for name in names}
        tables.append(table(results, threads))
        rows += [{"workload": name, "threads": threads, **asdict(m)} for name, m in results.items()]
    publish(options, SECTION, tables, around, rows)
    return 0


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """What is compiled inside runs on ``count`` threads."""
    before = os.environ.get("TILEWRIGHT_THREADS")
    os.environ["TILEWRIGHT_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TILEWRIGHT_THREADS"]
        else:
            os.environ["TILEWRIGHT_THREADS"] = before


def _torch(threads: int) -> Any:
    """PyTorch with as many threads, or None."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    return torch


if __name__ == "__main__":
    sys.exit(main())
