"""A kernel of your own: written as loops, scheduled by hand and by the rules, checked, timed.

python examples/kernels.py
tilewright explain examples/kernels.py:gemm
tilewright build examples/kernels.py:gemm --emit obj -o gemm.o
"""

from __future__ import annotations

import numpy as np

import tilewright as tw
from tilewright.lang import f32, kernel
from tilewright.util.errors import ScheduleError

M, N, K = 252, 256, 128


@kernel
def gemm(a: f32[M, K], b: f32[K, N], c: f32[M, N]):
    for i in range(M):
        for j in range(N):
            c[i, j] = 0.0
    for i in range(M):
        for j in range(N):
            for k in range(K):
                c[i, j] += a[i, k] * b[k, j]


def by_hand() -> tw.Schedule:
    """Tiles of 14 x 32 in registers: the init and the product of a tile run one after the other."""
    sch = tw.Schedule(gemm)
    _, jo, ii, ji = sch.tile(["i_1", "j_1"], [14, 32])
    sch.reorder("k", ii, ji)
    sch.cache_write("c", jo, "reg")
    sch.vectorize(ji)
    sch.unroll(ii)
    return sch


def main() -> None:
    """Refuse what would be wrong, check what is right, and time it."""
    try:
        tw.Schedule(gemm).parallel("k")
    except ScheduleError as error:
        print(f"refused: {error}\n")
    modules = {"as written": tw.build(gemm, threads=1), "by hand": tw.build(by_hand(), threads=1)}
    modules["by rule"] = tw.build(tw.default_schedule(gemm, threads=1), threads=1)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((M, K), (K, N)))
    for name, module in modules.items():
        worst = max(tw.check(module, gemm).worst.values())
        print(f"{name}: right, error {worst:.2g} of what rounding allows")
    calls = {name: module.bind(a, b) for name, module in modules.items()}
    times = tw.measure(calls, repeats=7, threads=1)
    for t in times.timings:
        print(f"{t.name}: {2 * M * N * K / t.min / 1e9:.1f} GFLOP/s")


if __name__ == "__main__":
    main()
