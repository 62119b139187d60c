"""Why no declared instruction does a nest: the instruction that comes closest is named, with what it does otherwise."""

from __future__ import annotations

import pytest
from tests.schedule.programs import kernel_of

from tilewright.hw import load_machine
from tilewright.space.unmoved import unmoved

NEST = """
@kernel
def nest(a: SOURCE[16, 16], s: buffer(i8[16, 16], "spad"), c: buffer(i32[16, 16], "acc")):
    for i in range(16):
        for j in range(16):
            STORE
"""


@pytest.mark.parametrize(
    ("source", "store", "reason"),
    [
        ("i8", "s[i, j] = a[i, j]", None),
        ("i32", "c[i, j] += a[i, j]", None),
        ("i32", "c[i, j] = max(c[i, j], a[i, j])", "mvin_acc: it stores without accumulating, the nest accumulates with max"),
        ("i16", "s[i, j] = i8(a[i, j])", "mvin: it takes i8, the nest i16"),
        ("i8", "s[i, j] += a[i, j]", "mvin: it stores without accumulating, the nest accumulates with +"),
    ],
)
def test_the_difference_is_named(source: str, store: str, reason: str | None) -> None:
    kernel = kernel_of(NEST.replace("SOURCE", source).replace("STORE", store))
    assert [why for _, why in unmoved(load_machine("gemmini"), kernel, inwards=True)] == ([] if reason is None else [reason])
