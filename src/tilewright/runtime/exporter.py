"""Kernels for other programs: an object file that needs only libc and libm, and its C header."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any

from tilewright.hw.machine import Machine
from tilewright.ir.expr import Const, Expr
from tilewright.ir.types import BFLOAT, BOOL, FLOAT, DType
from tilewright.runtime import jit
from tilewright.runtime.module import emit_kernel
from tilewright.runtime.native import native_text
from tilewright.runtime.signature import Parameter, Role, Signature, extent_text, signature
from tilewright.runtime.target import Target, of_machine
from tilewright.util.errors import RuntimeFailure

_FLOATS = {16: "uint16_t", 32: "float", 64: "double"}

_SERIAL = """
define internal void @tw_parallel_for(ptr %pool, ptr %body, ptr %ctx, i64 %count) {
  %any = icmp sgt i64 %count, 0
  br i1 %any, label %run, label %end
run:
  call void %body(ptr %ctx, i64 0, i64 %count, i64 0)
  br label %end
end:
  ret void
}
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """Files that :func:`export` wrote and the entry function's name."""

    code: Path
    header: Path
    symbol: str


def export(kernel: Any, path: str | PathLike[str], emit: str = "obj", *, machine: Machine | None = None, parallel: bool = True) -> Exported:
    """Write ``kernel`` (Kernel or Schedule) to ``path`` as object file ("obj"), assembly ("asm") or LLVM IR ("llvm").

    A C header of the same name is written next to it. ``parallel=True`` includes the thread pool
    (link with -pthread), ``False`` runs parallel loops on the calling thread. RuntimeFailure when
    the file cannot be written.
    """
    if hasattr(kernel, "kernel"):
        kernel, machine = kernel.kernel, machine or kernel.machine
    machine = machine or Machine.host()
    emitted = emit_kernel(kernel, machine)
    return write(
        emitted.text, emitted.symbol, signature(kernel), Path(path), emit,
        target=of_machine(machine), workspace=(emitted.workspace, emitted.thread_workspace), parallel=parallel,
    )  # fmt: skip


def write(
    text: str, symbol: str, sig: Signature, path: Path, emit: str, *, target: Target, workspace: tuple[int, int], parallel: bool
) -> Exported:
    """Write code and header for LLVM IR ``text``; ``workspace`` is (shared, per thread) bytes."""
    if emit not in ("obj", "asm", "llvm"):
        raise RuntimeFailure(f"cannot emit {emit!r}", hint="emit is obj, asm or llvm")
    whole = text + entry_points(symbol, workspace, parallel)
    linked = jit.link_text([whole, native_text("pool.ll", target)], target, keep=_public(symbol, parallel)) if parallel else _serial(whole)
    header = path.with_suffix(".h")
    try:
        if emit == "obj":
            path.write_bytes(jit.assemble(linked, target))
        else:
            path.write_text(jit.assembly(linked, target) if emit == "asm" else linked)
        header.write_text(header_text(symbol, sig, workspace, parallel))
    except OSError as error:
        raise RuntimeFailure(f"cannot write {error.filename or path}: {error.strerror}") from error
    return Exported(path, header, symbol)


def _public(symbol: str, parallel: bool) -> Sequence[str]:
    names = (symbol, f"{symbol}_workspace_bytes")
    return (*names, f"{symbol}_pool_create", f"{symbol}_pool_destroy") if parallel else names


def _serial(text: str) -> str:
    """``text`` with parallel loops run in place."""
    declared = re.compile(r"^declare void @tw_parallel_for\(.*\n?", re.MULTILINE)
    return declared.sub("", text) + _SERIAL if declared.search(text) else text


def entry_points(symbol: str, workspace: tuple[int, int], parallel: bool) -> str:
    """LLVM IR of the functions beside the kernel: workspace query and, if parallel, pool control."""
    shared, each = workspace
    text = f"""
define i64 @{symbol}_workspace_bytes(i32 %threads) {{
  %n = sext i32 %threads to i64
  %slices = mul i64 %n, {each}
  %bytes = add i64 %slices, {shared}
  ret i64 %bytes
}}
"""
    if not parallel:
        return text
    # Each object has a pool of its own code; the declarations are resolved when pool.ll is linked in.
    return (
        text
        + f"""
declare ptr @tw_pool_create(i32, i32, ptr, ptr)
declare void @tw_pool_destroy(ptr)

define ptr @{symbol}_pool_create(i32 %threads) {{
  %pool = call ptr @tw_pool_create(i32 %threads, i32 4000, ptr null, ptr null)
  ret ptr %pool
}}

define void @{symbol}_pool_destroy(ptr %pool) {{
  call void @tw_pool_destroy(ptr %pool)
  ret void
}}
"""
    )


def header_text(symbol: str, sig: Signature, workspace: tuple[int, int], parallel: bool) -> str:
    """The C header: prototypes, argument table, sizes, and how to call it."""
    guard = f"TILEWRIGHT_{re.sub(r'[^A-Za-z0-9]', '_', symbol).upper()}_H"
    arguments = "".join(f" *   args[{n}]  {_argument(p)}\n" for n, p in enumerate(sig.parameters))
    sizes = "".join(f" *   sizes[{n}] {name}\n" for n, name in enumerate(sig.sizes))
    no_sizes = " *   sizes    none: pass NULL\n"
    pool = (
        f"""
/* A pool of `threads` threads, the caller's included (NULL: no memory). Destroy it when no call is running. */
void *{symbol}_pool_create(int32_t threads);
void {symbol}_pool_destroy(void *pool);
"""
        if parallel
        else ""
    )
    pool_note = "from pool_create, or NULL to run on the calling thread" if parallel else "ignored: pass NULL"
    return f"""/* {sig} */
#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* Runs {sig.name}.
{arguments}{sizes or no_sizes} *   workspace {symbol}_workspace_bytes(threads) bytes at a multiple of 64 (NULL if that is 0),
 *             not shared by concurrent calls
 *   pool      {pool_note}
 * Arrays are dense, the last dimension varies fastest, and written ones overlap no other.
 */
void {symbol}(void *const *args, const int64_t *sizes, void *workspace, void *pool);

/* Bytes of workspace for a call on `threads` threads: {workspace[0]} + threads * {workspace[1]}. */
int64_t {symbol}_workspace_bytes(int32_t threads);
{pool}
#ifdef __cplusplus
}}
#endif
#endif
"""


def _argument(p: Parameter) -> str:
    shape = "".join(f"[{extent_text(e)}]" for e in p.buffer.physical_shape())
    layout = f", layout '{p.buffer.layout}' of [{', '.join(map(extent_text, p.buffer.shape))}]" if p.buffer.layout else ""
    constant = "const " if p.role is Role.IN else ""
    return f"{constant}{c_type(p.buffer.dtype)} {p.name}{shape or '[1]'} ({p.role.value}{layout}{_bytes(p.buffer.physical_shape(), p)})"


def _bytes(shape: tuple[Expr, ...], p: Parameter) -> str:
    if not all(isinstance(e, Const) for e in shape):
        return ""
    return f", {prod(int(e.value) for e in shape if isinstance(e, Const)) * p.buffer.dtype.nbytes} bytes"


def c_type(dtype: DType) -> str:
    """The C type elements of ``dtype`` are stored in (16-bit floats: their bits)."""
    if dtype.kind == FLOAT:
        return _FLOATS[dtype.bits]
    if dtype.kind == BFLOAT:
        return "uint16_t"
    if dtype.kind == BOOL:
        return "uint8_t"
    return f"{'' if dtype.signed else 'u'}int{dtype.nbytes * 8}_t"
