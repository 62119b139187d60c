"""build and explain on kernels and operators."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.cli.command import tilewright, words

from tilewright.cli.explain import read_step
from tilewright.schedule.schedule import Schedule
from tilewright.space.default import Plan

MAIN = r"""
#include <stdio.h>
#include "gemm.h"

static float a[32][24], b[24][48], c[32][48];

int main(void) {
    for (int i = 0; i < 32; ++i) for (int k = 0; k < 24; ++k) a[i][k] = i - k;
    for (int k = 0; k < 24; ++k) for (int j = 0; j < 48; ++j) b[k][j] = k + 2 * j;
    void *args[] = {a, b, c};
    static _Alignas(64) char workspace[1 << 20];
    if (gemm_workspace_bytes(1) > (int64_t)sizeof workspace) return 2;
    gemm(args, 0, workspace, 0);
    for (int i = 0; i < 32; ++i) for (int j = 0; j < 48; ++j) {
        float want = 0;
        for (int k = 0; k < 24; ++k) want += a[i][k] * b[k][j];
        if (c[i][j] != want) { printf("c[%d][%d] = %g, not %g\n", i, j, c[i][j], want); return 1; }
    }
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("options", [(), ("--as-written", "--no-parallel")])
def test_built_object_runs_in_a_c_program(kernels: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    result = tilewright("build", f"{kernels}:gemm", "-o", str(tmp_path / "gemm.o"), *options)
    assert result.exit_code == 0, result.output
    (tmp_path / "main.c").write_text(MAIN)
    subprocess.run(["cc", "-std=c11", "main.c", "gemm.o", "-o", "main", "-lm", "-pthread"], cwd=tmp_path, check=True, timeout=60)
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_text_goes_to_stdout(kernels: Path) -> None:
    assert "define" in tilewright("build", f"{kernels}:by_hand", "--emit", "llvm").stdout
    assert "gemm" in tilewright("build", f"{kernels}:gemm", "--emit", "asm").stdout
    header = tilewright("build", f"{kernels}:gemm", "--emit", "header").stdout
    assert "void gemm(void *const *args" in header and "float c[32][48]" in header


def test_header_alone_and_unwritable_files(kernels: Path, tmp_path: Path) -> None:
    path = tmp_path / "gemm.h"
    assert tilewright("build", f"{kernels}:gemm", "--emit", "header", "-o", str(path)).exit_code == 0
    assert [p.name for p in tmp_path.glob("gemm*")] == ["gemm.h"] and "TILEWRIGHT_GEMM_H" in path.read_text()
    for emit in ("obj", "header"):
        result = tilewright("build", f"{kernels}:gemm", "--emit", emit, "-o", str(tmp_path / "no" / "where.o"))
        assert result.exit_code == 1 and "cannot write" in result.output


def test_rules_that_do_not_apply_are_warnings_and_explained(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tilewright.space.default.plan", lambda kernel, *_, **__: Plan(Schedule(kernel), (), ("tile of c: it reads itself",))
    )
    result = tilewright("build", f"{kernels}:gemm", "--emit", "llvm")
    assert result.exit_code == 0 and "define" in result.stdout
    assert result.stderr.startswith("warning: gemm is slower than it could be") and "tile of c: it reads itself" in result.stderr
    assert "refused tile of c: it reads itself" in tilewright("explain", f"{kernels}:gemm").output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{file}", "defines several kernels: gemm, by_hand"),
        ("{file}:nope", "has no kernel 'nope'"),
        ("{file}x.py:gemm", "there is no file"),
        ("frobnicate", "unknown operator 'frobnicate'"),
    ],
)
def test_programs_that_are_not_there(kernels: Path, text: str, message: str) -> None:
    result = tilewright("build", text.format(file=kernels), "--emit", "llvm")
    assert result.exit_code == 1 and message in result.output and "hint:" in result.output


def test_a_file_that_fails_is_reported_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import tilewright\n1 / 0\n")
    (tmp_path / "none.py").write_text("x = 1\n")
    bad = tilewright("explain", str(tmp_path / "bad.py"))
    assert bad.exit_code == 1 and "ZeroDivisionError: division by zero" in bad.output
    assert "defines no kernel" in tilewright("explain", str(tmp_path / "none.py")).output
    (tmp_path / "block.py").write_text("import tilewright as tw\n\n@tw.jit\ndef add(x):\n    pass\n")
    other = words(tilewright("explain", f"{tmp_path / 'block.py'}:sub").output)
    assert "defines no kernel 'sub'" in other and "it has the block program add" in other


def test_explain_shows_decisions_steps_and_kernels(kernels: Path) -> None:
    out = tilewright("explain", f"{kernels}:gemm", "--threads", "1").output
    for text in ("before", "chosen for c", "estimated at", "steps, each proved", "split(", "after", "vector("):
        assert text in out
    by_hand = tilewright("explain", f"{kernels}:by_hand").output
    assert "1 steps" in by_hand and "unroll(loop='k')" in by_hand and "before\n@kernel" not in by_hand


def test_explain_applies_steps_with_the_names_the_user_gives(kernels: Path) -> None:
    accepted = tilewright("explain", f"{kernels}:gemm", "--apply", "outer, inner = split(i, 8)", "--apply", "unroll(inner)")
    assert accepted.exit_code == 0 and "in unroll(8)" in accepted.output and "2 steps" in accepted.output


def test_explain_says_why_a_step_is_refused(kernels: Path) -> None:
    result = tilewright("explain", f"{kernels}:gemm", "--apply", "parallel(k)")
    assert result.exit_code == 1
    assert "both update c[0, 0]" in result.output and "rfactor" in result.output
    unknown = tilewright("explain", f"{kernels}:gemm", "--apply", "transmogrify(k)")
    assert unknown.exit_code == 1 and "there is no primitive 'transmogrify'" in unknown.output
    results = tilewright("explain", f"{kernels}:gemm", "--apply", "a, b, c = split(i, 8)")
    assert results.exit_code == 1 and "names 3 results, split returns 2" in results.output


def test_explain_lists_primitives() -> None:
    out = tilewright("explain", "matmul", "--apply", "?").output
    assert "split" in out and "compute_at" in out and "tensorize" in out


@pytest.mark.parametrize(
    ("mapping", "said"),
    [("i<-r j<-k k<-c", "r is a reduction iteration"), ("?", "spatial axis"), ("i<-n*p*q j<-k k<-c", "loops around the instruction")],
)
def test_explain_mapping(mapping: str, said: str) -> None:
    result = tilewright("explain", "conv2d", "--machine", "cuda.sm80", "--instruction", "wmma_f16.m16n16k16", "--mapping", mapping)
    assert result.exit_code == 0 and said in result.output


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("unroll(i)", ((), "unroll", ("i",), {})),
        ("io, ii = split(i, 14, tail='peel')", (("io", "ii"), "split", ("i", 14), {"tail": "peel"})),
        ("x = cache_read('a', None, \"reg\")", (("x",), "cache_read", ("a", None, "reg"), {})),
        ("reorder([i, (j, k)])", ((), "reorder", (("i", ("j", "k")),), {})),
    ],
)
def test_steps_are_read(text: str, read: tuple) -> None:
    assert read_step(text) == read


@pytest.mark.parametrize("text", ["split i 4", "1 + 2", "a.b(i)", "", "split(i, 4); unroll(j)", "split(i, open('x'))", "for i in x: pass"])
def test_steps_that_cannot_be_read(text: str) -> None:
    result = tilewright("explain", "matmul", "--apply", text)
    assert result.exit_code == 1 and "cannot read step" in result.output
