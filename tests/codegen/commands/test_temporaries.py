"""Arrays of a program's own in main memory: what host and machine hand each other, and what the verifier and the streams refuse."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tilewright.codegen.commands import Fence, Program, check, generate, parse_program, stream, walk, words
from tilewright.codegen.commands.fences import fenced
from tilewright.hw.library.gemmini import gemmini
from tilewright.ir.reference import reference
from tilewright.lang import parse
from tilewright.sim.gemmini.generated import execute, timed
from tilewright.space.default import plan
from tilewright.util.errors import CodegenError, ExecutionError, LanguageError

MACHINE = gemmini(dim=4)
#: The store has one scale for all columns: what follows the product is the host's.
SCALED_BY_COLUMN = parse("""
@kernel
def dense(a: i8[9, 10], b: i8[10, 7], s: f32[7], y: i8[9, 7]):
    t = alloc(i32[9, 7])
    for i in range(9):
        for j in range(7):
            t[i, j] = 0
    for i_1 in range(9):
        for j_1 in range(7):
            for k in range(10):
                t[i_1, j_1] += a[i_1, k] * b[k, j_1]
    for i_2 in range(9):
        for j_2 in range(7):
            y[i_2, j_2] = i8(min(max(round(f32(t[i_2, j_2]) * s[j_2]), -128.0), 127.0))
""")
PROGRAM = generate(plan(SCALED_BY_COLUMN, MACHINE).schedule.kernel, MACHINE)
TEXT = str(PROGRAM)
#: The machine stores to ``t`` and loads it again.
THROUGH_MEMORY = """
@commands("gemmini")
def twice(x: i8[4, 4], y: i8[4, 4]):
    t = alloc(i8[4, 4])
    config_ld(shrunk=0, repeats=1, block_stride=4, scale=1065353216, stride=4)
    config_st(
        activation=0, pool_stride=0, pool_size=0, upad=0, lpad=0, pool_out_cols=0, porows=0, pocols=0, orows=0, ocols=0,
        stride=4, acc_scale=1065353216)
    mvin(src=x, dst=spad[0, 4, 4])
    mvout_spad(dst=t, src=spad[0, 4, 4])
    fence()
    mvin(src=t, dst=spad[4, 4, 4])
    mvout_spad(dst=y, src=spad[4, 4, 4])
    fence()
"""


def test_the_host_finishes_what_the_machine_left_in_a_temporary() -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.integers(-128, 128, (9, 10)).astype(np.int8),
        "b": rng.integers(-128, 128, (10, 7)).astype(np.int8),
        "s": rng.uniform(0.001, 0.01, 7).astype(np.float32),
        "y": np.zeros((9, 7), np.int8),
    }
    want = {n: a.copy() for n, a in arrays.items()}
    reference(SCALED_BY_COLUMN, want)
    assert [b.name for b in PROGRAM.temps] == ["t"] and sum(isinstance(i, Fence) for i in walk(PROGRAM.body)) == 1
    assert parse_program(TEXT) == PROGRAM
    check(PROGRAM, MACHINE)
    execute(PROGRAM, MACHINE, arrays)
    np.testing.assert_array_equal(arrays["y"], want["y"])
    assert want["y"].std() > 10
    assert timed(PROGRAM, MACHINE).cycles > 0


def test_layouts_of_arguments_are_part_of_the_text() -> None:
    text = TEXT.replace("b: i8[10, 7]", 'b: buffer(i8[10, 7], "dram", layout="1 0")')
    assert text != TEXT and str(parse_program(text)) == text


def changed(pattern: str, by: str, text: str = TEXT) -> str:
    out, count = re.subn(pattern, by, text)
    assert count == 1
    return out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(r"    fence\(\)\n(?=    dense_host)", ""), "the host touches t while commands may still be using it"),
        (changed(r"mvout_full[^\n]*", "pass"), "the host reads elements of t that nothing has written"),
        (TEXT.replace("t = alloc(i32[9, 7])", "t = alloc(i32[9, 6])"), "lie outside t, which has 216"),
        (THROUGH_MEMORY.replace("    fence()\n    mvin(src=t", "    mvin(src=t"), "reads t, to which commands under way may still write"),
        (THROUGH_MEMORY.replace("mvin(src=x", "mvin(src=t"), "reads bytes of t, 0 to 16, that nothing has written"),
        (
            THROUGH_MEMORY.replace("dst=t, src=spad[0, 4, 4]", "dst=t, src=spad[0, 4, 3]"),
            "reads bytes of t, 0 to 16, that nothing has written",
        ),
        (THROUGH_MEMORY.replace("dst=t,", "dst=u,"), "'u' is not defined here"),
    ],
)
def test_broken_programs_are_refused(text: str, message: str) -> None:
    with pytest.raises((CodegenError, LanguageError), match=message):
        check(parse_program(text), MACHINE)


def test_stored_and_loaded_again() -> None:
    program = parse_program(THROUGH_MEMORY)
    check(program, MACHINE)
    x, y = np.arange(16, dtype=np.int8).reshape(4, 4), np.zeros((4, 4), np.int8)
    execute(program, MACHINE, {"x": x, "y": y})
    np.testing.assert_array_equal(y, x)


def test_temporaries_may_not_overlap_other_arrays() -> None:
    program: Program = parse_program(THROUGH_MEMORY)
    apart = {"x": 0x8000_0000, "y": 0x8000_0100, "t": 0x8000_0200}
    assert len(list(stream(program, MACHINE, apart))) == 8
    with pytest.raises(ExecutionError, match="t, bytes 0x800000f8 to 0x80000108, overlaps y at 0x80000100"):
        stream(program, MACHINE, {**apart, "t": 0x8000_00F8})
    with pytest.raises(ExecutionError, match="no address for t"):
        stream(program, MACHINE, {"x": 0x8000_0000, "y": 0x8000_0100})


def test_fences_in_loops_are_where_iterations_meet() -> None:
    """The machine fills ``t``, the host empties it: each waits for the other in every iteration but the first."""
    program = parse_program("""
@kernel
def taken(y: i8[4, 4], t: i8[4, 4]):
    for i in range(4):
        for j in range(4):
            y[i, j] = t[i, j]


@commands("gemmini")
def turns(x: i8[4, 4], y: i8[4, 4], n: i8[4, 4]):
    t = alloc(i8[4, 4])
    config_ld(shrunk=0, repeats=1, block_stride=4, scale=1065353216, stride=4)
    config_st(
        activation=0, pool_stride=0, pool_size=0, upad=0, lpad=0, pool_out_cols=0, porows=0, pocols=0, orows=0, ocols=0,
        stride=4, acc_scale=1065353216)
    mvin(src=x, dst=spad[0, 4, 4])
    for k in range(0, 3):
        mvout_spad(dst=t, src=spad[0, 4, 4])
        if k < 2:
            mvin(src=n, dst=spad[4, 4, 4])
        taken(y, t)
        mvin(src=y, dst=spad[0, 4, 4])
    mvin(src=n, dst=spad[4, 4, 4])
""")
    with pytest.raises(CodegenError, match="the host touches t"):
        check(program, MACHINE)
    items = fenced(program.body, MACHINE, words(MACHINE))
    waiting = Program(program.name, program.machine, program.args, items, program.temps)
    check(waiting, MACHINE)
    text = str(waiting)
    # Nothing touches what the load of ``n`` reads: no fence for it but the one at the end.
    assert re.findall(r"fence|taken(?=\(y, t\)$)|mvout_spad|src=[xyn]", text.split("def turns")[1], re.MULTILINE) == [
        "src=x", "mvout_spad", "src=n", "fence", "taken", "src=y", "src=n", "fence"
    ]  # fmt: skip
