"""Numbers of the element-by-element Gemmini: integers as Python's, floats by exact fractions that are rounded where the hardware rounds."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Any

from tilewright.ir.types import DType, f32


def to_f32(x: float) -> float:
    try:
        return struct.unpack("f", struct.pack("f", x))[0]
    except OverflowError:
        return float("inf") if x > 0 else float("-inf")


def from_bits(bits: int, code: str = "f") -> float:
    return struct.unpack(f"<{code}", bits.to_bytes(struct.calcsize(code), "little"))[0]


def clamp(x: float, bits: int) -> int:
    lo, hi = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return lo if x < lo else hi if x > hi else round(x)  # round(): to nearest, ties to even


class Integers:
    """``inputs`` bits in the scratchpad, 32 in the accumulator, ``array_bits`` of what leaves the array output stationary."""

    zero: Any = 0

    def __init__(self, inputs: int = 8, array_bits: int = 20):
        self.bits, self.array_bits = inputs, array_bits
        self.input_bytes = inputs // 8

    def decoded(self, data: bytes) -> int:
        return int.from_bytes(data, "little", signed=True)

    def encoded(self, value: int, size: int) -> bytes:
        return value.to_bytes(size, "little", signed=True)

    def loaded(self, value: int, scale: int) -> int:
        return self.leaving(value, scale)

    def loaded_sum(self, value: int, scale: int) -> int:
        return value

    def leaving(self, value: int, scale: int) -> int:
        return clamp(to_f32(to_f32(float(value)) * from_bits(scale)), self.bits)

    def add(self, x: int, y: int) -> int:
        return (x + y + 2**31) % 2**32 - 2**31

    def mac(self, total: int, a: int, b: int) -> int:
        return self.add(total, a * b)

    mac_held = mac

    def shifted(self, total: int, shift: int) -> int:
        return clamp(total / 2**shift, self.array_bits)

    def narrowed(self, value: int) -> int:
        return clamp(value, self.bits)


class Floats:
    """``inputs`` in the scratchpad, f32 in the accumulator; sums of type ``column`` go down a column."""

    zero: Any = 0.0

    def __init__(self, inputs: DType, column: DType):
        self.inputs, self.column = inputs, column
        self.input_bytes = inputs.nbytes
        self.half = inputs.kind == "float" and inputs.bits == 16

    def decoded(self, data: bytes) -> float:
        bits = int.from_bytes(data, "little")
        if len(data) == 4:
            return from_bits(bits)
        return from_bits(bits, "e") if self.half else from_bits(bits << 16)

    def encoded(self, value: float, size: int) -> bytes:
        if math.isnan(value):
            pattern = 0x7FC00000 if size == 4 else 0x7E00 if self.half else 0x7FC0
            return pattern.to_bytes(size, "little")
        if size == 4:
            return struct.pack("<f", value)
        return struct.pack("<e", value) if self.half else struct.pack("<f", value)[2:]

    def loaded(self, value: float, scale: int) -> float:
        factor = from_bits(scale, "e") if self.half else fma(from_bits(scale), 1.0, 0.0, self.inputs)
        return fma(value, factor, None, self.inputs)

    def loaded_sum(self, value: float, scale: int) -> float:
        return fma(value, from_bits(scale, "e" if self.half else "f"), None, f32)

    def leaving(self, value: float, scale: int) -> float:
        return self.narrowed(fma(value, from_bits(scale), None, f32))

    def add(self, x: float, y: float) -> float:
        return fma(x, 1.0, y, f32)

    def mac(self, total: float, a: float, b: float) -> float:
        return fma(a, b, total, self.column)

    def mac_held(self, total: float, a: float, b: float) -> float:
        return fma(a, b, total, f32)

    def shifted(self, total: float, shift: int) -> float:
        return fma(fma(total, 2.0**-shift, None, f32), 1.0, None, self.column)

    def narrowed(self, value: float) -> float:
        return fma(value, 1.0, None, self.inputs)


#: Bits of the significand and the least exponent of a normal number.
LIMITS = {("float", 32): (24, -126), ("float", 16): (11, -14), ("bfloat", 16): (8, -126)}


def fma(a: float, b: float, c: float | None, dtype: DType) -> float:
    """``a`` ``b``, and ``c`` added, rounded once. Operands have at most 24 bits, so a product that is no finite number is Python's."""
    rough = a * b if c is None else a * b + c
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c or 0.0)):
        return rough
    exact = Fraction(a) * Fraction(b) + Fraction(c or 0.0)
    if not exact:
        return rough if c is None or (a * b == 0 and c == 0) else 0.0
    digits, least = LIMITS[dtype.kind, dtype.bits]
    exponent = abs(exact.numerator).bit_length() - exact.denominator.bit_length()
    exponent -= abs(exact) < Fraction(2) ** exponent
    quantum = Fraction(2) ** (max(exponent, least) - digits + 1)
    rounded = round(exact / quantum) * quantum  # round(): to nearest, ties to even
    if abs(rounded) >= Fraction(2) ** (2 - least):
        return math.copysign(math.inf, exact)
    return math.copysign(float(rounded), 1 if exact > 0 else -1)
