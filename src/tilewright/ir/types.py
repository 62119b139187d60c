"""Element types and the typing rules of mixed-width arithmetic.

Integers of any width, fixed point and IEEE floats share one description. Arithmetic is typed
HLS-style: results are wide enough to be exact, and only assignment narrows (spec: schedule,
"Kernel language").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.util.errors import IRTypeError

FLOAT, BFLOAT, INT, UINT, FIXED, UFIXED, BOOL, INDEX = (
    "float",
    "bfloat",
    "int",
    "uint",
    "fixed",
    "ufixed",
    "bool",
    "index",
)


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: ``kind``, total ``bits`` and, for fixed point, fraction bits ``frac``."""

    kind: str
    bits: int
    frac: int = 0

    def __str__(self) -> str:
        match self.kind:
            case "float":
                return f"f{self.bits}"
            case "bfloat":
                return "bf16"
            case "bool":
                return "bool"
            case "index":
                return "index"
            case "int" | "uint":
                if self.bits in (8, 16, 32, 64):
                    return f"{self.kind[0]}{self.bits}"
                return f"{'Int' if self.kind == INT else 'UInt'}({self.bits})"
            case _:
                return f"{'Fixed' if self.kind == FIXED else 'UFixed'}({self.bits}, {self.frac})"

    __repr__ = __str__

    def __getitem__(self, shape: object) -> ArrayType:
        """``f32[64, 32]``: the annotation of an array."""
        return ArrayType(self, shape if isinstance(shape, tuple) else (shape,))

    def __matmul__(self, memory: object) -> ArrayType:
        """``f32 @ "reg"``: the annotation of a scalar in a memory."""
        return ArrayType(self, ()) @ memory

    @property
    def is_float(self) -> bool:
        return self.kind in (FLOAT, BFLOAT)

    @property
    def is_int(self) -> bool:
        """Plain integer arithmetic: Int, UInt or index (not bool, not fixed point)."""
        return self.kind in (INT, UINT, INDEX)

    @property
    def is_fixed(self) -> bool:
        return self.kind in (FIXED, UFIXED)

    @property
    def signed(self) -> bool:
        return self.kind in (FLOAT, BFLOAT, INT, FIXED, INDEX)

    @property
    def nbytes(self) -> int:
        """Bytes one element takes in an array (odd widths are stored in the next power of two)."""
        bits = 8
        while bits < self.bits:
            bits *= 2
        return bits // 8

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest stored integer (raw integer for fixed point)."""
        if self.is_float:
            raise IRTypeError(f"{self} has no integer range")
        if self.kind == BOOL:
            return 0, 1
        if self.signed:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1

    def neutral(self, op: str) -> int | float:
        """The number that leaves every other of this type unchanged under the reduction ``op``; sums of floats start at 0.0."""
        if op in ("min", "max"):
            if self.is_float:
                return float("inf") if op == "min" else float("-inf")
            raw = self.range[1 if op == "min" else 0]
            return raw / 2**self.frac if self.is_fixed else raw
        if op == "&":
            return -1 if self.signed else self.range[1]
        return {"+": 0, "*": 1, "|": 0, "^": 0}[op]

    def to_numpy(self) -> np.dtype:
        """The NumPy dtype an array of this element type is stored in.

        bf16: its bits in uint16; fixed point: the raw integers; wider than 64 bits: Python ints (object).
        """
        if self.kind == FLOAT:
            return np.dtype(f"f{self.bits // 8}")
        if self.kind == BFLOAT:
            return np.dtype(np.uint16)
        if self.kind == BOOL:
            return np.dtype(np.bool_)
        if self.bits > 64:
            return np.dtype(object)
        return np.dtype(f"{'i' if self.signed else 'u'}{self.nbytes}")


@dataclass(frozen=True, slots=True)
class ArrayType:
    """What ``f32[64, 32] @ "reg"`` means in Python code: element type, extents, memory name."""

    dtype: DType
    shape: tuple[Any, ...]
    memory: str | None = None

    def __matmul__(self, memory: object) -> ArrayType:
        """The same array placed in ``memory`` (a name, or an object with a ``name``)."""
        name = memory if isinstance(memory, str) else getattr(memory, "name", None)
        if not isinstance(name, str):
            raise IRTypeError(f"{memory!r} is not a memory", hint='write its name: f32[16] @ "reg"')
        return ArrayType(self.dtype, self.shape, name)


f16, f32, f64 = DType(FLOAT, 16), DType(FLOAT, 32), DType(FLOAT, 64)
bf16 = DType(BFLOAT, 16)
i8, i16, i32, i64 = (DType(INT, n) for n in (8, 16, 32, 64))
u8, u16, u32, u64 = (DType(UINT, n) for n in (8, 16, 32, 64))
boolean = DType(BOOL, 1)
index = DType(INDEX, 64)


def Int(bits: int) -> DType:
    """Signed two's-complement integer of ``bits`` bits."""
    return DType(INT, _positive(bits))


def UInt(bits: int) -> DType:
    """Unsigned integer of ``bits`` bits."""
    return DType(UINT, _positive(bits))


def Fixed(bits: int, frac: int) -> DType:
    """Signed fixed point: value = raw integer of ``bits`` bits / 2**frac."""
    return DType(FIXED, _positive(bits), frac)


def UFixed(bits: int, frac: int) -> DType:
    """Unsigned fixed point: value = raw integer of ``bits`` bits / 2**frac."""
    return DType(UFIXED, _positive(bits), frac)


def _positive(bits: int) -> int:
    if not isinstance(bits, int) or not 1 <= bits <= 4096:
        raise IRTypeError(f"bit width {bits!r} is not between 1 and 4096")
    return bits


NAMED: dict[str, DType] = {str(t): t for t in (f16, f32, f64, bf16, i8, i16, i32, i64, u8, u16, u32, u64, boolean, index)}
_PARAMETRIC = re.compile(r"(Int|UInt|Fixed|UFixed)\(\s*(\d+)\s*(?:,\s*(-?\d+)\s*)?\)$")


def parse_dtype(text: str) -> DType:
    """The type that ``str(dtype)`` printed."""
    if text in NAMED:
        return NAMED[text]
    if (m := _PARAMETRIC.match(text)) is None:
        raise IRTypeError(f"unknown element type {text!r}", hint=f"known: {', '.join(NAMED)}, Int(n), UInt(n), Fixed(n, f), UFixed(n, f)")
    name, bits, frac = m[1], int(m[2]), m[3]
    if name in ("Int", "UInt"):
        return Int(bits) if name == "Int" else UInt(bits)
    return (Fixed if name == "Fixed" else UFixed)(bits, int(frac or 0))


def from_numpy(dtype: np.dtype | type) -> DType:
    """The element type of a NumPy array."""
    d = np.dtype(dtype)
    if d.kind == "f" and d.itemsize in (2, 4, 8):
        return DType(FLOAT, d.itemsize * 8)
    if d.kind in "iu":
        return DType(INT if d.kind == "i" else UINT, d.itemsize * 8)
    if d.kind == "b":
        return boolean
    raise IRTypeError(f"NumPy dtype {d} has no element type here", hint="use float16/32/64, (u)int8..64 or bool")


def _float_join(a: DType, b: DType) -> DType:
    if not b.is_float:
        return a
    if not a.is_float:
        return b
    if a == b:
        return a
    if a.bits == b.bits:  # f16 with bf16: neither holds the other
        return f32
    return a if a.bits > b.bits else b


def _as_int(t: DType) -> DType:
    return DType(UINT, 1) if t.kind == BOOL else t


def arithmetic_type(op: str, a: DType, b: DType) -> DType:
    """Result type of ``a op b`` for op in + - * / // % min max & | ^ << >>.

    Any operand that is a float makes the result that float; index with index stays index;
    Int(a)+Int(b) -> Int(max+1); Int(a)*Int(b) -> Int(a+b); UInt with Int is signed with one more
    bit; fixed point aligns fractions.
    """
    if a.is_float or b.is_float:
        if op in ("&", "|", "^", "<<", ">>"):
            raise IRTypeError(f"bit operation {op} on {a} and {b}: only integers have bits")
        return _float_join(a, b)
    if a.kind == INDEX and b.kind == INDEX and op != "/":
        return index
    if a.kind == BOOL and b.kind == BOOL and op in ("&", "|", "^", "min", "max"):
        return boolean
    a, b = _as_int(a), _as_int(b)
    if a.is_fixed or b.is_fixed:
        return _fixed_result(op, a, b)
    if op == "/":
        raise IRTypeError(f"'/' on integers {a} and {b} is ambiguous", hint="use // (floor), or cast an operand to a float")
    return _int_result(op, a, b)


def _int_result(op: str, a: DType, b: DType) -> DType:
    signed = a.signed or b.signed
    wa, wb = (t.bits + (1 if signed and not t.signed else 0) for t in (a, b))
    make = Int if signed else UInt
    match op:
        case "+":
            return make(max(wa, wb) + 1)
        case "-":
            return Int(max(a.bits + (not a.signed), b.bits + (not b.signed)) + 1) if not signed else Int(max(wa, wb) + 1)
        case "*":
            return make(wa + wb)
        case "//":
            return make(wa + 1) if signed else make(wa)
        case "%":
            return DType(INT if b.signed else UINT, b.bits)
        case "min" | "max" | "&" | "|" | "^":
            return make(max(wa, wb))
        case "<<" | ">>":
            return DType(INT if a.signed else UINT, a.bits)
    raise IRTypeError(f"unknown arithmetic operator {op!r}")


def _fixed_result(op: str, a: DType, b: DType) -> DType:
    signed = a.signed or b.signed
    make = Fixed if signed else UFixed
    ia, ib = (t.bits - t.frac + (1 if signed and not t.signed else 0) for t in (a, b))
    frac = max(a.frac, b.frac)
    match op:
        case "+" | "-":
            return (Fixed if op == "-" else make)(max(ia, ib) + 1 + frac, frac)
        case "*":
            return make(ia + ib + a.frac + b.frac, a.frac + b.frac)
        case "min" | "max":
            return make(max(ia, ib) + frac, frac)
        case "/":
            return make(ia + b.frac + 1 + a.frac + (1 if signed else 0), a.frac)
    raise IRTypeError(f"operator {op} is not defined on fixed point {a} and {b}")


def literal_type(value: int | float | bool) -> DType:
    """Type of a literal that meets no typed operand: bool, f32, or the narrowest Int."""
    if isinstance(value, bool):
        return boolean
    if isinstance(value, float):
        return f32
    return Int(max(value.bit_length() + 1, 2))


def weak_literal_type(value: int | float | bool, other: DType) -> DType:
    """Type a literal takes next to an operand of type ``other``."""
    if isinstance(value, bool):
        return boolean
    if other.is_float:
        return other
    if isinstance(value, float):
        return f32
    if other.kind == INDEX:
        return index
    return literal_type(value)
