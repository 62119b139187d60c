"""Element types in C: how they are stored, in which C type their values are computed, how constants are written.

Values of f16 and bf16 are floats that hold such a value; fixed point is its raw integer. An expression of type Int(n) or UInt(n)
has the right value in some C integer type: the one it is computed in, which :class:`Value` names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tilewright.ir import types as ty
from tilewright.ir.types import DType
from tilewright.ir.values import literal

#: Precedence of C expressions, atoms highest.
ATOM, UNARY, TIMES, PLUS, SHIFT, ORDER, EQUAL, BITS, AND, OR, CHOICE = range(16, 5, -1)


@dataclass(frozen=True, slots=True)
class CType:
    """A C type that values are computed in: ``kind`` is "int", "uint" or "float"."""

    kind: str
    bits: int

    def __str__(self) -> str:
        if self.kind == "float":
            return "float" if self.bits == 32 else "double"
        if self.bits <= 64:
            return f"{self.kind}{self.bits}_t"
        if self.bits == 128:
            return "__int128" if self.kind == "int" else "unsigned __int128"
        return f"{'' if self.kind == 'int' else 'unsigned '}_BitInt({self.bits})"

    @property
    def tag(self) -> str:
        """Part of a helper's name: i32, u64, f32."""
        return f"{self.kind[0]}{self.bits}"

    @property
    def promoted(self) -> CType:
        """What C computes with: small integers become int."""
        return INT if self.kind != "float" and self.bits < 32 else self


INT, LONG, FLOAT, DOUBLE = CType("int", 32), CType("int", 64), CType("float", 32), CType("float", 64)


@dataclass(frozen=True, slots=True)
class Value:
    """C text with its precedence and the (promoted) type C gives it."""

    text: str
    precedence: int
    ctype: CType

    def at(self, precedence: int) -> str:
        """The text, in parentheses if it binds less tightly than ``precedence``."""
        return self.text if self.precedence >= precedence else f"({self.text})"


def container(bits: int) -> int:
    """Width of the C integer that holds ``bits`` bits."""
    return max(8, 1 << (bits - 1).bit_length())


def storage(dtype: DType) -> str:
    """The C type of an array element."""
    if dtype.is_float:
        return "uint16_t" if dtype.bits == 16 else str(CType("float", dtype.bits))
    return "bool" if dtype.kind == ty.BOOL else str(integer(dtype))


def integer(dtype: DType) -> CType:
    """The C integer that holds values of an integer, fixed point, index or bool type."""
    return CType("int" if dtype.signed else "uint", container(dtype.bits))


def computed(dtype: DType) -> CType:
    """The type C computes values of ``dtype`` in."""
    if dtype.is_float:
        return DOUBLE if dtype.bits == 64 else FLOAT
    return integer(dtype).promoted


def constant(value: int | float | bool, dtype: DType) -> Value:
    """A literal of ``dtype``."""
    stored = literal(value, dtype)
    if dtype.is_float:
        return _real(float(stored), computed(dtype))
    if dtype.kind == ty.BOOL:
        return Value("true" if stored else "false", ATOM, INT)
    return number(int(stored), computed(dtype))


def number(value: int, ctype: CType) -> Value:
    """An integer constant of ``ctype``."""
    if -(1 << 31) < value < 1 << 31:
        return Value(str(value), ATOM if value >= 0 else UNARY, INT)
    if ctype.bits <= 32:
        return Value(f"{value}u" if value >= 0 else "INT32_MIN", ATOM, ctype)
    if -(1 << 63) < value < 1 << 63:
        return Value(f"{value}ll", ATOM if value >= 0 else UNARY, LONG)
    if ctype.bits == 64:
        return Value(f"{value}ull" if value >= 0 else "INT64_MIN", ATOM, ctype)
    low, high = value & ((1 << 64) - 1), value >> 64
    # the sum of a multiple of 2^64 and its remainder: exact for negative values too
    shifted = number(high, ctype)
    factor = f"(({ctype})1 << 64)"
    return Value(f"({ctype}){shifted.at(UNARY)} * {factor} + {low}ull", PLUS, ctype)


def _real(value: float, ctype: CType) -> Value:
    suffix = "f" if ctype == FLOAT else ""
    if math.isnan(value):
        return Value("NAN" if ctype == FLOAT else "(double)NAN", UNARY, ctype)
    if math.isinf(value):
        return Value(
            f"{'-' if value < 0 else ''}INFINITY" if ctype == FLOAT else f"{'-' if value < 0 else ''}(double)INFINITY", UNARY, ctype
        )
    digits = str(np.float32(value)) if ctype == FLOAT else repr(value)
    if "." not in digits and "e" not in digits:
        digits += ".0"
    return Value(digits + suffix, UNARY if digits.startswith("-") else ATOM, ctype)
