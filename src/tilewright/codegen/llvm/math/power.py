"""pow in f32 by way of f64, in which logarithm times exponent loses nothing that matters."""

from __future__ import annotations

import math
from dataclasses import replace

from tilewright.codegen.llvm.math.algebra import Algebra, F
from tilewright.codegen.llvm.values import Value, value_type
from tilewright.ir import types as ty

_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
_ROUNDER, _ROUNDER_BITS = 1.5 * 2.0**52, 0x4338000000000000
#: log2(1+f) / f on [sqrt(1/2) - 1, sqrt(2) - 1]
_LOG2 = (
    1.4426950408686208,
    -0.7213475208686443,
    0.4808983614494707,
    -0.36067367493843333,
    0.2885372882767814,
    -0.24045315200127096,
    0.20617552780283274,
    -0.18030114493011523,
    0.15876779095081894,
    -0.14314795482934534,
    0.1447525932734236,
    -0.14288461384594964,
    0.07741485013639766,
)
#: (2**r - 1) / r on |r| <= 1/2
_EXP2 = (0.6931472028810538, 0.2402264791027834, 0.05550332409476366, 0.009618437606620137, 0.0013398900239005055, 0.0001535334103910686)


def pow(a: Algebra, x: Value, y: Value) -> Value:
    """x**y: at most 0.6 ulp, with the special cases of C."""
    x, y = x._replace(dtype=F), y._replace(dtype=F)
    size = _size(replace(a, dtype=ty.f64), x, y)
    half = a.mul(y, a.c(0.5))
    whole = a.test("oeq", a.w.intrinsic("trunc", [y], F), y)
    odd = a.bitwise("and", whole, a.test("one", a.w.intrinsic("floor", [half], F), half))
    signed = a.select(odd, a.sign_of(size, x), size)
    # No real power: negative and finite to something that is no integer. NaN ** 0 and 1 ** NaN are 1 all the same.
    negative = a.bitwise("and", a.test("olt", x, a.c(0.0)), a.test("ogt", x, a.c(-math.inf)))
    return a.select(a.bitwise("and", negative, a.test("one", a.w.intrinsic("trunc", [y], F), y)), a.c(math.nan), signed)


def _size(d: Algebra, x: Value, y: Value) -> Value:
    """|x|**y; NaN only from NaN."""
    wide = value_type(ty.f64, d.lanes)
    x, y = (d.w.value(f"fpext {v.operand} to {wide}", ty.f64, d.lanes) for v in (x, y))
    size = d.abs(x)
    exponent = d.select(d.test("oeq", size, d.c(1.0)), d.c(0.0), d.mul(_log2(d, size), y))  # also to infinity
    exponent = d.select(d.test("uno", x, y), d.c(math.nan), exponent)
    one = d.bitwise("or", d.test("oeq", x, d.c(1.0)), d.test("oeq", y, d.c(0.0)))  # also of NaN, or to NaN
    exponent = d.select(one, d.c(0.0), exponent)
    exponent = d.clamp(exponent, -160.0, 130.0)
    shifted = d.add(exponent, d.c(_ROUNDER))
    r = d.sub(exponent, d.sub(shifted, d.c(_ROUNDER)))
    scale = d.of_bits(d.shift("shl", d.add(d.sub(d.bits(shifted), d.i(_ROUNDER_BITS)), d.i(1023)), 52))
    power = d.mul(d.poly(r, (1.0, *_EXP2)), scale)
    return d.w.value(f"fptrunc {power.operand} to {value_type(F, d.lanes)}", F, d.lanes)


def _log2(d: Algebra, x: Value) -> Value:
    """log2(x) of a number that was an f32, so that it is normal, or 0, or infinity."""
    e = d.shift("ashr", d.sub(d.bits(x), d.i(_SQRT_HALF_BITS)), 52)
    f = d.sub(d.of_bits(d.sub(d.bits(x), d.shift("shl", e, 52))), d.c(1.0))
    y = d.fma(d.poly(f, _LOG2), f, d.to_float(e))
    y = d.select(d.test("oeq", x, d.c(0.0)), d.c(-math.inf), y)
    return d.select(d.test("oeq", x, d.c(math.inf)), x, y)
