"""f32 functions as argument reduction and a polynomial.

The polynomials are minimax fits in double precision (iteratively reweighted least squares at
Chebyshev nodes, weighted to relative error of the function), rounded to f32. Bounds in the docstrings are the
largest errors the tests find over all exponents, against double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tilewright.codegen.llvm.math.algebra import ROUNDER, Algebra, F
from tilewright.codegen.llvm.values import Value

_LN2 = math.log(2.0)
#: ln 2 split so that small integers times the first part are exact.
_LN2_HIGH, _LN2_LOW = 0.6923828125, 0.0007643680599452862
_LOG2E_HIGH, _LOG2E_LOW = 1.4426950216293335, 1.92596298909109e-08
_SQRT_HALF_BITS = 1060439283

#: (e**r - 1 - r) / r**2 on |r| <= 0.35
_EXP = (0.4999999403953552, 0.16666515171527863, 0.04166845604777336, 0.008369410410523415, 0.0013813161058351398)
#: (e**r - 1 - r) / r**2 on |r| <= ln 2 / 32
_EXP_SMALL = (0.5000162124633789, 0.16667024791240692)
#: (2**r - 1) / r on |r| <= 1/32
_EXP2_SMALL = (0.6931471805599453, *(c * _LN2**k for k, c in enumerate(_EXP_SMALL, 2)))
#: 2**(j/16)
_SIXTEENTHS = tuple(2.0 ** (j / 16) for j in range(16))
#: Adding 1.5 * 2**19 leaves a number of sixteenths in the low bits of the mantissa.
_SIXTEENTH_ROUNDER = 786432.0
#: (log(1+f) - f + f**2/2) / f**3 on [sqrt(1/2) - 1, sqrt(2) - 1]
_LOG = (
    0.3333331048488617,
    -0.25000008940696716,
    0.20002193748950958,
    -0.16668051481246948,
    0.1421789824962616,
    -0.12403307110071182,
    0.1189902126789093,
    -0.1169571578502655,
    0.06746432185173035,
)
#: (tanh(t)/t - 1) / t**2 in t**2, |t| <= 0.6
_TANH = (-0.3333333134651184, 0.13333247601985931, -0.053952474147081375, 0.021734438836574554, -0.008267087861895561, 0.002231060992926359)
#: (sinh(t)/t - 1) / t**2 in t**2, |t| <= 1
_SINH = (0.1666666716337204, 0.008333351463079453, 0.000198359542991966, 2.8181791549286572e-06)
#: erf(t)/t - 1 in t**2, |t| <= 0.94
_ERF = (0.12837915122509003, -0.37612465023994446, 0.11281507462263107, -0.0267554372549057, 0.004976833239197731, -0.0005907964077778161)
#: log2(1 - erf(t)) on 0.9 <= t <= 3.95, weighted to relative error of erf
_TAIL = (
    -0.0026289562229067087,
    -1.6163923740386963,
    -0.9384063482284546,
    -0.13175100088119507,
    0.022581903263926506,
    -0.0018197959288954735,
)
#: (2**r - 1) / r on |r| <= 1/2, good enough where the result is subtracted from something five times as large
_EXP2 = (0.6931470036506653, 0.24022242426872253, 0.05550733953714371, 0.009671533480286598, 0.001326469937339425)


# --- exponentials -----------------------------------------------------------------------------


def exp(a: Algebra, x: Value, factor: float = 1.0) -> Value:
    """e**(factor * x): at most 1 ulp, of an exponent that is at most as inexact as if factor and product were rounded."""
    x = x._replace(dtype=F)
    if a.looks_up:
        return _exp_by_sixteenths(a, x) if factor == 1.0 else _scaled_exp_by_sixteenths(a, x, factor)
    n, r = by_ln2(a, a.clamp(x if factor == 1.0 else a.mul(x, a.c(factor)), -105.0, 90.0))
    return a.times_power_of_two(exp_of_small(a, r), n)


def _exp_by_sixteenths(a: Algebra, x: Value) -> Value:
    """e**x = 2**n * 2**(j/16) * e**r: the table spares three terms of the polynomial. At most 1 ulp, half of it from the table."""
    n, power = _sixteenths(a, x, 1 / _LN2)
    r = a.within(a.fma(n, a.c(-_LN2_LOW), a.fma(n, a.c(-_LN2_HIGH), x)), 1.0)
    less_one = a.fma(a.mul(r, r), a.poly(r, _EXP_SMALL), r)
    return a.times_power_of_two(a.fma(power, less_one, power), n)  # the instruction takes the floor of n


def _scaled_exp_by_sixteenths(a: Algebra, x: Value, factor: float) -> Value:
    """e**(factor * x) = 2**n * 2**(j/16) * 2**r: one step finds r, because the product is exact until n is taken from it."""
    n, power = _sixteenths(a, x, factor / _LN2)
    r = a.within(a.fma(x, a.c(factor / _LN2), a.neg(n)), 1.0)
    return a.times_power_of_two(a.fma(a.mul(power, r), a.poly(r, _EXP2_SMALL), power), n)


def _sixteenths(a: Algebra, x: Value, factor: float) -> tuple[Value, Value]:
    """``factor * x`` rounded to sixteenths, and two to the power of the sixteenths beyond its floor.

    Of exponents that are no numbers or too large for the rounding, what is left of them is none either: it is kept within bounds,
    and the result then depends on the rounded exponent alone.
    """
    shifted = a.fma(x, a.c(factor), a.c(_SIXTEENTH_ROUNDER))
    return a.sub(shifted, a.c(_SIXTEENTH_ROUNDER)), a.sixteen(_SIXTEENTHS, a.bits(shifted))


def _exp_within(a: Algebra, x: Value) -> Value:
    """e**x where -87 <= x <= 88; of others, NaN included, something."""
    if a.looks_up:
        return _exp_by_sixteenths(a, x)
    n, r = by_ln2(a, x)
    return a.times_power_of_two(exp_of_small(a, r), n, normal=True)


def exp2(a: Algebra, x: Value) -> Value:
    """2**x: at most 1 ulp."""
    x = a.clamp(x._replace(dtype=F), -152.0, 130.0)
    n = a.whole(x)
    return a.times_power_of_two(exp_of_small(a, a.mul(a.sub(x, n), a.c(_LN2))), n)


def expm1(a: Algebra, x: Value) -> Value:
    """e**x - 1: at most 2 ulp, also near 0."""
    x = x._replace(dtype=F)
    n, r = by_ln2(a, a.clamp(x, -30.0, 88.75))
    half = a.times_power_of_two(a.c(0.5), n, normal=True)  # does not overflow at n = 128
    y = a.fma(half, a.fma(a.mul(r, r), a.poly(r, _EXP), r), a.sub(half, a.c(0.5)))
    return a.select(a.test("oeq", x, a.c(0.0)), x, a.add(y, y))


def by_ln2(a: Algebra, x: Value) -> tuple[Value, Value]:
    """(n, r) with x = n ln 2 + r and |r| at most about ln 2 / 2; n is an integral float."""
    n = a.sub(a.fma(x, a.c(1 / _LN2), a.c(ROUNDER)), a.c(ROUNDER))
    return n, a.fma(n, a.c(-_LN2_LOW), a.fma(n, a.c(-_LN2_HIGH), x))


def exp_of_small(a: Algebra, r: Value) -> Value:
    """e**r: the steps of Horner's rule are exact enough that the last one decides the error."""
    return a.poly(r, (1.0, 1.0, *_EXP))


# --- logarithms -------------------------------------------------------------------------------


def log(a: Algebra, x: Value) -> Value:
    """Natural logarithm: at most 1 ulp."""
    x = x._replace(dtype=F)
    e, f = _decomposed(a, x)
    y = _log_tail(a, f)
    y = a.add(a.fma(e, a.c(_LN2_LOW), y), f)
    return _log_special(a, x, a.fma(e, a.c(_LN2_HIGH), y))


def log2(a: Algebra, x: Value) -> Value:
    """Logarithm to base 2: at most 2 ulp."""
    x = x._replace(dtype=F)
    e, f = _decomposed(a, x)
    low = a.fma(_log_tail(a, f), a.c(1 / _LN2), a.mul(f, a.c(_LOG2E_LOW)))
    return _log_special(a, x, a.add(a.fma(f, a.c(_LOG2E_HIGH), low), e))


def log1p(a: Algebra, x: Value) -> Value:
    """log(1 + x): at most 2 ulp, also near 0."""
    x = x._replace(dtype=F)
    u = a.add(x, a.c(1.0))
    lost = a.sub(x, a.sub(u, a.c(1.0)))
    y = a.add(log(a, u), a.div(lost, u))
    y = a.select(a.test("oeq", u, a.c(0.0)), a.c(-math.inf), y)
    unchanged = a.test("oeq", u, a.c(1.0))
    return a.select(a.test("oeq", x, a.c(math.inf)), x, a.select(unchanged, x, y))


def _decomposed(a: Algebra, x: Value) -> tuple[Value, Value]:
    """(e, f) with x = 2**e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2), for positive x, denormals too."""
    tiny = a.test("olt", x, a.c(2.0**-126))
    x = a.select(tiny, a.mul(x, a.c(2.0**23)), x)
    offset = a.sub(a.bits(x), a.i(_SQRT_HALF_BITS))
    e = a.shift("ashr", offset, 23)
    m = a.of_bits(a.sub(a.bits(x), a.shift("shl", e, 23)))
    return a.to_float(a.select(tiny, a.sub(e, a.i(23)), e)), a.sub(m, a.c(1.0))


def _log_tail(a: Algebra, f: Value) -> Value:
    """log(1 + f) - f."""
    square = a.mul(f, f)
    return a.fma(a.mul(square, f), a.poly(f, _LOG), a.mul(square, a.c(-0.5)))


def _log_special(a: Algebra, x: Value, y: Value) -> Value:
    y = a.select(a.test("oeq", x, a.c(math.inf)), x, y)
    y = a.select(a.test("oeq", x, a.c(0.0)), a.c(-math.inf), y)
    return a.select(a.test("ult", x, a.c(0.0)), a.c(math.nan), y)


# --- sigmoids ---------------------------------------------------------------------------------


def tanh(a: Algebra, x: Value) -> Value:
    """Hyperbolic tangent: at most 2 ulp."""
    x = x._replace(dtype=F)
    size = a.abs(x)
    square = a.mul(x, x)
    small = a.fma(a.mul(square, a.poly(square, _TANH)), x, x)
    capped = a.clamp(size, 0.0, 10.0)
    grown = _exp_within(a, a.add(capped, capped))
    large = a.sub(a.c(1.0), a.div(a.c(2.0), a.add(grown, a.c(1.0))))
    return a.select(a.test("oge", size, a.c(0.575)), a.sign_of(large, x), small)


def sinh(a: Algebra, x: Value) -> Value:
    """Hyperbolic sine: at most 2 ulp."""
    x = x._replace(dtype=F)
    size, square = a.abs(x), a.mul(x, x)
    small = a.fma(a.mul(square, a.poly(square, _SINH)), x, x)
    half = _half_exp(a, size)
    large = a.sign_of(a.sub(half, a.div(a.c(0.25), half)), x)
    return a.select(a.test("oge", size, a.c(1.0)), large, small)


def cosh(a: Algebra, x: Value) -> Value:
    """Hyperbolic cosine: at most 2 ulp."""
    half = _half_exp(a, a.abs(x._replace(dtype=F)))
    return a.add(half, a.div(a.c(0.25), half))


def _half_exp(a: Algebra, size: Value) -> Value:
    """e**size / 2, which overflows only where sinh does."""
    n, r = by_ln2(a, a.clamp(size, 0.0, 91.0))
    return a.times_power_of_two(exp_of_small(a, r), a.sub(n, a.c(1.0)))


def sigmoid(a: Algebra, x: Value) -> Value:
    """1 / (1 + e**-x): at most 3 ulp, denormal results included."""
    x = x._replace(dtype=F)
    small = exp(a, a.neg(a.abs(x)))
    inverse = a.div(a.c(1.0), a.add(a.c(1.0), small))
    return a.select(a.test("olt", x, a.c(0.0)), a.mul(small, inverse), inverse)


def erf(a: Algebra, x: Value) -> Value:
    """Error function: at most 2 ulp."""
    x = x._replace(dtype=F)
    size = a.abs(x)
    small = a.fma(a.poly(a.mul(x, x), _ERF), x, x)
    exponent = a.poly(a.clamp(size, 0.0, 3.95), _TAIL)
    n = a.whole(exponent)
    tail = a.times_power_of_two(a.poly(a.sub(exponent, n), (1.0, *_EXP2)), n, normal=True)  # erfc
    large = a.sign_of(a.sub(a.c(1.0), tail), x)
    return a.select(a.test("ogt", size, a.c(0.92)), large, small)


EXPANSIONS: dict[str, Callable[[Algebra, Value], Value]] = {
    "exp": exp,
    "exp2": exp2,
    "expm1": expm1,
    "log": log,
    "log2": log2,
    "log1p": log1p,
    "sinh": sinh,
    "cosh": cosh,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "erf": erf,
}
