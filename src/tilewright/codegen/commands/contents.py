"""Which elements of a program's own arrays have been written: what :mod:`checking` knows about contents of main memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Const
from tilewright.ir.simplify import scope_of
from tilewright.ir.stmt import Kernel
from tilewright.schedule.region import Box, box_of

Region = tuple[slice, ...]


class Contents:
    """One flag for each element of ``temps``, in memory order; arguments have contents from the start and are not listed."""

    def __init__(self, temps: Sequence[Buffer]):
        self._flags = {b.name: np.zeros(prod(_extents(b)), np.bool_) for b in temps}
        self._buffers = {b.name: b for b in temps}
        #: By kernel (identity, which the kept kernel protects) and sizes: what its statements read and write.
        self._touched: dict[tuple[int, tuple[int, ...]], tuple[Kernel, list[tuple[str, Region | None, Region | None]]]] = {}

    def undefined(self, name: str, offset: int, rows: int, stride: int, width: int) -> bool:
        """Whether a byte of ``rows`` runs of ``width`` bytes, ``stride`` bytes from one to the next, was never written."""
        return name in self._flags and not all(part.all() for part in self._runs(name, offset, rows, stride, width))

    def write(self, name: str, offset: int, rows: int, stride: int, width: int) -> None:
        """Those bytes have contents from now on."""
        if name in self._flags:
            for part in self._runs(name, offset, rows, stride, width):
                part[:] = True

    def _runs(self, name: str, offset: int, rows: int, stride: int, width: int) -> list[np.ndarray]:
        size = self._buffers[name].dtype.nbytes
        starts = [offset + row * stride for row in range(rows)]
        return [self._flags[name][at // size : -(-(at + width) // size)] for at in starts]

    def host(self, kernel: Kernel, sizes: tuple[int, ...], args: Sequence[str]) -> str | None:
        """The host runs ``kernel``: the array of ``args`` that it reads elements of before they are written; None when all is well.

        What a statement stores to counts as written as a box.
        """
        own = {b.name: name for b, name in zip(kernel.args, args, strict=True) if name in self._flags}
        if not own:
            return None
        key = id(kernel), sizes
        if key not in self._touched:
            bound = st.specialize(kernel, **dict(zip((v.name for v in kernel.sizes), sizes, strict=True)))
            self._touched[key] = kernel, _touched(bound, own)
        for b, reads, writes in self._touched[key][1]:
            flags = self._seen(own[b])
            if reads is not None and writes is None and not flags[reads].all():
                return own[b]
            if writes is not None:
                flags[writes] = True
        return None

    def _seen(self, name: str) -> np.ndarray:
        """The flags as logical indices see them; in a row where a layout divides dimensions, as regions are then whole arrays."""
        b = self._buffers[name]
        if _divided(b) or b.layout is None:
            return self._flags[name].reshape(-1 if _divided(b) else b.static_shape)
        order = [d for d, _ in b.layout.dims]
        return self._flags[name].reshape(_extents(b)).transpose([order.index(d) for d in range(b.rank)])


def _divided(b: Buffer) -> bool:
    return b.layout is not None and len(b.layout.dims) > b.rank


def _extents(b: Buffer) -> list[int]:
    return [int(e.value) for e in b.physical_shape() if isinstance(e, Const)]


def _touched(kernel: Kernel, own: Mapping[str, str]) -> list[tuple[str, Region | None, Region | None]]:
    """For each statement, in order: an array, the elements that it reads of it, and those that it writes."""
    out = []
    scope = scope_of(kernel)
    for s in kernel.body.stmts:
        for b in (b for b in kernel.args if b.name in own):
            reads, writes = (_region(box_of(scope, [s], b, reads=r, writes=not r), b) for r in (True, False))
            if reads is not None or writes is not None:
                out.append((b.name, reads, writes))
    return out


def _region(box: Box | None, b: Buffer) -> Region | None:
    """The part of a box that is inside the array; all of it along dimensions whose bounds depend on data."""
    if box is None:
        return None
    if _divided(b):
        return (slice(None),)
    out = []
    for lo, hi, n in zip(box.lo, box.hi, b.static_shape, strict=True):
        if isinstance(lo, Const) and isinstance(hi, Const):
            out.append(slice(max(int(lo.value), 0), min(int(hi.value), n)))
        else:
            out.append(slice(None))
    return tuple(out)
