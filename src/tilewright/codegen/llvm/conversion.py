"""Conversions between element types, exact as the IR defines them."""

from __future__ import annotations

from collections.abc import Callable

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


def _constants(bits: int, lanes: int) -> Callable[[int], str]:
    """Makes the text of an integer of so many bits, in every lane."""
    return lambda x: splat_text(f"i{bits}", str(x), lanes)


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
    if v.is_literal and v.dtype.kind != ty.BOOL:
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
        ref = (
            w.pure(f"shl {vec} {ref}, {splat_text(f'i{have}', str(shift), v.lanes)}")
            if shift < have
            else splat_text(f"i{have}", "0", v.lanes)
        )
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
        near = Value(w.pure(f"fptrunc {a} {v.ref} to {b}"), ty.f32, v.lanes)
        if to.bits == 32:
            return near
        v = _rounded_to_odd(w, v, near)
    return rounded(w, Value(v.ref, to, v.lanes))


def _rounded_to_odd(w: Writer, v: Value, near: Value) -> Value:
    """The f32 next to an f64 with an odd last bit if inexact: rounding it again equals rounding once."""
    lanes = v.lanes
    ints = value_type(ty.i32, lanes)
    conds = value_type(ty.boolean, lanes)
    back = w.value(f"fpext {near.operand} to {v.type}", ty.f64, lanes)
    inexact = w.pure(f"fcmp one {back.operand}, {v.ref}")
    beyond = w.pure(f"fcmp ogt {w.intrinsic('fabs', [back], ty.f64).operand}, {w.intrinsic('fabs', [v], ty.f64).ref}")
    bits = w.pure(f"bitcast {near.operand} to {ints}")
    lower = w.pure(f"add {ints} {bits}, {w.pure(f'sext {conds} {beyond} to {ints}')}")
    odd = w.pure(f"or {ints} {lower}, {splat_text('i32', '1', lanes)}")
    return w.value(f"bitcast {ints} {w.pure(f'select {conds} {inexact}, {ints} {odd}, {ints} {bits}')} to {near.type}", ty.f32, lanes)


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
    c = _constants(32, v.lanes)
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
    """Nearest float of an integer or fixed point number, rounded once."""
    if container_bits(v.dtype) > 64:
        near = _wide_to_float(w, v, ty.f64 if to.bits == 64 or v.dtype.frac else ty.f32)
    else:
        wide = ty.f64 if to.bits == 64 or v.dtype.frac or (v.dtype.bits > 24 and to.bits == 16) else ty.f32
        source = _odd_bits(w, v) if wide != to and wide.bits == 64 and v.dtype.bits > 53 else v
        op = "sitofp" if v.dtype.signed else "uitofp"
        near = w.value(f"{op} {source.operand} to {value_type(wide, v.lanes)}", wide, v.lanes)
    if v.dtype.frac:
        near = w.value(f"fmul {near.operand}, {literal(2.0**-v.dtype.frac, ty.f64, v.lanes).ref}", ty.f64, v.lanes)
    if near.dtype == to:
        return near
    return rounded(w, near._replace(dtype=to)) if near.dtype == ty.f32 and to.bits == 16 else convert(w, near, to)


def _odd_bits(w: Writer, v: Value) -> Value:
    """A 64-bit integer rounded to odd at 53 bits, so that two roundings to nearest equal one."""
    ints = value_type(v.dtype, v.lanes)
    c = _constants(64, v.lanes)
    low = w.pure(f"and {ints} {v.ref}, {c(2047)}")
    sticky = w.pure(f"select {value_type(ty.boolean, v.lanes)} {w.pure(f'icmp ne {ints} {low}, {c(0)}')}, {ints} {c(2048)}, {ints} {c(0)}")
    kept = w.pure(f"or {ints} {w.pure(f'and {ints} {v.ref}, {c(-2048)}')}, {sticky}")
    small = w.pure(f"icmp ult {ints} {w.pure(f'add {ints} {v.ref}, {c(1 << 52)}')}, {c(1 << 53)}")
    return Value(w.pure(f"select {value_type(ty.boolean, v.lanes)} {small}, {ints} {v.ref}, {ints} {kept}"), v.dtype, v.lanes)


def _wide_to_float(w: Writer, v: Value, to: DType) -> Value:
    """More than 64 bits: the top 62 with a sticky bit for the rest, scaled by a power of two."""
    bits, lanes = container_bits(v.dtype), v.lanes
    if bits > 512:
        raise CodegenError(f"{v.dtype} to {to}: only integers up to 512 bits convert to floats")
    ints, name = value_type(v.dtype, lanes), suffix(value_type(v.dtype, lanes))
    conds = value_type(ty.boolean, lanes)
    c = _constants(bits, lanes)
    negative = w.pure(f"icmp slt {ints} {v.ref}, {c(0)}") if v.dtype.signed else ""
    size = w.pure(f"select {conds} {negative}, {ints} {w.pure(f'sub {ints} {c(0)}, {v.ref}')}, {ints} {v.ref}") if negative else v.ref
    zeros = w.pure(f"call {ints} @llvm.ctlz.{name}({ints} {size}, i1 false)")
    excess = w.pure(f"sub {ints} {c(bits - 62)}, {zeros}")
    shift = w.pure(f"call {ints} @llvm.smax.{name}({ints} {excess}, {ints} {c(0)})")
    top = w.pure(f"lshr {ints} {size}, {shift}")
    lost = w.pure(f"icmp ne {ints} {w.pure(f'shl {ints} {top}, {shift}')}, {size}")
    top = w.pure(f"or {ints} {top}, {w.pure(f'zext {conds} {lost} to {ints}')}")
    long = value_type(ty.i64, lanes)
    wide = value_type(to, lanes)
    near = Value(w.pure(f"sitofp {long} {w.pure(f'trunc {ints} {top} to {long}')} to {wide}"), to, lanes)
    exponent = w.pure(f"add {long} {w.pure(f'trunc {ints} {shift} to {long}')}, {splat_text('i64', '1023', lanes)}")
    power = w.pure(f"shl {long} {exponent}, {splat_text('i64', '52', lanes)}")
    scale = w.pure(f"bitcast {long} {power} to {value_type(ty.f64, lanes)}")
    scaled = convert(w, w.value(f"fmul {convert(w, near, ty.f64).operand}, {scale}", ty.f64, lanes), to)
    if not negative:
        return scaled
    return w.select(Value(negative, ty.boolean, lanes), w.value(f"fneg {scaled.operand}", to, lanes), scaled)


def float_to_integer(w: Writer, v: Value, to: DType) -> Value:
    """Truncation towards zero (fixed point: floor), then wrapping. NaN and infinities give some number."""
    if to.is_fixed:
        wide = convert(w, v, ty.f64)
        v = w.value(f"fmul {wide.operand}, {literal(2.0**to.frac, ty.f64, v.lanes).ref}", ty.f64, v.lanes)
        v = w.intrinsic("floor", [v], ty.f64)
    bits = container_bits(to)
    if bits > 64:
        return normalised(w, wide_truncation(w, convert(w, v, ty.f64), bits), bits, to, v.lanes)
    return normalised(w, wrapped_i64(w, v), 64, to, v.lanes)


def wide_truncation(w: Writer, v: Value, bits: int) -> str:
    """A truncated f64 modulo 2**bits: its mantissa shifted by its exponent."""
    lanes = v.lanes
    ints, name = (f"<{lanes} x i{bits}>", f"v{lanes}i{bits}") if lanes else (f"i{bits}", f"i{bits}")
    long, conds = value_type(ty.i64, lanes), value_type(ty.boolean, lanes)
    c, c64 = _constants(bits, lanes), _constants(64, lanes)
    raw = w.pure(f"bitcast {v.operand} to {long}")
    exponent = w.pure(f"and {long} {w.pure(f'lshr {long} {raw}, {c64(52)}')}, {c64(2047)}")
    fraction = w.pure(f"or {long} {w.pure(f'and {long} {raw}, {c64((1 << 52) - 1)}')}, {c64(1 << 52)}")
    mantissa = w.pure(f"zext {long} {fraction} to {ints}")
    up = w.pure(f"sext {long} {w.pure(f'sub {long} {exponent}, {c64(1075)}')} to {ints}")
    down = w.pure(f"sub {ints} {c(0)}, {up}")
    left = _shifted(w, "shl", mantissa, w.pure(f"call {ints} @llvm.smax.{name}({ints} {up}, {ints} {c(0)})"), bits, lanes)
    right = _shifted(w, "lshr", left, w.pure(f"call {ints} @llvm.smax.{name}({ints} {down}, {ints} {c(0)})"), bits, lanes)
    negative = w.pure(f"icmp slt {long} {raw}, {c64(0)}")
    return w.pure(f"select {conds} {negative}, {ints} {w.pure(f'sub {ints} {c(0)}, {right}')}, {ints} {right}")


def _shifted(w: Writer, op: str, x: str, amount: str, bits: int, lanes: int) -> str:
    """A shift by any amount >= 0; everything is lost beyond the width."""
    ints = f"<{lanes} x i{bits}>" if lanes else f"i{bits}"
    inside = w.pure(f"icmp ult {ints} {amount}, {splat_text(f'i{bits}', str(bits), lanes)}")
    zero = splat_text(f"i{bits}", "0", lanes)
    safe = w.pure(f"select {value_type(ty.boolean, lanes)} {inside}, {ints} {amount}, {ints} {zero}")
    return w.pure(f"select {value_type(ty.boolean, lanes)} {inside}, {ints} {w.pure(f'{op} {ints} {x}, {safe}')}, {ints} {zero}")


def bounded_to_i32(w: Writer, v: Value) -> str:
    """Truncation of a float known to lie within the i32 range (NaN: some number)."""
    ints = f"<{v.lanes} x i32>" if v.lanes else "i32"
    return w.op(f"freeze {ints} {w.pure(f'fptosi {v.operand} to {ints}')}")


def wrapped_i64(w: Writer, v: Value) -> str:
    """The low 64 bits of a truncated float of any size, as an i64."""
    lanes = v.lanes
    ints = value_type(ty.i64, lanes)
    if v.dtype.bits == 16:  # cannot leave the range, except bf16
        v = v._replace(dtype=ty.f32)

    def c(x: float) -> str:
        return literal(x, v.dtype, lanes).ref

    turns = w.intrinsic("trunc", [w.value(f"fmul {v.operand}, {c(2.0**-64)}", v.dtype, lanes)], v.dtype)
    rest = w.value(f"fsub {v.operand}, {w.pure(f'fmul {turns.operand}, {c(2.0**64)}')}", v.dtype, lanes)
    above = Value(w.pure(f"fcmp oge {rest.operand}, {c(2.0**63)}"), ty.boolean, lanes)
    below = Value(w.pure(f"fcmp olt {rest.operand}, {c(-(2.0**63))}"), ty.boolean, lanes)
    rest = w.select(above, w.value(f"fsub {rest.operand}, {c(2.0**64)}", v.dtype, lanes), rest)
    rest = w.select(below, w.value(f"fadd {rest.operand}, {c(2.0**64)}", v.dtype, lanes), rest)
    finite = Value(w.pure(f"fcmp ord {rest.operand}, {rest.ref}"), ty.boolean, lanes)
    rest = w.select(finite, rest, literal(0.0, v.dtype, lanes))
    return w.pure(f"fptosi {rest.operand} to {ints}")


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
