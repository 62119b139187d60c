"""opt: every level of kernels, operators, block programs, accelerators; levels that do not apply are refused."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path

import pytest
from tests.cli.command import tilewright, words

from tilewright.codegen.commands import parse_program
from tilewright.hw import load_machine
from tilewright.lang import parse
from tilewright.schedule.schedule import Schedule
from tilewright.space.default import default_schedule

INT8 = ("gmm", "--shape", "i=32,j=48,k=64", "--types", "i8,i8,i32", "--machine", "gemmini")
BLOCK = """
import tilewright as triton
import tilewright.language as tl


@triton.jit
def add(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(axis=0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=mask) + tl.load(y_ptr + at, mask=mask), mask=mask)
"""
needs_ziglang = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="needs the package ziglang")


def printed(*args: str) -> str:
    result = tilewright("opt", *args)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*args: str) -> str:
    result = tilewright("opt", *args)
    assert result.exit_code == 1
    return words(result.output)


def test_levels_of_a_kernel(kernels: Path) -> None:
    gemm = f"{kernels}:gemm"
    loops = parse(printed(gemm, "--emit", "loops"))
    scheduled = parse(printed(gemm, "--machine", "x86.avx2", "--threads", "1"))
    assert loops != scheduled and scheduled == default_schedule(loops, load_machine("x86.avx2"), threads=1).kernel
    assert printed(gemm, "--as-written") == printed(gemm, "--emit", "loops")
    assert "define" in printed(gemm, "--emit", "llvm") and "gemm_main:" in printed(gemm, "--emit", "asm")
    assert "void gemm(const float *restrict a" in printed(gemm, "--emit", "c", "--as-written")
    assert "memref.store" in printed(gemm, "--emit", "mlir")
    assert printed(gemm, "--emit", "linalg").count("linalg.generic") == 2


def test_schedules_and_traces(kernels: Path, tmp_path: Path) -> None:
    by_hand = printed(f"{kernels}:by_hand", "--emit", "scheduled")
    assert "for k in unroll(24)" in by_hand
    schedule = Schedule(parse(printed(f"{kernels}:gemm", "--emit", "loops")))
    schedule.unroll("k")
    trace = tmp_path / "trace.json"
    trace.write_text(schedule.trace.to_json())
    assert printed(f"{kernels}:gemm", "--trace", str(trace)) == by_hand
    assert "applied to a kernel as written" in refused(f"{kernels}:by_hand", "--trace", str(trace))
    assert "cannot read" in refused(f"{kernels}:gemm", "--trace", str(tmp_path / "none.json"))


def test_printed_kernels_are_read_back(tmp_path: Path) -> None:
    text = printed("gmm", "--shape", "i=4,j=4,k=4", "--emit", "loops")
    (tmp_path / "kernel.txt").write_text(text)
    assert printed(str(tmp_path / "kernel.txt"), "--emit", "loops") == text
    assert "cannot read" in refused(str(tmp_path / "none.txt"))


def test_levels_of_an_accelerator() -> None:
    program = parse_program(printed(*INT8, "--emit", "instgem"))
    assert program.machine == "gemmini"
    assert "gemmini_matmul_preload(" in printed(*INT8, "--emit", "c")
    assert '"gemmini.matmul_preload"(' in printed(*INT8, "--emit", "mlir")
    assert "irdl.operation @mvin {" in printed(*INT8, "--emit", "irdl")
    assert "scf.for" in printed(*INT8, "--emit", "mlir", "--as-written")


@needs_ziglang
def test_code_of_an_accelerator_has_its_words() -> None:
    assembly = printed(*INT8, "--emit", "asm")
    assert ".insn r 123, 3, 6, zero, " in assembly or ".insn r 0x7b, 3, 6" in assembly
    assert "asm sideeffect" in printed(*INT8, "--emit", "llvm")


def test_levels_of_a_block_program(tmp_path: Path) -> None:
    (tmp_path / "vectors.py").write_text(BLOCK)
    launch = [f"{tmp_path / 'vectors.py'}:add", "--grid", "4", "--arg", "n=250", "--arg", "BLOCK=64"]
    launch += [a for name in ("x_ptr", "y_ptr", "out_ptr") for a in ("--arg", f"{name}=f32[250]")]
    assert "program_id" in printed(*launch, "--emit", "block")
    assert '"block.load_masked"(' in printed(*launch, "--emit", "block-mlir")
    assert "irdl.operation @load_masked" in printed(*launch, "--emit", "block-irdl")
    assert parse(printed(*launch, "--emit", "loops")).name == "add"
    assert "void add(" in printed(*launch, "--emit", "c")


def test_levels_that_do_not_apply_are_refused(kernels: Path) -> None:
    assert "is no launch of a block program" in refused(f"{kernels}:gemm", "--emit", "block")
    assert "x86.avx2 declares no instruction words: there is no such level" in refused(
        f"{kernels}:gemm", "--machine", "x86.avx2", "--emit", "instgem"
    )
    assert "declares no instruction words" in refused("gmm", "--machine", "x86.avx2", "--emit", "irdl")
    assert "cuda.sm90 is no processor that LLVM generates code for here" in refused("gmm", "--machine", "cuda", "--emit", "asm")
    assert "is a network: it becomes many kernels" in refused("model.onnx")
    assert "try --machine gemmini" in refused("gmm", "--machine", "x86.avx2", "--emit", "instgem")


def test_block_programs_need_their_arguments(tmp_path: Path) -> None:
    (tmp_path / "vectors.py").write_text(BLOCK)
    for name in ("vectors.py", "vectors.py:add"):
        assert "add is a block program" in (text := refused(str(tmp_path / name))) and "--arg and --grid" in text
    launch = refused(str(tmp_path / "vectors.py:add"), "--arg", "n=3")
    assert "add[grid](x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr)" in launch


def test_copies_in_main_memory_are_no_part_of_command_programs() -> None:
    """The default schedule of a convolution with channels first copies its weights."""
    text = refused(
        "conv2d", "--shape", "n=1,k=32,p=8,q=8,c=16,r=3,s=3", "--types", "i8,i8,i32", "--machine", "gemmini", "--emit", "instgem"
    )
    assert "neither an argument nor in a memory of gemmini" in text and "channels last" in text


def test_files_that_hold_no_text_are_refused(kernels: Path, tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    assert "is not a text file" in refused(str(tmp_path / "binary.txt"))
    assert "is not a text file" in refused(f"{kernels}:gemm", "--trace", str(tmp_path / "binary.txt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("gmm", "--types", "i8,i8"), "names 2 types"),
        (("x.py:add", "--arg", "x_ptr=q8[4]"), "unknown element type"),
        (("x.py:add", "--arg", "n=4", "--grid", "0"), "not one to three positive integers"),
        (("gmm", "--emit", "wasm"), "wasm"),
    ],
)
def test_wrong_usage(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(BLOCK)
    result = tilewright("opt", *(str(tmp_path / o) if o.startswith("x.py") else o for o in options))
    assert result.exit_code == 2 and message in words(result.output)


def test_the_guide_to_the_levels_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its program, its commands, and what it shows of the level that no search influences."""
    guide = (Path(__file__).parents[2] / "docs" / "lowering.md").read_text()
    (tmp_path / "gemm.py").write_text(guide.partition("```python\n")[2].partition("```")[0])
    monkeypatch.chdir(tmp_path)
    launch = shlex.split(guide.partition('L="')[2].partition('"')[0])
    commands = [line.removeprefix("tilewright opt $L ").split() for line in guide.splitlines() if line.startswith("tilewright opt $L")]
    if importlib.util.find_spec("ziglang") is None:
        commands = [c for c in commands if c != ["--machine", "gemmini", "--emit", "asm"]]
    shown = {" ".join(c): printed(*launch, *c) for c in commands}
    assert len(shown) >= 8
    assert shown["--emit loops"] in guide
