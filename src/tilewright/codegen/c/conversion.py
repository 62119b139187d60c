"""Conversions between element types, as the program form defines them: one rounding, and integers keep their low bits."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.codegen.c.scalars import ATOM, BITS, DOUBLE, EQUAL, FLOAT, INT, LONG, SHIFT, TIMES, UNARY, CType, Value, container, integer
from tilewright.ir import types as ty
from tilewright.ir.types import DType
from tilewright.util.errors import CodegenError

#: Makes the helper of this name part of the file.
Use = Callable[[str], str]


def converted(v: Value, src: DType, dst: DType, use: Use) -> Value:
    """``v`` of type ``src`` as a value of ``dst``."""
    if src == dst:
        return v
    if dst.kind == ty.BOOL:
        return Value(f"{v.at(EQUAL)} != 0", EQUAL, INT)
    if dst.is_float:
        return _to_float(v, src, dst, use)
    if src.is_float:
        return _from_float(v, dst, use)
    if not src.is_fixed and not dst.is_fixed:
        return wrapped(v, src, dst)
    if dst.is_fixed:
        return wrapped(scaled(v, src.bits, src.signed, dst.frac - src.frac), _moved(src, dst.frac - src.frac), dst)
    if src.frac <= 0:
        return wrapped(scaled(v, src.bits, src.signed, -src.frac), _moved(src, -src.frac), dst)
    wide = _wide(v.ctype, src.frac + 2)  # C divides towards zero, as this conversion rounds
    return wrapped(Value(f"{_cast(v, wide).at(TIMES)} / {_power(src.frac, wide)}", TIMES, wide), src, dst)


def cast(v: Value, to: CType) -> Value:
    """``v`` in the C type ``to`` (nothing if it is computed in it already)."""
    return v if v.ctype == to.promoted == to else Value(f"({to}){v.at(UNARY)}", UNARY, to.promoted)


_cast = cast


def wrapped(v: Value, src: DType, dst: DType) -> Value:
    """An integer's low bits as ``dst``; nothing is done where all values of ``src`` fit."""
    lo, hi = dst.range
    held = integer(dst)
    if src.range[0] >= lo and src.range[1] <= hi:
        # values of signed types are never computed in an unsigned C type: it would decide how C compares them
        return cast(v, held) if dst.signed and v.ctype.kind == "uint" else v
    if dst.bits == held.bits:
        return cast(v, held)
    if not dst.signed:
        return Value(f"{cast(v, held).at(UNARY)} & {(1 << dst.bits) - 1:#x}{'ull' if dst.bits > 31 else ''}", BITS, held.promoted)
    if dst.bits > 64:
        raise CodegenError(
            f"conversion of {src} to {dst}: C has no integer of {dst.bits} bits to wrap in", hint="use Int(128), or the llvm backend"
        )
    spare = held.bits - dst.bits
    up = f"({held})(({CType('uint', held.bits)}){v.at(UNARY)} << {spare})"
    return Value(f"{up} >> {spare}", SHIFT, held.promoted)


def scaled(v: Value, bits: int, signed: bool, places: int) -> Value:
    """``v * 2**places``, rounded towards minus infinity, in a type that holds it."""
    if places == 0:
        return v
    if places < 0:
        return Value(f"{v.at(UNARY)} >> {min(-places, v.ctype.bits - 1)}", SHIFT, v.ctype)
    wide = CType("int" if signed else "uint", max(32, container(bits + places)))
    wide = wide if wide.bits >= v.ctype.bits else v.ctype
    return Value(f"{cast(v, wide).at(TIMES)} * {_power(places, wide)}", TIMES, wide)


def _moved(src: DType, places: int) -> DType:
    """A type with the range of ``src * 2**places``."""
    return DType("int" if src.signed else "uint", max(1, src.bits + places))


def _power(places: int, ctype: CType) -> str:
    return str(1 << places) if places < 31 else f"(({ctype})1 << {places})"


def _wide(ctype: CType, bits: int) -> CType:
    return ctype if ctype.bits >= bits else CType(ctype.kind, container(bits))


def _to_float(v: Value, src: DType, dst: DType, use: Use) -> Value:
    if src.is_float:
        if dst.bits == 16:
            return rounded(v, dst, use)
        target = DOUBLE if dst.bits == 64 else FLOAT
        return v if v.ctype == target else Value(f"({target}){v.at(UNARY)}", UNARY, target)
    target = DOUBLE if dst.bits == 64 else FLOAT
    if dst.bits == 16:
        if src.bits <= 53:
            return rounded(_times_power(Value(f"(double){v.at(UNARY)}", UNARY, DOUBLE), -src.frac), dst, use)
        if src.bits > 127:
            raise CodegenError(f"conversion of {src} to {dst} in C", hint="convert to f32 first, or use the llvm backend")
        return rounded(_times_power(Value(f"{use('tw_odd')}({v.text})", ATOM, DOUBLE), -src.frac), dst, use)
    return _times_power(Value(f"({target}){v.at(UNARY)}", UNARY, target), -src.frac)


def _times_power(v: Value, places: int) -> Value:
    if places == 0:
        return v
    if not -120 < places < 120:
        raise CodegenError(f"fixed point with {-places} fraction bits in C", hint="use the llvm backend")
    return Value(f"{v.at(TIMES)} * 0x1p{places}{'f' if v.ctype == FLOAT else ''}", TIMES, v.ctype)


def rounded(v: Value, dst: DType, use: Use) -> Value:
    """A float rounded to f16 or bf16 (a float that holds such a value)."""
    return Value(f"{use('tw_round_bf16' if dst.kind == ty.BFLOAT else 'tw_round_f16')}({v.text})", ATOM, FLOAT)


def _from_float(v: Value, dst: DType, use: Use) -> Value:
    if dst.bits > 64:
        use("math.h")
    if dst.is_fixed:
        use("math.h")
        moved = _times_power(Value(f"(double){v.at(UNARY)}", UNARY, DOUBLE), dst.frac)
        v = Value(f"floor({moved.text})", ATOM, DOUBLE)
    wide = dst.bits > 64
    if dst.bits > 128:
        raise CodegenError(f"conversion of a float to {dst} in C", hint="convert to Int(128) first, or use the llvm backend")
    out = Value(f"{use('tw_i128_of' if wide else 'tw_i64_of')}({v.text})", ATOM, CType("int", 128) if wide else LONG)
    return wrapped(out, DType(ty.INT, 129 if wide else 65), dst)
