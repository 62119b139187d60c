"""Generated programs as RISC-V executables: kernels as C, and command programs with Gemmini behind custom-3."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.codegen.commands.scheduled_gemm import RELU, SATURATE, SCALE, Gemm
from tests.codegen.commands.test_temporaries import SCALED_BY_COLUMN
from tests.ir.arguments import random_arguments
from tests.space.test_rules_explicit import convolution

from tilewright.cli.programs import load_definition
from tilewright.codegen.c import emit_c, emit_commands
from tilewright.codegen.commands import check, generate, stream
from tilewright.codegen.commands.program import Command, Fence, Host, Let, Loop, Pointer, Program
from tilewright.hw import Machine, load_machine
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Var, idx
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.runtime.launch import JitFunction
from tilewright.sim.gemmini import Configuration, Functional, MainMemory
from tilewright.sim.gemmini.generated import execute as simulated
from tilewright.sim.riscv import compile_program, execute, listing, self_checking
from tilewright.sim.riscv.elf import read_elf
from tilewright.space.default import default_schedule
from tilewright.util.errors import CodegenError

pytest.importorskip("ziglang", reason="the C compiler for RISC-V is the package ziglang")
pytest.importorskip("unicorn", reason="the RISC-V core is the package unicorn")

GEMMINI = load_machine("gemmini")


def executable(kernel: Kernel, text: str, seed: int = 0, wrong: int = 0) -> bytes:
    """A program that calls ``kernel``'s C text on random arguments and compares what it writes with the interpreter."""
    inputs = random_arguments(kernel, seed)
    expected = {n: a.copy() for n, a in inputs.items()}
    interpret(kernel, expected)
    written = {n: a for n, a in expected.items() if not np.array_equal(a, inputs[n])}
    for a in written.values():
        a.reshape(-1)[-1:] += np.array(wrong, a.dtype)
    call = f"{kernel.name}({', '.join(b.name for b in kernel.args)});"
    return compile_program({"main.c": self_checking(call, inputs, written, text)})


def on_gemmini(elf: bytes, words: list[tuple[int, int, int]] | None = None, machine: Machine = GEMMINI):
    memory = MainMemory(1 << 22)
    model = Functional(Configuration.of(machine), memory)

    def custom(*word: int) -> None:
        if words is not None:
            words.append(word)
        model.run([word])

    return execute(elf, memory, custom, timeout=60)


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_kernel_of_several_types_runs_on_the_core(wrong):
    kernel = parse("""
@kernel
def mixed(a: i8[9, 12], b: i8[12, 7], s: f32[7], y: i8[9, 7], z: f32[9, 7]):
    t = alloc(i32[9, 7])
    for i in range(9):
        for j in range(7):
            t[i, j] = 0
    for i_1 in range(9):
        for j_1 in range(7):
            for k in range(12):
                t[i_1, j_1] += a[i_1, k] * b[k, j_1]
    for i_2 in range(9):
        for j_2 in range(7):
            z[i_2, j_2] = f32(t[i_2, j_2]) * s[j_2] / 3.0
            y[i_2, j_2] = i8(min(max(t[i_2, j_2] // 5, -128), 127))
""")
    outcome = execute(executable(kernel, emit_c(kernel, heap=False), wrong=wrong), MainMemory(1 << 20))
    assert outcome.exit_code == wrong and ("expected" in outcome.console) == bool(wrong)


@pytest.mark.parametrize(
    "gemm",
    [Gemm(32, 48, 64), Gemm(33, 17, 50, init="bias[j]", epilogue=SCALE), Gemm(7, 70, 19, (16, 32, 16), "d[i, j]", RELU)],
    ids=str,
)
def test_a_command_program_computes_what_its_kernel_means(gemm):
    kernel = gemm.kernel()
    program = generate(gemm.scheduled(GEMMINI), GEMMINI)
    assert on_gemmini(executable(kernel, emit_commands(program, GEMMINI))).exit_code == 0


def test_loop_forms_on_the_core():
    """The host's loops around runs of loop_ws, with places that depend on the loops, and sums of several runs."""
    gemm = Gemm(40, 50, 70, (32, 32, 32), "bias[j]", RELU)
    program = generate(gemm.scheduled(GEMMINI), GEMMINI, forms=("loop_ws",))
    text = emit_commands(program, GEMMINI)
    elf, words = executable(gemm.kernel(), text), []
    assert on_gemmini(elf, words).exit_code == 0
    assert sum(funct == 8 for funct, _, _ in words) == 2 * 2 * 3
    assert on_gemmini(executable(gemm.kernel(), text, wrong=1)).exit_code == 1


def test_the_host_part_of_a_program_works_on_arrays_of_its_own():
    scaled = "round(f32(t[i_2, j_2]) * s[j_2]), -128.0), 127.0)"
    kernel = parse(str(SCALED_BY_COLUMN).replace("f32[7]", "i32[7]").replace(scaled, "t[i_2, j_2] // 97 - s[j_2] // 8, -128), 127)"))
    program = generate(default_schedule(kernel, GEMMINI).kernel, GEMMINI)
    text = emit_commands(program, GEMMINI)
    assert "static _Alignas(64) int32_t t[63];" in text
    assert on_gemmini(executable(kernel, text)).exit_code == 0


def test_a_default_schedule_all_the_way_to_the_core():
    kernel = Gemm(40, 64, 72, epilogue=SATURATE).kernel()
    program = generate(default_schedule(kernel, GEMMINI).kernel, GEMMINI)
    text = emit_commands(program, GEMMINI)
    assert on_gemmini(executable(kernel, text)).exit_code == 0
    assert on_gemmini(executable(kernel, text, wrong=1)).exit_code == 1


def test_a_block_program_all_the_way_to_the_core(tmp_path):
    """The program of docs/lowering.md."""
    guide = (Path(__file__).parents[2] / "docs" / "lowering.md").read_text()
    (tmp_path / "gemm.py").write_text(guide.partition("```python\n")[2].partition("```")[0])
    gemm = load_definition(tmp_path / "gemm.py", "gemm", (JitFunction,))
    arrays = [np.zeros(shape, np.int8) for shape in ((32, 64), (64, 32), (32, 32))]
    kernel = gemm.kernel((2, 2), *arrays, m=32, n=32, k=64, BM=16, BN=16, BK=32)
    program = generate(default_schedule(kernel, GEMMINI).kernel, GEMMINI)
    assert on_gemmini(executable(kernel, emit_commands(program, GEMMINI))).exit_code == 0


def test_rounding_and_roots_without_a_library():
    """What RISC-V has instructions for is in the header of the bare core; what it has not is found out when it is linked."""
    kernel = parse("""
@kernel
def rounded(x: f32[40], y: f32[7, 40], z: i8[40]):
    for i in range(40):
        y[0, i] = round(x[i])
        y[1, i] = floor(x[i])
        y[2, i] = ceil(x[i])
        y[3, i] = trunc(x[i])
        y[4, i] = sqrt(abs(x[i]))
        y[5, i] = fma(x[i], x[i], 0.1)
        y[6, i] = fmod(x[i], 0.3)
        z[i] = i8(min(max(round(x[i] * 3.5), -128.0), 127.0))
""")
    inputs = {"x": np.array([-2.5, -1.5, -0.5, -0.0, 0.5, 1.5, 2.5, 3e9, *np.linspace(-40, 40, 32)], np.float32)}
    expected = inputs | {"y": np.zeros((7, 40), np.float32), "z": np.zeros(40, np.int8)}
    interpret(kernel, expected)
    text = self_checking("rounded(x, y, z);", inputs, {n: expected[n] for n in "yz"}, emit_c(kernel, heap=False))
    assert execute(compile_program({"main.c": text}), MainMemory(1 << 20)).exit_code == 0
    other = emit_c(parse(str(kernel).replace("floor(", "exp(")), heap=False)
    assert "exp" in listing(other)
    with pytest.raises(CodegenError, match="undefined symbol: exp"):
        compile_program({"main.c": text.replace(emit_c(kernel, heap=False), other)})


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_convolution_all_the_way_to_the_core(wrong):
    """With padding, strides and scaled, rectified results."""
    kernel = convolution((7, 6), 5, 18, 3, 2, 1, True)
    program = generate(default_schedule(kernel, GEMMINI).kernel, GEMMINI)
    assert "mvin_zero(" in str(program) and "mvout_scaled_relu(" in str(program)
    assert on_gemmini(executable(kernel, emit_commands(program, GEMMINI), wrong=wrong)).exit_code == wrong


@pytest.mark.parametrize("wrong", [0, 1])
@pytest.mark.parametrize("inputs", ["f32", "bf16", "f16"])
def test_products_of_floats_all_the_way_to_the_core(inputs, wrong):
    """Bit for bit what the functional model makes of the same words."""
    machine = load_machine(f"gemmini:inputs={inputs}")
    value = "max(acc[i_2, j_2] * 0.3, 0.0)"
    text = str(Gemm(20, 33, 40, epilogue=value if inputs == "f32" else f"{inputs}({value})").kernel())
    factors = {f"{n}[{i}]": f"f32({n}[{i}])" for n, i in (("a", "i_1, k"), ("b", "k, j_1"))} if inputs != "f32" else {}
    for old, new in {"i8[": f"{inputs}[", "i32[": "f32[", "= 0\n": "= 0.0\n", **factors}.items():
        text = text.replace(old, new)
    kernel = parse(text)
    program = generate(default_schedule(kernel, machine).kernel, machine)
    assert "mvout_scaled_relu(" in str(program) and not any(isinstance(i, Host) for i in program.body)
    arrays = random_arguments(kernel, 3)
    expected = {n: a.copy() for n, a in arrays.items()}
    simulated(program, machine, expected)
    result = expected["c"]
    result.view(f"u{result.itemsize}")[-1, -1] ^= wrong
    call = self_checking("gemm(a, b, c);", arrays, {"c": result}, emit_commands(program, machine))
    outcome = on_gemmini(compile_program({"main.c": call}), machine=machine)
    assert outcome.exit_code == wrong


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_program_whose_host_works_between_the_words(wrong):
    """Sums of rows of the product, which no move computes, and a product by transposed weights."""
    kernel = parse("""
@kernel
def rows(a: i8[20, 24], b: i8[17, 24], c: i32[20, 17], r: i32[20]):
    for i in range(20):
        for j in range(17):
            c[i, j] = 0
    for i_1 in range(20):
        for j_1 in range(17):
            for k in range(24):
                c[i_1, j_1] += a[i_1, k] * b[j_1, k]
    for i_2 in range(20):
        r[i_2] = 0
    for i_3 in range(20):
        for j_3 in range(17):
            r[i_3] += c[i_3, j_3] // 3
""")
    program = generate(default_schedule(kernel, GEMMINI).kernel, GEMMINI)
    check(program, GEMMINI)
    assert "matmul_bt.preload(" in str(program) and any(isinstance(i, Host) for i in program.body)
    assert on_gemmini(executable(kernel, emit_commands(program, GEMMINI), wrong=wrong)).exit_code == wrong


def test_the_c_program_issues_the_words_of_the_command_program():
    gemm = Gemm(40, 33, 72)
    program = generate(gemm.scheduled(GEMMINI), GEMMINI)
    elf, words = executable(gemm.kernel(), emit_commands(program, GEMMINI)), []
    on_gemmini(elf, words)
    addresses = {b.name: read_elf(elf).symbol(b.name) for b in program.args}
    assert words == [w for w in stream(program, GEMMINI, addresses) if w is not None]


def test_host_kernels_and_variables_that_are_set():
    x = buffer("x", ty.i8, (4,))
    twice = parse("""
@kernel
def twice(v: i8[4]):
    for i in range(4):
        v[i] = v[i] * 2
""")
    body = (
        Let("n", idx(0)),
        Loop("i", idx(0), idx(3), (Let("n", Var("n") + Var("i") - 1), Host(twice, (), ("x",)))),
        Loop("j", idx(0), Var("n") + 2, (Host(twice, (), ("x",)),)),
        Fence(),
    )
    program = Program("run", "gemmini", (x,), body)
    data, want = np.array([1, -2, 3, 4], np.int8), np.array([32, -64, 96, -128], np.int8)
    text = self_checking("run(x);", {"x": data}, {"x": want}, emit_commands(program, GEMMINI))
    assert execute(compile_program({"main.c": text}), MainMemory(1 << 20)).exit_code == 0


def test_words_the_machine_does_not_have():
    place = Pointer("x", idx(0))
    program = Program("run", "gemmini", (buffer("x", ty.i8, (4,)),), (Command("teleport", (("src", place),)),))
    with pytest.raises(CodegenError, match="no word 'teleport'"):
        emit_commands(program, GEMMINI)
    program = Program("run", "gemmini", program.args, (Command("mvin", (("src", place),)),))
    with pytest.raises(CodegenError, match=r"mvin needs dst\.address"):
        emit_commands(program, GEMMINI)
