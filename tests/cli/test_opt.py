"""opt: every level of kernels, operators, block programs, accelerators; levels that do not apply are refused."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import onnx
import pytest
from tests.cli.command import tilewright, words
from tests.graph.test_integers import RELU, followed
from tests.graph.test_networks_on_gemmini import Quantised

from tilewright.cli.lowering import Level, Lowering
from tilewright.codegen.commands import parse_program
from tilewright.hw import load_machine
from tilewright.lang import parse
from tilewright.schedule.schedule import Schedule
from tilewright.space.default import default_schedule
from tilewright.util.errors import CodegenError

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
    assert "cannot read model model.onnx" in refused("model.onnx")
    assert "try --machine gemmini" in refused("gmm", "--machine", "x86.avx2", "--emit", "instgem")


def test_block_programs_need_their_arguments(tmp_path: Path) -> None:
    (tmp_path / "vectors.py").write_text(BLOCK)
    for name in ("vectors.py", "vectors.py:add"):
        assert "add is a block program" in (text := refused(str(tmp_path / name))) and "--arg and --grid" in text
    launch = refused(str(tmp_path / "vectors.py:add"), "--arg", "n=3")
    assert "add[grid](x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr)" in launch


def test_products_with_vectors_on_an_accelerator() -> None:
    """The vector is a matrix of one row, and the array transposes what it is multiplied by."""
    text = printed("gmv", "--shape", "i=40,k=50", "--types", "i8,i8,i32", "--machine", "gemmini", "--emit", "instgem")
    assert "matmul_bt.preload(" in text and any(b.static_shape == (1, 40) for b in parse_program(text).args)


def test_copies_in_main_memory_are_arrays_of_the_program() -> None:
    """The default schedule of a convolution with channels first copies its weights: the host does it before the words."""
    text = printed(
        "conv2d", "--shape", "n=1,k=32,p=8,q=8,c=16,r=3,s=3", "--types", "i8,i8,i32", "--machine", "gemmini", "--emit", "instgem"
    )
    assert [b.name for b in parse_program(text).temps] == ["weight_dram"]


@pytest.mark.parametrize("level", ["scheduled", "instgem"])
def test_an_accelerator_without_work_says_why(level: str) -> None:
    def notes(shape: str, types: str) -> str:
        result = tilewright("opt", "gmm", "--shape", shape, "--types", types, "--machine", "gemmini", "--emit", level)
        assert result.exit_code == 0, result.output
        return " ".join(line for line in result.output.splitlines() if line.startswith("note: "))

    assert "it sums products of f32 and f32 in f32" in notes("i=16,j=16,k=16", "f32,f32,f32")
    assert "the host of gemmini does all of gmm: each of its sums is one product" in notes("i=7,j=3,k=1", "i8,i8,i32")
    assert not notes("i=7,j=3,k=2", "i8,i8,i32")


def test_files_that_hold_no_text_are_refused(kernels: Path, tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    assert "is not a text file" in refused(str(tmp_path / "binary.txt"))
    assert "is not a text file" in refused(f"{kernels}:gemm", "--trace", str(tmp_path / "binary.txt"))


def kernels_in(text: str, comment: str = "#") -> list[str]:
    """The text of each kernel after its comment."""
    first, *parts = re.split(rf"^{comment} kernel \d+ of \d+: .*\n", text, flags=re.MULTILINE)
    assert not first
    return parts


def test_kernels_of_a_network(model: Path) -> None:
    network = (str(model), "--dim", "batch=1")
    loops = kernels_in(printed(*network, "--emit", "loops"))
    assert len(loops) > 5 and all(parse(text) for text in loops)
    assert len(kernels_in(printed(*network, "--emit", "linalg"), "//")) == len(loops)
    assert printed(*network, "--emit", "loops", "--kernel", "2") == loops[1]
    assert "define" in printed(*network, "--emit", "llvm", "--kernel", "2", "--machine", "x86.avx2", "--threads", "1")
    assert f"there is no kernel 99 hint: there are {len(loops)}: " in refused(*network, "--kernel", "99")
    assert "is no launch of a block program" in refused(*network, "--emit", "block")
    assert "dim" in refused(str(model), "--emit", "loops") and "--kernel 1 to" in refused(*network, "--trace", "x.json")


def test_kernels_of_a_quantised_network_on_an_accelerator(tmp_path: Path) -> None:
    q = Quantised(0)
    onnx.save(q.model((4, 32), (4, 16)) if q.dense(q.rectified(q.dense("x", 32, 24)), 24, 16) else None, tmp_path / "q.onnx")
    network = (str(tmp_path / "q.onnx"), "--machine", "gemmini")
    programs = kernels_in(printed(*network, "--emit", "instgem"))
    assert [parse_program(text).machine for text in programs] == ["gemmini"] * 3
    assert "matmul.preload(" in programs[0] and "matmul.preload(" not in programs[1]
    assert all("void " in text for text in kernels_in(printed(*network, "--emit", "c"), "//"))


def test_a_model_of_floats_between_conversions_is_one_of_integers_there(tmp_path: Path) -> None:
    onnx.save(followed((RELU,)), tmp_path / "qdq.onnx")
    program = printed(str(tmp_path / "qdq.onnx"), "--machine", "gemmini", "--emit", "instgem")
    assert "(QLinearMatMul)" in program and "preload(" in program
    assert "QLinear" not in printed(str(tmp_path / "qdq.onnx"), "--machine", "x86.avx2", "--emit", "loops")


def test_contractions_of_a_kernel_on_an_accelerator(tmp_path: Path) -> None:
    """The second contraction is of floats: the host does it, and its text is there at every level."""
    kernel = """
@kernel
def two(a: i8[16, 16], b: i8[16, 16], c: i32[16, 16], x: f32[16, 16], z: f32[16, 16]):
    for i in range(16):
        for j in range(16):
            c[i, j] = 0
    for i_1 in range(16):
        for j_1 in range(16):
            for k in range(16):
                c[i_1, j_1] += a[i_1, k] * b[k, j_1]
    for i_2 in range(16):
        for j_2 in range(16):
            for k_2 in range(16):
                z[i_2, j_2] += x[i_2, k_2] * x[k_2, j_2]
"""
    (tmp_path / "two.txt").write_text(kernel)
    two = (str(tmp_path / "two.txt"), "--machine", "gemmini", "--emit")
    first, second = kernels_in(printed(*two, "instgem"))
    assert "matmul.preload(" in first and "two_2_host_1" in second
    assert parse(printed(*two, "loops")).name == "two"
    assert printed(*two, "instgem", "--kernel", "1") == first


def test_kernels_that_do_not_reach_a_level_say_why(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = (str(model), "--dim", "batch=1", "--emit", "linalg")
    complete, whole = kernels_in(printed(*network), "//"), Lowering.text

    def text(lowering: Lowering, emit: Level) -> str:
        if any(s in lowering.written.name for s in broken):
            raise CodegenError("no such\nthing")
        return whole(lowering, emit)

    monkeypatch.setattr(Lowering, "text", text)
    broken = ["softmax"]
    assert "// not at the level linalg: no such thing\n" in (parts := kernels_in(printed(*network), "//"))
    assert sum(a != b for a, b in zip(parts, complete, strict=True)) == sum("softmax" in x for x in complete)
    broken = [""]
    assert "no such thing" in refused(*network)


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
