"""Matrix products scheduled for a Gemmini by hand, with the primitives."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.schedule import Schedule

SATURATE = "i8(min(max(acc[i_2, j_2], -128), 127))"
RELU = "i8(min(max(acc[i_2, j_2], 0), 127))"
SCALE = "i8(min(max(round(f32(acc[i_2, j_2]) * 0.0123), -128), 127))"
SCALE_RELU = "i8(min(max(round(f32(acc[i_2, j_2]) * 0.5), 0), 127))"
FULL = "acc[i_2, j_2]"


@dataclass(frozen=True)
class Gemm:
    """C[m, n] = epilogue(A[m, k] B[k, n] + init) in tiles of ``tile`` elements along m, n, k."""

    m: int
    n: int
    k: int
    tile: tuple[int, int, int] = (32, 32, 32)
    init: str = "0"
    epilogue: str = SATURATE
    inputs: str = "i8"
    results: str = "i8"

    def kernel(self) -> Kernel:
        bias = {"bias[j]": f"bias: i32[{self.n}], ", "d[i, j]": f"d: i32[{self.m}, {self.n}], "}.get(self.init, "")
        out = "i32" if self.epilogue == FULL else self.results
        return parse(f"""
@kernel
def gemm(a: {self.inputs}[{self.m}, {self.k}], b: {self.inputs}[{self.k}, {self.n}], {bias}c: {out}[{self.m}, {self.n}]):
    acc = alloc(i32[{self.m}, {self.n}])
    for i in range({self.m}):
        for j in range({self.n}):
            acc[i, j] = {self.init}
    for i_1 in range({self.m}):
        for j_1 in range({self.n}):
            for k in range({self.k}):
                acc[i_1, j_1] += a[i_1, k] * b[k, j_1]
    for i_2 in range({self.m}):
        for j_2 in range({self.n}):
            c[i_2, j_2] = {self.epilogue}
""")

    def scheduled(self, machine: Machine, inputs: str = "spad", sums: str = "acc", instruction: str = "matmul") -> Kernel:
        """With tiles of A and B in memory ``inputs`` for each tile of k, and of C in memory ``sums``."""
        s = Schedule(self.kernel(), machine)
        dim = machine.parameters["dim"]
        lines = f"1/{dim} 0 1"
        io, ii = s.split("i_2", self.tile[0], "clip")
        jo, ji = s.split("j_2", self.tile[1], "clip")
        s.reorder(io, jo, ii, ji)
        s.compute_at("acc", jo)
        s.set_memory("acc", sums)
        ko, ki = s.split("k", self.tile[2], "clip")
        s.reorder(ko, "i_1", "j_1", ki)
        s.cache_read("a", ko, inputs, lines)
        s.cache_read("b", ko, inputs, lines)
        it, ii = s.split("i_1", dim, "clip")
        jt, ji = s.split("j_1", dim, "clip")
        kt, ki = s.split(ki, dim, "clip")
        s.reorder(kt, jt, it, ii, ji, ki)
        s.layout("acc", lines)
        s.tensorize(ii, instruction)
        return s.kernel
