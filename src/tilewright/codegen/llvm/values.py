"""SSA values with an element type and a number of lanes, and their LLVM spelling.

A value of an integer type of any width lives in the next power of two of bits (at least 8, the same
as in memory), sign- or zero-extended: the container holds the exact number, so the
HLS-style widening of the IR needs no masking until a value is narrowed. f16 and bf16 live in a
``float`` that always holds a number of the narrow type. bool is i1 (i8 in memory).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from tilewright.ir import types as ty
from tilewright.ir.types import DType


class Value(NamedTuple):
    """An SSA name or a literal. ``lanes`` 0 is a scalar, otherwise a vector of that many elements."""

    ref: str
    dtype: DType
    lanes: int = 0

    @property
    def type(self) -> str:
        return value_type(self.dtype, self.lanes)

    @property
    def operand(self) -> str:
        """Type and name, as LLVM writes an operand."""
        return f"{value_type(self.dtype, self.lanes)} {self.ref}"

    @property
    def is_literal(self) -> bool:
        """Whether it is one constant (the same in all lanes)."""
        return self.ref[0] not in "%@<"

    @property
    def active(self) -> tuple[bool, ...] | None:
        """Lane by lane, if this is a mask written as a constant."""
        if not self.lanes or not self.ref.startswith("<i1 "):
            return None
        return tuple(lane == "i1 true" for lane in self.ref.strip("<>").split(", "))


def constant_mask(active: Iterable[bool]) -> Value:
    """A mask of which every lane is known."""
    lanes = [f"i1 {'true' if a else 'false'}" for a in active]
    return Value(f"<{', '.join(lanes)}>", ty.boolean, len(lanes))


@cache
def container_bits(dtype: DType) -> int:
    """Width of the LLVM integer that holds an integer, fixed point or bool value."""
    return 1 if dtype.kind == ty.BOOL else dtype.nbytes * 8


@cache
def value_type(dtype: DType, lanes: int = 0) -> str:
    """LLVM type of SSA values of ``dtype``."""
    if dtype.is_float:
        scalar = "double" if dtype.bits == 64 else "float"
    else:
        scalar = f"i{container_bits(dtype)}"
    return f"<{lanes} x {scalar}>" if lanes else scalar


def integer_type(bits: int, lanes: int = 0) -> str:
    """An LLVM integer of any width, or a vector of them."""
    return f"<{lanes} x i{bits}>" if lanes else f"i{bits}"


@cache
def memory_type(dtype: DType, lanes: int = 0) -> str:
    """LLVM type of ``dtype`` in an array."""
    if dtype.kind == ty.FLOAT:
        scalar = {16: "half", 32: "float", 64: "double"}[dtype.bits]
    else:
        scalar = f"i{dtype.nbytes * 8}"
    return f"<{lanes} x {scalar}>" if lanes else scalar


def suffix(type_text: str) -> str:
    """Mangled name of an LLVM type in an intrinsic: ``<16 x float>`` is ``v16f32``."""
    if type_text.startswith("<"):
        count, _, scalar = type_text[1:-1].split(" ")
        return f"v{count}{suffix(scalar)}"
    return {"half": "f16", "float": "f32", "double": "f64", "ptr": "p0"}.get(type_text, type_text)


def float_literal(value: float) -> str:
    """LLVM's hexadecimal spelling of a double (which must be exact in the type it is used as)."""
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def splat_text(scalar_type: str, literal: str, lanes: int) -> str:
    """A literal repeated in all lanes."""
    return f"splat ({scalar_type} {literal})" if lanes else literal
