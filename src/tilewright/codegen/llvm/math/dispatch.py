"""Which form a mathematical function takes for a type.

f32 (and the 16-bit types, computed in f32) use our expansions where there is one; f64 and the
rest call libm once per lane.
"""

from __future__ import annotations

from collections.abc import Callable

from tilewright.codegen.llvm.conversion import convert, literal, rounded
from tilewright.codegen.llvm.frame import Frame
from tilewright.codegen.llvm.math.algebra import Algebra
from tilewright.codegen.llvm.values import Value, value_type
from tilewright.codegen.llvm.writer import Writer
from tilewright.ir import types as ty
from tilewright.ir.types import DType

#: LLVM intrinsics that every target computes inline and exactly.
EXACT = {
    "sqrt": "sqrt",
    "floor": "floor",
    "ceil": "ceil",
    "round": "roundeven",
    "trunc": "trunc",
    "abs": "fabs",
    "copysign": "copysign",
    "fma": "fma",
}
Expansion = Callable[..., Value]
#: Features of a target whose vectors of every width can be multiplied by powers of two, or bounded with their sign, in one instruction.
_SCALEF = {"avx512f", "avx512vl", "avx512dq"}


def call(f: Frame, name: str, args: list[Value], dtype: DType) -> Value:
    """``name(*args)``; the arguments have equal lanes and one float type."""
    w = f.w
    if name in ("isnan", "isinf"):
        return _predicate(w, name, args[0])
    if name in EXACT:
        return rounded(w, w.intrinsic(EXACT[name], args, dtype))
    if name == "rsqrt":
        root = w.intrinsic("sqrt", [convert(w, args[0], ty.f64)] if dtype.bits < 64 else args, ty.f64)
        one = literal(1.0, ty.f64, root.lanes)
        return convert(w, w.value(f"fdiv {one.operand}, {root.ref}", ty.f64, root.lanes), dtype)
    if dtype.bits < 64 and (expand := _expansion(name)):
        y = expand(_algebra(f, args[0].lanes), *args)._replace(dtype=dtype)
        return rounded(w, _unless_far(f, name, args[0], y) if name in ("sin", "cos", "tan") else y)
    if name == "sigmoid":
        return _sigmoid_by_libm(f, args[0])
    return _libm(f, name, args, dtype)


def scaled_exp(f: Frame, x: Value, factor: float) -> Value:
    """e**(factor * x) of f32, with a product that need not be rounded."""
    from tilewright.codegen.llvm.math.expansions import exp

    return exp(_algebra(f, x.lanes), x, factor)


def _algebra(f: Frame, lanes: int) -> Algebra:
    return Algebra(f.w, lanes, scalef=_SCALEF.issubset(f.module.machine.target.features))


def _expansion(name: str) -> Expansion | None:
    from tilewright.codegen.llvm.math.expansions import EXPANSIONS
    from tilewright.codegen.llvm.math.power import pow
    from tilewright.codegen.llvm.math.trigonometry import TRIGONOMETRY

    return pow if name == "pow" else EXPANSIONS.get(name) or TRIGONOMETRY.get(name)


def _unless_far(f: Frame, name: str, x: Value, y: Value) -> Value:
    """``y``, but from libm where ``x`` is too large for it: a branch that is hardly ever taken."""
    from tilewright.codegen.llvm.math.trigonometry import REDUCED

    w = f.w
    size = w.intrinsic("fabs", [x], x.dtype)
    far = w.value(f"fcmp ogt {size.operand}, {literal(REDUCED, x.dtype, x.lanes).ref}", ty.boolean, x.lanes)
    some = w.pure(f"call i1 @llvm.vector.reduce.or.v{x.lanes}i1({far.operand})") if x.lanes else far.ref
    some = w.pure(f"call i1 @llvm.expect.i1(i1 {some}, i1 false)")
    before, slow, end = w.label, w.block("far"), w.block("near")
    w.branch(some, slow, end)
    w.start(slow)
    exact = w.select(far, _libm(f, name, [x], x.dtype), y)
    w.jump(end)
    w.start(end)
    return Value(w.op(f"phi {y.type} [ {y.ref}, %{before} ], [ {exact.ref}, %{slow} ]"), y.dtype, y.lanes)


def _predicate(w: Writer, name: str, v: Value) -> Value:
    if name == "isnan":
        return w.value(f"fcmp uno {v.operand}, {v.ref}", ty.boolean, v.lanes)
    magnitude = w.intrinsic("fabs", [v], v.dtype)
    return w.value(f"fcmp oeq {magnitude.operand}, {literal(float('inf'), v.dtype, v.lanes).ref}", ty.boolean, v.lanes)


def _sigmoid_by_libm(f: Frame, x: Value) -> Value:
    w = f.w
    one = literal(1.0, x.dtype, x.lanes)
    grown = _libm(f, "exp", [w.value(f"fneg {x.operand}", x.dtype, x.lanes)], x.dtype)
    return w.value(f"fdiv {one.operand}, {w.value(f'fadd {one.operand}, {grown.ref}', x.dtype, x.lanes).ref}", x.dtype, x.lanes)


def _libm(f: Frame, name: str, args: list[Value], dtype: DType) -> Value:
    """One call of the C library for each lane; 16-bit types through f32."""
    w = f.w
    wide = ty.f64 if dtype.bits == 64 else ty.f32
    symbol = name + ("" if wide == ty.f64 else "f")
    scalar = value_type(wide)
    f.module.declares[symbol] = f"declare {scalar} @{symbol}({', '.join(scalar for _ in args)}) nounwind willreturn memory(none)"
    lanes = args[0].lanes
    if not lanes:
        operands = ", ".join(f"{scalar} {a.ref}" for a in args)
        return rounded(w, w.value(f"call {scalar} @{symbol}({operands})", dtype))
    out = "poison"
    for i in range(lanes):
        operands = ", ".join(scalar + " " + w.pure(f"extractelement {a.operand}, i64 {i}") for a in args)
        one = w.pure(f"call {scalar} @{symbol}({operands})")
        out = w.pure(f"insertelement {value_type(dtype, lanes)} {out}, {scalar} {one}, i64 {i}")
    return rounded(w, Value(out, dtype, lanes))
