"""NumPy views of any array: NumPy itself, and every producer of DLPack CPU tensors, without copying."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tilewright.ir.types import BFLOAT, DType
from tilewright.util.errors import RuntimeFailure

_CPU_DEVICES = (1, 3, 11, 13)  # kDLCPU, kDLCUDAHost, kDLROCMHost, kDLCUDAManaged: memory the CPU can address
_INT, _UINT, _FLOAT, _BFLOAT, _BOOL = 0, 1, 2, 4, 6
_LETTERS = {_INT: "i", _UINT: "u", _FLOAT: "f"}


class _Tensor(ctypes.Structure):
    """DLTensor of the DLPack 0.x/1.x C header."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Exported:
    """Owner of a capsule's memory, in the form NumPy takes (``__array_interface__``)."""

    def __init__(self, capsule: Any, interface: dict[str, Any]):
        self.capsule = capsule
        self.__array_interface__ = interface


def as_numpy(value: Any, name: str) -> np.ndarray:
    """A view of ``value`` (bf16 as its bits in uint16). ``name`` is the argument, for errors.

    Raises RuntimeFailure for what is not an array, not in CPU memory, or of a type NumPy lacks.
    """
    if isinstance(value, np.ndarray):
        # Kind V is tested first because a dtype's name takes microseconds to form.
        return value.view(np.uint16) if value.dtype.kind == "V" and value.dtype.name == "bfloat16" else value
    if not hasattr(value, "__dlpack__"):
        raise RuntimeFailure(
            f"argument {name}: {type(value).__name__} is not an array", hint="pass a NumPy array or an object with __dlpack__"
        )
    device = value.__dlpack_device__()[0]
    if int(device) not in _CPU_DEVICES:
        raise RuntimeFailure(f"argument {name} is on DLPack device {int(device)}, not in CPU memory", hint="copy it to the CPU first")
    try:
        capsule = value.__dlpack__()
    except (BufferError, RuntimeError, TypeError) as error:
        raise RuntimeFailure(f"argument {name} cannot be exported: {error}", hint="detach it from autograd and make it dense") from error
    return _view(capsule, name)


def _view(capsule: Any, name: str) -> np.ndarray:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = _Tensor.from_address(get(capsule, b"dltensor"))
    dtype: np.dtype
    if tensor.code == _BOOL and tensor.bits == 8:
        dtype = np.dtype(np.bool_)
    elif tensor.code == _BFLOAT and tensor.bits == 16:
        dtype = np.dtype(np.uint16)
    elif tensor.code in _LETTERS and tensor.bits in (8, 16, 32, 64) and tensor.lanes == 1:
        dtype = np.dtype(f"{_LETTERS[tensor.code]}{tensor.bits // 8}")
    else:
        raise RuntimeFailure(f"argument {name} has DLPack type code {tensor.code} of {tensor.bits} bits, which has no element type here")
    shape = tuple(tensor.shape[d] for d in range(tensor.ndim))
    strides = tuple(tensor.strides[d] * dtype.itemsize for d in range(tensor.ndim)) if tensor.strides else None
    if 0 in shape:
        return np.empty(shape, dtype)  # nothing to view: such tensors carry a null pointer
    interface = {"version": 3, "typestr": dtype.str, "shape": shape, "strides": strides, "data": (tensor.data + tensor.byte_offset, False)}
    return np.asarray(_Exported(capsule, interface))


def storage_dtype(dtype: DType) -> np.dtype:
    """The NumPy dtype arrays of element type ``dtype`` are passed in; RuntimeFailure beyond 64 bits."""
    if dtype.bits > 64:
        raise RuntimeFailure(f"arrays of {dtype} cannot be passed: elements are wider than 64 bits", hint="split it into two arguments")
    return dtype.to_numpy()


def storage_text(dtype: DType) -> str:
    """How errors name the storage of ``dtype``: ``float32``, ``uint16 (bf16 bits)``."""
    text = storage_dtype(dtype).name
    return text if dtype.kind != BFLOAT else f"{text} (bf16 bits)"
