"""Float arithmetic on values of any number of lanes, for writing expansions as formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.codegen.llvm.conversion import literal
from tilewright.codegen.llvm.values import Value, splat_text, value_type
from tilewright.codegen.llvm.writer import Writer
from tilewright.ir import types as ty
from tilewright.ir.types import DType

F, B = ty.f32, ty.boolean
#: Adding 1.5 * 2**23 leaves an integer in the low bits of the mantissa.
ROUNDER, _ROUNDER_BITS = 12582912.0, 1262485504
_SCALEF = (4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Algebra:
    """Writes operations on vectors of ``lanes`` (0: scalars) of ``dtype``, f32 or f64. No operation is reassociated.

    ``scalef``: the target has AVX-512's instructions that multiply by a power of two, for all vectors of up to
    512 bits, and that take the smaller of two magnitudes.
    """

    w: Writer
    lanes: int
    scalef: bool = False
    dtype: DType = F

    @property
    def looks_up(self) -> bool:
        """Whether :meth:`sixteen`, :meth:`within` and multiplying by powers of two are one instruction for every 512 bits."""
        return self.scalef and self.lanes in _SCALEF and self.lanes >= 16 and self.dtype == F

    @property
    def integer(self) -> DType:
        """Integers of the same width."""
        return ty.i64 if self.dtype == ty.f64 else ty.i32

    def c(self, x: float) -> Value:
        return literal(x, self.dtype, self.lanes)

    def i(self, x: int) -> Value:
        return Value(splat_text(value_type(self.integer), str(x), self.lanes), self.integer, self.lanes)

    def add(self, a: Value, b: Value) -> Value:
        return self._op("fadd" if a.dtype.is_float else "add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self._op("fsub" if a.dtype.is_float else "sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self._op("fmul", a, b)

    def div(self, a: Value, b: Value) -> Value:
        return self._op("fdiv", a, b)

    def neg(self, a: Value) -> Value:
        return self.w.value(f"fneg {a.operand}", self.dtype, self.lanes)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, fused where the machine can."""
        return self.w.intrinsic("fmuladd", [a, b, c], self.dtype)

    def abs(self, a: Value) -> Value:
        return self.w.intrinsic("fabs", [a], self.dtype)

    def sign_of(self, magnitude: Value, sign: Value) -> Value:
        return self.w.intrinsic("copysign", [magnitude, sign], self.dtype)

    def sqrt(self, a: Value) -> Value:
        return self.w.intrinsic("sqrt", [a], self.dtype)

    def bitwise(self, op: str, a: Value, b: Value) -> Value:
        """``and``, ``or``, ``xor`` of integers or conditions."""
        return self._op(op, a, b)

    def has_bit(self, a: Value, bit: int) -> Value:
        """Whether a bit of an integer is set."""
        return self.w.value(f"icmp ne {self.bitwise('and', a, self.i(1 << bit)).operand}, {self.i(0).ref}", B, self.lanes)

    def shift(self, op: str, a: Value, bits: int) -> Value:
        return self._op(op, a, self.i(bits))

    def bits(self, a: Value) -> Value:
        return self.w.value(f"bitcast {a.operand} to {value_type(self.integer, self.lanes)}", self.integer, self.lanes)

    def of_bits(self, a: Value) -> Value:
        return self.w.value(f"bitcast {a.operand} to {value_type(self.dtype, self.lanes)}", self.dtype, self.lanes)

    def to_float(self, a: Value) -> Value:
        return self.w.value(f"sitofp {a.operand} to {value_type(self.dtype, self.lanes)}", self.dtype, self.lanes)

    def test(self, op: str, a: Value, b: Value) -> Value:
        """fcmp with LLVM's predicate ``op``."""
        return self.w.value(f"fcmp {op} {a.operand}, {b.ref}", B, self.lanes)

    def select(self, cond: Value, a: Value, b: Value) -> Value:
        return self.w.select(cond, a, b)

    def clamp(self, x: Value, lo: float, hi: float) -> Value:
        """x within [lo, hi]; NaN stays."""
        x = self.select(self.test("olt", x, self.c(lo)), self.c(lo), x)
        return self.select(self.test("ogt", x, self.c(hi)), self.c(hi), x)

    def within(self, x: Value, most: float) -> Value:
        """x within +-most, with its sign; for NaN one of the two. Where :attr:`looks_up`."""
        vec = "<16 x float>"
        name = "llvm.x86.avx512.mask.range.ps.512"
        bound, rest = Algebra(self.w, 16).c(most).operand, f"{vec} zeroinitializer, i16 -1, i32 4"
        pieces = (self._piece(x, at, 16) for at in range(0, self.lanes, 16))
        return self._whole([self.w.pure(f"call {vec} @{name}({vec} {v}, {bound}, i32 2, {rest})") for v in pieces], 16)

    def times_power_of_two(self, y: Value, n: Value, normal: bool = False) -> Value:
        """y * 2**n in f32 for an integral float n within +-252; ``normal``: y and the result are normal numbers for
        sure (what comes of NaN is undefined then).

        Without the instruction it takes two factors, so that denormal results round once and overflow gives infinity.
        """
        if self.scalef and self.lanes in _SCALEF:
            return self._in_hardware(y, n)
        shifted = self.bits(self.add(n, self.c(ROUNDER)))  # the low bits are those of n
        if normal:
            return self.of_bits(self.add(self.bits(y), self.shift("shl", shifted, 23)))
        whole = self.sub(shifted, self.i(_ROUNDER_BITS))
        first = self.shift("ashr", whole, 1)
        for part in (first, self.sub(whole, first)):
            y = self.mul(y, self.of_bits(self.shift("shl", self.add(part, self.i(127)), 23)))
        return y

    def sixteen(self, table: Sequence[float], index: Value) -> Value:
        """The numbers of ``table`` that the four low bits of ``index`` choose, where :attr:`looks_up`."""
        vec, numbers = "<16 x float>", "<16 x i32>"
        entries = ", ".join(f"float {literal(x, F).ref}" for x in table)
        name = "llvm.x86.avx512.permvar.sf.512"
        indices = (self._piece(index, at, 16) for at in range(0, self.lanes, 16))
        return self._whole([self.w.pure(f"call {vec} @{name}({vec} <{entries}>, {numbers} {i})") for i in indices], 16)

    def _in_hardware(self, y: Value, n: Value) -> Value:
        lanes = min(self.lanes, 16)
        vec, mask = f"<{lanes} x float>", f"i{max(lanes, 8)}"
        name, rounding = f"llvm.x86.avx512.mask.scalef.ps.{32 * lanes}", ", i32 4" if lanes == 16 else ""
        pieces = []
        for at in range(0, self.lanes, lanes):
            a, b = (self._piece(v, at, lanes) for v in (y, n))
            pieces.append(self.w.pure(f"call {vec} @{name}({vec} {a}, {vec} {b}, {vec} zeroinitializer, {mask} -1{rounding})"))
        return self._whole(pieces, lanes)

    def _whole(self, pieces: list[str], lanes: int) -> Value:
        """Vectors of ``lanes`` put together to one of all lanes."""
        while len(pieces) > 1:
            pieces = [self._joined(a, b, lanes) for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
            lanes *= 2
        return Value(pieces[0], F, self.lanes)

    def _piece(self, v: Value, start: int, lanes: int) -> str:
        """``lanes`` of the lanes."""
        if lanes == self.lanes:
            return v.ref
        pick = ", ".join(f"i32 {start + i}" for i in range(lanes))
        return self.w.pure(f"shufflevector {v.operand}, {v.type} poison, <{lanes} x i32> <{pick}>")

    def _joined(self, a: str, b: str, lanes: int) -> str:
        vec, pick = f"<{lanes} x float>", ", ".join(f"i32 {i}" for i in range(2 * lanes))
        return self.w.pure(f"shufflevector {vec} {a}, {vec} {b}, <{2 * lanes} x i32> <{pick}>")

    def whole(self, x: Value) -> Value:
        """x rounded to an integer, |x| < 2**22 (others: something). Two additions; the target need not have the instruction."""
        return self.sub(self.add(x, self.c(ROUNDER)), self.c(ROUNDER))

    def poly(self, x: Value, coefficients: Sequence[float]) -> Value:
        """Horner's rule; coefficients from the constant upwards."""
        total = self.c(coefficients[-1])
        for k in reversed(coefficients[:-1]):
            total = self.fma(total, x, self.c(k))
        return total

    def _op(self, op: str, a: Value, b: Value) -> Value:
        return self.w.value(f"{op} {a.operand}, {b.ref}", a.dtype, self.lanes)
