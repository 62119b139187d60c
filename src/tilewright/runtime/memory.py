"""Aligned memory: output arrays and the workspaces compiled kernels compute in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod

import numpy as np

#: Bytes: a cache line, and the widest vector register.
ALIGNMENT = 64
#: Bytes of a large page on x86-64 and most of ARM.
LARGE_PAGE = 1 << 21
#: Bytes past a cache line at which NumPy's arrays usually begin: large ones get pages of their own, behind the C library's 16-byte header.
NUMPY_OFFSET = 16


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype, *, zero: bool = False, past: int = 0) -> np.ndarray:
    """A C-contiguous array whose data starts ``past`` bytes after a multiple of 64 bytes (contents undefined unless ``zero``)."""
    nbytes = prod(shape) * dtype.itemsize
    raw = (np.zeros if zero else np.empty)(nbytes + ALIGNMENT, np.uint8)
    start = (past - raw.ctypes.data) % ALIGNMENT
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def aligned(array: np.ndarray, *, past: int = 0) -> np.ndarray:
    """``array`` if its data starts ``past`` bytes after a multiple of 64 bytes, else a C-contiguous copy that does.

    NumPy's arrays rarely start at one, and then every vector of a whole register that is loaded crosses a cache line.
    """
    if array.ctypes.data % ALIGNMENT == past:
        return array
    out = aligned_empty(array.shape, array.dtype, past=past)
    out[...] = array
    return out


def together(sizes: Sequence[int]) -> list[np.ndarray]:
    """Arrays of bytes, at multiples of 64 bytes one behind the other, in memory that begins at a large page (contents undefined).

    NumPy asks the system for large pages where an array has 4 MiB or more. Many arrays in one such block need few entries of
    the processor's page tables, and its prefetchers, which stop at the end of a page, run on.
    """
    starts = [0, *accumulate(-(-n // ALIGNMENT) * ALIGNMENT for n in sizes)]
    raw = np.empty(starts[-1] + LARGE_PAGE, np.uint8)
    first = -raw.ctypes.data % LARGE_PAGE
    return [raw[first + start : first + start + n] for start, n in zip(starts, sizes, strict=False)]


class WorkspacePool:
    """Workspaces of one size for calls that may run at the same time.

    Each running call holds its own; returned ones are reused, so a single-threaded program
    allocates one. ``take`` and ``give`` rely only on list operations that are atomic in Python.
    """

    __slots__ = ("_free", "nbytes")

    def __init__(self, nbytes: int):
        self.nbytes = nbytes
        self._free: list[tuple[int, np.ndarray]] = []

    def take(self) -> tuple[int, np.ndarray]:
        """(address, array) of a workspace nobody else uses; its contents are undefined."""
        try:
            return self._free.pop()
        except IndexError:
            space = aligned_empty((self.nbytes,), np.dtype(np.uint8))
            return space.ctypes.data, space

    def give(self, space: tuple[int, np.ndarray]) -> None:
        """Return what :meth:`take` gave."""
        self._free.append(space)
