"""Exported objects: compiled into a C program, called as the header says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tilewright.ir import types as ty
from tilewright.runtime.exporter import c_type, write
from tilewright.runtime.signature import signature
from tilewright.runtime.target import host
from tilewright.util.errors import RuntimeFailure

MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include "axpy.h"
int main(void) {
    enum { N = 10000 };
    static float alpha = 3, x[N], z[N], y[N];
    for (int i = 0; i < N; i++) { x[i] = i; z[i] = 1; y[i] = -1; }
    void *args[] = { &alpha, x, z, y };
    int64_t sizes[] = { N };
    void *workspace = aligned_alloc(64, axpy_workspace_bytes(THREADS) + 63 & ~63);
    void *pool = MAKE_POOL;
    axpy(args, sizes, workspace, pool);
    FREE_POOL;
    free(workspace);
    for (int i = 0; i < N; i++) if (y[i] != 3.0f * i + 1) { printf("wrong at %d\\n", i); return 1; }
    printf("right %d\\n", (int)axpy_workspace_bytes(THREADS));
    return 0;
}
"""


@pytest.mark.parametrize("parallel", [True, False])
def test_c_program_calls_it(hand: SimpleNamespace, tmp_path: Path, parallel: bool) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    sig = signature(hand.axpy_kernel())
    made = write(hand.text, "axpy", sig, tmp_path / "axpy.o", "obj", target=host(), workspace=(0, 64), parallel=parallel)
    assert made.header.name == "axpy.h"
    (tmp_path / "main.c").write_text(MAIN)
    threads = 3 if parallel else 1
    macros = [f"-DTHREADS={threads}", f"-DMAKE_POOL={'axpy_pool_create(3)' if parallel else 'NULL'}"]
    macros.append(f"-DFREE_POOL={'axpy_pool_destroy(pool)' if parallel else '(void)pool'}")
    command = [
        compiler,
        "-Wall",
        "-Wno-parentheses",
        "-Werror",
        "main.c",
        "axpy.o",
        "-o",
        "main",
        "-lm",
        *(["-pthread"] if parallel else []),
    ]
    subprocess.run([*command, *macros], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, f"right {64 * threads}\n")
    listing = subprocess.run(["nm", "-g", "--defined-only", "axpy.o"], cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    exported = {line.split()[-1] for line in listing.splitlines()}
    assert exported - {"axpy_pool_create", "axpy_pool_destroy"} == {"axpy", "axpy_workspace_bytes"}


def test_other_forms_and_refusals(hand: SimpleNamespace, tmp_path: Path) -> None:
    sig = signature(hand.axpy_kernel())
    options = {"target": host(), "workspace": (0, 64), "parallel": False}
    write(hand.text, "axpy", sig, tmp_path / "axpy.s", "asm", **options)
    assert "axpy:" in (tmp_path / "axpy.s").read_text()
    write(hand.text, "axpy", sig, tmp_path / "axpy.ll", "llvm", **options)
    assert "define void @axpy(" in (tmp_path / "axpy.ll").read_text()
    header = (tmp_path / "axpy.h").read_text()
    assert "args[1]  const float x[N] (in)" in header and "args[3]  float y[N] (out)" in header and "sizes[0] N" in header
    with pytest.raises(RuntimeFailure, match=r"cannot emit 'exe'\n.*obj, asm or llvm"):
        write(hand.text, "axpy", sig, tmp_path / "axpy", "exe", **options)
    with pytest.raises(RuntimeFailure, match=r"cannot write .*nowhere.*No such file"):
        write(hand.text, "axpy", sig, tmp_path / "nowhere" / "axpy.o", "obj", **options)


def test_c_types() -> None:
    types = [ty.f32, ty.f64, ty.f16, ty.bf16, ty.i8, ty.u16, ty.Int(5), ty.UInt(33), ty.boolean, ty.index]
    expected = ["float", "double", "uint16_t", "uint16_t", "int8_t", "uint16_t", "int8_t", "uint64_t", "uint8_t", "int64_t"]
    assert [c_type(t) for t in types] == expected
