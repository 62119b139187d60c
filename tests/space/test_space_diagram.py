"""Decision diagrams of knob assignments against brute force."""

from __future__ import annotations

from itertools import pairwise, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr, compare
from tilewright.space.diagram import Diagram
from tilewright.space.knob import Knob
from tilewright.util.errors import SpaceError, TilewrightError


def brute_force(knobs: list[Knob], constraints: list[Expr]) -> np.ndarray:
    rows = [
        p
        for p in product(*(k.values for k in knobs))
        if all(ex.evaluate(c, {k.name: v for k, v in zip(knobs, p, strict=True)}) for c in constraints)
    ]
    return np.array(rows, np.int64).reshape(-1, len(knobs))


@hs.composite
def systems(draw: hs.DrawFn) -> tuple[list[Knob], list[Expr]]:
    values = hs.sets(hs.integers(1, 40), min_size=1, max_size=6).map(lambda s: tuple(sorted(s)))
    knobs = [Knob(f"k{n}", draw(values)) for n in range(draw(hs.integers(1, 4)))]
    constraints = []
    for _ in range(draw(hs.integers(0, 4))):
        a, b = draw(hs.sampled_from(knobs)).var, draw(hs.sampled_from(knobs)).var
        limit = draw(hs.integers(1, 300))
        forms = [compare("<=", a * b, limit), compare("==", (a * 12) % b, 0), compare(">=", a + b, limit // 8), compare("<=", a, b)]
        constraints.append(draw(hs.sampled_from(forms)))
    return knobs, constraints


@given(systems(), hs.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_size_enumeration_samples_and_nearest_match_brute_force(system: tuple[list[Knob], list[Expr]], seed: int) -> None:
    knobs, constraints = system
    expected = brute_force(knobs, constraints)
    if not len(expected):
        with pytest.raises(SpaceError, match="satisfy"):
            Diagram(knobs, constraints)
        return
    diagram = Diagram(knobs, constraints)
    assert diagram.size == len(expected)
    np.testing.assert_array_equal(diagram.enumerate(10**6), expected)
    np.testing.assert_array_equal(diagram.enumerate(3), expected[:3])
    rng = np.random.default_rng(seed)
    valid = set(map(tuple, expected.tolist()))
    assert set(map(tuple, diagram.sample(200, rng).tolist())) <= valid
    wanted = rng.integers(1, 50, (3, len(knobs)))
    distance = np.abs(np.log(expected) - np.log(wanted)[:, None]).sum(axis=2)
    nearest = diagram.nearest(wanted)
    np.testing.assert_allclose(np.abs(np.log(nearest) - np.log(wanted)).sum(axis=1), distance.min(axis=1), atol=1e-12)
    assert set(map(tuple, nearest.tolist())) <= valid
    assert diagram.nearest(wanted[:0]).shape == (0, len(knobs))


def test_samples_are_uniform() -> None:
    a, b = Knob("a", tuple(range(1, 13))), Knob("b", tuple(range(1, 13)))
    diagram = Diagram([a, b], [compare("<=", a.var * b.var, 12)])
    drawn = diagram.sample(35_000, np.random.default_rng(0))
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == diagram.size == 35
    # 1000 expected for each; five standard deviations.
    assert counts.min() > 840 and counts.max() < 1160


def test_size_of_a_set_far_too_large_to_enumerate() -> None:
    knobs = [Knob(f"k{n}", tuple(range(1, 33))) for n in range(12)]
    pairs = [compare("<=", a.var, b.var) for a, b in pairwise(knobs)]
    # Non-decreasing sequences: multisets of 12 out of 32.
    assert Diagram(knobs, pairs).size == comb(32 + 12 - 1, 12)


def test_no_knobs_means_one_assignment() -> None:
    diagram = Diagram([], [])
    assert diagram.size == 1
    assert diagram.sample(3, np.random.default_rng(0)).shape == (3, 0)


def test_the_constraint_that_cannot_hold_is_named() -> None:
    a, b = Knob("rows", (8, 16)), Knob("width", (16, 32))
    with pytest.raises(SpaceError, match=r"no values of rows, width satisfy rows \* width <= 100") as error:
        Diagram([a, b], [compare("<=", a.var, 16), compare("<=", a.var * b.var, 100)])
    assert "16, 32" in str(error.value)


def test_knobs_need_ascending_values() -> None:
    with pytest.raises(TilewrightError, match="has no values"):
        Knob("a", ())
    with pytest.raises(TilewrightError, match="not ascending"):
        Knob("a", (2, 1))
