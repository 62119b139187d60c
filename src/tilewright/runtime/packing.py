"""Arrays in and out of a buffer's physical layout (padding filled with zeros)."""

from __future__ import annotations

import numpy as np

from tilewright.ir.buffer import Layout
from tilewright.ir.packing import physical_shape, to_logical, to_physical
from tilewright.runtime.memory import aligned_empty
from tilewright.util.errors import RuntimeFailure


def pack(array: np.ndarray, layout: Layout | str, out: np.ndarray | None = None) -> np.ndarray:
    """``array`` (logical order) as a C-contiguous array of the layout's physical shape.

    A [K, N] array with layout ``"1/16 0 1"`` gives [ceil(N/16), K, 16]; elements that only pad
    a block are zero. ``out``, if given, is filled and returned.
    """
    lay = _checked(layout, array.ndim)
    shape = physical_shape(lay, array.shape)
    if out is None:
        out = aligned_empty(shape, array.dtype)
    elif out.shape != shape or out.dtype != array.dtype:
        raise RuntimeFailure(
            f"pack: out is {out.dtype}{list(out.shape)}, layout '{lay}' of {list(array.shape)} needs {array.dtype}{list(shape)}"
        )
    to_physical(array, lay, out)
    return out


def unpack(array: np.ndarray, layout: Layout | str, shape: tuple[int, ...], out: np.ndarray | None = None) -> np.ndarray:
    """The logical array of ``shape`` held in ``array``, which has the layout's physical shape."""
    lay = _checked(layout, len(shape))
    expected = physical_shape(lay, shape)
    if array.shape != expected:
        raise RuntimeFailure(
            f"unpack: an array of shape {list(array.shape)} is not {list(shape)} in layout '{lay}', which is {list(expected)}"
        )
    logical = to_logical(array, lay, shape)
    if out is None:
        return np.ascontiguousarray(logical)
    np.copyto(out, logical)
    return out


def _checked(layout: Layout | str, rank: int) -> Layout:
    lay = Layout.parse(layout) if isinstance(layout, str) else layout
    lay.check(rank)
    return lay
