"""What a launch knows of memory: places in arrays of integers and of addresses, and what is refused there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tilewright.ir import types as ty
from tilewright.lang.block.ir import BlockType, Pointer, Value
from tilewright.lang.block.source import BlockError
from tilewright.lang.block.tables import Address, Known, PointerType, Table


def array(dtype: ty.DType, name: str = "x") -> Value:
    return Value(BlockType(Pointer(dtype)), name)


KNOWN = Known(array(ty.i32), (7, 8, 9))
ARRAYS = tuple(array(ty.f16, name) for name in "abc")
TABLE = Table(ARRAYS)


def test_places_move_in_both_directions_from_either_side() -> None:
    for start in (KNOWN, TABLE):
        assert start.at == 0
        assert [(start + 2).at, (2 + start).at, (start + 2 - 1).at, (start - 1).at, (start + 1 + 1).at] == [2, 2, 1, -1, 2]
        assert start + 1 == replace(start, at=1), "nothing else changes"


def test_numbers_are_known_inside_the_array_only() -> None:
    assert [(KNOWN + n).element for n in (-1, 0, 1, 2, 3)] == [None, 7, 8, 9, None]


def test_addresses_are_those_of_the_table() -> None:
    assert [(TABLE + n).address.array for n in range(3)] == list(ARRAYS)
    for outside in (-1, 3):
        with pytest.raises(BlockError, match=f"address {outside} of an array of 3 addresses"):
            _ = (TABLE + outside).address


def test_an_address_becomes_a_pointer_to_what_its_array_holds() -> None:
    address = Address(ARRAYS[0])
    assert address.pointer(PointerType(ty.f16)) is ARRAYS[0]
    with pytest.raises(BlockError, match="an array of f16 is taken for one of f32") as error:
        address.pointer(PointerType(ty.f32))
    assert "tl.pointer_type(tl.float16)" in (error.value.hint or "")


@pytest.mark.parametrize("offset", [True, 1.0, "1", None])
@pytest.mark.parametrize("start", [KNOWN, TABLE], ids=["numbers", "addresses"])
def test_offsets_are_integers(start: Any, offset: object) -> None:
    for move in (lambda: start + offset, lambda: start - offset, lambda: offset + start):
        with pytest.raises(TypeError, match="offsets are integers"):
            move()
