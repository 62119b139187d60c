"""Buffers and layouts: physical positions against a brute-force definition."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.ir import types as ty
from tilewright.ir.buffer import Layout, buffer
from tilewright.ir.expr import Const, evaluate, idx
from tilewright.util.errors import IRTypeError


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, tuple[int, ...]]:
    """A valid layout and a shape for it."""
    rank = draw(st.integers(1, 3))
    parts = []
    for d in range(rank):
        blocks = draw(st.sampled_from([(1,), (4, 1), (8, 1), (8, 2, 1)]))
        parts.append([(d, b) for b in blocks])
    order = draw(st.permutations([d for d, p in enumerate(parts) for _ in p]))
    queues = [iter(p) for p in parts]
    return Layout(tuple(next(queues[d]) for d in order)), tuple(draw(st.integers(1, 19)) for _ in range(rank))


@settings(deadline=None, max_examples=50)
@given(layouts())
def test_every_element_has_its_own_place_inside_the_physical_shape(case: tuple[Layout, tuple[int, ...]]) -> None:
    layout, shape = case
    layout.check(len(shape))
    extents = [evaluate(e, {}) for e in layout.physical_shape(tuple(idx(n) for n in shape))]
    places = set()
    for index in itertools.product(*map(range, shape)):
        place = tuple(evaluate(e, {}) for e in layout.physical_index(tuple(idx(i) for i in index)))
        assert all(0 <= p < n for p, n in zip(place, extents, strict=True))
        places.add(place)
    count = 1
    for n in shape:
        count *= n
    assert len(places) == count


@given(layouts())
def test_layout_text_parses_back(case: tuple[Layout, tuple[int, ...]]) -> None:
    assert Layout.parse(str(case[0])) == case[0]


def test_a_packed_panel() -> None:
    b = buffer("b", ty.f32, (32, 50), layout="1/16 0 1")
    assert [evaluate(e, {}) for e in b.physical_shape()] == [4, 32, 16]
    assert b.nbytes == 4 * 32 * 16 * 4
    assert b.layout is not None
    assert [evaluate(e, {}) for e in b.layout.physical_index((idx(7), idx(37)))] == [2, 7, 5]


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("0", "dimension 1 has no innermost"),
        ("0 1/4", "dimension 1 has no innermost"),
        ("0 1/4 1/3 1", "shrink and divide"),
        ("0 1 2", "beyond rank"),
        ("0 x", "is not DIM"),
    ],
)
def test_wrong_layouts_are_refused(layout: str, message: str) -> None:
    with pytest.raises(IRTypeError, match=message):
        buffer("b", ty.f32, (8, 8), layout=layout)


def test_shapes_and_ranks_are_checked() -> None:
    with pytest.raises(IRTypeError, match="is negative"):
        buffer("b", ty.f32, (-1,))
    with pytest.raises(IRTypeError, match="has 1 dimensions but is indexed with 2"):
        buffer("b", ty.f32, (4,))[0, 0]
    assert buffer("b", ty.f32, (4, 2)).static_shape == (4, 2)
    assert buffer("b", ty.f32, (4,))[3].indices == (Const(3, ty.index),)
