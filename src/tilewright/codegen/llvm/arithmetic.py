"""Arithmetic, comparisons and logic on values, scalar or vector alike."""

from __future__ import annotations

from tilewright.codegen.llvm.conversion import convert, integer_in, literal, normalised, rounded, wide_truncation, wrapped_i64
from tilewright.codegen.llvm.division import floor_division
from tilewright.codegen.llvm.values import Value, constant_mask, container_bits, integer_type, splat_text, value_type
from tilewright.codegen.llvm.writer import Writer
from tilewright.ir import types as ty
from tilewright.ir.types import DType

#: Operators whose low result bits depend only on the low bits of the operands.
MODULAR = {"+": "add", "-": "sub", "*": "mul", "&": "and", "|": "or", "^": "xor"}
_FLOAT_OPS = {"+": "fadd", "-": "fsub", "*": "fmul", "/": "fdiv"}
_ORDERED = {"<": "olt", "<=": "ole", ">": "ogt", ">=": "oge", "==": "oeq", "!=": "une"}
_PLAIN = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
_SWAPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


def together(w: Writer, a: Value, b: Value) -> tuple[Value, Value]:
    """Both with the same number of lanes."""
    lanes = a.lanes or b.lanes
    return w.spread(a, lanes), w.spread(b, lanes)


def binary(w: Writer, op: str, a: Value, b: Value, dtype: DType, flags: str = "contract ") -> Value:
    """``a op b`` in ``dtype``, the result type of types.arithmetic_type."""
    a, b = together(w, a, b)
    if dtype.is_float:
        return _float_binary(w, op, convert(w, a, dtype), convert(w, b, dtype), flags)
    if dtype.is_fixed:
        return _fixed_binary(w, op, a, b, dtype)
    if op in MODULAR:
        bits = container_bits(dtype)
        x, y = integer_in(w, a, bits), integer_in(w, b, bits)
        return w.value(f"{MODULAR[op]} {value_type(dtype, a.lanes)} {x}, {y}", dtype, a.lanes)
    if op in ("min", "max"):
        return _integer_extremum(w, op, a, b, dtype)
    if op in ("<<", ">>"):
        return _shift(w, op, a, b, dtype)
    return _integer_division(w, op, a, b, dtype)


def _float_binary(w: Writer, op: str, a: Value, b: Value, flags: str) -> Value:
    if op in _FLOAT_OPS:
        if a.dtype.bits == 16:
            flags = ""
        return rounded(w, w.value(f"{_FLOAT_OPS[op]} {flags}{a.operand}, {b.ref}", a.dtype, a.lanes))
    if op in ("min", "max"):
        return float_extremum(w, op, a, b)
    return _float_floor_division(w, op, a, b)


def float_extremum(w: Writer, op: str, a: Value, b: Value) -> Value:
    """min or max; NaN if either is NaN; either of two zeros.

    LLVM's minimum and maximum become the target's instruction and, where that drops a NaN of its first operand, a
    test of that operand: so ``b``, in a reduction the new element, comes first, and the chain of partial results is
    one instruction and a masked move. (As selects in IR both are merged into a slow chain of masks.)
    """
    if a.is_literal and _is_number(a):
        a, b = b, a
    if b.is_literal and _is_number(b):  # one instruction: a when unordered
        return ordered_extremum(w, op, b, a)
    return w.intrinsic(f"{op}imum", [b, a], a.dtype, "nsz ")


def ordered_extremum(w: Writer, op: str, a: Value, b: Value) -> Value:
    """min or max of numbers; ``b`` if either is NaN. x86 has it as one instruction."""
    return w.select(Value(w.pure(f"fcmp {'olt' if op == 'min' else 'ogt'} {a.operand}, {b.ref}"), ty.boolean, a.lanes), a, b)


def _is_number(v: Value) -> bool:
    return v.ref != literal(float("nan"), v.dtype, v.lanes).ref


def _float_floor_division(w: Writer, op: str, a: Value, b: Value) -> Value:
    """Python's floor division and modulo of floats: the remainder takes the divisor's sign."""
    wide = a.dtype
    zero = literal(0.0, wide, a.lanes)
    rem = w.value(f"frem {a.operand}, {b.ref}", wide, a.lanes)
    nonzero = Value(w.pure(f"fcmp une {rem.operand}, {zero.ref}"), ty.boolean, a.lanes)
    negative_rem = w.pure(f"fcmp olt {rem.operand}, {zero.ref}")
    negative_b = w.pure(f"fcmp olt {b.operand}, {zero.ref}")
    conds = value_type(ty.boolean, a.lanes)
    differ = w.pure(f"xor {conds} {negative_rem}, {negative_b}")
    fix = Value(w.pure(f"and {conds} {nonzero.ref}, {differ}"), ty.boolean, a.lanes)
    if op == "%":
        shifted = w.value(f"fadd {rem.operand}, {b.ref}", wide, a.lanes)
        signed_zero = w.intrinsic("copysign", [zero, b], wide)
        return rounded(w, w.select(nonzero, w.select(fix, shifted, rem), w.select(_is_nan(w, rem), rem, signed_zero)))
    quotient = w.value(f"fdiv {w.value(f'fsub {a.operand}, {rem.ref}', wide, a.lanes).operand}, {b.ref}", wide, a.lanes)
    lower = w.value(f"fsub {quotient.operand}, {literal(1.0, wide, a.lanes).ref}", wide, a.lanes)
    near = w.intrinsic("floor", [w.select(fix, lower, quotient)], wide)
    gap = w.value(f"fsub {w.select(fix, lower, quotient).operand}, {near.ref}", wide, a.lanes)
    up = Value(w.pure(f"fcmp ogt {gap.operand}, {literal(0.5, wide, a.lanes).ref}"), ty.boolean, a.lanes)
    above = w.value(f"fadd {near.operand}, {literal(1.0, wide, a.lanes).ref}", wide, a.lanes)
    whole = w.select(up, above, near)
    by_zero = Value(w.pure(f"fcmp oeq {b.operand}, {zero.ref}"), ty.boolean, a.lanes)
    return rounded(w, w.select(by_zero, w.value(f"fdiv {a.operand}, {b.ref}", wide, a.lanes), whole))


def _is_nan(w: Writer, v: Value) -> Value:
    return Value(w.pure(f"fcmp uno {v.operand}, {v.ref}"), ty.boolean, v.lanes)


# --- integers -------------------------------------------------------------------------------


def _integer_extremum(w: Writer, op: str, a: Value, b: Value, dtype: DType) -> Value:
    if dtype.kind == ty.BOOL:
        return w.value(f"{'and' if op == 'min' else 'or'} {a.operand}, {b.ref}", dtype, a.lanes)
    bits = container_bits(dtype)
    vec = value_type(dtype, a.lanes)
    x, y = integer_in(w, a, bits), integer_in(w, b, bits)
    name = f"{'s' if dtype.signed else 'u'}{op}"
    suffix = f"v{a.lanes}i{bits}" if a.lanes else f"i{bits}"
    return w.value(f"call {vec} @llvm.{name}.{suffix}({vec} {x}, {vec} {y})", dtype, a.lanes)


def _shift(w: Writer, op: str, a: Value, b: Value, dtype: DType) -> Value:
    """Shift by any amount: beyond the width nothing (or only the sign) is left; negative shifts the other way."""
    bits = max(container_bits(dtype), container_bits(b.dtype), 8)
    ints = f"<{a.lanes} x i{bits}>" if a.lanes else f"i{bits}"
    x, n = integer_in(w, a, bits), integer_in(w, b, bits)
    last = splat_text(f"i{bits}", str(bits - 1), a.lanes)
    if not b.is_literal:
        name = f"v{a.lanes}i{bits}" if a.lanes else f"i{bits}"
        clamped = w.pure(f"call {ints} @llvm.umin.{name}({ints} {n}, {ints} {last})")
    else:
        clamped = n if int(b.ref.split(" ")[-1].rstrip(")")) < bits else last
    if op == ">>":
        return normalised(w, w.pure(f"{'ashr' if a.dtype.signed else 'lshr'} {ints} {x}, {clamped}"), bits, dtype, a.lanes)
    shifted = w.pure(f"shl {ints} {x}, {clamped}")
    if clamped is not n:
        fits = w.pure(f"icmp ult {ints} {n}, {splat_text(f'i{bits}', str(bits), a.lanes)}")
        shifted = w.pure(
            f"select {value_type(ty.boolean, a.lanes)} {fits}, {ints} {shifted}, {ints} {splat_text(f'i{bits}', '0', a.lanes)}"
        )
    return normalised(w, shifted, bits, dtype, a.lanes)


def _integer_division(w: Writer, op: str, a: Value, b: Value, dtype: DType) -> Value:
    """Division rounding towards minus infinity, in the width of the operands."""
    signed = a.dtype.signed or b.dtype.signed
    need = max(t.bits + (signed and not t.signed) for t in (a.dtype, b.dtype))
    bits = container_bits(DType(ty.INT, need + 1 if need > 64 and not signed else need))  # long division needs a spare bit
    x, y = integer_in(w, a, bits), integer_in(w, b, bits)
    ref = floor_division(w, op, x, y, bits, signed, a.lanes, b.is_literal)
    wide = container_bits(dtype)
    if op == "%" or not signed or wide <= bits or (b.is_literal and y != splat_text(f"i{bits}", "-1", b.lanes)):
        return normalised(w, ref, bits, dtype, a.lanes)
    # The smallest number divided by -1 is the one quotient that needs the result's extra bit.
    ints = value_type(dtype, a.lanes)
    minus_one = Value(w.pure(f"icmp eq {integer_type(bits, a.lanes)} {y}, {splat_text(f'i{bits}', '-1', a.lanes)}"), ty.boolean, a.lanes)
    negated = w.value(f"sub {ints} {splat_text(f'i{wide}', '0', a.lanes)}, {integer_in(w, a, wide)}", dtype, a.lanes)
    return w.select(minus_one, negated, normalised(w, ref, bits, dtype, a.lanes))


# --- fixed point ----------------------------------------------------------------------------


def _raw(w: Writer, v: Value, frac: int, bits: int) -> str:
    """The raw integer of ``v`` with ``frac`` fraction bits, in ``bits`` bits."""
    ref = integer_in(w, v, bits)
    if frac == v.dtype.frac:
        return ref
    ints = f"<{v.lanes} x i{bits}>" if v.lanes else f"i{bits}"
    return w.pure(f"shl {ints} {ref}, {splat_text(f'i{bits}', str(frac - v.dtype.frac), v.lanes)}")


def _fixed_binary(w: Writer, op: str, a: Value, b: Value, dtype: DType) -> Value:
    lanes = a.lanes
    if op == "/":
        bits = 2 * container_bits(dtype)
        ints = f"<{lanes} x i{bits}>" if lanes else f"i{bits}"
        scaled = w.pure(f"shl {ints} {integer_in(w, a, bits)}, {splat_text(f'i{bits}', str(b.dtype.frac), lanes)}")
        return normalised(w, floor_division(w, "//", scaled, integer_in(w, b, bits), bits, True, lanes), bits, dtype, lanes)
    bits = container_bits(dtype)
    if op == "*":
        x, y = integer_in(w, a, bits), integer_in(w, b, bits)
        return w.value(f"mul {value_type(dtype, lanes)} {x}, {y}", dtype, lanes)
    x, y = _raw(w, a, dtype.frac, bits), _raw(w, b, dtype.frac, bits)
    if op in MODULAR:
        return w.value(f"{MODULAR[op]} {value_type(dtype, lanes)} {x}, {y}", dtype, lanes)
    return _integer_extremum(w, op, Value(x, dtype, lanes), Value(y, dtype, lanes), dtype)


# --- comparisons ----------------------------------------------------------------------------


def compare(w: Writer, op: str, a: Value, b: Value) -> Value:
    """``a op b``, exact across types."""
    a, b = together(w, a, b)
    if a.dtype.is_float and b.dtype.is_float:
        wide = ty.f64 if 64 in (a.dtype.bits, b.dtype.bits) else ty.f32
        a, b = convert(w, a, wide), convert(w, b, wide)
        return w.value(f"fcmp {_ORDERED[op]} {a.operand}, {b.ref}", ty.boolean, a.lanes)
    if a.dtype.is_float:
        return _compare_integer_float(w, _SWAPPED[op], b, a)
    if b.dtype.is_float:
        return _compare_integer_float(w, op, a, b)
    return _compare_integers(w, op, a, b)


def _compare_integers(w: Writer, op: str, a: Value, b: Value) -> Value:
    frac = max(a.dtype.frac, b.dtype.frac)
    signed = a.dtype.signed or b.dtype.signed
    need = max(t.bits + frac - t.frac + (signed and not t.signed) for t in (a.dtype, b.dtype))
    bits = 1 if need == 1 else container_bits(DType(ty.INT if signed else ty.UINT, need))
    x, y = _raw(w, a, frac, bits), _raw(w, b, frac, bits)
    prefix = "" if op in ("==", "!=") else "s" if signed else "u"
    ints = f"<{a.lanes} x i{bits}>" if a.lanes else f"i{bits}"
    return w.value(f"icmp {prefix}{_PLAIN[op]} {ints} {x}, {y}", ty.boolean, a.lanes)


def _compare_integer_float(w: Writer, op: str, a: Value, b: Value) -> Value:
    """Integer against float: in the float when it holds the integer exactly, otherwise in integers."""
    mantissa = {16: 24, 32: 24, 64: 53}[b.dtype.bits]
    if a.dtype.bits <= mantissa or a.dtype.bits <= 53:
        wide = ty.f32 if a.dtype.bits <= mantissa and b.dtype.bits < 64 and not a.dtype.frac else ty.f64
        return compare(w, op, convert(w, a, wide), convert(w, b, wide))
    lanes = a.lanes
    y = _scaled(w, b, a.dtype.frac)
    raw = a._replace(dtype=DType(ty.INT if a.dtype.signed else ty.UINT, a.dtype.bits))
    near = convert(w, raw, ty.f64)
    by_float = w.value(f"fcmp {_ORDERED[op]} {near.operand}, {y.ref}", ty.boolean, lanes)
    # Rounding is monotonic: only when the rounded integer equals y can the lost bits decide.
    bits = container_bits(a.dtype)
    ints = f"<{lanes} x i{bits}>" if lanes else f"i{bits}"
    whole = wrapped_i64(w, y) if bits <= 64 else wide_truncation(w, y, bits)
    lost = w.pure(f"sub {ints} {integer_in(w, a, bits)}, {whole}")
    prefix = "" if op in ("==", "!=") else "s"
    by_rest = w.value(f"icmp {prefix}{_PLAIN[op]} {ints} {lost}, {splat_text(f'i{bits}', '0', lanes)}", ty.boolean, lanes)
    tie = w.value(f"fcmp oeq {near.operand}, {y.ref}", ty.boolean, lanes)
    return w.select(tie, by_rest, by_float)


def _scaled(w: Writer, v: Value, frac: int) -> Value:
    wide = convert(w, v, ty.f64)
    return w.value(f"fmul {wide.operand}, {literal(2.0**frac, ty.f64, v.lanes).ref}", ty.f64, v.lanes) if frac else wide


def logic(w: Writer, op: str, a: Value, b: Value) -> Value:
    """``and`` / ``or`` of bools."""
    a, b = together(w, a, b)
    if a.active and b.active:
        return constant_mask((x and y) if op == "and" else (x or y) for x, y in zip(a.active, b.active, strict=True))
    return w.value(f"{op} {a.operand}, {b.ref}", ty.boolean, a.lanes)


def negate(w: Writer, a: Value) -> Value:
    """``not a``."""
    if a.active:
        return constant_mask(not x for x in a.active)
    return w.value(f"xor {a.operand}, {splat_text('i1', 'true', a.lanes)}", ty.boolean, a.lanes)
