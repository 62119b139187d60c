"""Packing against the layout's own definition, element by element."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.ir.buffer import Layout
from tilewright.ir.expr import Const, evaluate, idx
from tilewright.runtime.packing import pack, physical_shape, unpack
from tilewright.util.errors import IRTypeError, RuntimeFailure


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, tuple[int, ...]]:
    rank = draw(st.integers(1, 3))
    parts: list[list[tuple[int, int]]] = []
    for d in range(rank):
        factors = draw(st.lists(st.integers(2, 4), max_size=2))
        blocks = [1]
        for f in factors:
            blocks.append(blocks[-1] * f)
        parts.append([(d, b) for b in reversed(blocks)])
    order = draw(st.permutations([d for d, p in enumerate(parts) for _ in p]))
    cursors = [iter(p) for p in parts]
    return Layout(tuple(next(cursors[d]) for d in order)), tuple(draw(st.integers(0, 9)) for _ in range(rank))


@settings(max_examples=150, deadline=None)
@given(layouts())
def test_pack_places_elements_where_the_layout_says(case: tuple[Layout, tuple[int, ...]]) -> None:
    layout, shape = case
    logical = np.arange(1, np.prod(shape) + 1, dtype=np.int32).reshape(shape)
    packed = pack(logical, layout)
    symbolic = tuple(int(evaluate(e, {})) for e in layout.physical_shape(tuple(idx(s) for s in shape)))
    assert packed.shape == symbolic == physical_shape(layout, shape)
    expected = np.zeros(symbolic, np.int32)
    for index in itertools.product(*(range(s) for s in shape)):
        where = layout.physical_index(tuple(Const(i, idx(0).dtype) for i in index))
        expected[tuple(int(evaluate(e, {})) for e in where)] = logical[index]
    np.testing.assert_array_equal(packed, expected)
    np.testing.assert_array_equal(unpack(packed, layout, shape), logical)
    out = np.empty_like(packed)
    assert pack(logical, layout, out) is out
    np.testing.assert_array_equal(out, packed)


def test_strided_source() -> None:
    a = np.arange(60, dtype=np.float32).reshape(6, 10)
    np.testing.assert_array_equal(pack(a.T, "1/4 0 1"), pack(np.ascontiguousarray(a.T), "1/4 0 1"))


def test_refusals() -> None:
    a = np.zeros((4, 4), np.float32)
    with pytest.raises(IRTypeError, match="no innermost part"):
        pack(a, "0/4 1")
    with pytest.raises(RuntimeFailure, match=r"needs float32\[2, 4, 2\]"):
        pack(a, "1/2 0 1", np.zeros((4, 4), np.float32))
    with pytest.raises(RuntimeFailure, match=r"which is \[2, 4, 2\]"):
        unpack(a, "1/2 0 1", (4, 4))


def test_packed_arrays_begin_at_cache_lines() -> None:
    kept = [pack(np.zeros((n, 48), np.float32), "1/16 0 1") for n in range(1, 9)]
    assert all(a.ctypes.data % 64 == 0 for a in kept)
