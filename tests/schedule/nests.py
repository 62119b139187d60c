"""In-place and triangular nests of PolyBench, whose loops depend on each other in hard ways."""

from __future__ import annotations

from tilewright.ir.stmt import Kernel
from tilewright.lang import parse

_TEXTS = """
@kernel(params=("N",))
def lu(A: f64[N, N]):
    for i in range(N):
        for j in range(i):
            for k in range(j):
                A[i, j] += 0.0 - A[i, k] * A[k, j]
            A[i, j] = A[i, j] / A[j, j]
        for j2 in range(i, N):
            for k2 in range(i):
                A[i, j2] += 0.0 - A[i, k2] * A[k2, j2]

@kernel(params=("N",))
def lu_right(A: f64[N, N]):
    for k in range(N):
        for i in range(k + 1, N):
            A[i, k] = A[i, k] / A[k, k]
        for i2 in range(k + 1, N):
            for j in range(k + 1, N):
                A[i2, j] = A[i2, j] - A[i2, k] * A[k, j]

@kernel(params=("N",))
def cholesky(A: f64[N, N]):
    for i in range(N):
        for j in range(i):
            for k in range(j):
                A[i, j] += 0.0 - A[i, k] * A[j, k]
            A[i, j] = A[i, j] / A[j, j]
        for k2 in range(i):
            A[i, i] += 0.0 - A[i, k2] * A[i, k2]
        A[i, i] = sqrt(abs(A[i, i]))

@kernel(params=("N",))
def trmm(A: f64[N, N], B: f64[N, N]):
    for i in range(N):
        for j in range(N):
            for k in range(i + 1, N):
                B[i, j] += A[k, i] * B[k, j]
            B[i, j] = 1.5 * B[i, j]

@kernel(params=("T", "N"))
def seidel(A: f64[N, N]):
    for t in range(T):
        for i in range(1, N - 1):
            for j in range(1, N - 1):
                A[i, j] = (A[i - 1, j - 1] + A[i - 1, j] + A[i, j - 1] + A[i, j] + A[i, j + 1] + A[i + 1, j] + A[i + 1, j + 1]) / 7.0

@kernel(params=("N",))
def floyd_warshall(P: f64[N, N]):
    for k in range(N):
        for i in range(N):
            for j in range(N):
                P[i, j] = min(P[i, j], P[i, k] + P[k, j])

@kernel(params=("N",))
def nussinov(S: i32[N], table: i32[N, N]):
    for d in range(N):
        for j in range(N - d, N):
            table[N - 1 - d, j] = max(table[N - 1 - d, j], table[N - 1 - d, j - 1])
            if d >= 1:
                table[N - 1 - d, j] = max(table[N - 1 - d, j], table[N - d, j])
                table[N - 1 - d, j] = max(table[N - 1 - d, j], table[N - d, j - 1] + S[j])
            for k in range(N - d, j):
                table[N - 1 - d, j] = max(table[N - 1 - d, j], table[N - 1 - d, k] + table[k + 1, j])

@kernel(params=("T", "N"))
def jacobi(A: f64[N, N], B: f64[N, N]):
    for t in range(T):
        for i in range(1, N - 1):
            for j in range(1, N - 1):
                B[i, j] = 0.2 * (A[i, j] + A[i, j - 1] + A[i, j + 1] + A[i + 1, j] + A[i - 1, j])
        for i2 in range(1, N - 1):
            for j2 in range(1, N - 1):
                A[i2, j2] = 0.2 * (B[i2, j2] + B[i2, j2 - 1] + B[i2, j2 + 1] + B[i2 + 1, j2] + B[i2 - 1, j2])

@kernel(params=("N",))
def gemm(A: f64[N, N], B: f64[N, N], C: f64[N, N]):
    for i in range(N):
        for j in range(N):
            C[i, j] = C[i, j] * 2.0
            for k in range(N):
                C[i, j] += A[i, k] * B[k, j]
"""

NESTS: dict[str, Kernel] = {k.name: k for k in (parse(t) for t in _TEXTS.strip().split("\n\n"))}
