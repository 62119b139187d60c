"""Random arguments for a kernel of any element types, as the interpreter takes them."""

from __future__ import annotations

import numpy as np

from tilewright.ir import types as ty
from tilewright.ir.expr import evaluate
from tilewright.ir.stmt import Kernel


def random_arguments(k: Kernel, seed: int, sizes: dict[str, int] | None = None) -> dict[str, np.ndarray]:
    """Arrays by argument name: floats around 1, integers within ±100 and their type's range."""
    rng = np.random.default_rng(seed)
    out: dict[str, np.ndarray] = {}
    for b in k.args:
        shape = tuple(int(evaluate(s, sizes or {})) for s in b.shape)
        values = rng.standard_normal(shape).astype(np.float32)
        if b.dtype.kind == ty.BFLOAT:
            out[b.name] = np.asarray(np.asarray(values).view(np.uint32) >> 16).astype(np.uint16)
        elif b.dtype.is_float:
            out[b.name] = np.asarray(values, dtype=b.dtype.to_numpy())
        else:
            lo, hi = b.dtype.range
            out[b.name] = np.asarray(rng.integers(max(lo, -100), min(hi, 100) + 1, size=shape)).astype(b.dtype.to_numpy())
    return out
