"""The estimate of register tilings: arrays agree with single candidates, and the trends are those of real machines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from tilewright.cost.contraction import Contraction, Operand, Population, best, candidates, estimate, transposes
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
@given(extents, extents, extents, hs.booleans())
def test_a_population_is_its_candidates_one_by_one(core: VectorCore, m: int, n: int, k: int, free: bool) -> None:
    problem = gemm(m, n, k, free=free)
    pop = candidates(problem, core)
    together = estimate(problem, core, pop)
    for at in range(0, len(pop), max(len(pop) // 20, 1)):
        one = Population(*(x[at : at + 1] for x in (pop.vector, pop.row, pop.vectors, pop.rows)))
        assert estimate(problem, core, one)[0] == pytest.approx(together[at], rel=1e-12)


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
def test_estimates_are_not_below_the_peak(core: VectorCore, m: int, n: int, k: int) -> None:
    problem = gemm(m, n, k)
    bound = m * n * k / core.lanes / core.fma_per_cycle
    assert best(problem, core).cycles[0] >= bound


@settings(max_examples=40, deadline=None)
@given(hs.integers(1, 12), hs.integers(1, 200), hs.integers(8, 200))
def test_padding_is_never_cheaper(core: VectorCore, vectors: int, m: int, k: int) -> None:
    """A result whose rows fill their registers costs no more than one that needs as many registers with lanes unused."""
    full = gemm(m, vectors * core.lanes, k, free=True)
    tail = gemm(m, vectors * core.lanes - core.lanes // 2, k, free=True)
    pop = candidates(tail, core)
    per_element = [estimate(p, core, pop) / (m * k * p.loops["j"]) for p in (full, tail)]
    lanes_on_j = pop.vector == 1
    assert np.all(per_element[0][lanes_on_j] <= per_element[1][lanes_on_j] * 1.0001)


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


def test_rows_that_evict_one_another_are_avoided(core: VectorCore) -> None:
    way = core.l1_bytes // 8 // 4
    dense, conflicting = (best(gemm(512, 512, 512, free=True, row_stride=s), core) for s in (520, 4 * way))
    assert conflicting.rows[0] < 9 <= max(dense.rows[0], 9)
    assert conflicting.cycles[0] >= dense.cycles[0] * 0.99


def test_a_free_layout_saves_the_transposition(core: VectorCore) -> None:
    a = Operand("a", 4, 64 * 64, {"i": 64, "k": 1})

    def product(free: bool) -> Contraction:
        b = Operand("b", 4, 64 * 64, {"j": 64, "k": 1}, free)
        return Contraction({"i": 64, "j": 64, "k": 64}, ("i", "j"), (a, b), Operand("c", 4, 64 * 64, {"i": 64, "j": 1}))

    assert best(product(True), core).cycles[0] < best(product(False), core).cycles[0]


def test_windows_that_cannot_be_packed_are_read_along_memory(core: VectorCore) -> None:
    """Pooling with stride 2, channels first: lanes along the row (two loads and a shuffle), not across channels (gathers)."""
    x = Operand("x", 4, 32 * 56 * 56, {"c": 56 * 56, "p": 112, "q": 2, "r": 56, "s": 1}, packable=False)
    y = Operand("y", 4, 32 * 28 * 28, {"c": 28 * 28, "p": 28, "q": 1})
    pooling = Contraction({"c": 32, "p": 28, "q": 28, "r": 2, "s": 2}, ("c", "p", "q"), (x,), y)
    assert pooling.spatial[int(best(pooling, core).vector[0])] == "q"


def test_no_spatial_loop_no_candidate(core: VectorCore) -> None:
    x = Operand("x", 4, 100, {"k": 1})
    assert len(candidates(Contraction({"k": 100}, (), (x,), Operand("s", 4, 1, {})), core)) == 0


@pytest.mark.parametrize(("columns", "transposed"), [(3, False), (8, False), (9, True), (50, True)])
def test_narrow_rows_are_shuffled_not_transposed(columns: int, transposed: bool) -> None:
    """The sum of short rows, lanes across rows: loading whole vectors and shuffling beats moving every element."""
    x = Operand("x", 4, 1000 * columns, {"i": columns, "k": 1})
    rows = Contraction({"i": 1000, "k": columns}, ("i",), (x,), Operand("y", 4, 1000, {"i": 1}))
    assert bool(transposes(rows, x, columns)) is transposed


def test_often_used_operands_are_transposed_once() -> None:
    b = Operand("b", 4, 64 * 4, {"j": 4, "k": 1})
    a = Operand("a", 4, 500 * 4, {"i": 4, "k": 1})
    problem = Contraction({"i": 500, "j": 64, "k": 4}, ("i", "j"), (a, b), Operand("c", 4, 500 * 64, {"i": 64, "j": 1}))
    assert transposes(problem, b, 4)


def test_widening_is_paid_for_every_broadcast(core: VectorCore) -> None:
    """Bytes that are widened as they are read: wide tiles with few broadcasts beat tall ones."""

    def product(itemsize: int) -> Contraction:
        a = Operand("a", itemsize, 512 * 512, {"i": 512, "k": 1})
        b = Operand("b", itemsize, 512 * 512, {"k": 512, "j": 1}, True)
        loops = {"i": 512, "j": 512, "k": 512}
        return Contraction(loops, ("i", "j"), (a, b), Operand("c", 4, 512 * 512, {"i": 512, "j": 1}))

    narrow = best(product(1), core)
    assert narrow.vectors[0] >= narrow.rows[0] / 2
    tall = Population(*(np.array([v]) for v in (1, 0, 1, 29)))
    assert estimate(product(1), core, tall)[0] > 1.5 * 512**3 / core.lanes / core.fma_per_cycle
