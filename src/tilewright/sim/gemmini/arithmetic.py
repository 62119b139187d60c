"""What Gemmini's data paths do to integers, on whole arrays: roundings, saturation, products."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.floating import Floats, finite

Array = NDArray[Any]
I8, I32 = np.dtype(np.int8), np.dtype(np.int32)


class Arithmetic(Protocol):
    """Elements are of NumPy types ``inputs`` in the scratchpad and ``sums`` in the accumulator."""

    inputs: np.dtype[Any]
    sums: np.dtype[Any]

    def loaded(self, data: Array, scale: int, wide: bool, in_acc: bool) -> Array:
        """What an mvin brings to a memory of elements in main memory (``wide``: sums), with the bits of its scale."""

    def added(self, sums: Array, part: Array) -> Array:
        """Sums, and what is added to them."""

    def leaving(self, data: Array, scale: int) -> Array:
        """Sums on their way out as inputs, with the bits of an f32 scale."""

    def values(self, data: Array) -> Array:
        """Inputs as numbers that compare."""

    def elements(self, values: Array) -> Array:
        """The inputs that are these ``values``."""

    def factor(self, data: Array) -> Array:
        """Inputs as what :meth:`columns` and :meth:`stationary` multiply."""

    def addend(self, data: Array) -> Array:
        """Inputs as what enters the array to be added to."""

    def columns(self, a: Array, weights: Array, addend: Array | None) -> Array:
        """A B + D as it leaves the array, weights (the whole array's) stationary."""

    def stationary(self, held: Array, a: Array, b: Array) -> Array:
        """What the array holds after A B was added to the sums that it held."""

    def shifted(self, held: Array, shift: int) -> Array:
        """Sums that the array held, as they leave it divided by 2^``shift``."""

    def narrowed(self, data: Array) -> Array:
        """What leaves the array, as inputs."""


def arithmetic(c: Configuration) -> Arithmetic:
    """That of a configuration's types."""
    return Floats(c.inputs, c.column) if c.inputs.is_float else Integers(c)


def scaled(data: Array, scale: int, inputs: np.dtype[Any] = I8) -> Array:
    """``data`` times an f32 (given by its bits), in f32, rounded to nearest even, saturated to ``inputs``."""
    factor = finite(scale, np.dtype(np.float32))
    if factor == 1 and data.dtype == inputs:
        return data
    with np.errstate(over="ignore"):
        product = data.astype(np.float32) * factor
    limits = np.iinfo(inputs)
    return np.clip(np.rint(product), limits.min, limits.max).astype(inputs)


class Integers:
    """Products and sums are exact modulo 2^32, and saturate where they become inputs."""

    def __init__(self, c: Configuration):
        self.inputs, self.sums = c.inputs.to_numpy(), c.sums.to_numpy()
        self.least, self.most = c.inputs.range
        self.array_bits = c.array_bits
        #: Sums of a column's products are exact in this type, which BLAS multiplies.
        self.real = np.dtype(np.float32 if c.dim << 2 * (c.inputs.bits - 1) <= 1 << 24 else np.float64)
        self.overflows = 2 * (c.inputs.bits - 1) + (c.dim - 1).bit_length() >= 31

    def loaded(self, data: Array, scale: int, wide: bool, in_acc: bool) -> Array:
        return data if wide or scale == isa.ONE else self.leaving(data, scale)

    def added(self, sums: Array, part: Array) -> Array:
        return sums + part

    def leaving(self, data: Array, scale: int) -> Array:
        return scaled(data, scale, self.inputs)

    def values(self, data: Array) -> Array:
        return data

    def elements(self, values: Array) -> Array:
        return values

    def factor(self, data: Array) -> Array:
        return data.astype(self.real)

    def addend(self, data: Array) -> Array:
        return data.astype(I32)

    def columns(self, a: Array, weights: Array, addend: Array | None) -> Array:
        out = self._product(a, weights[: a.shape[1]])
        return out if addend is None else out + addend

    def stationary(self, held: Array, a: Array, b: Array) -> Array:
        k = min(a.shape[1], b.shape[0])
        out = held.copy()
        out[: a.shape[0], : b.shape[1]] += self._product(a[:, :k], b[:k])
        return out

    def _product(self, a: Array, b: Array) -> Array:
        product = a @ b
        return product.astype(np.int64).astype(I32) if self.overflows else product.astype(I32)

    def shifted(self, held: Array, shift: int) -> Array:
        """Rounded to nearest even, saturated to the bits of a result leaving the array."""
        wide = held.astype(np.int64)
        if shift:
            half, odd = 1 << (shift - 1), wide >> shift & 1
            wide = (wide + half - 1 + odd) >> shift
        bits = min(self.array_bits, 32)
        return np.clip(wide, -(1 << (bits - 1)), (1 << (bits - 1)) - 1).astype(I32)

    def narrowed(self, data: Array) -> Array:
        """Saturated."""
        return np.clip(data, self.least, self.most).astype(self.inputs)
