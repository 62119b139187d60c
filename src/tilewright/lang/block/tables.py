"""What a launch knows of memory before it compiles: arrays of addresses, and the small arrays of integers beside them.

A program that serves many problems in one launch finds in memory where their operands are and how large they are.
``tl.load(addresses + g).to(tl.pointer_type(tl.float16))`` is one of the arrays given to ``tilewright.pointers``, so
every address has an array behind it whose bounds are known; a number that is loaded at a known place is that number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tilewright.ir.types import DType
from tilewright.lang.block.ir import Pointer, Value
from tilewright.lang.block.source import BlockError


class Undetermined(BlockError):
    """An address was asked for at a place that only the running program knows; unrolling a loop may tell."""


@dataclass(frozen=True, slots=True)
class Known:
    """``pointer + at`` into an array of integers whose ``contents`` are those of the launch."""

    pointer: Value
    contents: tuple[int, ...]
    at: int = 0

    def __add__(self, n: int) -> Known:
        return replace(self, at=self.at + _whole(n))

    __radd__ = __add__

    def __sub__(self, n: int) -> Known:
        return replace(self, at=self.at - _whole(n))

    @property
    def element(self) -> int | None:
        """What is there; None outside the array."""
        return self.contents[self.at] if 0 <= self.at < len(self.contents) else None


@dataclass(frozen=True, slots=True)
class Table:
    """``at`` elements into an array of the addresses of ``arrays``."""

    arrays: tuple[Value, ...]
    at: int = 0

    def __add__(self, n: int) -> Table:
        return replace(self, at=self.at + _whole(n))

    __radd__ = __add__

    def __sub__(self, n: int) -> Table:
        return replace(self, at=self.at - _whole(n))

    @property
    def address(self) -> Address:
        """The address there. BlockError outside the table."""
        if not 0 <= self.at < len(self.arrays):
            raise BlockError(f"address {self.at} of an array of {len(self.arrays)} addresses", hint="load within it")
        return Address(self.arrays[self.at])


@dataclass(frozen=True, slots=True)
class Address:
    """An address as an integer; it becomes a pointer by ``.to(tl.pointer_type(...))``."""

    array: Value

    def pointer(self, target: PointerType) -> Value:
        """The pointer it stands for. BlockError where the array holds other elements than the program takes it for."""
        held = self.array.type.element
        assert isinstance(held, Pointer)  # the launch made it of an array
        if held.element_ty != target.element:
            raise BlockError(
                f"an array of {held.element_ty} is taken for one of {target.element}",
                hint=f"tl.pointer_type(tl.{held.element_ty.to_numpy().name}), or pass arrays of {target.element}",
            )
        return self.array


@dataclass(frozen=True, slots=True)
class PointerType:
    """``tl.pointer_type(element)``."""

    element: DType


def _whole(n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"an array is indexed by {n!r}: offsets are integers")
    return int(n)
