"""Circular functions and their inverses in f32: argument reduction and a polynomial.

Coefficients were fitted like those of the exponentials. The reductions rely on fused multiply-add.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tilewright.codegen.llvm.math.algebra import ROUNDER, Algebra, F
from tilewright.codegen.llvm.values import Value

#: Beyond this size the quarter turns taken off in three parts cost more than the bounds allow.
REDUCED = 50000.0
#: pi/2 in three f32 parts.
_QUARTER = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)
#: (sin(r)/r - 1) / r**2 and (cos(r) - 1 + r**2/2) / r**4 in r**2, |r| <= pi/4
_SIN = (-0.1666666716337204, 0.008333329111337662, -0.00019839302694890648, 2.718025825743098e-06)
_COS = (0.04166664555668831, -0.0013887308305129409, 2.4432209102087654e-05)
#: (asin(t)/t - 1) / t**2 in t**2, |t| <= 1/2
_ASIN = (0.16666753590106964, 0.07495252788066864, 0.04547654837369919, 0.02414664812386036, 0.04222596064209938)
#: (atan(t)/t - 1) / t**2 in t**2, |t| <= 1
_ATAN = (
    -0.33333298563957214,
    0.19998539984226227,
    -0.14264148473739624,
    0.10951642692089081,
    -0.08401712030172348,
    0.05792533606290817,
    -0.031143298372626305,
    0.01089479960501194,
    -0.0017889176961034536,
)


# --- sine, cosine, tangent --------------------------------------------------------------------


def sin(a: Algebra, x: Value) -> Value:
    """Sine up to :data:`REDUCED`: at most 2 ulp."""
    turns, r = _without_quarters(a, x._replace(dtype=F))
    return _wave(a, turns, r)


def cos(a: Algebra, x: Value) -> Value:
    """Cosine up to :data:`REDUCED`: at most 2 ulp."""
    turns, r = _without_quarters(a, x._replace(dtype=F))
    return _wave(a, a.add(turns, a.i(1)), r)


def tan(a: Algebra, x: Value) -> Value:
    """Tangent up to :data:`REDUCED`: at most 3 ulp."""
    turns, r = _without_quarters(a, x._replace(dtype=F))
    odd, s, c = a.has_bit(turns, 0), _sin_of_small(a, r), _cos_of_small(a, r)
    return a.div(a.select(odd, a.neg(c), s), a.select(odd, s, c))


def _without_quarters(a: Algebra, x: Value) -> tuple[Value, Value]:
    """(n, x - n pi/2) with the remainder within pi/4; the low bits of n as an integer."""
    shifted = a.fma(x, a.c(2 / math.pi), a.c(ROUNDER))
    n = a.neg(a.sub(shifted, a.c(ROUNDER)))
    for part in _QUARTER:
        x = a.fma(n, a.c(part), x)
    return a.bits(shifted), x


def _wave(a: Algebra, turns: Value, r: Value) -> Value:
    """sin(r + turns pi/2)."""
    y = a.select(a.has_bit(turns, 0), _cos_of_small(a, r), _sin_of_small(a, r))
    sign = a.bitwise("and", a.shift("shl", turns, 30), a.i(-(1 << 31)))
    return a.of_bits(a.bitwise("xor", a.bits(y), sign))


def _sin_of_small(a: Algebra, r: Value) -> Value:
    square = a.mul(r, r)
    return a.fma(a.mul(square, a.poly(square, _SIN)), r, r)


def _cos_of_small(a: Algebra, r: Value) -> Value:
    square = a.mul(r, r)
    return a.poly(square, (1.0, -0.5, *_COS))


# --- inverses ---------------------------------------------------------------------------------


def atan(a: Algebra, x: Value) -> Value:
    """Arc tangent: at most 2 ulp."""
    x = x._replace(dtype=F)
    size = a.abs(x)
    above = a.test("ogt", size, a.c(1.0))
    t = a.select(above, a.div(a.c(1.0), size), size)
    y = _odd(a, t, a.mul(t, t), _ATAN)
    return a.sign_of(a.select(above, _quarter_less(a, y), y), x)


def asin(a: Algebra, x: Value) -> Value:
    """Arc sine: at most 2.5 ulp."""
    x = x._replace(dtype=F)
    above, y = _asin_of_folded(a, x)
    return a.sign_of(a.select(above, _quarter_less(a, a.add(y, y)), y), x)


def acos(a: Algebra, x: Value) -> Value:
    """Arc cosine: at most 2 ulp."""
    x = x._replace(dtype=F)
    above, y = _asin_of_folded(a, x)
    twice = a.add(y, y)
    far = a.select(a.test("olt", x, a.c(0.0)), a.sub(a.c(2 * _QUARTER[0]), a.sub(twice, a.c(2 * _QUARTER[1]))), twice)
    return a.select(above, far, _quarter_less(a, a.sign_of(y, x)))


def _asin_of_folded(a: Algebra, x: Value) -> tuple[Value, Value]:
    """(whether |x| > 1/2, asin(|x|)), where so asin(sqrt((1 - |x|)/2)), half of what is missing to pi/2."""
    size = a.abs(x)
    above = a.test("ogt", size, a.c(0.5))
    square = a.select(above, a.fma(size, a.c(-0.5), a.c(0.5)), a.mul(x, x))
    return above, _odd(a, a.select(above, a.sqrt(square), size), square, _ASIN)


def _odd(a: Algebra, t: Value, square: Value, coefficients: tuple[float, ...]) -> Value:
    """t + t**3 * polynomial of the square."""
    return a.fma(a.mul(square, a.poly(square, coefficients)), t, t)


def _quarter_less(a: Algebra, y: Value) -> Value:
    """pi/2 - y."""
    return a.sub(a.c(_QUARTER[0]), a.sub(y, a.c(_QUARTER[1])))


TRIGONOMETRY: dict[str, Callable[[Algebra, Value], Value]] = {"sin": sin, "cos": cos, "tan": tan, "asin": asin, "acos": acos, "atan": atan}
