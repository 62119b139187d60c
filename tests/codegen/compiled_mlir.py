"""MLIR text parsed, verified, lowered and executed by the torch-mlir wheel, compared with the interpreter."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest

from tilewright.codegen.mlir import emit_mlir
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.runtime.packing import pack, unpack

PASSES = (
    "func.func(convert-linalg-to-loops,lower-affine,arith-expand),convert-scf-to-cf,expand-strided-metadata,lower-affine,"
    "convert-math-to-llvm,convert-math-to-libm,convert-arith-to-llvm,finalize-memref-to-llvm,convert-func-to-llvm,convert-cf-to-llvm,"
    "reconcile-unrealized-casts"
)

#: What the wheel's JIT calls functions for that it lacks: such text is only verified.
UNLINKED = r"bf16|itofp .* : i(6[5-9]|[7-9]\d|\d{3})|truncf .* : f64 to f16"


def verified(text: str) -> None:
    """Parse and verify; the test is skipped without MLIR."""
    ir = pytest.importorskip("torch_mlir.ir", reason="MLIR is in the package torch-mlir")
    with ir.Context(), ir.Location.unknown():
        assert ir.Module.parse(text).operation.verify()


def agree(kernel: Kernel, arrays: dict[str, np.ndarray], sizes: dict[str, int] | None = None, *, tolerance: float = 0.0, **options) -> str:
    """Emit, run, compare all arguments with the interpreter; gives the text."""
    ir = pytest.importorskip("torch_mlir.ir", reason="MLIR is in the package torch-mlir")
    from torch_mlir.execution_engine import ExecutionEngine
    from torch_mlir.passmanager import PassManager

    expected = {n: a.copy() for n, a in arrays.items()}
    interpret(kernel, expected, sizes)
    text = emit_mlir(kernel, **options)
    if re.search(UNLINKED, text):
        verified(text)
        return text
    physical = {b.name: np.array(pack(arrays[b.name], b.layout) if b.layout else arrays[b.name]) for b in kernel.args}
    with ir.Context(), ir.Location.unknown():
        try:
            module = ir.Module.parse(text)
            assert module.operation.verify()
            PassManager.parse(f"builtin.module({PASSES})").run(module.operation)
        except ir.MLIRError as error:
            raise AssertionError(f"{error}\n{text}") from error
        engine = ExecutionEngine(module, opt_level=0)
        numbers = [ctypes.c_int64((sizes or {})[v.name]) for v in kernel.sizes]
        descriptors = [_descriptor(physical[b.name]) for b in kernel.args]
        slots = [ctypes.cast(ctypes.pointer(n), ctypes.c_void_p) for n in numbers]
        pointers = [ctypes.c_void_p(ctypes.addressof(d)) for d in descriptors]
        slots += [ctypes.cast(ctypes.pointer(p), ctypes.c_void_p) for p in pointers]
        packed = (ctypes.c_void_p * (len(slots) or 1))(*slots)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.raw_lookup(f"_mlir_ciface_{kernel.name}"))(ctypes.cast(packed, ctypes.c_void_p))
    for b in kernel.args:
        done = physical[b.name]
        arrays[b.name][...] = unpack(done, b.layout, arrays[b.name].shape) if b.layout else done
        got, want = arrays[b.name], expected[b.name]
        if b.dtype.kind == "bfloat":
            got, want = ((x.astype(np.uint32) << 16).view(np.float32) for x in (got, want))
        if b.dtype.is_float and tolerance:
            np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=tolerance, atol=tolerance, err_msg=text)
        else:
            np.testing.assert_array_equal(got, want, err_msg=f"{b.name}\n{kernel}\n{text}")
    return text


def _descriptor(array: np.ndarray) -> ctypes.Array:
    """A memref descriptor: two pointers, the offset, extents, strides in elements."""
    words = [array.ctypes.data, array.ctypes.data, 0, *array.shape, *(s // array.itemsize for s in array.strides)]
    return (ctypes.c_int64 * len(words))(*words)
