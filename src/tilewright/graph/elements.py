"""Element types at the border: ONNX tensor types, NumPy arrays, and how arrays are stored here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tilewright.ir import types as ty
from tilewright.ir.types import DType
from tilewright.util.errors import ImportFailure

if TYPE_CHECKING:
    from onnx import TensorProto

#: ONNX TensorProto.DataType number -> element type.
ONNX_TYPES: dict[int, DType] = {
    1: ty.f32,
    2: ty.u8,
    3: ty.i8,
    4: ty.u16,
    5: ty.i16,
    6: ty.i32,
    7: ty.i64,
    9: ty.boolean,
    10: ty.f16,
    11: ty.f64,
    12: ty.u32,
    13: ty.u64,
    16: ty.bf16,
    21: ty.UInt(4),
    22: ty.Int(4),
    25: ty.UInt(2),
    26: ty.Int(2),
}
#: Types whose NumPy form differs from the array they are stored in: name in ``ml_dtypes``.
_EXTENSION_TYPES = {
    "bfloat16": ty.bf16,
    "int4": ty.Int(4),
    "uint4": ty.UInt(4),
    "int2": ty.Int(2),
    "uint2": ty.UInt(2),
}


def onnx_dtype(number: int, what: str) -> DType:
    """The element type of ONNX type ``number``; ``what`` names the value in the error."""
    if number in ONNX_TYPES:
        return ONNX_TYPES[number]
    from onnx import TensorProto

    name = TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else str(number)
    raise ImportFailure(
        f"{what} has element type {name}, which is not supported",
        hint=f"supported: {', '.join(str(t) for t in ONNX_TYPES.values())}",
    )


def storage_array(array: np.ndarray) -> tuple[np.ndarray, DType]:
    """``array`` in the form kernels read (bfloat16 as bits, 4-bit integers in bytes) and its type."""
    name = array.dtype.name
    if name in _EXTENSION_TYPES:
        dtype = _EXTENSION_TYPES[name]
        stored = array.view(np.uint16) if dtype == ty.bf16 else array.astype(dtype.to_numpy())
        return np.ascontiguousarray(stored).reshape(array.shape), dtype
    native = array.dtype.newbyteorder("=")  # arrays of another byte order have the same elements
    return np.ascontiguousarray(array, native).reshape(array.shape), ty.from_numpy(native)


def user_array(stored: np.ndarray, dtype: DType) -> np.ndarray:
    """The array a user expects for stored elements of ``dtype`` (inverse of :func:`storage_array`)."""
    for name, extension in _EXTENSION_TYPES.items():
        if dtype == extension:
            import ml_dtypes

            kind = np.dtype(getattr(ml_dtypes, name))
            return stored.view(kind) if dtype == ty.bf16 else stored.astype(kind)
    return stored


def tensor_array(tensor: TensorProto, base_dir: str) -> np.ndarray:
    """Contents of an ONNX tensor in user form; external data is read from ``base_dir``.

    Raises ImportFailure when the bytes are missing or do not fit the shape.
    """
    from onnx import numpy_helper

    if tensor.data_type == tensor.STRING:
        raise ImportFailure(f"tensor {tensor.name!r} holds strings", hint="string tensors are not supported")
    onnx_dtype(tensor.data_type, f"tensor {tensor.name!r}")
    try:
        return numpy_helper.to_array(tensor, base_dir)
    except Exception as error:  # onnx raises many types for damaged tensors, and for data files that are not there
        outside = tensor.data_location == tensor.EXTERNAL
        raise ImportFailure(
            f"{'external data of ' if outside else ''}tensor {tensor.name!r} (shape {list(tensor.dims)}) cannot be read: {error}",
            hint="put the whole data file beside the model, where it was when the model was saved" if outside else "export the model again",
        ) from error
