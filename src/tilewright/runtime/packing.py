"""Arrays in and out of a buffer's physical layout (padding filled with zeros)."""

from __future__ import annotations

import numpy as np

from tilewright.ir.buffer import Layout
from tilewright.runtime.memory import aligned_empty
from tilewright.util.errors import RuntimeFailure


def physical_shape(layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Extents in memory order of a logical ``shape``, padding included."""
    coarser: dict[int, int] = {}
    extents = []
    for dim, block in layout.dims:
        outer = coarser.get(dim)
        extents.append(-(-shape[dim] // block) if outer is None else outer // block)
        coarser[dim] = block
    return tuple(extents)


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
    padded = tuple(_padded_extent(lay, d, array.shape[d]) for d in range(array.ndim))
    if padded != array.shape:
        array = np.pad(array, [(0, p - s) for p, s in zip(padded, array.shape, strict=True)])
    split, order = _split_axes(lay, padded)
    np.copyto(out, array.reshape(split).transpose(order))
    return out


def unpack(array: np.ndarray, layout: Layout | str, shape: tuple[int, ...], out: np.ndarray | None = None) -> np.ndarray:
    """The logical array of ``shape`` held in ``array``, which has the layout's physical shape."""
    lay = _checked(layout, len(shape))
    expected = physical_shape(lay, shape)
    if array.shape != expected:
        raise RuntimeFailure(
            f"unpack: an array of shape {list(array.shape)} is not {list(shape)} in layout '{lay}', which is {list(expected)}"
        )
    padded = tuple(_padded_extent(lay, d, shape[d]) for d in range(len(shape)))
    _, order = _split_axes(lay, padded)
    logical = array.transpose(np.argsort(order)).reshape(padded)[tuple(slice(s) for s in shape)]
    if out is None:
        return np.ascontiguousarray(logical)
    np.copyto(out, logical)
    return out


def _checked(layout: Layout | str, rank: int) -> Layout:
    lay = Layout.parse(layout) if isinstance(layout, str) else layout
    lay.check(rank)
    return lay


def _padded_extent(layout: Layout, dim: int, extent: int) -> int:
    block = next(b for d, b in layout.dims if d == dim)
    return -(-extent // block) * block


def _split_axes(layout: Layout, padded: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape that splits each logical dimension into its parts, and the parts' order in memory."""
    extents = physical_shape(layout, padded)
    by_dim: list[list[int]] = [[] for _ in padded]
    for position, (dim, _) in enumerate(layout.dims):
        by_dim[dim].append(position)
    positions = [p for parts in by_dim for p in parts]
    return tuple(extents[p] for p in positions), tuple(int(i) for i in np.argsort(positions))
