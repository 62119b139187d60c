"""The vendor library's tiles as mappings: they cover the layer, fit half of the memories, and are as large as its rule makes them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.codesign.layer import KERNEL
from tilewright.cost.loopnest import LoopNest
from tilewright.cost.nestcost import NestCost, NestModel
from tilewright.hw.library.gemmini import default, hierarchy
from tilewright.sim.gemmini.baseline import default_tiles
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.default_mapping import convolution_tile, default_nests
from tilewright.util.errors import ExecutionError

C = Configuration.of(default)
DIMS = "NKCPQRS"


def steps(sh: int, sw: int, dh: int = 1, dw: int = 1) -> dict[str, int]:
    return {"SH": sh, "SW": sw, "DH": dh, "DW": dw}


@cache
def model(structure: LoopNest) -> NestModel:
    return NestModel(KERNEL, structure, hierarchy(), rounded=False)


def cost(nest: LoopNest, parameters: dict[str, int]) -> NestCost:
    return model(nest.structure())(
        {**nest.environment(), "dim": 16, "scratchpad_bytes": 256 << 10, "accumulator_bytes": 64 << 10, **parameters}
    )


def test_a_product_has_the_tiles_of_the_library_and_smaller_ones_at_its_edges() -> None:
    m, n, k = 196, 1024, 256
    i, j, depth = default_tiles(C, m, n, k)
    nests = list(default_nests(C, {"P": m, "K": n, "C": k}))
    assert str(nests[0]) == f"L3[WIO] N1 P{m // (16 * i)} Q1 K{n // (16 * j)} R1 S1 C1 - L2[WI] N1 K16X - " + (
        f"L1[O] K{j} C{depth} R1 S1 N1 Q1 P{16 * i} C16X - L0[W] N1"
    )
    assert sum(prod(x.sizes().values()) for x in nests) == m * n * k and len(nests) == 4
    assert len({x.structure() for x in nests}) == 1
    images = default_nests(C, {"N": 4, "P": 7, "Q": 7, "K": n, "C": k})
    assert [x.sizes() for x in images] == [x.sizes() for x in nests]


layers = st.fixed_dictionaries(
    {d: st.integers(1, most) for d, most in zip(DIMS, (3, 200, 200, 60, 60, 5, 5), strict=True)},
)


@settings(max_examples=60, deadline=None)
@given(layers, st.sampled_from([(1, 1), (2, 2)]), st.sampled_from([(1, 1), (2, 1)]))
def test_mappings_cover_the_layer_and_fit_half_of_the_memories(
    sizes: dict[str, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> None:
    nests = list(default_nests(C, sizes, strides, dilations))
    product_of_matrices = sizes["R"] == sizes["S"] == 1
    done = sum(prod(x.sizes().values()) for x in nests)
    padded = {d: v if d not in "KC" else -(-v // 16) * 16 for d, v in sizes.items()}
    assert prod(sizes.values()) <= done
    if product_of_matrices:
        assert done <= prod(padded.values())
    for x in nests:
        found = cost(x, steps(1, 1) if product_of_matrices else steps(*strides, *dilations))
        padding = 15 * x.environment()["K2X"] * x.environment()["K1"] * sizes["R"] * sizes["S"]  # of weights; the library counts none
        assert found.held["L2"] <= (128 << 10) + padding and found.held["L1"] * 16 * 4 <= 32 << 10
        assert found.cycles >= prod(x.sizes().values()) / 256


def test_a_convolution_tile_can_grow_nowhere() -> None:
    sizes = {"N": 1, "K": 128, "C": 128, "P": 280, "Q": 280, "R": 3, "S": 3}
    tile = convolution_tile(C, sizes)
    assert tile == {"N": 1, "P": 22, "Q": 23, "K": 16, "R": 3, "S": 3, "C": 128}

    def rows(t: dict[str, int]) -> tuple[int, int]:
        blocks = -(-t["K"] // 16)
        inputs = -(-t["C"] // 16) * t["N"] * (t["P"] + t["R"] - 1) * (t["Q"] + t["S"] - 1)
        return inputs + blocks * t["R"] * t["S"] * t["C"], blocks * t["N"] * t["P"] * t["Q"]

    assert rows(tile)[0] <= 8192 and rows(tile)[1] <= 512
    for d in DIMS:
        if tile[d] < sizes[d]:
            spad, acc = rows({**tile, d: tile[d] + 1})
            assert spad > 8192 or acc > 512, d


def test_few_columns_are_kept_while_rows_can_go() -> None:
    tile = convolution_tile(C, {"N": 8, "K": 16, "C": 16, "P": 16, "Q": 16, "R": 3, "S": 3})
    assert tile["Q"] == 16 and tile["P"] < 16


def test_a_machine_that_is_too_small_is_named() -> None:
    small = replace(C, spad_rows=2, acc_rows=2)
    with pytest.raises(ExecutionError, match="no tile of a convolution fits half of 2 and 2 rows"):
        list(default_nests(small, dict(zip(DIMS, (1, 16, 16, 8, 8, 3, 3), strict=True))))


def test_counts_of_parts_multiply() -> None:
    nests = list(default_nests(C, {"N": 1, "K": 64, "C": 3, "P": 112, "Q": 112, "R": 7, "S": 7}, (2, 2)))
    sides = {d: sorted({x.sizes()[d] for x in nests}) for d in "PQ"}
    assert sum(sides["P"]) == sum(sides["Q"]) == 112
    assert {(x.sizes()["P"], x.sizes()["Q"]) for x in nests} == set(product(sides["P"], sides["Q"]))
