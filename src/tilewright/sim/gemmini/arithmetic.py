"""The roundings of Gemmini's data paths, on whole arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.sim.gemmini import isa
from tilewright.util.errors import ExecutionError


def scaled(data: NDArray[Any], scale: int) -> NDArray[np.int8]:
    """``data`` times an f32 (given by its bits), in f32, rounded to nearest even, saturated to int8."""
    factor = np.float32(isa.f32(scale))
    if not np.isfinite(factor):
        raise ExecutionError(f"scale {scale:#x} is the f32 {factor}, not a finite number", hint="set a finite scale")
    if factor == 1 and data.dtype.itemsize == 1:
        return data
    with np.errstate(over="ignore"):
        product = data.astype(np.float32) * factor
    return np.clip(np.rint(product), -128, 127).astype(np.int8)


def shifted(data: NDArray[np.int32], shift: int, bits: int) -> NDArray[np.int32]:
    """``data`` / 2^shift rounded to nearest even, saturated to a signed integer of ``bits``."""
    wide = data.astype(np.int64)
    if shift:
        half, odd = 1 << (shift - 1), wide >> shift & 1
        wide = (wide + half - 1 + odd) >> shift
    return np.clip(wide, -(1 << (bits - 1)), (1 << (bits - 1)) - 1).astype(np.int32)


def narrowed(data: NDArray[np.int32]) -> NDArray[np.int8]:
    """``data`` saturated to int8."""
    return np.clip(data, -128, 127).astype(np.int8)
