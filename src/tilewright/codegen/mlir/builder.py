"""SSA text: operations in order, names of values, constants once at the top of their function."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Const
from tilewright.ir.types import DType
from tilewright.util.errors import CodegenError

INDEX, I1 = "index", "i1"


@dataclass(frozen=True, slots=True)
class Value:
    """An SSA value and its MLIR type."""

    name: str
    type: str

    def __str__(self) -> str:
        return self.name


def value_type(dtype: DType) -> str:
    """The type that values of ``dtype`` are computed in: integers are signless, of their own width."""
    if dtype.kind == ty.INDEX:
        return INDEX
    return str(dtype) if dtype.is_float else f"i{dtype.bits}"


def element_type(dtype: DType) -> str:
    """The type of a memref's elements: odd widths are stored in the next power of two."""
    if dtype.is_float or dtype.kind in (ty.BOOL, ty.INDEX):
        return value_type(dtype)
    return f"i{dtype.nbytes * 8}"


def memref(b: Buffer) -> str:
    """The type of a buffer."""
    extents = [str(int(e.value)) if isinstance(e, Const) else "?" for e in b.physical_shape()]
    return f"memref<{'x'.join([*extents, element_type(b.dtype)])}>"


@dataclass(slots=True)
class Builder:
    """Operations of one function. Values have numbers for names, so that they never meet those of buffers and loops."""

    depth: int = 2
    lines: list[str] = field(default_factory=list)
    constants: dict[tuple[str, str], Value] = field(default_factory=dict)
    count: int = 0

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def fresh(self) -> str:
        self.count += 1
        return f"%{self.count}"

    def op(self, text: str, result: str) -> Value:
        """``%n = text`` of type ``result``."""
        out = Value(self.fresh(), result)
        self.line(f"{out} = {text}")
        return out

    def constant(self, value: int | float | bool, type: str) -> Value:
        """A constant, defined once."""
        text = literal(value, type)
        if (text, type) not in self.constants:
            name = "".join(c if c.isalnum() else {"-": "m", ".": "p", "+": ""}.get(c, "_") for c in text)
            self.constants[text, type] = Value(f"%c{name}" + ("" if type == INDEX else f"_{type}"), type)
        return self.constants[text, type]

    @contextmanager
    def region(self, head: str, tail: str = "}") -> Iterator[None]:
        """``head {`` ... ``tail``."""
        self.line(head + " {")
        self.depth += 1
        yield
        self.depth -= 1
        self.line(tail)

    def prelude(self) -> list[str]:
        """The definitions of the constants."""
        return ["  " * 2 + f"{v} = arith.constant {t}" + ("" if v.type == I1 else f" : {v.type}") for (t, _), v in self.constants.items()]


def literal(value: int | float | bool, type: str) -> str:
    """A constant as MLIR writes it; floats that decimals cannot express by their bits."""
    if type == I1:
        return "true" if value else "false"
    if not isinstance(value, float):
        return str(int(value))
    if math.isfinite(value):
        text = repr(value)
        mantissa, e, exponent = text.partition("e")
        return (mantissa if "." in mantissa else mantissa + ".0") + e + exponent
    codes = {"f16": "<e", "f32": "<f", "f64": "<d"}
    if type == "bf16":
        bits = struct.pack("<f", value)[2:]
    elif type in codes:
        bits = struct.pack(codes[type], value)
    else:
        raise CodegenError(f"{value} is no constant of type {type}")
    return "0x" + bits[::-1].hex().upper()
