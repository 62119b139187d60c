"""What Gemmini's data paths do to floats, on whole arrays, to the bit.

Every unit of the array multiplies and adds with one rounding, to nearest even; subnormal numbers are numbers, and what is no number is
the one quiet NaN without sign. Weights stationary, a sum enters the top of a column as D (or 0) and each row adds to it in turn, in the
type of the columns: ``s = fma(a[i, 0], b[0, j], d[i, j])``, then rows 1 to ``dim`` - 1, with zeros for rows and columns that
an operand lacks. Output stationary, sums stay in the type of the accumulator and grow in the same order. The accumulator adds what
leaves the array to what it has in one more rounding. A scale multiplies in the type of what it scales; the relu comes after it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ir.grid import round_bf16
from tilewright.ir.types import BFLOAT, DType, f32
from tilewright.util.errors import ExecutionError

Array = NDArray[Any]
#: Bits of the significand and the least normal number, by kind and bits of a type.
_PRECISION = {("float", 32): (24, 2.0**-126), ("float", 16): (11, 2.0**-14), ("bfloat", 16): (8, 2.0**-126)}


def finite(scale: int, kind: np.dtype[Any]) -> Any:
    """The float of NumPy type ``kind`` with these bits; ExecutionError for what is no finite number, or has more bits."""
    size = kind.itemsize
    if scale >> 8 * size:
        raise ExecutionError(f"scale {scale:#x} has more than the {8 * size} bits of its type", hint=f"set the bits of an f{8 * size}")
    factor = np.frombuffer(scale.to_bytes(size, "little"), kind)[0]
    if not np.isfinite(factor):
        raise ExecutionError(f"scale {scale:#x} is the f{8 * size} {factor}, not a finite number", hint="set a finite scale")
    return factor


class Format:
    """Arrays of one floating type: ``storage`` holds elements, and ``working`` (f16 or f32) their values."""

    def __init__(self, dtype: DType):
        self.brain = dtype.kind == BFLOAT
        self.storage = dtype.to_numpy()
        self.working = np.dtype(np.float32) if self.brain else self.storage
        digits, self.normal = _PRECISION[dtype.kind, dtype.bits]
        #: Of an f64: the bits below the significand, and those bits of a number half way between two elements.
        self.below, self.half = (1 << (53 - digits)) - 1, 1 << (52 - digits)

    def rounded(self, x: Array) -> Array:
        """The values nearest to f64 or f32 numbers."""
        return round_bf16(x) if self.brain else x.astype(self.working)

    def stored(self, x: Array) -> Array:
        """Elements nearest to numbers."""
        nearest = canonical(self.rounded(x))
        return (nearest.view(np.uint32) >> 16).astype(np.uint16) if self.brain else nearest

    def values(self, stored: Array) -> Array:
        """The values of elements."""
        return (stored.astype(np.uint32) << 16).view(np.float32) if self.brain else stored


def canonical(x: Array) -> Array:
    """``x`` with one bit pattern for what is no number."""
    wrong = np.isnan(x)
    return np.where(wrong, x.dtype.type(np.nan), x) if wrong.any() else x


class Floats:
    """Elements are ``inputs`` in the scratchpad and f32 in the accumulator; sums going down a column are ``column``."""

    def __init__(self, inputs: DType, column: DType):
        self.format, self.column, self.total = Format(inputs), Format(column), Format(f32)
        self.inputs, self.sums = self.format.storage, self.total.storage
        #: Scales of loads: of the type of the inputs where that has less range than f32.
        self.scale = np.dtype(np.float16) if self.format.working.itemsize == 2 else self.sums

    def loaded(self, data: Array, scale: int, wide: bool, in_acc: bool) -> Array:
        factor, kind = np.asarray(finite(scale, self.scale), np.float32), self.format
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            if wide:
                return canonical(data * factor)
            nearest = kind.stored(kind.values(data).astype(np.float64) * kind.rounded(factor))
            return kind.values(nearest).astype(np.float32) if in_acc else nearest

    def added(self, sums: Array, part: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return canonical(sums + part)

    def leaving(self, data: Array, scale: int) -> Array:
        """In f32, then rounded."""
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            return self.format.stored(canonical(data * finite(scale, self.sums)))

    def values(self, data: Array) -> Array:
        return self.format.values(data)

    def elements(self, values: Array) -> Array:
        with np.errstate(over="ignore"):
            return self.format.stored(values)

    def factor(self, data: Array) -> Array:
        return self.format.values(data).astype(np.float64)

    def addend(self, data: Array) -> Array:
        return self.format.values(data).astype(np.float32)

    def columns(self, a: Array, weights: Array, addend: Array | None) -> Array:
        depth, cols = weights.shape
        start = np.zeros((len(a), cols), np.float32) if addend is None else addend
        return _chain(start, _padded(a, (len(a), depth)), weights, self.column).astype(np.float32)

    def stationary(self, held: Array, a: Array, b: Array) -> Array:
        return _chain(held, _padded(a, held.shape), _padded(b, held.shape), self.total)

    def shifted(self, held: Array, shift: int) -> Array:
        """Divided in f32, then rounded to the type of the columns."""
        return canonical(self.column.rounded(held * np.float32(2.0**-shift))).astype(np.float32)

    def narrowed(self, data: Array) -> Array:
        """Rounded."""
        with np.errstate(over="ignore"):
            return self.format.stored(data)


def _padded(x: Array, shape: tuple[int, int]) -> Array:
    if x.shape == shape:
        return x
    out = np.zeros(shape, x.dtype)
    out[: x.shape[0], : x.shape[1]] = x
    return out


def _chain(start: Array, a: Array, b: Array, kind: Format) -> Array:
    """``start`` [i, j] + ``a`` [i, k] ``b`` [k, j] (f64), a fused product at a time in the order of k, each rounded to ``kind``.

    Products of two elements are exact in f64. A sum of one and an element may not be, but rounding it first to f64 and then
    to ``kind`` is wrong only where the first rounding ends half way between two elements, or among subnormal ones.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        products = a.T[:, :, None] * b[:, None, :]
        sums = np.empty((len(products) + 1, *start.shape), kind.working)
        exact = np.empty(products.shape)
        sums[0] = start
        for k, product in enumerate(products):
            np.add(sums[k], product, out=exact[k])
            sums[k + 1] = kind.rounded(exact[k])
        small = np.abs(exact)
        doubtful = ((exact.view(np.int64) & kind.below) == kind.half) | (small < kind.normal)
        if doubtful.any() and _lost(sums[:-1][doubtful].astype(np.float64), products[doubtful], exact[doubtful]).any():
            for k, product in enumerate(products):
                sums[k + 1] = kind.rounded(_to_odd(sums[k].astype(np.float64), product))
    return canonical(sums[-1])


def _lost(x: Array, y: Array, total: Array) -> Array:
    """What ``x`` + ``y`` is more than ``total``, its f64: exact."""
    back = total - x
    return (x - (total - back)) + (y - back)


def _to_odd(x: Array, y: Array) -> Array:
    """``x`` + ``y`` rounded to odd, so that rounding again to fewer bits is rounding once."""
    total = x + y
    lost = _lost(x, y, total)
    bits = total.view(np.int64)
    inexact = (lost != 0) & np.isfinite(total) & (bits & 1 == 0)
    away = (lost > 0) == (total > 0)
    return np.where(inexact, bits + np.where(away, 1, -1), bits).view(np.float64)
