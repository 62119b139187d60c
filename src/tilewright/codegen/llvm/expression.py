"""Expressions: the value of a tree in the current lanes.

Index arithmetic goes through polynomials (``poly``), everything else through values. Sub-trees that
do not depend on the lane stay scalar until an operation meets a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.codegen.llvm import access, arithmetic, conversion
from tilewright.codegen.llvm.frame import Frame
from tilewright.codegen.llvm.index import Poly
from tilewright.codegen.llvm.math import call as math_call
from tilewright.codegen.llvm.math import scaled_exp
from tilewright.codegen.llvm.values import Value, constant_mask, container_bits, splat_text, value_type
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Binary, Bitcast, Cast, Compare, Const, Expr, Intrinsic, Load, Logical, Not, Var, Where
from tilewright.ir.grid import Grid, NotVectorizable
from tilewright.util.errors import CodegenError


def value(f: Frame, e: Expr) -> Value:
    """``e`` in its own type; scalar when it is the same in all lanes."""
    return _EMIT[type(e)](f, e)


def converted(f: Frame, e: Expr, to: ty.DType) -> Value:
    """``e`` converted to ``to`` as an assignment does it; integers are computed no wider than needed."""
    plain = to.kind in (ty.INT, ty.UINT) and to.nbytes * 8 == to.bits
    if plain and e.dtype.is_int and e.dtype.bits > to.bits:
        return low_bits(f, e, to)
    if plain and e.dtype.is_float and _fits_i32(e):
        v = value(f, e)
        return conversion.normalised(f.w, conversion.bounded_to_i32(f.w, v), 32, to, v.lanes)
    return conversion.convert(f.w, value(f, e), to)


def _fits_i32(e: Expr) -> bool:
    """Whether a float expression is clamped to the i32 range by constants (as quantisation does).

    An outer clamp does not undo an inner one as long as all constants are in the range.
    """
    below = above = False
    while True:
        if isinstance(e, Binary) and e.op in ("min", "max") and isinstance(e.b, Const) and abs(e.b.value) < 2**31:
            below, above = below or e.op == "max", above or e.op == "min"
            e = e.a
        elif isinstance(e, Intrinsic) and e.name in _TO_WHOLE:
            e = e.args[0]
        else:
            return below and above


def low_bits(f: Frame, e: Expr, to: ty.DType) -> Value:
    """The integer ``e`` modulo 2**bits of ``to``, a type of 8, 16, 32 or 64 bits.

    The exact result type of a sum or product is wider than its operands; only the bits that are
    kept are computed.
    """
    bits = to.bits
    if e.dtype.kind == ty.INDEX and bits < 64:
        p = poly(f, e)
        lanes = 0 if p.is_uniform else f.lanes
        return Value(f.w.index_value(p, lanes, bits), to, lanes)
    if isinstance(e, Binary) and e.op in arithmetic.MODULAR and e.dtype.is_int and e.dtype.bits >= bits:
        a, b = arithmetic.together(f.w, low_bits(f, e.a, to), low_bits(f, e.b, to))
        return f.w.value(f"{arithmetic.MODULAR[e.op]} {value_type(to, a.lanes)} {a.ref}, {b.ref}", to, a.lanes)
    if isinstance(e, Cast) and e.dtype.is_int and e.a.dtype.is_int and e.dtype.bits >= bits:
        return low_bits(f, e.a, to)
    v = value(f, e)
    return Value(conversion.integer_in(f.w, v, bits), to, v.lanes)


# --- index expressions ------------------------------------------------------------------------


def poly(f: Frame, e: Expr) -> Poly:
    """An integer expression as a polynomial of index atoms."""
    if isinstance(e, Const):
        return Poly(int(e.value))
    if isinstance(e, Var):
        return _variable(f, e)
    if e.dtype.kind == ty.INDEX:
        if isinstance(e, Binary):
            return _poly_binary(f, e)
        if isinstance(e, Cast) and e.a.dtype.is_int:
            return poly(f, e.a)
    v = value(f, e) if e.dtype.kind != ty.INDEX or not isinstance(e, Cast) else conversion.convert(f.w, value(f, e.a), ty.index)
    return _opaque(f, v)


def _opaque(f: Frame, v: Value) -> Poly:
    lo: int | None = None
    hi: int | None = None
    if v.dtype.kind != ty.INDEX and v.dtype.bits <= 32:
        lo, hi = v.dtype.range
    return f.atom(conversion.integer_in(f.w, v, 64), lo, hi, v.lanes)


def _variable(f: Frame, e: Var) -> Poly:
    try:
        return f.env[e.name]
    except KeyError:
        raise CodegenError(
            f"kernel {f.module.kernel.name}: variable {e.name!r} has no value here", hint="declare it in the kernel's sizes"
        ) from None


def _poly_binary(f: Frame, e: Binary) -> Poly:
    a, b = poly(f, e.a), poly(f, e.b)
    match e.op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "//" | "%" if b.is_const and b.const > 0:
            return access.floordiv(f, a, b.const) if e.op == "//" else access.modulo(f, a, b.const)
        case "min" | "max":
            return _poly_extremum(f, e.op, a, b)
    v = arithmetic.binary(f.w, e.op, _index_value(f, a), _index_value(f, b), ty.index)
    return f.atom(v.ref, None, None, v.lanes)


def _poly_extremum(f: Frame, op: str, a: Poly, b: Poly) -> Poly:
    lo, hi = (a - b).range()
    if hi is not None and hi <= 0:
        return a if op == "min" else b
    if lo is not None and lo >= 0:
        return b if op == "min" else a
    v = arithmetic.binary(f.w, op, _index_value(f, a), _index_value(f, b), ty.index)
    (alo, ahi), (blo, bhi) = a.range(), b.range()
    los, his = [x for x in (alo, blo) if x is not None], [x for x in (ahi, bhi) if x is not None]
    if op == "min":
        return f.atom(v.ref, min(los) if len(los) == 2 else None, min(his) if his else None, v.lanes)
    return f.atom(v.ref, max(los) if los else None, max(his) if len(his) == 2 else None, v.lanes)


def _index_value(f: Frame, p: Poly) -> Value:
    lanes = 0 if p.is_uniform else f.lanes
    return Value(f.w.index_value(p, lanes), ty.index, lanes)


# --- nodes ------------------------------------------------------------------------------------


def _const(f: Frame, e: Const) -> Value:
    return conversion.literal(e.value, e.dtype)


def _var(f: Frame, e: Var) -> Value:
    return _index_value(f, _variable(f, e))


def _load(f: Frame, e: Load) -> Value:
    s = f.storages[e.buffer.name]
    index = tuple(poly(f, i) for i in e.indices)
    safe = f.mask is None or _is_safe(f, e, index)
    return access.load(f, s, access.physical_offset(f, s, index), safe)


def _is_safe(f: Frame, e: Load, index: tuple[Poly, ...]) -> bool:
    """Whether the load may be executed in all lanes, whatever their mask."""
    if f.overhang and not all(p.is_uniform for p in index):
        return False
    return access.in_bounds(index, tuple(poly(f, n) for n in e.buffer.shape))


def _binary(f: Frame, e: Binary) -> Value:
    if e.dtype.kind == ty.INDEX:
        return _index_value(f, _poly_binary(f, e))
    a, b = value(f, e.a), value(f, e.b)
    return arithmetic.binary(f.w, e.op, a, b, e.dtype)


def _compare(f: Frame, e: Compare) -> Value:
    indices = (poly(f, e.a), poly(f, e.b)) if e.a.dtype.kind == e.b.dtype.kind == ty.INDEX else None
    if indices is not None and (known := decided(e.op, indices[0] - indices[1])) is not None:
        return conversion.literal(known, ty.boolean)
    if (by_lane := _by_lane(f, e)) is not None:
        return by_lane
    a, b = (value(f, e.a), value(f, e.b)) if indices is None else (_index_value(f, p) for p in indices)
    return arithmetic.compare(f.w, e.op, a, b)


def _by_lane(f: Frame, e: Compare) -> Value | None:
    """The answer in each lane, where nothing but its number decides.

    LLVM would find it, too, but then nobody else knows that a mask is a constant (``access.store`` has to).
    """
    if not f.lanes or any(isinstance(n, Load | Intrinsic) for n in ex.walk(e)):
        return None
    numbers: dict[str, Any] = {}
    for name in ex.free_vars(e):
        if name not in f.env:
            return None
        uniform, stride, varying = f.env[name].lane_parts()
        if uniform.terms or varying.terms:
            return None
        numbers[name] = uniform.const + stride * np.arange(f.lanes)
    try:
        with np.errstate(all="ignore"):
            return constant_mask(np.broadcast_to(Grid({}, numbers).value(e), f.lanes).tolist())
    except NotVectorizable:
        return None


def decided(op: str, difference: Poly) -> bool | None:
    """The truth of ``difference op 0`` if ranges alone decide it."""
    lo, hi = difference.range()
    below = hi is not None and hi < 0
    above = lo is not None and lo > 0
    at_most = hi is not None and hi <= 0
    at_least = lo is not None and lo >= 0
    match op:
        case "<":
            return True if below else False if at_least else None
        case "<=":
            return True if at_most else False if above else None
        case ">":
            return True if above else False if at_most else None
        case ">=":
            return True if at_least else False if below else None
    equal = True if lo == hi == 0 else False if below or above else None
    return equal if op == "==" or equal is None else not equal


def _logical(f: Frame, e: Logical) -> Value:
    a, b = value(f, e.a), value(f, e.b)
    for x, y in ((a, b), (b, a)):
        if x.is_literal and not x.lanes:
            absorbing = "false" if e.op == "and" else "true"
            return x if x.ref == absorbing else y
    return arithmetic.logic(f.w, e.op, a, b)


def _not(f: Frame, e: Not) -> Value:
    a = value(f, e.a)
    if a.is_literal and not a.lanes:
        return conversion.literal(a.ref == "false", ty.boolean)
    return arithmetic.negate(f.w, a)


def _where(f: Frame, e: Where) -> Value:
    cond = value(f, e.cond)
    if cond.is_literal and not cond.lanes:
        return value(f, e.a if cond.ref == "true" else e.b)
    if cond.lanes:
        with f.masked(narrowed(f, cond), False):
            a = value(f, e.a)
        with f.masked(narrowed(f, arithmetic.negate(f.w, cond)), False):
            b = value(f, e.b)
        return f.w.select(cond, a, b)
    if _speculatable(f, e.a) and _speculatable(f, e.b):
        return f.w.select(cond, value(f, e.a), value(f, e.b))
    return _branch(f, cond, e)


def narrowed(f: Frame, cond: Value) -> Value:
    """The active lanes in which ``cond`` also holds."""
    cond = f.w.spread(cond, f.lanes)
    return arithmetic.logic(f.w, "and", f.mask, cond) if f.mask else cond


def _speculatable(f: Frame, e: Expr) -> bool:
    """Whether ``e`` may be evaluated although it is not needed: its loads are in bounds for certain."""
    for n in ex.walk(e):
        if isinstance(n, Load):
            if any(not _plain_index(i) for i in n.indices) or not _is_safe(f, n, tuple(poly(f, i) for i in n.indices)):
                return False
    return True


def _plain_index(e: Expr) -> bool:
    return not any(isinstance(n, Load) for n in ex.walk(e))


def _branch(f: Frame, cond: Value, e: Where) -> Value:
    w = f.w
    then, orelse, end = w.block("then"), w.block("else"), w.block("endif")
    w.branch(cond.ref, then, orelse)
    incoming: list[tuple[Value, str]] = []
    for label, side in ((then, e.a), (orelse, e.b)):
        w.start(label)
        v = value(f, side)
        if f.lanes:
            v = w.spread(v, f.lanes)
        incoming.append((v, w.label))
        w.jump(end)
    w.start(end)
    pairs = ", ".join(f"[ {v.ref}, %{label} ]" for v, label in incoming)
    return Value(w.op(f"phi {incoming[0][0].type} {pairs}"), e.dtype, incoming[0][0].lanes)


def _cast(f: Frame, e: Cast) -> Value:
    if e.dtype.kind == ty.INDEX and e.a.dtype.is_int:
        return _index_value(f, poly(f, e.a))
    return converted(f, e.a, e.dtype)


def _bitcast(f: Frame, e: Bitcast) -> Value:
    return conversion.bitcast(f.w, value(f, e.a), e.dtype)


def _intrinsic(f: Frame, e: Intrinsic) -> Value:
    if e.name == "exp" and (scaled := _scaled(e.args[0])) is not None:
        return scaled_exp(f, value(f, scaled[0]), scaled[1])
    args = [value(f, a) for a in e.args]
    lanes = max(a.lanes for a in args)
    args = [f.w.spread(a, lanes) for a in args]
    if e.name == "abs" and not e.dtype.is_float:
        return _integer_abs(f, args[0])
    return math_call(f, e.name, args, e.dtype)


def _scaled(e: Expr) -> tuple[Expr, float] | None:
    """An f32 expression and the constant it is multiplied by, where the constant is far from the ends of the type."""
    if not isinstance(e, Binary) or e.op not in ("*", "/") or e.dtype != ty.f32:
        return None
    x, c = (e.b, e.a) if e.op == "*" and isinstance(e.a, Const) else (e.a, e.b)
    if not isinstance(c, Const) or x.dtype != ty.f32 or not 2.0**-64 <= abs(float(c.value)) <= 2.0**64:
        return None
    return x, float(c.value) if e.op == "*" else 1 / float(c.value)


def _integer_abs(f: Frame, v: Value) -> Value:
    if not v.dtype.signed:
        return v
    bits = container_bits(v.dtype)
    vec = value_type(v.dtype, v.lanes)
    negative = f.w.pure(f"sub {vec} {splat_text(f'i{bits}', '0', v.lanes)}, {v.ref}")
    below = Value(f.w.pure(f"icmp slt {vec} {v.ref}, {splat_text(f'i{bits}', '0', v.lanes)}"), ty.boolean, v.lanes)
    magnitude = f.w.select(below, Value(negative, v.dtype, v.lanes), v)
    return conversion.normalised(f.w, magnitude.ref, bits, v.dtype, v.lanes)


_TO_WHOLE = ("round", "floor", "ceil", "trunc")

_EMIT: dict[type, Callable[[Frame, Any], Value]] = {
    Const: _const,
    Var: _var,
    Load: _load,
    Binary: _binary,
    Compare: _compare,
    Logical: _logical,
    Not: _not,
    Where: _where,
    Cast: _cast,
    Bitcast: _bitcast,
    Intrinsic: _intrinsic,
}
