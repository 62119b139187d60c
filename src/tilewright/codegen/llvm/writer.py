"""Text of one LLVM function: fresh names, blocks, and index polynomials as instructions."""

from __future__ import annotations

from tilewright.codegen.llvm.index import Atom, Poly
from tilewright.codegen.llvm.values import Value, splat_text, suffix, value_type
from tilewright.ir.types import DType


class Writer:
    """Appends instructions to the current block of a function."""

    __slots__ = ("_count", "_seen", "allocas", "definitions", "label", "lines")

    def __init__(self, definitions: dict[str, str]) -> None:
        #: Functions the module must define, by symbol (shared by all functions of the module).
        self.definitions = definitions
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.label = "entry"
        self._count = 0
        #: Instructions of the current block by text: repeating one gives the same name.
        self._seen: dict[str, str] = {}

    def name(self, stem: str = "v") -> str:
        """A fresh SSA name (with %)."""
        self._count += 1
        return f"%{stem}{self._count}"

    def block(self, stem: str) -> str:
        """A fresh block name (without %)."""
        self._count += 1
        return f"{stem}{self._count}"

    def line(self, text: str) -> None:
        """An instruction without a result."""
        self.lines.append("  " + text)

    def op(self, text: str) -> str:
        """An instruction; the name of its result."""
        out = self.name()
        self.lines.append(f"  {out} = {text}")
        return out

    def pure(self, text: str) -> str:
        """An instruction without side effects that reads no memory: written once per block."""
        ref = self._seen.get(text)
        if ref is None:
            ref = self._seen[text] = self.op(text)
        return ref

    def start(self, label: str) -> None:
        """Begin a block."""
        self.lines.append(f"{label}:")
        self.label = label
        self._seen = {}

    def jump(self, label: str) -> None:
        self.line(f"br label %{label}")

    def branch(self, cond: str, then: str, orelse: str) -> None:
        self.line(f"br i1 {cond}, label %{then}, label %{orelse}")

    def alloca(self, type_text: str, count: int, align: int) -> str:
        """Memory of the function's frame (allocated once, in the entry block)."""
        out = self.name("mem")
        self.allocas.append(f"  {out} = alloca [{count} x {type_text}], align {align}")
        return out

    # --- values -----------------------------------------------------------------------------

    def value(self, text: str, dtype: DType, lanes: int = 0) -> Value:
        return Value(self.pure(text), dtype, lanes)

    def spread(self, v: Value, lanes: int) -> Value:
        """``v`` in all of ``lanes`` lanes (0: as it is)."""
        if v.lanes == lanes:
            return v
        return Value(self.spread_text(v.ref, value_type(v.dtype), lanes), v.dtype, lanes)

    def spread_text(self, ref: str, scalar: str, lanes: int) -> str:
        """A scalar of LLVM type ``scalar`` repeated in all lanes."""
        if ref[0] != "%":
            return splat_text(scalar, ref, lanes)
        vec = f"<{lanes} x {scalar}>"
        one = self.pure(f"insertelement {vec} poison, {scalar} {ref}, i64 0")
        return self.pure(f"shufflevector {vec} {one}, {vec} poison, <{lanes} x i32> zeroinitializer")

    def intrinsic(self, name: str, args: list[Value], dtype: DType, flags: str = "", extra: str = "") -> Value:
        """Call of an overloaded LLVM intrinsic on operands of one type."""
        first = args[0]
        operands = ", ".join(a.operand for a in args) + extra
        result = value_type(dtype, first.lanes)
        return self.value(f"call {flags}{result} @llvm.{name}.{suffix(first.type)}({operands})", dtype, first.lanes)

    def select(self, cond: Value, a: Value, b: Value) -> Value:
        lanes = max(cond.lanes, a.lanes, b.lanes)
        a, b = self.spread(a, lanes), self.spread(b, lanes)
        return self.value(f"select {cond.operand}, {a.operand}, {b.operand}", a.dtype, lanes)

    # --- index polynomials -------------------------------------------------------------------

    def scalar_index(self, p: Poly) -> str:
        """An i64 holding ``p``, which must be equal in all lanes."""
        total: str | None = None
        for monomial, c in p.ordered():
            term = self._term(monomial, c)
            total = term if total is None else self.pure(f"add nsw i64 {total}, {term}")
        if total is None:
            return str(p.const)
        return self.pure(f"add nsw i64 {total}, {p.const}") if p.const else total

    def _term(self, monomial: tuple[Atom, ...], c: int) -> str:
        ref = monomial[0].ref
        for a in monomial[1:]:
            ref = self.pure(f"mul nsw i64 {ref}, {a.ref}")
        return ref if c == 1 else self.pure(f"mul nsw i64 {ref}, {c}")

    def index_value(self, p: Poly, lanes: int, bits: int = 64) -> str:
        """``p`` modulo 2**bits: a scalar if ``lanes`` is 0, else one element per lane."""
        uniform, stride, varying = p.lane_parts()
        base = self.scalar_index(uniform)
        if bits < 64 and base[0] == "%":
            base = self.pure(f"trunc i64 {base} to i{bits}")
        if not lanes:
            return base
        vec = f"<{lanes} x i{bits}>"
        total = "" if base == "0" else self.spread_text(base, f"i{bits}", lanes)
        if stride:
            steps = "<" + ", ".join(f"i{bits} {_wrap(i * stride, bits)}" for i in range(lanes)) + ">"
            total = self.pure(f"add {vec} {total}, {steps}") if total else steps
        for monomial, c in varying.ordered():
            term = self._vector_term(monomial, c, lanes)
            if bits < 64:
                term = self.pure(f"trunc <{lanes} x i64> {term} to {vec}")
            total = self.pure(f"add {vec} {total}, {term}") if total else term
        return total or splat_text(f"i{bits}", "0", lanes)

    def _vector_term(self, monomial: tuple[Atom, ...], c: int, lanes: int) -> str:
        vec = f"<{lanes} x i64>"
        refs = [a.ref if a.lanes else self.spread_text(a.ref, "i64", lanes) for a in monomial]
        ref = refs[0]
        for r in refs[1:]:
            ref = self.pure(f"mul {vec} {ref}, {r}")
        return ref if c == 1 else self.pure(f"mul {vec} {ref}, {splat_text('i64', str(c), lanes)}")


def _wrap(x: int, bits: int) -> int:
    half = 1 << (bits - 1)
    return (x + half) % (2 * half) - half
