"""Arrays in and out of a buffer's physical layout, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ir.buffer import Layout


def physical_shape(layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Extents in memory order of a logical ``shape``, padding included."""
    coarser: dict[int, int] = {}
    extents = []
    for dim, block in layout.dims:
        outer = coarser.get(dim)
        extents.append(-(-shape[dim] // block) if outer is None else outer // block)
        coarser[dim] = block
    return tuple(extents)


def to_physical(array: NDArray[Any], layout: Layout, out: NDArray[Any]) -> None:
    """Writes the logical ``array`` to ``out``, which has the physical shape; elements that only pad a block become zero."""
    padded = _padded(layout, array.shape)
    if padded != array.shape:
        array = np.pad(array, [(0, p - s) for p, s in zip(padded, array.shape, strict=True)])
    split, order = _split_axes(layout, padded)
    np.copyto(out, array.reshape(split).transpose(order))


def to_logical(array: NDArray[Any], layout: Layout, shape: tuple[int, ...]) -> NDArray[Any]:
    """The logical elements of ``array``, which has the physical shape; a view where the layout divides no dimension."""
    padded = _padded(layout, shape)
    _, order = _split_axes(layout, padded)
    return array.transpose(np.argsort(order)).reshape(padded)[tuple(slice(s) for s in shape)]


def _padded(layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
    blocks = [next(b for d, b in layout.dims if d == dim) for dim in range(len(shape))]
    return tuple(-(-extent // block) * block for extent, block in zip(shape, blocks, strict=True))


def _split_axes(layout: Layout, padded: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape that splits each logical dimension into its parts, and the parts' order in memory."""
    extents = physical_shape(layout, padded)
    by_dim: list[list[int]] = [[] for _ in padded]
    for position, (dim, _) in enumerate(layout.dims):
        by_dim[dim].append(position)
    positions = [p for parts in by_dim for p in parts]
    return tuple(extents[p] for p in positions), tuple(int(i) for i in np.argsort(positions))
