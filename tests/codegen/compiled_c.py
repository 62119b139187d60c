"""C text compiled by the compiler at hand, called on NumPy arrays, compared with the interpreter."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tilewright.codegen.c import emit_c
from tilewright.ir.expr import evaluate
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.runtime.packing import pack, unpack

#: Random programs do silly things on purpose: compare constants, never use what they compute.
SILLY = (
    "unused-variable",
    "unused-but-set-variable",
    "type-limits",
    "tautological-compare",
    "bool-operation",
    "bool-compare",
    "unknown-warning-option",
)
FLAGS = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", *(f"-Wno-{w}" for w in SILLY), "-ffp-contract=off", "-shared", "-fPIC")


def compilers() -> dict[str, list[str]]:
    """The C compilers on this computer by name: gcc, or clang in the ziglang wheel."""
    found = {name: [path] for name in ("gcc",) if (path := shutil.which(name))}
    if importlib.util.find_spec("ziglang"):
        found["clang"] = [sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=all"]
    return found


def load(text: str, flags: tuple[str, ...] = (), compiler: str | None = None) -> ctypes.CDLL:
    """A shared library of C ``text``; the test is skipped without a compiler."""
    known = compilers()
    if "_BitInt" in text:  # gcc has it from version 14 on
        compiler = "clang"
    if not known or (compiler is not None and compiler not in known):
        pytest.skip(f"no C compiler ({compiler or 'gcc, or the package ziglang'}) on this computer")
    command = known[compiler] if compiler else next(iter(known.values()))
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "kernel.c", Path(folder) / "kernel.so"
        source.write_text(text)
        done = subprocess.run([*command, *FLAGS, *flags, str(source), "-o", str(library), "-lm"], capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stderr}\n{text}"
        return ctypes.CDLL(str(library))


def call(library: ctypes.CDLL, kernel: Kernel, arrays: dict[str, np.ndarray], sizes: dict[str, int] | None = None) -> None:
    """Call the kernel's function on logical arrays, updated in place."""
    physical = {b.name: pack(arrays[b.name], b.layout) if b.layout else np.ascontiguousarray(arrays[b.name]) for b in kernel.args}
    function = getattr(library, kernel.name)
    function.restype = None
    numbers = [ctypes.c_int64((sizes or {})[v.name]) for v in kernel.sizes]
    function(*numbers, *(ctypes.c_void_p(physical[b.name].ctypes.data) for b in kernel.args))
    for b in kernel.args:
        done = physical[b.name]
        arrays[b.name][...] = unpack(done, b.layout, arrays[b.name].shape) if b.layout else done


def agree(kernel: Kernel, arrays: dict[str, np.ndarray], sizes: dict[str, int] | None = None, *, tolerance: float = 0.0, **options) -> str:
    """Emit, compile, run, compare all arguments with the interpreter; gives the C text."""
    flags, compiler = options.pop("flags", ()), options.pop("compiler", None)
    expected = {n: a.copy() for n, a in arrays.items()}
    interpret(kernel, expected, sizes)
    text = emit_c(kernel, **options)
    call(load(text, flags, compiler), kernel, arrays, sizes)
    for b in kernel.args:
        got, want = arrays[b.name], expected[b.name]
        if b.dtype.kind == "bfloat":
            got, want = ((x.astype(np.uint32) << 16).view(np.float32) for x in (got, want))
        if b.dtype.is_float and tolerance:
            np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=tolerance, err_msg=text)
        else:
            np.testing.assert_array_equal(got, want, err_msg=f"{b.name}\n{kernel}\n{text}")
    return text


def extents(kernel: Kernel, name: str, sizes: dict[str, int]) -> tuple[int, ...]:
    """The shape of an argument."""
    return tuple(int(evaluate(e, sizes)) for e in kernel.arg(name).shape)
