"""The runtime's tests: a build cache of their own, and kernels with hand-written LLVM code.

The hand-written kernels follow the calling convention, so that calls, workspaces and layouts are
tested without a code generator.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer, buffer
from tilewright.ir.expr import Var, binary
from tilewright.ir.stmt import Block, Kernel, loop, store
from tilewright.runtime.module import Module
from tilewright.runtime.records import RecordStore

N = Var("N")


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A build cache for this test session, so that no test sees what an earlier run left."""
    root = tmp_path_factory.mktemp("build-cache")
    patch = pytest.MonkeyPatch()
    patch.setenv("TILEWRIGHT_CACHE", str(root))
    yield root
    patch.undo()


@pytest.fixture(scope="session")
def hand() -> SimpleNamespace:
    """The hand-written kernels: ``axpy_kernel()``, ``axpy(threads)``, ``scale(source, target, elements)``."""
    return SimpleNamespace(axpy_kernel=axpy_kernel, axpy=axpy, scale=scale, text=AXPY)


@pytest.fixture(name="store")
def record_store(tmp_path: Path) -> Iterator[RecordStore]:
    """An empty store of tuning records."""
    with RecordStore(tmp_path / "records.db") as opened:
        yield opened


def axpy_kernel() -> Kernel:
    """``y[i] = alpha * x[i] + z[i]`` over a symbolic N."""
    alpha, x, z, y = buffer("alpha", ty.f32, ()), buffer("x", ty.f32, (N,)), buffer("z", ty.f32, (N,)), buffer("y", ty.f32, (N,))
    i = Var("i")
    body = loop("i", 0, N, store(y[i], alpha.__getitem__(()) * x[i] + z[i]))
    return Kernel("axpy", (alpha, x, z, y), Block((body,)), (N,))


#: In parallel over blocks of elements; each thread first copies its part of x through its slice of the workspace.
AXPY = """
declare void @tw_parallel_for(ptr, ptr, ptr, i64)
%ctx = type { ptr, ptr }

define void @axpy(ptr %args, ptr %sizes, ptr %workspace, ptr %pool) {
  %ctx = alloca %ctx
  store ptr %args, ptr %ctx
  %w = getelementptr %ctx, ptr %ctx, i64 0, i32 1
  store ptr %workspace, ptr %w
  %n = load i64, ptr %sizes
  call void @tw_parallel_for(ptr %pool, ptr @axpy.body, ptr %ctx, i64 %n)
  ret void
}

define internal void @axpy.body(ptr %ctx, i64 %begin, i64 %end, i64 %thread) {
  %args = load ptr, ptr %ctx
  %w = getelementptr %ctx, ptr %ctx, i64 0, i32 1
  %workspace = load ptr, ptr %w
  %offset = mul i64 %thread, 64
  %mine = getelementptr i8, ptr %workspace, i64 %offset
  %alpha.p = load ptr, ptr %args
  %alpha = load float, ptr %alpha.p
  %x.a = getelementptr ptr, ptr %args, i64 1
  %x = load ptr, ptr %x.a
  %z.a = getelementptr ptr, ptr %args, i64 2
  %z = load ptr, ptr %z.a
  %y.a = getelementptr ptr, ptr %args, i64 3
  %y = load ptr, ptr %y.a
  br label %head
head:
  %i = phi i64 [ %begin, %0 ], [ %next, %step ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %step, label %done
step:
  %xi = getelementptr float, ptr %x, i64 %i
  %xv = load float, ptr %xi
  store volatile float %xv, ptr %mine
  %zi = getelementptr float, ptr %z, i64 %i
  %zv = load float, ptr %zi
  %again = load volatile float, ptr %mine
  %p = fmul float %again, %alpha
  %s = fadd float %p, %zv
  %yi = getelementptr float, ptr %y, i64 %i
  store float %s, ptr %yi
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}
"""


def axpy(threads: int = 1) -> Module:
    """The compiled kernel; its per-thread workspace would show a thread number used twice at a time."""
    return Module.from_llvm(axpy_kernel(), AXPY, "axpy", thread_workspace=64, threads=threads)


def scale_kernel(source: Buffer, target: Buffer) -> Kernel:
    """``target[i, j] = 2 * source[i, j]``, for f32 buffers of equal shape."""
    i, j = Var("i"), Var("j")
    body = loop("i", 0, source.shape[0], loop("j", 0, source.shape[1], store(target[i, j], binary("*", source[i, j], 2.0))))
    return Kernel("scale", (source, target), Block((body,)))


def scale(source: Buffer, target: Buffer, elements: int) -> Module:
    """Doubles ``elements`` floats in memory order: right for buffers of the same physical layout."""
    text = f"""
define void @scale(ptr %args, ptr %sizes, ptr %workspace, ptr %pool) {{
  %x = load ptr, ptr %args
  %y.a = getelementptr ptr, ptr %args, i64 1
  %y = load ptr, ptr %y.a
  br label %head
head:
  %i = phi i64 [ 0, %0 ], [ %next, %step ]
  %more = icmp slt i64 %i, {elements}
  br i1 %more, label %step, label %done
step:
  %xi = getelementptr float, ptr %x, i64 %i
  %v = load float, ptr %xi
  %d = fadd float %v, %v
  %yi = getelementptr float, ptr %y, i64 %i
  store float %d, ptr %yi
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}}
"""
    return Module.from_llvm(scale_kernel(source, target), text, "scale", threads=1)
