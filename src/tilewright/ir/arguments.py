"""Arguments of a run: arrays and sizes checked against a kernel's signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Var, evaluate
from tilewright.ir.stmt import Kernel
from tilewright.util.errors import IRTypeError


def bind_arguments(
    kernel: Kernel, args: Mapping[str, np.ndarray] | Sequence[np.ndarray], sizes: Mapping[str, int] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Arrays by argument name and values of all sizes; IRTypeError for what does not fit.

    Sizes that are an extent of some argument are read off the arrays when ``sizes`` leaves them out.
    """
    arrays = _by_name(kernel, args)
    for b in kernel.args:
        arrays[b.name] = _stored(kernel, b, arrays[b.name])
    bound = _sizes(kernel, arrays, dict(sizes or {}))
    for b in kernel.args:
        want = tuple(int(evaluate(s, bound)) for s in b.shape)
        if arrays[b.name].shape != want:
            raise IRTypeError(f"{kernel.name}: argument {b.name} has shape {list(arrays[b.name].shape)}, but {list(want)} is declared")
    return arrays, bound


def _by_name(kernel: Kernel, args: Mapping[str, np.ndarray] | Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    names = [b.name for b in kernel.args]
    given = dict(args) if isinstance(args, Mapping) else dict(zip(names, args, strict=False))
    if len(args) != len(names) or set(given) != set(names):
        got = ", ".join(given) if isinstance(args, Mapping) else str(len(args))
        raise IRTypeError(f"{kernel.name} takes {len(names)} arguments ({', '.join(names)}), got {got or 'none'}")
    return given


def _stored(kernel: Kernel, b: Buffer, array: np.ndarray) -> np.ndarray:
    """``array`` in the storage type of ``b`` (a view of the same memory)."""
    where = f"{kernel.name}: argument {b.name}"
    if not isinstance(array, np.ndarray):
        raise IRTypeError(f"{where} is {type(array).__name__}, not a NumPy array", hint="a scalar is a 0-d array: numpy.array(x)")
    want = b.dtype.to_numpy()
    if array.dtype.name == "bfloat16":
        array = array.view(np.uint16)
    if array.dtype != want:
        raise IRTypeError(f"{where} is an array of {array.dtype}, but {b.dtype} is stored as {want}")
    if array.ndim != b.rank:
        raise IRTypeError(f"{where} has {array.ndim} dimensions, but {b.rank} are declared")
    if not b.dtype.is_float and b.dtype.bits not in (8, 16, 32, 64) and array.size:
        lo, hi = b.dtype.range
        if array.min() < lo or array.max() > hi:
            raise IRTypeError(f"{where} holds values from {array.min()} to {array.max()}, outside {b.dtype} ({lo} to {hi})")
    return array


def _sizes(kernel: Kernel, arrays: dict[str, np.ndarray], given: dict[str, int]) -> dict[str, int]:
    known = {v.name for v in kernel.sizes}
    if unknown := set(given) - known:
        raise IRTypeError(f"{kernel.name} has no size {', '.join(sorted(unknown))}", hint=f"sizes: {', '.join(sorted(known)) or 'none'}")
    for b in kernel.args:
        for s, n in zip(b.shape, arrays[b.name].shape, strict=True):
            if isinstance(s, Var) and s.name in known:
                given.setdefault(s.name, n)
    if missing := known - set(given):
        raise IRTypeError(f"{kernel.name}: no value for size {', '.join(sorted(missing))}", hint="pass sizes={name: value}")
    return given
