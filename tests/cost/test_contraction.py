"""Lower bounds of register tilings: arrays agree with single candidates, and the trends are those of real machines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from tilewright.cost.contraction import Contraction, Operand, best, candidates, least, least_cycles, moving_cycles
from tilewright.cost.core import VectorCore, vector_core
from tilewright.hw import load_machine
from tilewright.ir import types as ty


@pytest.fixture(scope="module")
def core() -> VectorCore:
    return vector_core(load_machine("x86.avx512"), ty.f32)


def gemm(m: int, n: int, k: int, *, free: bool = False, row_stride: int | None = None) -> Contraction:
    """``c[i, j] += a[i, k] * b[k, j]``, all row major; ``row_stride`` is the distance between rows of ``a``."""
    a = Operand("a", 4, m * k, {"i": row_stride or k, "k": 1})
    b = Operand("b", 4, k * n, {"k": n, "j": 1}, free)
    return Contraction({"i": m, "j": n, "k": k}, ("i", "j"), (a, b), Operand("c", 4, m * n, {"i": n, "j": 1}))


extents = hs.integers(1, 300)


@settings(max_examples=40, deadline=None)
@given(extents, extents, extents)
def test_a_population_is_its_candidates_one_by_one(core: VectorCore, m: int, n: int, k: int) -> None:
    problem = gemm(m, n, k)
    pop = candidates(problem, core)
    own = (pop.vector == 1) & (pop.row == 0)
    rows, width = pop.rows[own], pop.vectors[own] * core.lanes
    together = least_cycles(problem, core, "j", {"i": rows, "j": width}, {"b"}) if own.any() else []
    for at in range(0, len(together), max(len(together) // 20, 1)):
        assert least_cycles(problem, core, "j", {"i": int(rows[at]), "j": int(width[at])}, {"b"}) == pytest.approx(together[at], rel=1e-12)
    if own.any():
        assert least(problem, core, "j", ["i"], {"b"}) == pytest.approx(min(together), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(extents, extents, extents)
def test_every_candidate_fits_the_registers(core: VectorCore, m: int, n: int, k: int) -> None:
    problem = gemm(m, n, k)
    pop = candidates(problem, core)
    assert len(pop)
    operands = np.where(pop.rows > 1, pop.vectors, 1)  # one row multiplies straight from memory
    assert np.all(pop.rows * pop.vectors + operands + 1 <= core.registers)
    assert np.all(pop.vector != pop.row)
    assert np.all((pop.row >= 0) | (pop.rows == 1))
    assert len({*zip(pop.vector, pop.row, pop.vectors, pop.rows, strict=True)}) == len(pop)


@settings(max_examples=40, deadline=None)
@given(extents, extents, extents)
def test_bounds_are_not_below_the_peak(core: VectorCore, m: int, n: int, k: int) -> None:
    problem = gemm(m, n, k)
    bound = m * n * k / core.lanes / core.fma_per_cycle
    assert best(problem, core).cycles.min() >= bound * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(hs.integers(1, 12), hs.integers(1, 200), hs.integers(8, 200))
def test_padding_is_never_cheaper(core: VectorCore, vectors: int, m: int, k: int) -> None:
    """A result whose rows fill their registers costs no more than one that needs as many registers with lanes unused."""
    full = gemm(m, vectors * core.lanes, k, free=True)
    tail = gemm(m, vectors * core.lanes - core.lanes // 2, k, free=True)
    pop = candidates(tail, core)
    size = {"i": pop.rows[pop.vector == 1], "j": pop.vectors[pop.vector == 1] * core.lanes}
    per_element = [least_cycles(p, core, "j", size, {"b"}) / (m * k * p.loops["j"]) for p in (full, tail)]
    assert np.all(per_element[0] <= per_element[1] * 1.0001)


def test_a_large_product_gets_a_square_tile(core: VectorCore) -> None:
    top = best(gemm(512, 512, 512, free=True), core)
    assert top.vector[0] == 1 and top.row[0] == 0
    accumulators = top.rows[0] * top.vectors[0]
    assert core.fma_per_cycle * core.fma_latency <= accumulators <= core.registers - 1
    assert top.cycles[0] < 1.5 * 512**3 / core.lanes / core.fma_per_cycle


def test_cheapest_first(core: VectorCore) -> None:
    top = best(gemm(100, 100, 100), core)
    # ties within 2 % are broken by other criteria
    assert np.all(top.cycles[1:] >= top.cycles[:-1] * 0.96)
    assert top.cycles.min() >= top.cycles[0] * 0.96


def test_operands_in_vector_order_are_loaded_faster(core: VectorCore) -> None:
    a, b = Operand("a", 4, 64 * 64, {"i": 64, "k": 1}), Operand("b", 4, 64 * 64, {"j": 64, "k": 1})
    problem = Contraction({"i": 64, "j": 64, "k": 64}, ("i", "j"), (a, b), Operand("c", 4, 64 * 64, {"i": 64, "j": 1}))
    assert 2 * least(problem, core, "j", ["i"], {"b"}) < least(problem, core, "j", ["i"], frozenset())
    # Bringing it there moves every element; the result is written once in any case.
    assert (
        moving_cycles(problem, core, "j", {"b"}) - moving_cycles(problem, core, "j", frozenset()) >= b.elements / core.load_bytes_per_cycle
    )
    assert moving_cycles(problem, core, "i", frozenset()) >= 64 * 64 / core.scalar_moves_per_cycle  # against its rows


def test_short_sums_overlap(core: VectorCore) -> None:
    """One sum in a register waits for every addition; short ones let the next tiles begin."""
    long, short = (least_cycles(gemm(64, 16, k), core, "j", {"i": 1, "j": 16}, {"b"}) / (64 * k) for k in (256, 8))
    assert long == pytest.approx(core.fma_latency) and short < long / 2


def test_windows_that_cannot_be_packed_are_read_along_memory(core: VectorCore) -> None:
    """Pooling with stride 2, channels first: lanes along the row (two loads and a shuffle), not across channels (gathers)."""
    x = Operand("x", 4, 32 * 56 * 56, {"c": 56 * 56, "p": 112, "q": 2, "r": 56, "s": 1}, packable=False)
    y = Operand("y", 4, 32 * 28 * 28, {"c": 28 * 28, "p": 28, "q": 1})
    pooling = Contraction({"c": 32, "p": 28, "q": 28, "r": 2, "s": 2}, ("c", "p", "q"), (x,), y)
    assert pooling.spatial[int(best(pooling, core).vector[0])] == "q"


def test_no_spatial_loop_no_candidate(core: VectorCore) -> None:
    x = Operand("x", 4, 100, {"k": 1})
    assert len(candidates(Contraction({"k": 100}, (), (x,), Operand("s", 4, 1, {})), core)) == 0
