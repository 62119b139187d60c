"""Tensors made from attributes and shapes: constants, shapes, ranges, windows, identities."""

from __future__ import annotations

import math

import numpy as np

from tilewright.graph.elements import ONNX_TYPES, onnx_dtype, storage_array, tensor_array, user_array
from tilewright.graph.lowering import Lowering, operator
from tilewright.graph.model import Tensor
from tilewright.ir.expr import Expr, compare, const, where


@operator("Constant")
def constant(op: Lowering) -> Tensor | np.ndarray:
    if (value := op.attribute("value")) is not None:
        return op.array(tensor_array(value, ""))
    for name, dtype in (("value_int", np.int64), ("value_ints", np.int64), ("value_float", np.float32), ("value_floats", np.float32)):
        if (value := op.attribute(name)) is not None:
            return np.asarray(value, dtype)
    raise op.refuse("its value is a string or sparse tensor", hint="only dense number tensors are supported")


@operator("ConstantOfShape")
def constant_of_shape(op: Lowering, shape: Tensor) -> Tensor:
    value = op.attribute("value")
    stored, dtype = storage_array(tensor_array(value, "") if value is not None else np.zeros(1, np.float32))
    return op.array(np.full(tuple(op.known_ints(shape, "shape") or []), stored.reshape(-1)[0]), dtype)


@operator("Shape")
def shape_of(op: Lowering, x: Tensor) -> np.ndarray:
    return np.asarray(x.shape[op.attribute("start", 0) : op.attribute("end")], np.int64)


@operator("Size")
def size_of(op: Lowering, x: Tensor) -> np.ndarray:
    return np.asarray(math.prod(x.shape), np.int64)


@operator("Range")
def range_node(op: Lowering, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    lo, hi, step = (user_array(op.known(t, "number of elements"), t.dtype).reshape(()).item() for t in (start, limit, delta))
    number = max(math.ceil((hi - lo) / step), 0)
    kind = user_array(np.zeros(0, start.dtype.to_numpy()), start.dtype).dtype
    return op.array((lo + np.arange(number) * step).astype(kind))


@operator("EyeLike")
def eye_like(op: Lowering, x: Tensor) -> Tensor:
    dtype = onnx_dtype(op.attribute("dtype"), "dtype") if op.attribute("dtype") is not None else x.dtype
    k = op.attribute("k", 0)

    def element(i: Expr, j: Expr) -> Expr:
        return where(compare("==", j, i + k), const(1, dtype), const(0, dtype))

    return op.compute(x.shape, element, dtype)


_COSINE_WINDOWS = {"HannWindow": (0.5, 0.5, 0.0), "HammingWindow": (25 / 46, 21 / 46, 0.0), "BlackmanWindow": (0.42, 0.5, 0.08)}


@operator(*_COSINE_WINDOWS)
def cosine_window(op: Lowering, size: Tensor) -> Tensor:
    n = int(op.known(size, "size").reshape(()))
    a0, a1, a2 = _COSINE_WINDOWS[op.kind]
    phase = 2 * np.pi * np.arange(n) / max(n if op.attribute("periodic", 1) else n - 1, 1)
    dtype = ONNX_TYPES[op.attribute("output_datatype", 1)]
    return op.array((a0 - a1 * np.cos(phase) + a2 * np.cos(2 * phase)).astype(dtype.to_numpy()), dtype)


@operator("MelWeightMatrix")
def mel_weights(op: Lowering, bins: Tensor, length: Tensor, rate: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Triangular filters over ``length // 2 + 1`` spectrum bins, evenly spaced on the mel scale."""
    number, size, hertz, lo, hi = (op.known(t, "operands").reshape(()).item() for t in (bins, length, rate, low, high))
    first, last = (float(v) for v in 2595.0 * np.log10(1.0 + np.asarray([lo, hi]) / 700.0))
    mel = first + np.arange(number + 2) * ((last - first) / (number + 2))  # the operator's own step: n+2, not n+1
    edges = ((size + 1) * (700.0 * (10.0 ** (mel / 2595.0) - 1.0)) // hertz).astype(np.int64)
    out = np.zeros((size // 2 + 1, number))
    for m in range(number):
        left, centre, right = edges[m : m + 3]
        if centre == left:
            out[centre, m] = 1.0
        else:
            out[left : centre + 1, m] = (np.arange(left, centre + 1) - left) / (centre - left)
        if right > centre:
            out[centre:right, m] = (right - np.arange(centre, right)) / (right - centre)
    dtype = ONNX_TYPES[op.attribute("output_datatype", 1)]
    return op.array(out.astype(dtype.to_numpy()), dtype)
