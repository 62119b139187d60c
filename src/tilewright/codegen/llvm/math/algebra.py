"""Float arithmetic on f32 values of any number of lanes, for writing expansions as formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.codegen.llvm.conversion import literal
from tilewright.codegen.llvm.values import Value, splat_text, value_type
from tilewright.codegen.llvm.writer import Writer
from tilewright.ir import types as ty

F, I, B = ty.f32, ty.i32, ty.boolean


@dataclass(frozen=True, slots=True)
class Algebra:
    """Writes operations on vectors of ``lanes`` (0: scalars). No operation is reassociated."""

    w: Writer
    lanes: int

    def c(self, x: float) -> Value:
        return literal(x, F, self.lanes)

    def i(self, x: int) -> Value:
        return Value(splat_text("i32", str(x), self.lanes), I, self.lanes)

    def add(self, a: Value, b: Value) -> Value:
        return self._op("fadd" if a.dtype == F else "add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self._op("fsub" if a.dtype == F else "sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self._op("fmul", a, b)

    def div(self, a: Value, b: Value) -> Value:
        return self._op("fdiv", a, b)

    def neg(self, a: Value) -> Value:
        return self.w.value(f"fneg {a.operand}", F, self.lanes)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, fused where the machine can."""
        return self.w.intrinsic("fmuladd", [a, b, c], F)

    def abs(self, a: Value) -> Value:
        return self.w.intrinsic("fabs", [a], F)

    def sign_of(self, magnitude: Value, sign: Value) -> Value:
        return self.w.intrinsic("copysign", [magnitude, sign], F)

    def shift(self, op: str, a: Value, bits: int) -> Value:
        return self._op(op, a, self.i(bits))

    def bits(self, a: Value) -> Value:
        return self.w.value(f"bitcast {a.operand} to {value_type(I, self.lanes)}", I, self.lanes)

    def of_bits(self, a: Value) -> Value:
        return self.w.value(f"bitcast {a.operand} to {value_type(F, self.lanes)}", F, self.lanes)

    def to_float(self, a: Value) -> Value:
        return self.w.value(f"sitofp {a.operand} to {value_type(F, self.lanes)}", F, self.lanes)

    def test(self, op: str, a: Value, b: Value) -> Value:
        """fcmp with LLVM's predicate ``op``."""
        return self.w.value(f"fcmp {op} {a.operand}, {b.ref}", B, self.lanes)

    def select(self, cond: Value, a: Value, b: Value) -> Value:
        return self.w.select(cond, a, b)

    def clamp(self, x: Value, lo: float, hi: float) -> Value:
        """x within [lo, hi]; NaN stays."""
        x = self.select(self.test("olt", x, self.c(lo)), self.c(lo), x)
        return self.select(self.test("ogt", x, self.c(hi)), self.c(hi), x)

    def poly(self, x: Value, coefficients: Sequence[float]) -> Value:
        """Horner's rule; coefficients from the constant upwards."""
        total = self.c(coefficients[-1])
        for k in reversed(coefficients[:-1]):
            total = self.fma(total, x, self.c(k))
        return total

    def _op(self, op: str, a: Value, b: Value) -> Value:
        return self.w.value(f"{op} {a.operand}, {b.ref}", a.dtype, self.lanes)
