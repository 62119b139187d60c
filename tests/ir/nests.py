"""Loop nests with in-place updates, triangular bounds and wavefronts, each with an independent oracle.

``NESTS[name]`` is a :class:`Nest`: a kernel in the kernel language and a plain NumPy or Python
function that updates the same arrays. They are data for tests of every package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tilewright.ir.stmt import Kernel
from tilewright.lang import parse

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Nest:
    """A kernel, a maker of valid arguments from a seed, and an oracle that updates them in place."""

    kernel: Kernel
    arguments: Callable[[int], Arrays]
    oracle: Callable[[Arrays], None]


def _lu_arguments(seed: int, n: int = 12) -> Arrays:
    rng = np.random.default_rng(seed)
    return {"A": rng.standard_normal((n, n)) + n * np.eye(n)}


def _lu(a: Arrays) -> None:
    m = a["A"]
    n = len(m)
    for k in range(n):  # right-looking elimination; the kernel is the row-wise form of PolyBench
        m[k + 1 :, k] /= m[k, k]
        m[k + 1 :, k + 1 :] -= np.outer(m[k + 1 :, k], m[k, k + 1 :])


LU = """
@kernel
def lu(A: f64[12, 12]):
    for i in range(12):
        for j in range(i):
            for k in range(j):
                A[i, j] -= A[i, k] * A[k, j]
            A[i, j] = A[i, j] / A[j, j]
        for j in range(i, 12):
            for k in range(i):
                A[i, j] -= A[i, k] * A[k, j]
"""


def _cholesky_arguments(seed: int, n: int = 12) -> Arrays:
    rng = np.random.default_rng(seed)
    b = rng.standard_normal((n, n))
    return {"A": b @ b.T + n * np.eye(n)}


def _cholesky(a: Arrays) -> None:
    m = a["A"]
    upper = np.triu(m, 1)
    m[...] = np.linalg.cholesky(m) + upper  # the strict upper triangle stays as it was


CHOLESKY = """
@kernel
def cholesky(A: f64[12, 12]):
    for i in range(12):
        for j in range(i):
            for k in range(j):
                A[i, j] -= A[i, k] * A[j, k]
            A[i, j] = A[i, j] / A[j, j]
        for k in range(i):
            A[i, i] -= A[i, k] * A[i, k]
        A[i, i] = sqrt(A[i, i])
"""


def _trmm_arguments(seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return {"A": rng.standard_normal((10, 10)), "B": rng.standard_normal((10, 13))}


def _trmm(a: Arrays) -> None:
    unit_lower = np.tril(a["A"], -1) + np.eye(10)
    a["B"][...] = 1.5 * (unit_lower.T @ a["B"])


TRMM = """
@kernel
def trmm(A: f64[10, 10], B: f64[10, 13]):
    for i, j in grid(10, 13):
        for k in range(i + 1, 10):
            B[i, j] += A[k, i] * B[k, j]
        B[i, j] = 1.5 * B[i, j]
"""


def _grid_arguments(seed: int) -> Arrays:
    return {"A": np.random.default_rng(seed).standard_normal((11, 11))}


def _seidel(a: Arrays) -> None:
    m = a["A"]
    for _ in range(3):
        for i in range(1, 10):
            for j in range(1, 10):
                m[i, j] = m[i - 1 : i + 2, j - 1 : j + 2].sum() / 9.0


SEIDEL_2D = """
@kernel
def seidel_2d(A: f64[11, 11]):
    for t in range(3):
        for i, j in grid(range(1, 10), range(1, 10)):
            A[i, j] = (A[i - 1, j - 1] + A[i - 1, j] + A[i - 1, j + 1] + A[i, j - 1] + A[i, j] + A[i, j + 1]
                       + A[i + 1, j - 1] + A[i + 1, j] + A[i + 1, j + 1]) / 9.0
"""


def _floyd_arguments(seed: int, n: int = 14) -> Arrays:
    return {"path": np.random.default_rng(seed).integers(1, 200, size=(n, n)).astype(np.int32)}


def _floyd(a: Arrays) -> None:
    m = a["path"]
    n = len(m)
    start = m.copy()
    for s in range(n):  # Bellman-Ford from every source; a node reaches itself at its own start cost or by a cycle
        distance = start[s].copy()
        for _ in range(n):
            distance = np.minimum(distance, (distance[:, None] + start).min(axis=0))
        m[s] = distance


FLOYD_WARSHALL = """
@kernel
def floyd_warshall(path: i32[14, 14]):
    for k in range(14):
        for i, j in grid(14, 14):
            path[i, j] = min(path[i, j], path[i, k] + path[k, j])
"""


def _nussinov_arguments(seed: int, n: int = 12) -> Arrays:
    rng = np.random.default_rng(seed)
    return {"seq": rng.integers(0, 4, size=n).astype(np.int8), "table": np.zeros((n, n), np.int32)}


def _nussinov(a: Arrays) -> None:
    seq, table = a["seq"], a["table"]
    n = len(seq)
    best: dict[tuple[int, int], int] = {}

    def score(i: int, j: int) -> int:
        """Most pairs within i..j, by the recursive definition (adjacent bases may not pair)."""
        if i >= j:
            return 0
        if (i, j) not in best:
            pair = int(seq[i] + seq[j] == 3) if i < j - 1 else 0
            options = [score(i, j - 1), score(i + 1, j), score(i + 1, j - 1) + pair]
            options += [score(i, k) + score(k + 1, j) for k in range(i + 1, j)]
            best[i, j] = max(options)
        return best[i, j]

    for i in range(n):
        for j in range(i + 1, n):
            table[i, j] = score(i, j)


NUSSINOV = """
@kernel
def nussinov(seq: i8[12], table: i32[12, 12]):
    for r in range(12):
        for j in range(12 - r, 12):
            table[11 - r, j] = max(table[11 - r, j], table[11 - r, j - 1])
            table[11 - r, j] = max(table[11 - r, j], table[12 - r, j])
            if 11 - r < j - 1:
                table[11 - r, j] = max(table[11 - r, j], table[12 - r, j - 1] + where(seq[11 - r] + seq[j] == 3, 1, 0))
            else:
                table[11 - r, j] = max(table[11 - r, j], table[12 - r, j - 1])
            for k in range(12 - r, j):
                table[11 - r, j] = max(table[11 - r, j], table[11 - r, k] + table[k + 1, j])
"""


def _jacobi_arguments(seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return {"A": rng.standard_normal((12, 12)), "B": rng.standard_normal((12, 12))}


def _jacobi(a: Arrays) -> None:
    for _ in range(3):
        for src, dst in (("A", "B"), ("B", "A")):
            m = a[src]
            a[dst][1:-1, 1:-1] = 0.2 * (m[1:-1, 1:-1] + m[1:-1, :-2] + m[1:-1, 2:] + m[2:, 1:-1] + m[:-2, 1:-1])


JACOBI_2D = """
@kernel
def jacobi_2d(A: f64[12, 12], B: f64[12, 12]):
    for t in range(3):
        for i, j in grid(range(1, 11), range(1, 11)):
            B[i, j] = 0.2 * (A[i, j] + A[i, j - 1] + A[i, j + 1] + A[i + 1, j] + A[i - 1, j])
        for i, j in grid(range(1, 11), range(1, 11)):
            A[i, j] = 0.2 * (B[i, j] + B[i, j - 1] + B[i, j + 1] + B[i + 1, j] + B[i - 1, j])
"""

NESTS: dict[str, Nest] = {
    "lu": Nest(parse(LU), _lu_arguments, _lu),
    "cholesky": Nest(parse(CHOLESKY), _cholesky_arguments, _cholesky),
    "trmm": Nest(parse(TRMM), _trmm_arguments, _trmm),
    "seidel-2d": Nest(parse(SEIDEL_2D), _grid_arguments, _seidel),
    "floyd-warshall": Nest(parse(FLOYD_WARSHALL), _floyd_arguments, _floyd),
    "nussinov": Nest(parse(NUSSINOV), _nussinov_arguments, _nussinov),
    "jacobi-2d": Nest(parse(JACOBI_2D), _jacobi_arguments, _jacobi),
}
