"""Strides of accesses, compared with addresses counted one by one."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer, buffer
from tilewright.ir.expr import Const, Expr, Var
from tilewright.space.strides import REGULAR, access, offset
from tilewright.util.errors import IRTypeError

I, J, K = Var("i"), Var("j"), Var("k")


def test_row_major() -> None:
    a = buffer("a", ty.f32, (10, 20))
    found = access(a, (I, J), {"i": 10, "j": 20, "k": 5})
    assert (found.stride("i"), found.stride("j"), found.stride("k")) == (20, 1, 0)
    assert found.moved_by("i") and not found.moved_by("k")


def test_layouts_count_physically() -> None:
    a = buffer("a", ty.f32, (10, 20), layout="1 0")
    found = access(a, (I, J), {"i": 10, "j": 20})
    assert (found.stride("i"), found.stride("j")) == (1, 10)


def test_blocks_are_contiguous_until_they_end() -> None:
    a = buffer("a", ty.f32, (10, 64), layout="1/16 0 1")
    found = access(a, (I, J), {"i": 10, "j": 64})
    assert (found.stride("i"), found.stride("j")) == (16, 1)
    assert found.runs == {"j": 16}


def test_blocks_shorter_than_a_vector_are_irregular() -> None:
    a = buffer("a", ty.f32, (10, 64), layout="1/4 0 1")
    assert REGULAR > 4
    assert access(a, (I, J), {"i": 10, "j": 64}).stride("j") is None


def test_sums_of_loops_and_coefficients() -> None:
    x = buffer("x", ty.f32, (3, 50))
    found = access(x, (K, I * 2 + J), {"i": 20, "j": 3, "k": 3})
    assert (found.stride("k"), found.stride("i"), found.stride("j")) == (50, 2, 1)


def test_backwards() -> None:
    x = buffer("x", ty.f32, (50,))
    assert access(x, (ex.idx(49) - I,), {"i": 50}).stride("i") == -1


def test_tables_have_no_stride() -> None:
    table, x = buffer("t", ty.i32, (8,)), buffer("x", ty.f32, (8, 8))
    found = access(x, (ex.cast(table[I], ty.index), J), {"i": 8, "j": 8})
    assert found.stride("i") is None


def test_scalars() -> None:
    found = access(buffer("s", ty.f32, ()), (), {"i": 4})
    assert found.stride("i") == 0


def test_symbolic_shapes_are_refused() -> None:
    with pytest.raises(IRTypeError, match="x has symbolic extents"):
        offset(buffer("x", ty.f32, (Var("N"), 4)), (I, J))


@settings(max_examples=60, deadline=None)
@given(hs.data())
def test_strides_agree_with_enumeration(data: hs.DataObject) -> None:
    shape = tuple(data.draw(hs.lists(hs.integers(2, 6), min_size=2, max_size=3)))
    order = data.draw(hs.permutations(range(len(shape))))
    b = buffer("b", ty.f32, shape, layout=" ".join(map(str, order)))
    loops = [Var(n) for n in "ijk"[: len(shape)]]
    extents = {v.name: n for v, n in zip(loops, shape, strict=True)}
    found = access(b, tuple(loops), extents)
    where = _addresses(b, order)
    for d, v in enumerate(loops):
        for point in product(*map(range, shape)):
            if point[d] + 1 < shape[d]:
                beyond = (*point[:d], point[d] + 1, *point[d + 1 :])
                assert where[beyond] - where[point] == found.stride(v.name)


def _addresses(b: Buffer, order: list[int]) -> dict[tuple[int, ...], int]:
    """Address of each logical index: points sorted by their coordinates in the physical order."""
    shape: tuple[Expr, ...] = b.shape
    points = product(*(range(int(s.value)) for s in shape if isinstance(s, Const)))
    return {p: n for n, p in enumerate(sorted(points, key=lambda p: [p[d] for d in order]))}
