"""Loops that continue one another: joined where that changes nothing, left as they are where it would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.lang.block.agreement import agree
from tests.lang.block.stages import two_stages

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
