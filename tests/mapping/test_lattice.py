"""The exact implication test against enumeration of every difference in the box."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as hs

from tilewright.mapping.lattice import counterexample


def _dot(row, d):
    return sum(a * b for a, b in zip(row, d, strict=True))


def _breaks(known, wanted, extents, d):
    return (
        all(abs(x) < e for x, e in zip(d, extents, strict=True)) and not any(_dot(r, d) for r in known) and any(_dot(r, d) for r in wanted)
    )


@hs.composite
def problems(draw):
    n = draw(hs.integers(1, 4))
    row = hs.tuples(*[hs.integers(-6, 6)] * n)
    return (
        tuple(draw(hs.lists(row, max_size=3))),
        tuple(draw(hs.lists(row, min_size=1, max_size=2))),
        tuple(draw(hs.tuples(*[hs.integers(1, 4)] * n))),
    )


@given(problems())
@example((((6, 4, 3),), ((1, 0, 0),), (3, 3, 3)))  # kernel basis leaves the box: only integer search decides
@example((((5, 3, -2),), ((0, 1, 0),), (2, 3, 4)))
@settings(max_examples=300, deadline=None)
def test_agrees_with_enumeration(problem):
    known, wanted, extents = problem
    found = counterexample(known, wanted, extents)
    boxes = product(*(range(1 - e, e) for e in extents))
    exists = any(_breaks(known, wanted, extents, d) for d in boxes)
    assert (found is not None) == exists
    assert found is None or _breaks(known, wanted, extents, found)


@pytest.mark.parametrize(
    ("known", "extents", "decided"),
    [(((16, 1),), (4, 16), True), (((15, 1),), (4, 16), False), (((1, 1), (1, -1)), (9, 9), True), (((12, 4, 1),), (5, 3, 4), True)],
)
def test_mixed_radix_rows_are_injective_exactly_when_digits_fit(known, extents, decided):
    identity = tuple(tuple(int(i == j) for j in range(len(extents))) for i in range(len(extents)))
    assert (counterexample(known, identity, extents) is None) == decided


def test_large_extents_are_decided_without_enumeration():
    big = 10**6
    assert counterexample(((3 * big, 2 * big, 1),), ((1, 0, 0),), (big, big, big)) == (-2, 3, 0)
    assert counterexample(((big, 1),), ((1, 0),), (big, big)) is None
