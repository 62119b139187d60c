"""Main memory as the accelerator sees it: bytes from a base address on."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tilewright.util.errors import ExecutionError


class MainMemory:
    """``data`` (uint8) appears from address ``base`` on. Arrays are put there by :meth:`place`, seen by :meth:`array`."""

    def __init__(self, size: int, base: int = 0x8000_0000):
        self.base = base
        self.data = np.zeros(size, np.uint8)
        self.used = 0

    def place(self, array: NDArray[np.generic], alignment: int = 64) -> int:
        """Copies ``array`` to the next free aligned address and returns it; ExecutionError when it does not fit."""
        start = -(-self.used // alignment) * alignment
        if start + array.nbytes > len(self.data):
            raise ExecutionError(
                f"{array.nbytes} bytes do not fit in the {len(self.data) - start} left of main memory", hint="give MainMemory a larger size"
            )
        self.data[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.used = start + array.nbytes
        return self.base + start

    def array(self, address: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """The contiguous array at ``address``: a view, not a copy."""
        size = np.dtype(dtype).itemsize
        strides = [size]
        for extent in shape[:0:-1]:
            strides.append(strides[-1] * extent)
        return self._view(address, shape, np.dtype(dtype), tuple(reversed(strides[: len(shape)])))

    def rows(self, address: int, rows: int, cols: int, stride: int, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
        """``rows`` x ``cols`` elements, ``stride`` bytes from row to row: a view. ExecutionError if it leaves the memory."""
        if rows == 1:
            stride = cols * dtype.itemsize  # one row has no next one: what is set may belong to other moves
        if address % dtype.itemsize or stride % dtype.itemsize:
            raise ExecutionError(
                f"main memory address {address:#x} with stride {stride} is not aligned to the {dtype.itemsize} bytes of an element",
                hint="align the matrix and its rows",
            )
        return self._view(address, (rows, cols), dtype, (stride, dtype.itemsize))

    def _view(self, address: int, shape: tuple[int, ...], dtype: np.dtype[np.generic], strides: tuple[int, ...]) -> NDArray[np.generic]:
        offset = address - self.base
        span = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + dtype.itemsize
        if offset < 0 or offset + span > len(self.data):
            raise ExecutionError(
                f"bytes {address:#x} to {address + span:#x} lie outside main memory [{self.base:#x}, {self.base + len(self.data):#x})",
                hint="check the address, the stride and the extents",
            )
        return np.ndarray(shape, dtype, self.data.data, offset, strides)
