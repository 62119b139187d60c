"""Storage of the interpreter: typed values in flat lists, seen through checked strided views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, NoReturn

import numpy as np

from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.types import DType
from tilewright.ir.values import UNDEFINED
from tilewright.util.errors import ExecutionError

Selector = int | tuple[int, int, int]
"""What a window takes of one dimension: an index, or (lo, extent, step)."""


@dataclass(frozen=True, slots=True)
class View:
    """Elements of ``data`` at ``base + sum(index * strides)``. ``observable``: stores must be defined."""

    name: str
    data: list[Any]
    base: int
    strides: tuple[int, ...]
    shape: tuple[int, ...]
    observable: bool

    def accessors(self) -> tuple[Callable[..., Any], Callable[..., None]]:
        """``get(*index)`` and ``put(value, *index)``, both checking bounds."""
        return _accessor_factory(len(self.shape))(self, self.data, self.base, self.strides, self.shape)

    def window(self, selectors: Sequence[Selector], name: str) -> View:
        """The sub-view a call passes; ExecutionError if any element of it lies outside."""
        base, strides, shape = self.base, [], []
        for d, s in enumerate(selectors):
            lo, extent, step = (s, 1, 1) if not isinstance(s, tuple) else s
            if extent > 0 and not (lo >= 0 and lo + (extent - 1) * step < self.shape[d]):
                raise ExecutionError(
                    f"dimension {d} of a window on {self.name} covers {lo} to {lo + (extent - 1) * step}, outside 0 to {self.shape[d] - 1}"
                )
            base += lo * self.strides[d]
            if isinstance(s, tuple):
                strides.append(self.strides[d] * step)
                shape.append(extent)
        return View(name, self.data, base, tuple(strides), tuple(shape), self.observable)


def allocate(name: str, shape: tuple[int, ...], observable: bool = False) -> View:
    """A fresh view of undefined elements."""
    return View(name, [UNDEFINED] * prod(shape), 0, row_major(shape), shape, observable)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements, last dimension contiguous."""
    return tuple(prod(shape[d + 1 :]) for d in range(len(shape)))


def view_array(b: Buffer, array: np.ndarray) -> View:
    """The values of ``array`` as an observable view (a copy: :func:`write_back` returns them)."""
    return View(b.name, _values(b.dtype, array), 0, row_major(array.shape), array.shape, True)


def write_back(view: View, dtype: DType, array: np.ndarray) -> None:
    """Store the values of a whole-array view into ``array``."""
    if dtype.kind == ty.BFLOAT:
        array[...] = (np.array(view.data, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16).reshape(array.shape)
    else:
        array[...] = np.array(view.data, dtype=array.dtype).reshape(array.shape)


def _values(dtype: DType, array: np.ndarray) -> list[Any]:
    flat = np.ascontiguousarray(array).reshape(-1)
    if dtype.kind == ty.BFLOAT:
        return list((flat.astype(np.uint32) << 16).view(np.float32))
    return list(flat) if dtype.is_float else flat.tolist()


def _outside(view: View, index: tuple[Any, ...]) -> NoReturn:
    raise ExecutionError(
        f"{view.name}[{', '.join(str(i) for i in index)}] is outside {view.name}, whose shape is [{', '.join(map(str, view.shape))}]",
        hint="check the loop bounds, or guard the access",
    )


def _undefined(view: View, index: tuple[Any, ...]) -> NoReturn:
    raise ExecutionError(
        f"undefined data is stored to {view.name}[{', '.join(map(str, index))}]",
        hint="a local buffer is read before it is written",
    )


@lru_cache(maxsize=16)
def _accessor_factory(rank: int) -> Callable[..., Any]:
    """Source-generated accessors: unrolled bounds and offsets make the interpreter several times faster."""
    ix = ", ".join(f"i{d}" for d in range(rank))
    inside = " and ".join(f"0 <= i{d} < n{d}" for d in range(rank)) or "True"
    at = " + ".join(["base", *(f"i{d} * s{d}" for d in range(rank))])
    tup = f"({ix},)" if rank else "()"
    unpack = "".join(f"    s{d}, n{d} = strides[{d}], shape[{d}]\n" for d in range(rank))
    source = f"""
def make(view, data, base, strides, shape):
{unpack}
    def get({ix}):
        if {inside}:
            return data[{at}]
        outside(view, {tup})
    def put(value{", " + ix if rank else ""}):
        if {inside}:
            data[{at}] = value
            return
        outside(view, {tup})
    def put_defined(value{", " + ix if rank else ""}):
        if value is UNDEFINED:
            undefined(view, {tup})
        put(value{", " + ix if rank else ""})
    return get, put_defined if view.observable else put
"""
    scope: dict[str, Any] = {"outside": _outside, "undefined": _undefined, "UNDEFINED": UNDEFINED}
    exec(compile(source, f"<accessors of rank {rank}>", "exec"), scope)
    return scope["make"]
