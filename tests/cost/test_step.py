"""Bounds of a step: the same on formulas and arrays, and what one counts by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from tilewright.cost import step
from tilewright.cost.core import VectorCore, vector_core
from tilewright.cost.formula import Graph
from tilewright.cost.step import ARRAYS
from tilewright.cost.tape import Tape
from tilewright.hw import load_machine
from tilewright.ir import types as ty

CORE: VectorCore = vector_core(load_machine("x86.avx512"), ty.f32)
numbers = hs.integers(1, 64)


def whole_step(on: Any, apart: Any, vectors: Any, broadcasts: Any, streamed: Any) -> Any:
    """Everything at once: strided loads, a store, arithmetic, a stream, rows that share places of a cache."""
    loads = step.load_cycles(CORE, vectors * step.load_slots(on, CORE, apart), broadcasts)
    stores = step.store_cycles(on, CORE, apart, vectors, vectors * CORE.lanes)
    compute = step.compute_cycles(on, CORE, vectors * broadcasts, loads, stores, CORE.fma_latency)
    return step.overlapped(on, compute, [streamed, streamed * step.crowding(on, apart * 64, 64)], streamed)


@settings(max_examples=60, deadline=None)
@given(hs.lists(hs.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=5))
def test_formulas_and_arrays_agree(points: list[tuple[int, int, int, int]]) -> None:
    names = ("apart", "vectors", "broadcasts", "streamed")
    columns = {n: np.array([p[i] for p in points], np.float64) for i, n in enumerate(names)}
    g = Graph()
    tape = Tape([whole_step(g, *(g.var(n) for n in names))])
    assert tape(columns)[0] == pytest.approx(whole_step(ARRAYS, *columns.values()), rel=1e-12)


def test_a_tile_of_registers_is_bound_by_multiply_adds() -> None:
    """12 x 2 registers: 12 cycles on two ports, against 1 to 2 cycles for 2 vectors and 6 for 12 broadcasts."""
    loads = step.load_cycles(CORE, 2, 12)
    assert 6 < loads < 9
    assert step.compute_cycles(ARRAYS, CORE, 24, loads, 0, CORE.fma_latency) == 24 / CORE.fma_per_cycle + step.CONTROL


def test_lanes_far_apart_cost_more_the_farther_until_they_are_gathered() -> None:
    slots = [float(step.load_slots(ARRAYS, CORE, apart)) for apart in (0, 1, 2, step.SHUFFLED_STRIDE, step.SHUFFLED_STRIDE + 1, 1000)]
    assert slots[0] == slots[1] == 1.0
    assert slots[1] < slots[2] < slots[3]
    assert slots[4] == slots[5] == step.GATHERED * CORE.lanes


def test_copies_across_memory_cost_less_in_squares_of_registers() -> None:
    one_by_one, squares = step.copy_slots(CORE, False), step.copy_slots(CORE, True)
    assert step.load_cycles(CORE, squares, 0) == 4 / CORE.shuffles_per_cycle  # sixteen lanes: four steps of shuffles
    assert step.load_cycles(CORE, one_by_one, 0) == CORE.lanes / CORE.scalar_moves_per_cycle


def test_streams_overlap_but_never_perfectly() -> None:
    assert step.overlapped(ARRAYS, 10.0, []) == 10.0
    assert 10 < step.overlapped(ARRAYS, 10.0, [4.0]) < 14
    assert step.overlapped(ARRAYS, 10.0, [40.0]) > 40
    assert step.overlapped(ARRAYS, 10.0, [4.0], 5.0) > step.overlapped(ARRAYS, 10.0, [4.0])


def test_rows_a_power_of_two_apart_share_places() -> None:
    """Lines at every 2048 bytes: one place of 32 is used."""
    assert step.crowding(ARRAYS, 2048, 64) == 32
    assert step.crowding(ARRAYS, 64, 64) == 1
    assert step.crowding(ARRAYS, 4, 64) == 1
