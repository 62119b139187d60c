"""Bare-metal RV64 programs: compiled, run on an emulated core, judged by their exit code."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tilewright.hw import load_machine
from tilewright.hw.emit import Bits, RoCC
from tilewright.sim.gemmini import Configuration, Functional, MainMemory, isa
from tilewright.sim.gemmini.baseline import Gemm, default_os, default_ws
from tilewright.sim.riscv import compile_program, execute, self_checking
from tilewright.sim.riscv.commands import Region, stream_text
from tilewright.sim.riscv.elf import read_elf
from tilewright.util.errors import CodegenError, ExecutionError, RuntimeFailure

pytest.importorskip("ziglang", reason="the C compiler for RISC-V is the package ziglang")
pytest.importorskip("unicorn", reason="the RISC-V core is the package unicorn")

CONFIGURATION = Configuration.of(load_machine("gemmini"))


def program(body: str, declarations: str = "") -> bytes:
    return compile_program({"main.c": f'#include "htif.h"\n{declarations}\nint main(void) {{ {body} }}'}, options=("-O1",))


def run(body: str, declarations: str = "", *, custom=None, timeout: float = 20.0):
    return execute(program(body, declarations), MainMemory(1 << 20), custom, timeout=timeout)


@pytest.fixture
def gemm():
    """A small product with odd extents: operands, exact result, the command streams' addresses."""
    rng = np.random.default_rng(1)
    a, b = rng.integers(-9, 9, (21, 40), dtype=np.int8), rng.integers(-9, 9, (40, 35), dtype=np.int8)
    c = np.clip(a.astype(np.int32) @ b.astype(np.int32), -128, 127).astype(np.int8)
    arrays = {"a": Region(0x1000, a.size), "b": Region(0x8000, b.size), "c": Region(0x10000, c.size)}
    return a, b, c, Gemm(21, 35, 40, *(r.address for r in arrays.values())), arrays


def on_gemmini(elf: bytes, timeout: float = 20.0):
    memory = MainMemory(1 << 20)
    model = Functional(CONFIGURATION, memory)
    return execute(elf, memory, lambda *word: model.run([word]), timeout=timeout)


@pytest.mark.parametrize("stream", [default_ws, default_os])
@pytest.mark.parametrize("wrong", [0, 1])
def test_a_command_stream_as_c_computes_the_product(gemm, stream, wrong):
    a, b, c, problem, arrays = gemm
    text = stream_text(stream(CONFIGURATION, problem), arrays)
    want = c.copy()
    want[2, 3] += wrong
    outcome = on_gemmini(compile_program({"main.c": self_checking(text.body, {"a": a, "b": b}, {"c": want}, text.declarations)}))
    assert outcome.exit_code == wrong
    assert outcome.custom == sum(1 for _ in stream(CONFIGURATION, problem))
    if wrong:
        assert f"c: element {2 * 35 + 3} is {int(c[2, 3]) & 0xFF:#04x}, expected" in outcome.console
        assert f"1 of {c.size} elements differ" in outcome.console


def test_an_output_nobody_writes_is_not_equal_to_zeros():
    outcome = execute(compile_program({"main.c": self_checking("", {}, {"c": np.zeros(8, np.int32)})}), MainMemory(1 << 20))
    assert outcome.exit_code == 1 and "is 0xa5a5a5a5, expected 0x00000000" in outcome.console


def test_embedded_values_of_every_type_arrive():
    """Copying each input to its output compares every bit; extreme values included."""
    inputs, expected, copies = {}, {}, []
    for number, dtype in enumerate([np.int8, np.uint8, np.int16, np.int64, np.uint64, np.float16, np.float32, np.float64, np.bool_]):
        kind = np.dtype(dtype).kind
        values = [0, 1] if kind == "b" else [-1.5, np.inf, -np.inf, 1 / 3] if kind == "f" else [np.iinfo(dtype).min, np.iinfo(dtype).max, 7]
        inputs[f"x{number}"] = expected[f"y{number}"] = np.array(values, dtype)
        copies.append(f"for (int i = 0; i < {len(values)}; ++i) y{number}[i] = x{number}[i];")
    outcome = execute(compile_program({"main.c": self_checking("\n".join(copies), inputs, expected)}), MainMemory(1 << 20))
    assert (outcome.exit_code, outcome.console) == (0, "")


def test_console_and_exit_code():
    outcome = run('htif_print("sum "); volatile double x = 0.25; htif_print(x * 4 == 1.0 ? "right\\n" : "wrong\\n"); return 42;')
    assert (outcome.exit_code, outcome.console) == (42, "sum right\n")


def test_custom_words_reach_the_model_with_their_registers():
    seen = []
    issue = '__asm__ volatile(".insn r 0x7b, 3, 5, x0, %0, %1" : : "r"(~0ull), "r"(3ull));'
    assert run(f"for (int i = 0; i < 3; ++i) {issue} return 0;", custom=lambda *word: seen.append(word)).custom == 3
    assert seen == [(5, (1 << 64) - 1, 3)] * 3


def test_wrappers_pack_what_the_declared_encoding_packs():
    """The C function of a word issues what RoCC.registers packs in Python."""
    from tilewright.codegen.c.custom import ISSUE, wrapper

    word = RoCC(6, (Bits(0, 32, "b.address"), Bits(48, 16, "b.rows")), (Bits(31, 1, 1), Bits(8, 23, "n")))
    values = {"b.address": 0xDEADBEEF, "b.rows": 16, "n": (1 << 23) - 1}
    assert word.quantities == tuple(values)
    seen = []
    arguments = ", ".join(f"{v:#x}ull" for v in values.values())
    run(f"go({arguments}); return 0;", f"{ISSUE}\n{wrapper('go', word)}", custom=lambda *word: seen.append(word))
    assert seen == [(6, *word.registers(values))]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("*(volatile int *)8 = 1; return 0;", r"writes 4 bytes at 0x8, outside memory \[0x80000000, 0x80100000\); it is at main"),
        ("return *(volatile char *)0x90000000;", "reads 1 bytes at 0x90000000, outside memory"),
        ('htif_print("here"); ((void (*)(void))0x10)(); return 0;', "fetches 2 bytes at 0x10, outside .*it printed: here"),
        ('*(volatile char *)(uintptr_t)"text" = 1; return 0;', "writes 1 bytes at .*which it may not"),
        ('__asm__ volatile(".word 0"); return 0;', "illegal instruction 0x00000000 at main"),
        ('__asm__ volatile(".insn r 0x7b, 3, 0, x0, x0, x0"); return 0;', "custom instruction, but nothing is behind it"),
        ("extern volatile uint64_t tohost; tohost = 9ull << 56; return 0;", "asks the host for device 9, command 0"),
    ],
)
def test_what_no_program_may_do(body, message):
    with pytest.raises(ExecutionError, match=message):
        run(body)


def test_an_endless_program_is_stopped():
    with pytest.raises(ExecutionError, match=r"did not end within 0\.2 s; it is at main.*it printed: on and on") as caught:
        run('htif_print("on and on"); for (;;); return 0;', timeout=0.2)
    assert "longer timeout" in str(caught.value)


def test_a_broken_rule_of_the_accelerator_names_the_command():
    stream = stream_text([isa.ConfigEx(), isa.Compute(isa.Tile(0, 16, 16), isa.Tile(isa.GARBAGE, 16, 16))], {})
    with pytest.raises(ExecutionError, match=r"at main.*instruction 1, Compute.*no preload came before"):
        on_gemmini(program(f"{stream.body} return 0;", stream.declarations))


def test_an_accelerator_that_leaves_the_memory_is_stopped():
    stream = stream_text([isa.ConfigLd(16), isa.Mvin(0x1000, isa.Tile(0, 16, 16))], {"a": Region(0x1000, 16)})
    with pytest.raises(ExecutionError, match="lie outside main memory"):
        on_gemmini(program(f"{stream.body} return 0;", stream.declarations + "\nstatic char *a = (char *)0x70000000;"))


def test_addresses_must_lie_in_an_array():
    with pytest.raises(CodegenError, match="0x3000 lies in no array"):
        stream_text([isa.Mvin(0x3000, isa.Tile(0, 16, 16))], {"a": Region(0x1000, 16)})


def test_the_memory_must_hold_the_program():
    with pytest.raises(ExecutionError, match="give MainMemory a larger size"):
        execute(program("return 0;"), MainMemory(8192))


def test_a_program_the_compiler_refuses():
    with pytest.raises(CodegenError, match=r"main\.c:2:.*error"):
        compile_program({"main.c": "int main(void) {\n return nothing; }"})
    with pytest.raises(CodegenError, match="undefined symbol: exp") as caught:
        program("return (int)exp(2.0);", "double exp(double);")
    assert "no C library" in str(caught.value)


def test_files_that_are_not_programs_for_this_core():
    elf = program("return 0;")
    with pytest.raises(ExecutionError, match="not a 64-bit little-endian ELF"):
        read_elf(b"\x7fELF\x01\x01")
    with pytest.raises(ExecutionError, match="architecture 62"):
        read_elf(elf[:18] + b"\x3e\x00" + elf[20:])
    for length in (60, 100, len(elf) - 200):
        with pytest.raises(ExecutionError, match=r"cut off or corrupt|cut off: segment"):
            read_elf(elf[:length])


@pytest.mark.parametrize("missing", ["ziglang", "unicorn"])
def test_missing_packages_are_named_with_their_extra(monkeypatch, missing):
    elf = program("return 0;")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RuntimeFailure, match=missing) as caught:
        if missing == "ziglang":
            compile_program({})
        execute(elf, MainMemory(1 << 20))
    assert "tilewright[riscv]" in str(caught.value)
