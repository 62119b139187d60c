"""Loops that continue one another: joined where that changes nothing, left as they are where it would. What a program
does not read does not reach it, even where the passes that would read it are computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.lang.block.agreement import agree
from tests.lang.block.stages import longer_where_masked, two_stages

from tilewright.ir import stmt as st
from tilewright.ir.stmt import Kernel

N, BM, BN = 24, 8, 4


def staged(stores: int = 0, swaps: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(stores)
    x, v = rng.standard_normal((N, N), np.float32), rng.standard_normal(N, np.float32)
    total, other, seen = np.zeros(N, np.float32), np.zeros(N, np.float32), np.full((N, N), 7, np.float32)
    arrays = {"x_ptr": x, "v_ptr": v, "total_ptr": total, "other_ptr": other, "seen_ptr": seen, "n": N}
    return {**arrays, "STORES": stores, "SWAPS": swaps, "BM": BM, "BN": BN, "LOW": -1e6}


def run(named: dict[str, Any]) -> Kernel:
    return agree(two_stages, (N // BM,), named, ["total_ptr", "other_ptr", "seen_ptr"])


def sums(kernel: Kernel) -> int:
    """Sums of the kernel, each in a nest of its own."""
    return sum(isinstance(s, st.Store) and s.op == "+" for s in st.walk(kernel.body))


def test_stages_that_only_add_up_are_joined() -> None:
    assert sums(run(staged())) == 2


@pytest.mark.parametrize("stage", [1, 2])
def test_what_one_stage_stores_is_stored_in_that_stage(stage: int) -> None:
    named = staged(stores=stage)
    run(named)
    rows, cols = np.indices((N, N))
    here = cols // BM < rows // BM if stage == 1 else cols // BM == rows // BM
    assert ((named["seen_ptr"] != 7) == here).all()


@pytest.mark.parametrize("stage", [1, 2])
def test_sums_that_change_places_are_not_taken_for_one_another(stage: int) -> None:
    run(staged(swaps=stage))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e8])
@pytest.mark.parametrize("where", ["x_ptr", "v_ptr"])
@pytest.mark.parametrize("launched", [False, True])
def test_what_only_later_programs_read_does_not_reach_earlier_ones(where: str, poison: float, launched: bool) -> None:
    """The last columns are read by the last block of rows alone; a mask is a number that this one outweighs."""
    named = staged()
    named[where][..., -1] = poison
    with np.errstate(invalid="ignore", over="ignore"):
        if launched:
            two_stages[(N // BM,)](**named)
        else:
            assert not any(isinstance(s, st.If) for s in st.walk(run(named).body))
    x, v = named["x_ptr"].astype(np.float64)[:-BM, :-BM], named["v_ptr"].astype(np.float64)[:-BM]
    seen = np.where(np.tril(np.ones_like(x)) != 0, x, -np.inf)
    powers = np.exp(seen - seen.max(1, keepdims=True))
    np.testing.assert_allclose(named["total_ptr"][:-BM], powers.sum(1), rtol=1e-4)
    np.testing.assert_allclose(named["other_ptr"][:-BM], powers @ v, rtol=1e-4, atol=1e-5)


def test_passes_that_may_read_outside_are_made_by_their_programs_alone() -> None:
    named = {"v_ptr": np.arange(N, dtype=np.float32), "total_ptr": np.zeros(N, np.float32), "n": N, "BM": BM}
    kernel = agree(longer_where_masked, (2 * N // BM,), named, ["total_ptr"])
    assert any(isinstance(s, st.If) for s in st.walk(kernel.body)), "a program reads what its own passes do, under a condition"
