"""Command programs in MLIR: a dialect declared in IRDL, loaded by MLIR, which then verifies the program's operations."""

from __future__ import annotations

import pytest
from tests.codegen.commands.scheduled_gemm import FULL, RELU, SCALE, SCALE_RELU, Gemm
from tests.codegen.commands.test_temporaries import PROGRAM
from tests.codegen.compiled_mlir import verified
from tests.space.test_rules_explicit import convolution

from tilewright.codegen.commands import check, generate, parse_program, stream
from tilewright.codegen.commands.program import Command, Host, Let, Loop, Program, words
from tilewright.codegen.mlir import emit_command_mlir, emit_irdl
from tilewright.hw import load_machine
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Var, idx
from tilewright.lang import parse
from tilewright.space.default import default_schedule
from tilewright.util.errors import CodegenError

ir = pytest.importorskip("torch_mlir.ir", reason="MLIR is in the package torch-mlir")
GEMMINI = load_machine("gemmini")
ADDRESSES = {name: 0x100000 * n for n, name in enumerate(("a", "b", "c", "x", "f", "w", "bias", "y"), 1)}


def loaded(text: str) -> None:
    """Parse ``text`` with the machine's dialect loaded from its IRDL file (and no other unknown operations)."""
    from torch_mlir.dialects import irdl

    with ir.Context(), ir.Location.unknown():
        dialect = ir.Module.parse(emit_irdl(GEMMINI))
        assert dialect.operation.verify()
        irdl.load_dialects(dialect)
        assert ir.Module.parse(text).operation.verify()


@pytest.mark.parametrize("gemm", [Gemm(32, 48, 64), Gemm(33, 17, 50, init="bias[j]", epilogue=SCALE)], ids=str)
def test_programs_verify_in_the_declared_dialect(gemm):
    text = emit_command_mlir(generate(gemm.scheduled(GEMMINI), GEMMINI), GEMMINI)
    loaded(text)
    assert '"gemmini.matmul_preload"(' in text


DEFAULTS = {
    "product": Gemm(40, 64, 72).kernel(),
    **{text: Gemm(40, 20, 33, epilogue=text).kernel() for text in (RELU, SCALE, SCALE_RELU, FULL)},
    "convolution": convolution((8, 8), 20, 24, 3, 1, 1, True),
    "strides": convolution((9, 9), 16, 16, 3, 2, 1, True),
    "pointwise": convolution((6, 5), 24, 17, 1, 1, 0, True),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_default_schedules_verify_and_are_read_back(name):
    """In MLIR with the dialect that IRDL declares; in their own text, which is read back as the same program."""
    program = generate(default_schedule(DEFAULTS[name], GEMMINI).kernel, GEMMINI)
    loaded(emit_command_mlir(program, GEMMINI))
    again = parse_program(str(program))
    assert str(again) == str(program)
    check(again, GEMMINI)
    assert list(stream(again, GEMMINI, ADDRESSES)) == list(stream(program, GEMMINI, ADDRESSES))


def test_arrays_of_the_program_are_allocated():
    text = emit_command_mlir(PROGRAM, load_machine("gemmini"))
    loaded(text)
    assert "%t = memref.alloc() : memref<9x7xi32>" in text


def test_the_dialect_has_every_word_of_the_machine():
    text = emit_irdl(GEMMINI)
    assert all(f"irdl.operation @{name.replace('.', '_')} {{" in text for name in words(GEMMINI))
    with pytest.raises(CodegenError, match="declares no instruction words"):
        emit_irdl(load_machine("x86.avx512"))


def test_mlir_refuses_what_the_dialect_does_not_say():
    text = emit_command_mlir(generate(Gemm(16, 16, 16).scheduled(GEMMINI), GEMMINI), GEMMINI)
    with pytest.raises(ir.MLIRError, match="unregistered"):
        verified(text)  # without the dialect
    with pytest.raises(ir.MLIRError):
        loaded(text.replace('"gemmini.fence"()', '"gemmini.halt"()'))
    with pytest.raises(ir.MLIRError, match="operand"):
        loaded(text.replace('"gemmini.fence"() : ()', '"gemmini.fence"(%c0) : (index)'))


def test_host_kernels_and_variables():
    twice = parse("@kernel\ndef twice(v: i8[4]):\n    for i in range(4):\n        v[i] = v[i] * 2\n")
    body = (Let("n", idx(0)), Loop("i", idx(0), idx(3), (Let("n", Var("n") + Var("i")), Host(twice, (), ("x",)))))
    text = emit_command_mlir(Program("run", "gemmini", (buffer("x", ty.i8, (4,)),), body), GEMMINI)
    loaded(text)
    assert "func.call @twice(%x)" in text and "%n_cell = memref.alloca()" in text


def test_words_the_machine_does_not_have():
    with pytest.raises(CodegenError, match="no word 'teleport'"):
        emit_command_mlir(Program("run", "gemmini", (), (Command("teleport", ()),)), GEMMINI)
    with pytest.raises(CodegenError, match="mvin needs"):
        emit_command_mlir(Program("run", "gemmini", (), (Command("mvin", ()),)), GEMMINI)
