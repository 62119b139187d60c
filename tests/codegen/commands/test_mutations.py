"""Right programs with one thing wrong: the verifier refuses them, or they compute something definite; left-out commands change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.codegen.commands.mutations import computed, mutants
from tests.codegen.commands.scheduled_gemm import SCALE_RELU, Gemm
from tests.space.test_rules_explicit import convolution

from tilewright.codegen.commands import Program, check, generate, parse_program
from tilewright.hw.library.gemmini import gemmini
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.space.default import default_schedule
from tilewright.util.errors import CodegenError

MACHINE = gemmini(dim=4)
#: A matrix product with a bias and scaled results; one by transposed weights that the host goes on with; a convolution with padding.
KERNELS = {
    "scaled": Gemm(6, 7, 9, init="bias[j]", epilogue=SCALE_RELU).kernel(),
    "hosted": parse("""
@kernel
def hosted(a: i8[5, 6], b: i8[4, 6], c: i32[5, 4], y: f32[5]):
    for i in range(5):
        for j in range(4):
            c[i, j] = 0
    for i_1 in range(5):
        for j_1 in range(4):
            for k in range(6):
                c[i_1, j_1] += a[i_1, k] * b[j_1, k]
    for i_2 in range(5):
        y[i_2] = f32(c[i_2, 0]) * 0.5
"""),
    "convolution": convolution((3, 4), 3, 5, 3, 1, 1, True),
}


@dataclass(frozen=True)
class Case:
    arrays: dict[str, np.ndarray]
    want: dict[str, np.ndarray]
    mutants: list[tuple[str, Program]]


@cache
def case(name: str) -> Case:
    kernel: Kernel = KERNELS[name]
    program = generate(default_schedule(kernel, MACHINE).kernel, MACHINE)
    check(program, MACHINE)
    rng = np.random.default_rng(0)
    arrays = {b.name: rng.integers(-128, 128, b.static_shape).astype(b.dtype.to_numpy()) for b in kernel.args}
    want = {n: a.copy() for n, a in arrays.items()}
    interpret(kernel, want)
    assert same(computed(program, MACHINE, arrays, 7), want)
    return Case(arrays, want, list(mutants(program)))


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(a[n], b[n]) for n in a)


def refused(program: Program) -> bool:
    try:
        check(program, MACHINE)
    except CodegenError:
        return True
    return False


@pytest.mark.parametrize("name", KERNELS)
def test_what_passes_is_definite(name: str) -> None:
    """It runs, and what memories hold at first does not matter."""
    c = case(name)

    @settings(max_examples=60 if name != "convolution" else 20, deadline=None)
    @given(st.integers(0, len(c.mutants) - 1))
    def one(number: int) -> None:
        what, mutant = c.mutants[number]
        if not refused(mutant):
            first, second = (computed(mutant, MACHINE, c.arrays, poison) for poison in (7, -3))
            assert same(first, second), what

    one()


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_what_passes_is_definite_for_every_mutant(name: str) -> None:
    c = case(name)
    for what, mutant in c.mutants:
        if not refused(mutant):
            assert same(computed(mutant, MACHINE, c.arrays, 7), computed(mutant, MACHINE, c.arrays, -3)), what


@pytest.mark.parametrize("name", ["scaled", "hosted"])
def test_commands_left_out_or_issued_too_early(name: str) -> None:
    """They are refused, or change nothing: no fence is needless, no load comes after its product, every setter matters or repeats."""
    c = case(name)
    moved = [(what, m) for what, m in c.mutants if what.startswith("without ") or what.endswith(" too early")]
    passed = [what for what, m in moved if not refused(m) and not same(computed(m, MACHINE, c.arrays, 7), c.want)]
    assert len(moved) > 10 and not passed
    assert all(refused(m) for what, m in moved if what.startswith("without fence()"))
    assert all(refused(m) for what, m in moved if what.startswith("without matmul"))


WHOLE = gemmini()
LINES = """
@commands("gemmini")
def lines(a: i8[16, 16], c: i32[16, 16]):
    config_ld(shrunk=0, repeats=1, block_stride=16, scale=1065353216, stride=16)
    config_ex(dataflow=1, activation=0, a_transpose=0, b_transpose=0, a_stride=1, c_stride=1, acc_scale=1065353216, shift=0)
    config_st(
        activation=0, pool_stride=0, pool_size=0, upad=0, lpad=0, pool_out_cols=0, porows=0, pocols=0, orows=0, ocols=0,
        stride=64, acc_scale=1065353216)
    mvin(src=a, dst=spad[0, 16, 16])
    matmul.preload(b=spad[0, 16, 16], c=acc[0, 16, 16], accumulate=0)
    matmul.compute_preloaded(a=spad[0, 16, 16], c=acc[0, 16, 16])
    mvout_full(dst=c, src=acc[0, 16, 16])
    fence()
"""
PRELOAD = "    matmul.preload(b=spad[0, 16, 16], c=acc[0, 16, 16], accumulate=0)\n"
COMPUTE = "    matmul.compute_preloaded(a=spad[0, 16, 16], c=acc[0, 16, 16])\n"
TURNED = COMPUTE.replace("matmul", "matmul_bt")


def test_the_program_without_mistakes() -> None:
    check(parse_program(LINES), WHOLE)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (PRELOAD, PRELOAD * 2, "matmul.preload came before it and did nothing"),
        (PRELOAD, "", "no matmul.preload came right before it"),
        (COMPUTE, TURNED, "no matmul_bt.preload came right before it|ex has b_transpose = 0"),
        (COMPUTE, "", "ends after matmul.preload|reads line 0 of acc"),
        ("acc[0, 16, 16])\n    mvout", "acc[32, 16, 16])\n    mvout", "its c.address is not that of preload"),
        ("a=spad[0, 16, 16]", "a=spad[0, 16, 8]", "b.rows is 16, a.cols is 8: both are along k|a.cols is 8, b.rows is 16"),
        ("dst=spad[0, 16, 16]", "dst=spad[0, 16, 8]", "reads 16 elements of line 0 of spad, of which 8 are written"),
        (COMPUTE, COMPUTE + PRELOAD + COMPUTE, "overwrites the result in line 0 of acc, which nothing has read"),
        ("    mvout_full(dst=c, src=acc[0, 16, 16])\n", "", "ends with a result in line 0 of acc that nothing has read"),
        ("    fence()\n", "", "ends while commands may still write c"),
        ("stride=64", "stride=60", "its rows of 64 bytes overlap in c, 60 bytes apart"),
        ("stride=64", "stride=66", "byte 0 of c, with rows 66 bytes apart, does not suit elements of 4 bytes"),
        ("a_stride=1", "a_stride=0", "its rows in spad lie 0 lines apart"),
    ],
)
def test_messages(old: str, new: str, message: str) -> None:
    assert old in LINES
    with pytest.raises(CodegenError, match=message):
        check(parse_program(LINES.replace(old, new, 1)), WHOLE)
