"""Conversions between element types, exact as the IR defines them."""

from __future__ import annotations

from tilewright.codegen.llvm.values import Value, container_bits, float_literal, splat_text, suffix, value_type
from tilewright.codegen.llvm.writer import Writer
from tilewright.ir import types as ty
from tilewright.ir import values as exact_values
from tilewright.ir.types import DType
from tilewright.util.errors import CodegenError


def literal(value: int | float | bool, dtype: DType, lanes: int = 0) -> Value:
    """A constant of the program (fixed point: the value, not the raw integer)."""
    exact = exact_values.literal(value, dtype)
    if dtype.kind == ty.BOOL:
        text = "true" if exact else "false"
    elif dtype.is_float:
        text = float_literal(float(exact))
    else:
        text = str(int(exact))
    return Value(splat_text(value_type(dtype), text, lanes), dtype, lanes)


def convert(w: Writer, v: Value, to: DType) -> Value:
    """Cast: floats round to nearest, float to integer truncates, integers keep their low bits."""
    if v.dtype == to:
        return v
    if v.dtype.is_float:
        if to.is_float:
            return _float_to_float(w, v, to)
        if to.kind == ty.BOOL:
            zero = literal(0.0, v.dtype, v.lanes)
            return w.value(f"fcmp une {v.operand}, {zero.ref}", to, v.lanes)
        return float_to_integer(w, v, to)
    if to.is_float:
        return integer_to_float(w, v, to)
    if to.kind == ty.BOOL:
        zero = literal(0, v.dtype, v.lanes)
        return w.value(f"icmp ne {v.operand}, {zero.ref}", to, v.lanes)
    return _integer_to_integer(w, v, to)


# --- integers -------------------------------------------------------------------------------


def resize(w: Writer, ref: str, signed: bool, have: int, want: int, lanes: int) -> str:
    """An LLVM integer of ``have`` bits extended or truncated to ``want`` bits."""
    if have == want:
        return ref
    if ref[0] not in "%<":
        return ref if have > 1 else _bool_text(ref, want, lanes)
    a, b = (f"<{lanes} x i{n}>" if lanes else f"i{n}" for n in (have, want))
    op = "trunc" if want < have else "sext" if signed else "zext"
    return w.pure(f"{op} {a} {ref} to {b}")


def _bool_text(ref: str, want: int, lanes: int) -> str:
    return splat_text(f"i{want}", "1" if "true" in ref else "0", lanes)


def integer_in(w: Writer, v: Value, bits: int) -> str:
    """An integer, fixed point (raw) or bool value as an LLVM integer of ``bits`` (modulo 2**bits if narrower)."""
    if v.is_literal and v.ref[0] != "<" and v.dtype.kind != ty.BOOL:
        number = int(v.ref.split(" ")[-1].rstrip(")"))
        half = 1 << (bits - 1)
        wrapped = (number + half) % (2 * half) - half
        return splat_text(f"i{bits}", str(wrapped), v.lanes)
    return resize(w, v.ref, v.dtype.signed, container_bits(v.dtype), bits, v.lanes)


def normalised(w: Writer, ref: str, have: int, to: DType, lanes: int) -> Value:
    """An LLVM integer of ``have`` bits wrapped to the integer type ``to``."""
    want = container_bits(to)
    ref = resize(w, ref, to.signed, have, want, lanes)
    spare = want - to.bits
    if spare and not (have <= to.bits and ref[0] != "%"):
        vec = value_type(to, lanes)
        if to.signed:
            amount = splat_text(f"i{want}", str(spare), lanes)
            ref = w.pure(f"shl {vec} {ref}, {amount}")
            ref = w.pure(f"ashr {vec} {ref}, {amount}")
        else:
            ref = w.pure(f"and {vec} {ref}, {splat_text(f'i{want}', str((1 << to.bits) - 1), lanes)}")
    return Value(ref, to, lanes)


def _integer_to_integer(w: Writer, v: Value, to: DType) -> Value:
    have = container_bits(v.dtype)
    shift = to.frac - v.dtype.frac
    if shift > 0:
        have = max(container_bits(to), have)
        ref = integer_in(w, v, have)
        vec = f"<{v.lanes} x i{have}>" if v.lanes else f"i{have}"
        ref = w.pure(f"shl {vec} {ref}, {splat_text(f'i{have}', str(shift), v.lanes)}") if shift < have else splat_text(f"i{have}", "0", v.lanes)
        return normalised(w, ref, have, to, v.lanes)
    if shift < 0:
        ref = integer_in(w, v, have)
        if not to.is_fixed:  # to integers towards zero, between fixed points towards minus infinity
            ref = _towards_zero(w, ref, v, -shift, have)
        op = "ashr" if v.dtype.signed else "lshr"
        amount = splat_text(f"i{have}", str(min(-shift, have - 1)), v.lanes)
        v = Value(w.pure(f"{op} {value_type(v.dtype, v.lanes)} {ref}, {amount}"), v.dtype, v.lanes)
    lo, hi = v.dtype.range
    if to.range[0] <= lo and hi <= to.range[1]:  # every value fits: the container is already right
        return Value(integer_in(w, v, container_bits(to)), to, v.lanes)
    bits = max(have, container_bits(to))
    return normalised(w, integer_in(w, v, bits), bits, to, v.lanes)


def _towards_zero(w: Writer, ref: str, v: Value, frac: int, bits: int) -> str:
    """``ref`` moved up by just under one unit when negative, so that a floor becomes a truncation."""
    if not v.dtype.signed:
        return ref
    ints = value_type(v.dtype, v.lanes)
    sign = w.pure(f"ashr {ints} {ref}, {splat_text(f'i{bits}', str(bits - 1), v.lanes)}")
    nudge = w.pure(f"and {ints} {sign}, {splat_text(f'i{bits}', str((1 << min(frac, bits - 1)) - 1), v.lanes)}")
    return w.pure(f"add {ints} {ref}, {nudge}")


# --- floats ---------------------------------------------------------------------------------


def _float_to_float(w: Writer, v: Value, to: DType) -> Value:
    a, b = value_type(v.dtype, v.lanes), value_type(to, v.lanes)
    if to.bits == 64:
        return w.value(f"fpext {a} {v.ref} to {b}", to, v.lanes)
    if v.dtype.bits < to.bits:
        return Value(v.ref, to, v.lanes)  # f16 and bf16 already live in a float
    if v.dtype.bits == 64:
        if to.bits == 32:
            return w.value(f"fptrunc {a} {v.ref} to {b}", to, v.lanes)
        if to.kind == ty.FLOAT:  # straight to half: going through float would round twice
            half = "half" if not v.lanes else f"<{v.lanes} x half>"
            return w.value(f"fpext {half} {w.pure(f'fptrunc {a} {v.ref} to {half}')} to {b}", to, v.lanes)
        v = Value(w.pure(f"fptrunc {a} {v.ref} to {b}"), ty.f32, v.lanes)
    return rounded(w, Value(v.ref, to, v.lanes))


def rounded(w: Writer, v: Value) -> Value:
    """A float computed in single precision rounded to its 16-bit type (others: as they are)."""
    if v.dtype.bits != 16 or not v.dtype.is_float:
        return v
    if v.dtype.kind == ty.FLOAT:
        half = f"<{v.lanes} x half>" if v.lanes else "half"
        narrow = w.pure(f"fptrunc {v.operand} to {half}")
        return w.value(f"fpext {half} {narrow} to {v.type}", v.dtype, v.lanes)
    bits = bfloat_bits(w, v)
    ints = f"<{v.lanes} x i32>" if v.lanes else "i32"
    high = w.pure(f"shl {ints} {bits}, {splat_text('i32', '16', v.lanes)}")
    return w.value(f"bitcast {ints} {high} to {v.type}", v.dtype, v.lanes)


def bfloat_bits(w: Writer, v: Value) -> str:
    """The 16 bits (in an i32) of a float rounded to nearest even; NaN stays NaN.

    Integer arithmetic, because the CPU's own conversion flushes denormals.
    """
    ints = f"<{v.lanes} x i32>" if v.lanes else "i32"

    def c(x: int) -> str:
        return splat_text("i32", str(x), v.lanes)

    x = w.pure(f"bitcast {v.operand} to {ints}")
    top = w.pure(f"lshr {ints} {x}, {c(16)}")
    odd = w.pure(f"and {ints} {top}, {c(1)}")
    up = w.pure(f"add {ints} {x}, {w.pure(f'add {ints} {odd}, {c(0x7FFF)}')}")
    near = w.pure(f"lshr {ints} {up}, {c(16)}")
    quiet = w.pure(f"or {ints} {top}, {c(0x40)}")
    nan = w.pure(f"fcmp uno {v.operand}, {v.ref}")
    conds = f"<{v.lanes} x i1>" if v.lanes else "i1"
    return w.pure(f"select {conds} {nan}, {ints} {quiet}, {ints} {near}")


# --- between integers and floats -------------------------------------------------------------


def integer_to_float(w: Writer, v: Value, to: DType) -> Value:
    """Nearest float of an integer or fixed point number."""
    op = "sitofp" if v.dtype.signed else "uitofp"
    wide = ty.f64 if v.dtype.bits > 24 and to.bits == 16 else to  # one rounding that cannot reach a tie wrongly, then another
    exact = w.value(f"{op} {v.operand} to {value_type(wide, v.lanes)}", wide, v.lanes)
    if v.dtype.frac:
        if v.dtype.bits > (53 if wide.bits == 64 else 24) or abs(v.dtype.frac) > 100:
            exact = w.value(f"{op} {v.operand} to {value_type(ty.f64, v.lanes)}", ty.f64, v.lanes)
        scale = literal(2.0**-v.dtype.frac, exact.dtype, v.lanes)
        exact = w.value(f"fmul {exact.operand}, {scale.ref}", exact.dtype, v.lanes)
    return rounded(w, exact) if exact.dtype == to else convert(w, exact, to)


def float_to_integer(w: Writer, v: Value, to: DType) -> Value:
    """Truncation towards zero, then wrapping, for all numbers up to 2**63; NaN gives 0.

    Larger magnitudes saturate at the 64-bit range (or that of a wider ``to``) before they wrap.
    """
    if to.frac:
        wide = convert(w, v, ty.f64)
        v = w.value(f"fmul {wide.operand}, {literal(2.0**to.frac, ty.f64, v.lanes).ref}", ty.f64, v.lanes)
    if to.is_fixed:
        v = w.intrinsic("floor", [v], v.dtype)
    bits = max(64, container_bits(to) * (1 if to.signed else 2)) if to.bits > 31 or to.frac else 64
    if v.lanes and bits == 64:
        return normalised(w, _vector_truncation(w, v), 64, to, v.lanes)
    ints = f"<{v.lanes} x i{bits}>" if v.lanes else f"i{bits}"
    ref = w.pure(f"call {ints} @llvm.fptosi.sat.{suffix(ints)}.{suffix(v.type)}({v.operand})")
    return normalised(w, ref, bits, to, v.lanes)


def _vector_truncation(w: Writer, v: Value) -> str:
    """Saturating conversion to i64 lanes, spelled with selects (LLVM would split the vector)."""
    ints = f"<{v.lanes} x i64>"
    conds = f"<{v.lanes} x i1>"
    big = literal(2.0**63, v.dtype, v.lanes).ref
    small = literal(-(2.0**63), v.dtype, v.lanes).ref
    zero = literal(0.0, v.dtype, v.lanes).ref
    above = w.pure(f"fcmp oge {v.operand}, {big}")
    below = w.pure(f"fcmp olt {v.operand}, {small}")
    outside = w.pure(f"or {conds} {w.pure(f'fcmp uno {v.operand}, {v.ref}')}, {w.pure(f'or {conds} {above}, {below}')}")
    inside = w.pure(f"select {conds} {outside}, {v.type} {zero}, {v.operand}")
    ref = w.pure(f"fptosi {v.type} {inside} to {ints}")
    ref = w.pure(f"select {conds} {above}, {ints} {splat_text('i64', str(2**63 - 1), v.lanes)}, {ints} {ref}")
    return w.pure(f"select {conds} {below}, {ints} {splat_text('i64', str(-(2**63)), v.lanes)}, {ints} {ref}")


def bitcast(w: Writer, v: Value, to: DType) -> Value:
    """The same bits read as ``to`` (equal width)."""
    bits = v.dtype.bits
    if bits not in (8, 16, 32, 64) and (v.dtype.is_float or to.is_float):
        raise CodegenError(f"bitcast between {v.dtype} and {to} has no machine form", hint="use widths 16, 32 or 64")
    ints = f"<{v.lanes} x i{bits}>" if v.lanes else f"i{bits}"
    if v.dtype.is_float:
        ref = _float_bits(w, v, ints)
        have = bits
    else:
        ref, have = integer_in(w, v, container_bits(v.dtype)), container_bits(v.dtype)
    if not to.is_float:
        return normalised(w, ref, have, to, v.lanes)
    return _float_of_bits(w, ref, ints, to, v.lanes)


def _float_bits(w: Writer, v: Value, ints: str) -> str:
    if v.dtype.bits != 16:
        return w.pure(f"bitcast {v.operand} to {ints}")
    if v.dtype.kind == ty.FLOAT:
        half = f"<{v.lanes} x half>" if v.lanes else "half"
        return w.pure(f"bitcast {half} {w.pure(f'fptrunc {v.operand} to {half}')} to {ints}")
    wide = f"<{v.lanes} x i32>" if v.lanes else "i32"
    x = w.pure(f"bitcast {v.operand} to {wide}")
    return w.pure(f"trunc {wide} {w.pure(f'lshr {wide} {x}, ' + splat_text('i32', '16', v.lanes))} to {ints}")


def _float_of_bits(w: Writer, ref: str, ints: str, to: DType, lanes: int) -> Value:
    if to.bits != 16:
        return w.value(f"bitcast {ints} {ref} to {value_type(to, lanes)}", to, lanes)
    return from_memory(w, Value(ref, ty.u16, lanes), to) if to.kind == ty.BFLOAT else _from_half(w, ref, ints, lanes)


def _from_half(w: Writer, ref: str, ints: str, lanes: int) -> Value:
    half = f"<{lanes} x half>" if lanes else "half"
    return w.value(f"fpext {half} {w.pure(f'bitcast {ints} {ref} to {half}')} to {value_type(ty.f16, lanes)}", ty.f16, lanes)


# --- memory ---------------------------------------------------------------------------------


def from_memory(w: Writer, raw: Value, to: DType) -> Value:
    """A loaded element (``raw.ref`` has memory_type(to)) as a value of ``to``."""
    lanes = raw.lanes
    if to.kind == ty.BOOL:
        return w.value(f"icmp ne {'i8' if not lanes else f'<{lanes} x i8>'} {raw.ref}, {splat_text('i8', '0', lanes)}", to, lanes)
    if to == ty.f16:
        half = f"<{lanes} x half>" if lanes else "half"
        return w.value(f"fpext {half} {raw.ref} to {value_type(to, lanes)}", to, lanes)
    if to == ty.bf16:
        wide = f"<{lanes} x i32>" if lanes else "i32"
        x = w.pure(f"zext {'i16' if not lanes else f'<{lanes} x i16>'} {raw.ref} to {wide}")
        x = w.pure(f"shl {wide} {x}, {splat_text('i32', '16', lanes)}")
        return w.value(f"bitcast {wide} {x} to {value_type(to, lanes)}", to, lanes)
    return Value(raw.ref, to, lanes)


def to_memory(w: Writer, v: Value) -> str:
    """A value as an LLVM value of its memory type."""
    lanes = v.lanes
    if v.dtype.kind == ty.BOOL:
        return w.pure(f"zext {v.operand} to {'i8' if not lanes else f'<{lanes} x i8>'}")
    if v.dtype == ty.f16:
        return w.pure(f"fptrunc {v.operand} to {'half' if not lanes else f'<{lanes} x half>'}")
    if v.dtype == ty.bf16:
        wide = f"<{lanes} x i32>" if lanes else "i32"
        x = w.pure(f"bitcast {v.operand} to {wide}")
        x = w.pure(f"lshr {wide} {x}, {splat_text('i32', '16', lanes)}")
        return w.pure(f"trunc {wide} {x} to {'i16' if not lanes else f'<{lanes} x i16>'}")
    return v.ref
