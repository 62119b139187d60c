"""From the arrays of a call to checked addresses: names, types, shapes, contiguity, overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.ir.buffer import Layout
from tilewright.runtime.dlpack import as_numpy, storage_text
from tilewright.runtime.memory import aligned_empty
from tilewright.runtime.packing import physical_shape, unpack
from tilewright.runtime.signature import Parameter, Role, Signature
from tilewright.util.errors import RuntimeFailure


@dataclass(frozen=True, slots=True)
class Packed:
    """An array already in a physical layout: ``data`` in memory order, of a logical ``shape``."""

    data: np.ndarray
    layout: Layout
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked call: arrays in memory order for each parameter, sizes, and what packing it needs.

    ``packs`` are (logical, layout, physical) to fill before a run, ``unpacks`` (physical, layout,
    logical) after it; ``result`` is what the call returns.
    """

    physical: tuple[np.ndarray, ...]
    sizes: tuple[int, ...]
    packs: tuple[tuple[np.ndarray, Layout, np.ndarray], ...]
    unpacks: tuple[tuple[np.ndarray, Layout, np.ndarray], ...]
    result: Any

    def unpack_all(self) -> None:
        """Copy outputs that have a layout to the arrays the caller sees."""
        for physical, layout, logical in self.unpacks:
            unpack(physical, layout, logical.shape, logical)


def prepare(sig: Signature, arrays: Sequence[Any], out: Any, sizes: Mapping[str, int]) -> Prepared:
    """Check a call against ``sig`` and lay out its arguments.

    RuntimeFailure names the argument, what was expected, what came, and the way out.
    """
    given = _assign(sig, arrays, out)
    views = {p.name: _view(sig, p, given[p.name]) for p in sig.parameters if p.name in given}
    known = sig.infer_sizes({n: v.shape for n, v in views.items()}, sizes)
    physical, packs, unpacks, returned = [], [], [], {}
    for p in sig.parameters:
        value = views.get(p.name)
        shape = p.shape(known)
        if value is None:
            value = aligned_empty(shape, p.storage, zero=not p.complete)
        _check(sig, p, value, shape)
        layout = p.buffer.layout
        if isinstance(value, Packed) or layout is None:
            physical.append(value.data if isinstance(value, Packed) else value)
        else:
            buffer = aligned_empty(physical_shape(layout, shape), p.storage, zero=True)
            physical.append(buffer)
            if p.role is not Role.OUT or not p.complete:
                packs.append((value, layout, buffer))
            if p.written:
                unpacks.append((buffer, layout, value))
        if p.written:
            original = given.get(p.name)
            returned[p.name] = value if original is None or isinstance(original, np.ndarray) else original
    _check_overlap(sig, physical, views)
    result = next(iter(returned.values())) if len(returned) == 1 else tuple(returned.values())
    return Prepared(tuple(physical), tuple(known[n] for n in sig.sizes), tuple(packs), tuple(unpacks), result)


def _assign(sig: Signature, arrays: Sequence[Any], out: Any) -> dict[str, Any]:
    """Arguments by parameter name."""
    if len(arrays) == len(sig.parameters):
        if out is not None and sig.outputs:
            raise RuntimeFailure(f"{sig.name}: all {len(arrays)} arguments were passed and out= as well", hint=f"drop one of them: {sig}")
        given = dict(zip((p.name for p in sig.parameters), arrays, strict=True))
    elif len(arrays) == len(sig.inputs):
        given = dict(zip((p.name for p in sig.inputs), arrays, strict=True))
    else:
        inputs = ", ".join(p.name for p in sig.inputs)
        raise RuntimeFailure(
            f"{sig.name} takes {len(sig.inputs)} inputs ({inputs}) or all {len(sig.parameters)} arguments, got {len(arrays)}",
            hint=f"the signature is {sig}",
        )
    return given if out is None else {**given, **_outputs(sig, out)}


def _outputs(sig: Signature, out: Any) -> dict[str, Any]:
    """The ``out`` of a call by parameter name: an array, a sequence in order, or a dict."""
    names = [p.name for p in sig.outputs]
    if isinstance(out, Mapping):
        if unknown := [n for n in out if n not in names]:
            raise RuntimeFailure(f"{sig.name}: out has {', '.join(map(repr, unknown))}", hint=f"outputs are: {', '.join(names) or 'none'}")
        return {n: v for n, v in out.items() if v is not None}
    values = list(out) if isinstance(out, (tuple, list)) else [out]
    if len(values) != len(names):
        raise RuntimeFailure(f"{sig.name}: out has {len(values)} arrays for {len(names)} outputs ({', '.join(names) or 'none'})")
    return {n: v for n, v in zip(names, values, strict=True) if v is not None}


def _view(sig: Signature, p: Parameter, value: Any) -> Any:
    if isinstance(value, Packed):
        return value
    if p.buffer.rank == 0 and p.role is Role.IN and isinstance(value, (bool, int, float)):
        return np.array(value, p.storage)
    if isinstance(value, np.generic):
        return np.asarray(value)
    return as_numpy(value, f"{p.name} of {sig.name}")


def _check(sig: Signature, p: Parameter, value: Any, shape: tuple[int, ...]) -> None:
    where = f"argument {p.name} of {sig.name}"
    if isinstance(value, Packed):
        if value.layout != p.buffer.layout:
            expected = f"layout '{p.buffer.layout}'" if p.buffer.layout else "no layout"
            raise RuntimeFailure(f"{where} is packed in layout '{value.layout}', expected {expected}", hint="pack it with module.pack")
        array = value.data
    else:
        array = value
    if array.dtype != p.storage:
        raise RuntimeFailure(
            f"{where} has dtype {array.dtype}, expected {storage_text(p.buffer.dtype)}", hint=f"convert it: x.astype({p.storage.name!r})"
        )
    if value.shape != shape:
        raise RuntimeFailure(f"{where} has shape {list(value.shape)}, expected {list(shape)}")
    if not array.flags.c_contiguous and (p.buffer.layout is None or isinstance(value, Packed)):
        raise RuntimeFailure(
            f"{where} has strides {list(array.strides)}, expected a C-contiguous array", hint="pass numpy.ascontiguousarray(x)"
        )
    if not array.flags.aligned or array.dtype.byteorder not in "=|":
        raise RuntimeFailure(
            f"{where} is not aligned to its elements in native byte order", hint="pass a copy: x.astype(x.dtype.newbyteorder('='))"
        )
    if p.written and not array.flags.writeable:
        raise RuntimeFailure(f"{where} is read-only, and the kernel writes it", hint="pass a writable copy")


def _check_overlap(sig: Signature, physical: Sequence[np.ndarray], views: Mapping[str, Any]) -> None:
    """Kernels are compiled for arguments that do not alias: a written one may share memory with no other."""
    spans = []
    for p, array in zip(sig.parameters, physical, strict=True):
        # What the caller sees counts, also when the kernel works on a packed copy of it.
        seen = views.get(p.name)
        array = array if seen is None or isinstance(seen, Packed) else seen
        start, stop = np.lib.array_utils.byte_bounds(array) if not array.flags.c_contiguous else _span(array)
        spans.append((start, stop, p))
    for lo, hi, p in (s for s in spans if s[2].written):
        for start, stop, other in spans:
            if other is not p and max(start, lo) < min(hi, stop):
                raise RuntimeFailure(
                    f"{sig.name}: argument {p.name}, which is written, overlaps argument {other.name} in memory", hint="pass a copy of one"
                )


def _span(array: np.ndarray) -> tuple[int, int]:
    start = array.__array_interface__["data"][0]
    return start, start + array.nbytes
