"""The verifier refuses programs that break one rule each; the program they are made from is accepted and right."""

from __future__ import annotations

import pytest
from tests.codegen.commands.scheduled_gemm import FULL, Gemm

from tilewright.codegen.commands import check, generate, parse_program
from tilewright.hw import load_machine
from tilewright.util.errors import CodegenError, LanguageError

MACHINE = load_machine("gemmini")
TEXT = str(generate(Gemm(40, 24, 48, (40, 24, 48)).scheduled(MACHINE), MACHINE, pipeline=False))
LINES = {line.strip().partition("(")[0]: line for line in TEXT.splitlines()}


def test_generated_text_passes() -> None:
    check(parse_program(TEXT), MACHINE)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (LINES["config_ex"], "", r"state ex was never set"),
        ("mvin2(", "mvin3(", r"state ld3 was never set"),
        ("stride=48)", "stride=4800)", r"bytes 0 to \d+ lie outside a, which has 1920"),
        ("dst=spad[a_spad_0_n * 48", "dst=spad[a_spad_0_n * 48 + 16300", r"lines 16\d+ to 16\d+ lie outside spad, which has 16384"),
        ("dst=spad[a_spad_0_n * 48", "dst=spad[a_spad_0_n * 48 + 320", r"reads line 0 of spad, which nothing has written"),
        (", 24])", ", 80])", r"has \d+ rows of 80, it takes at most 16 of 64"),
        ("accumulate=min(kio, 1)", "accumulate=1", r"reads line 0 of acc, which nothing has written"),
        ("accumulate=min(kio, 1)", "accumulate=2", r"accumulate = 2 does not fit 1 bits"),
        ("dataflow=1", "dataflow=0", r"state ex has dataflow = 0, it needs 1"),
        ("scale=1065353216", "scale=0", r"has scale = 0, it needs 1065353216"),
        ("matmul.preload(", "matmul.reload(", r"gemmini has no word 'matmul.reload'"),
        ("matmul.preload(", "matmul.preload_nothing(", r"b is not what the unit holds"),
        ("mvout(dst=c", "mvout(dst=a", r"writes a, which commands under way may still read"),
        ("mvout(", "mvout_full(", r"operand src has 16 rows of 24, it takes at most 16 of 16"),
        ("for kio in range(0, 3)", "for other in range(0, 3)", r"'kio' is not defined here"),
        ('@commands("gemmini")', '@commands("vta")', r"is for vta, not for gemmini"),
    ],
)
def test_broken_programs_are_refused(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises((CodegenError, LanguageError), match=message):
        check(parse_program(TEXT.replace(old, new)), MACHINE)


def test_host_must_wait() -> None:
    kernel = "@kernel\ndef later(c: i32[16, 16]):\n    c[0, 0] += 1\n\n\n"
    g = Gemm(16, 16, 16, epilogue=FULL)
    text = kernel + str(generate(g.scheduled(MACHINE), MACHINE, pipeline=False))
    assert text.endswith("fence()")
    check(parse_program(text + "\n    later(c)"), MACHINE)
    with pytest.raises(CodegenError, match="the host touches c while commands may still be using it"):
        check(parse_program(text.removesuffix("fence()") + "later(c)"), MACHINE)
