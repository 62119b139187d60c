"""The analytical estimate: hand-counted cases, directions that must hold, and one formula for every evaluator."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.cost.core import vector_core
from tilewright.cost.estimate import analysis_of, estimate, statement_costs
from tilewright.cost.tape import Tape
from tilewright.hw import Machine, load_machine
from tilewright.ir import types as ty
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse

MACHINE = load_machine("x86.avx512")
GEMM = """
@kernel(params=("m", "n"))
def gemm(a: f32[192, 256], b: f32[256, 256], c: f32[192, 256]):
    for jo in {outer}((256 + (n - 1)) // n):
        for io in range((192 + (m - 1)) // m):
            t = alloc(f32[m, n], "{memory}")
            for i in unroll(m):
                for j in vector(n):
                    t[i, j] = 0.0
            for k in range(256):
                for i_1 in unroll(m):
                    for j_1 in vector(n):
                        t[i_1, j_1] += a[io * m + i_1, k] * {b}
            for i_2 in unroll(m):
                for j_2 in vector(n):
                    c[io * m + i_2, jo * n + j_2] = t[i_2, j_2]
"""


def gemm(outer: str = "range", memory: str = "reg", b: str = "b[k, jo * n + j_1]") -> Kernel:
    return parse(GEMM.format(outer=outer, memory=memory, b=b))


def seconds(kernel: Kernel, machine: Machine = MACHINE, threads: int = 1, **knobs: int) -> float:
    return float(estimate(kernel, machine, knobs, threads))


def test_a_register_tile_is_bound_by_its_multiply_adds() -> None:
    """12 x 2 registers: 24 multiply-adds on two ports are more than 2 + 6 cycles of loads or the latency of 4."""
    analysis = analysis_of(gemm(), MACHINE)
    update = analysis.program.statements[1]
    compute = Tape([statement_costs(analysis, update, MACHINE).compute])({"m": 12, "n": 32})[0]
    ideal = 192 * 256 * 256 / 16 / vector_core(MACHINE, ty.f32).fma_per_cycle
    assert ideal < compute < 1.1 * ideal


def test_a_small_tile_waits_for_its_sums() -> None:
    """One register: each step takes the latency of a multiply-add."""
    analysis = analysis_of(gemm(), MACHINE)
    compute = Tape([statement_costs(analysis, analysis.program.statements[1], MACHINE).compute])({"m": 1, "n": 16})[0]
    steps = 192 * 256 * 256 / 16
    assert compute == pytest.approx(steps * vector_core(MACHINE, ty.f32).fma_latency, rel=0.2)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"m": 12, "n": 32}, {"m": 1, "n": 16}),
        ({"m": 12, "n": 32}, {"m": 13, "n": 48}),  # 39 + 3 + 1 registers: spills
        ({"m": 12, "n": 32}, {"m": 12, "n": 8}),  # half of each register is empty
    ],
)
def test_better_tiles_cost_less(better: dict[str, int], worse: dict[str, int]) -> None:
    assert seconds(gemm(), **better) < seconds(gemm(), **worse)


def test_remainders_cost_what_is_in_them() -> None:
    """192 rows in tiles of 13 are 14.8 tiles of work, not 15 full ones."""
    whole, rest = seconds(gemm(), m=12, n=32), seconds(gemm(), m=13, n=32)
    assert rest < whole * 1.05


def test_strided_lanes_are_gathered() -> None:
    assert seconds(gemm(b="b[jo * n + j_1, k]"), m=12, n=32) > 2 * seconds(gemm(), m=12, n=32)


TRANSPOSITION = """
@kernel
def turn(x: {dtype}[64, 64], y: f32[64, 64]):
    for j in range(64):
        for i in vector(64):
            y[j, i] = {value}
"""


def test_what_is_only_copied_across_memory_is_transposed_in_registers() -> None:
    """16 lanes in 4 steps of shuffles: about 4 cycles for 16 elements; one by one where types differ, gathered for arithmetic."""

    def cycles(value: str, dtype: str = "f32") -> float:
        return seconds(parse(TRANSPOSITION.format(value=value, dtype=dtype))) * MACHINE.clock_hz / 64**2

    copied, converted = cycles("x[i, j]"), cycles("cast(x[i, j], f32)", "i32")
    assert 0.25 < copied < 0.4
    assert converted > 2 * copied and cycles("x[i, j] * 2.0") > 2 * copied
    assert cycles("x[j, i]") < copied


def test_a_tile_in_memory_is_loaded_and_stored_in_every_step() -> None:
    assert seconds(gemm(memory="dram"), m=12, n=32) > 1.5 * seconds(gemm(), m=12, n=32)


def test_threads_divide_parallel_loops_as_far_as_they_go() -> None:
    one = seconds(gemm("parallel"), threads=1, m=12, n=32)
    assert one == seconds(gemm("range"), threads=4, m=12, n=32)
    assert one / 8 < seconds(gemm("parallel"), threads=8, m=12, n=32) < one / 4  # and waking them takes time
    # Eight panels on seven threads: somebody does two.
    assert seconds(gemm("parallel"), threads=7, m=12, n=32) > 1.5 * seconds(gemm("parallel"), threads=8, m=12, n=32)
    # Three panels of 80 and a remainder, which is a nest of its own: all threads share that.
    assert seconds(gemm("parallel"), threads=3, m=4, n=80) < seconds(gemm("parallel"), threads=1, m=4, n=80) / 2


def test_slower_memories_never_make_a_program_faster() -> None:
    text = """
@kernel
def copy(x: f32[{n}], y: f32[{n}]):
    for i in range({n} // 16):
        for j in vector(16):
            y[i * 16 + j] = x[i * 16 + j]
"""
    small, large = parse(text.format(n=1024)), parse(text.format(n=64 << 20))
    slow = MACHINE.derive(memories={"dram": {"bandwidth": MACHINE.memory("dram").bandwidth / 4}})
    assert seconds(large, slow) > 2 * seconds(large)
    assert seconds(small, slow) == seconds(small)
    # Streaming 512 MB is bound by main memory.
    assert seconds(large) >= 2 * 4 * (64 << 20) / MACHINE.memory("dram").bytes_per_second(MACHINE.clock_hz)


def test_a_producer_whose_result_stays_in_cache_is_cheap_to_read_again() -> None:
    """Fused in rows, the second pass finds the row in the first cache; in two nests it comes from far away."""
    fused = """
@kernel
def f(x: f32[4096, 4096], t: f32[4096, 4096], y: f32[4096, 4096]):
    for i in range(4096):
        for j in range(256):
            for l in vector(16):
                t[i, j * 16 + l] = x[i, j * 16 + l] + 1.0
        for j_1 in range(256):
            for l_1 in vector(16):
                y[i, j_1 * 16 + l_1] = t[i, j_1 * 16 + l_1] * 2.0
"""
    apart = fused.replace("        for j_1 in", "    for i_1 in range(4096):\n        for j_1 in").replace("[i, j_1", "[i_1, j_1")
    assert seconds(parse(fused)) < 0.9 * seconds(parse(apart))


def test_populations_numbers_and_tensors_agree() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    m, n = rng.integers(1, 15, 5000), rng.choice([16, 32, 48, 64], 5000)
    many = estimate(gemm(), MACHINE, {"m": m, "n": n})
    assert many.shape == (5000,) and many.dtype == np.float64
    for i in (0, 4095, 4096, 4999):
        assert many[i] == pytest.approx(seconds(gemm(), m=int(m[i]), n=int(n[i])))
    tm = torch.tensor(m[:8], dtype=torch.float64, requires_grad=True)
    tensors = estimate(gemm(), MACHINE, {"m": tm, "n": torch.tensor(n[:8], dtype=torch.float64)})
    np.testing.assert_allclose(tensors.detach().numpy(), many[:8], rtol=1e-9)
    tensors.sum().backward()
    assert torch.isfinite(tm.grad).all() and tm.grad.abs().sum() > 0


def test_a_program_without_knobs_has_one_number() -> None:
    text = "@kernel\ndef f(x: f32[64], y: f32[64]):\n    for i in vector(64):\n        y[i] = x[i] + 1.0\n"
    assert 0 < seconds(parse(text)) < 1e-6
    assert estimate(parse(text), MACHINE, {"unused": np.arange(1, 4)}).shape == (3,)


@pytest.mark.parametrize("name", ["gemmini", "cuda.sm80", "vta"])
def test_other_machines_have_estimates_too(name: str) -> None:
    """No vectors, no caches: loops still cost their iterations."""
    text = (
        "@kernel\ndef f(x: f32[64, 64], y: f32[64]):\n    for i in range(64):\n        for j in range(64):\n            y[i] += x[i, j]\n"
    )
    machine = load_machine(name)
    assert seconds(parse(text), machine) >= machine.seconds(64 * 64)


TILE = """
@kernel
def tile(a: f32[6, 512], b: f32[512, {n}], c: f32[6, {n}]):
    t = alloc(f32[6, {n}], "reg")
    for k in range(512):
        for i in unroll(6):
            for j in vector({n}):
                t[i, j] += a[i, k] * b[k, j]
    for i_1 in unroll(6):
        for j_1 in vector({n}):
            c[i_1, j_1] = t[i_1, j_1]
"""


def test_half_registers_cost_half_where_arithmetic_takes_registers_in_parts() -> None:
    split = load_machine("x86.zen4")
    assert tile_cycles(MACHINE, 56) == tile_cycles(MACHINE, 64)
    assert 0.85 < tile_cycles(split, 56) / tile_cycles(split, 64) < 0.9
    assert 0.75 < tile_cycles(split, 24) / tile_cycles(split, 32) < 0.9  # beside one register a half finds no partner


def tile_cycles(machine: Machine, n: int) -> float:
    a = analysis_of(parse(TILE.format(n=n)), machine)
    return float(Tape([statement_costs(a, a.program.statements[0], machine).compute])({})[0])
