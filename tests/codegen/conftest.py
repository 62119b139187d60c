"""Runs emitted code on NumPy arrays and compares with the interpreter."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from math import prod

import numpy as np
import pytest

from tilewright.codegen.llvm import compile_ir, emit
from tilewright.hw import load_machine
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import evaluate
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.runtime import jit
from tilewright.runtime.pool import parallel_for_address


@pytest.fixture(scope="session")
def host():
    return load_machine("host")


@pytest.fixture(scope="session", name="execute")
def execute_fixture() -> Callable[..., None]:
    return execute


def execute(kernel: Kernel, machine, arrays: dict[str, np.ndarray], sizes: dict[str, int] | None = None) -> None:
    """Run the compiled kernel on physical arrays, in place, on one thread."""
    emitted = emit(kernel, machine)
    code = compile_ir(emitted.text, machine.target)
    imports = {"tw_parallel_for": parallel_for_address()} if "tw_parallel_for" in emitted.externals else {}
    library = jit.load(code, [emitted.symbol], imports)
    entry = library.function(emitted.symbol, None, *[ctypes.c_void_p] * 4)
    pointers = (ctypes.c_void_p * (len(kernel.args) or 1))(*[arrays[b.name].ctypes.data for b in kernel.args])
    numbers = (ctypes.c_int64 * (len(kernel.sizes) or 1))(*[(sizes or {})[v.name] for v in kernel.sizes])
    memory = np.full(emitted.workspace + emitted.thread_workspace + 64, 0xA5, np.uint8)
    entry(ctypes.addressof(pointers), ctypes.addressof(numbers), memory.ctypes.data + -memory.ctypes.data % 64, None)


def random_array(rng: np.random.Generator, b: Buffer, sizes: dict[str, int]) -> np.ndarray:
    """Values of the buffer's type over its whole range (floats: around 1)."""
    shape = tuple(int(evaluate(e, sizes)) for e in b.shape)
    t = b.dtype
    if t.kind == "bfloat":
        return (rng.standard_normal(shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if t.is_float:
        return rng.standard_normal(shape).astype(t.to_numpy())
    if t.kind == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    lo, hi = t.range
    raw = np.array([int.from_bytes(rng.bytes(16), "little") % (hi - lo + 1) + lo for _ in range(prod(shape))], dtype=object)
    return raw.reshape(shape).astype(t.to_numpy())


@pytest.fixture(scope="session")
def check(host) -> Callable[..., dict[str, np.ndarray]]:
    """Compile, run, compare every argument with the interpreter; gives the arrays after the run."""

    def run(program: str | Kernel, tolerance: float = 0.0, machine=None, seed: int = 0, **given) -> dict[str, np.ndarray]:
        kernel = parse(program) if isinstance(program, str) else program
        sizes = {v.name: given.pop(v.name) for v in kernel.sizes}
        rng = np.random.default_rng(seed)
        arrays = {b.name: np.array(given[b.name]) if b.name in given else random_array(rng, b, sizes) for b in kernel.args}
        expected = {n: a.copy() for n, a in arrays.items()}
        interpret(kernel, expected, sizes)
        execute(kernel, machine or host, arrays, sizes)
        for b in kernel.args:
            compare(b, arrays[b.name], expected[b.name], tolerance)
        return arrays

    return run


def compare(b: Buffer, got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
    if b.dtype.kind == "bfloat":
        got, want = ((x.astype(np.uint32) << 16).view(np.float32) for x in (got, want))
    if not b.dtype.is_float or tolerance == 0.0:
        np.testing.assert_array_equal(got, want, err_msg=b.name)
    else:
        np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=tolerance, atol=tolerance, err_msg=b.name)
