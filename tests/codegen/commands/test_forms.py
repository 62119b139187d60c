"""Loop forms: tiles recognised by what they compute, run on the functional model, checked, and as fast as the vendor's own use of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from tests.codegen.commands.scheduled_gemm import FULL, RELU, SATURATE, SCALE, SCALE_RELU, Gemm
from tests.codegen.commands.test_generate import MACHINES, arrays

from tilewright.codegen.commands import Command, Program, check, generate, parse_program, stream, walk
from tilewright.codegen.commands.forms import formed
from tilewright.hw import Machine
from tilewright.ir.buffer import Layout
from tilewright.ir.interpreter import interpret
from tilewright.ir.reference import reference
from tilewright.ir.simplify import simplify
from tilewright.ir.stmt import Block, replace_buffers
from tilewright.lang import parse
from tilewright.sim.gemmini import Configuration, baseline, simulate
from tilewright.sim.gemmini.generated import execute, timed
from tilewright.util.errors import CodegenError

FORMS = ("loop_ws",)


def agrees(g: Gemm, machine: Machine) -> Program:
    program = generate(g.scheduled(machine), machine, forms=FORMS)
    assert parse_program(str(program)) == program
    check(program, machine)
    given = arrays(g)
    want = {n: a.copy() for n, a in given.items()}
    reference(g.kernel(), want)
    execute(program, machine, given)
    np.testing.assert_array_equal(given["c"], want["c"])
    assert all(i.word.startswith(("config_", "loop_ws.")) for i in walk(program.body) if isinstance(i, Command))
    return program


@pytest.mark.parametrize(
    ("epilogue", "init"), [(SATURATE, "0"), (RELU, "bias[j]"), (SCALE, "d[i, j]"), (SCALE_RELU, "bias[j]"), (FULL, "d[i, j]")]
)
def test_starts_and_finishes_match_parts(epilogue: str, init: str) -> None:
    agrees(Gemm(37, 34, 45, (32, 32, 32), init, epilogue), MACHINES[16])


@settings(max_examples=12, deadline=None)
@given(
    hs.sampled_from([4, 16]),
    hs.tuples(*[hs.integers(1, 70)] * 3),
    hs.tuples(*[hs.integers(1, 3)] * 3),
    hs.sampled_from([SATURATE, SCALE, RELU, FULL]),
    hs.sampled_from(["0", "bias[j]", "d[i, j]"]),
)
def test_any_size(dim: int, sizes: tuple[int, int, int], blocks: tuple[int, int, int], epilogue: str, init: str) -> None:
    m, n, k = (min(x, 5 * dim) for x in sizes)
    agrees(Gemm(m, n, k, (blocks[0] * dim, blocks[1] * dim, blocks[2] * dim), init, epilogue), MACHINES[dim])


def test_formed_kernel_computes_the_same() -> None:
    g = Gemm(20, 18, 25, (16, 16, 16), "bias[j]", SCALE)
    found = formed(simplify(g.scheduled(MACHINES[16])), MACHINES[16], FORMS)
    assert "spad" not in str(found.kernel).split("@kernel(")[0]  # copies that no one reads are gone
    given = arrays(g)
    want = {n: a.copy() for n, a in given.items()}
    interpret(g.kernel(), want)
    interpret(found.kernel, given)
    np.testing.assert_array_equal(given["c"], want["c"])


@pytest.mark.parametrize("sizes", [(16, 16, 16), (17, 33, 300), (1, 256, 500), (100, 100, 100), (256, 256, 16), (150, 10, 40)])
def test_as_fast_as_the_vendors_stream_with_its_tiles(sizes: tuple[int, int, int]) -> None:
    """The one difference is the flush with which the vendor's library begins: a word, two cycles."""
    m, n, k = sizes
    machine = MACHINES[16]
    c = Configuration.of(machine)
    starts = np.cumsum([0x8000_0000, *(-(-x // 64) * 64 for x in (m * k, k * n))])
    default = simulate(baseline.default_ws(c, baseline.Gemm(m, n, k, *map(int, starts))), c).cycles
    tiles = tuple(16 * x for x in baseline.default_tiles(c, m, n, k))
    program = generate(Gemm(m, n, k, tiles).scheduled(machine), machine, forms=FORMS)  # type: ignore[arg-type]
    assert timed(program, machine).cycles == default - 2


def test_fewer_words_than_the_explicit_stream() -> None:
    machine = MACHINES[16]
    kernel = Gemm(64, 64, 64, (64, 64, 64)).scheduled(machine)
    at = {b.name: 0x8000_0000 + n * 4096 for n, b in enumerate(kernel.args)}
    form, explicit = (sum(1 for _ in stream(generate(kernel, machine, forms=f), machine, at)) for f in (FORMS, ()))
    assert form == 4 + 6 + 1  # four states, six words, the fence
    assert explicit > 100


# What is refused


def test_reasons_name_what_differs() -> None:
    machine = MACHINES[16]
    with pytest.raises(CodegenError, match=r"no tile is what loop_ws does \(saturated: the nest computes .*acc"):
        generate(Gemm(16, 16, 16, epilogue="i8(acc[i_2, j_2] * acc[i_2, j_2])").scheduled(machine), machine, forms=FORMS)


def test_tiles_over_half_of_a_memory_are_refused() -> None:
    machine = MACHINES[16]
    with pytest.raises(CodegenError, match=r"a run takes 1024 lines of acc, it may take 512"):
        generate(Gemm(128, 128, 16, (128, 128, 16)).scheduled(machine), machine, forms=FORMS)


def test_inputs_that_change_are_refused() -> None:
    machine = MACHINES[16]
    kernel = Gemm(16, 16, 16, init="d[i, j]", epilogue=FULL).scheduled(machine)
    text = str(kernel) + "\n    for p in range(16):\n        for q in range(16):\n            d[p, q] = 0\n"
    callee = next(s.kernel for s in _calls(kernel))
    with pytest.raises(CodegenError, match="operand d would be d, which the kernel writes"):
        generate(parse(text, matmul=callee), machine, forms=FORMS)


def test_explicit_buffers_may_not_live_during_a_run() -> None:
    """A run takes lines of the hardware's choice; buffers before and after it are in nobody's way."""
    machine = MACHINES[16]
    kernel = Gemm(16, 16, 16).scheduled(machine)
    head, first, body = str(kernel).partition("c: i8[16, 16]):\n")
    load = """\
    t = alloc(i8[16, 16], "spad", layout="1/16 0 1")
    for p in range(16):
        for q in range(16):
            t[p, q] = a[p, q]
"""
    store = "    for x in range(16):\n        for y in range(16):\n            e[x, y] = t[x, y]\n"
    callee = next(s.kernel for s in _calls(kernel))

    def program(text: str) -> Program:
        return generate(parse(head + "e: i8[16, 16], " + first + text, matmul=callee), machine, forms=FORMS)

    with pytest.raises(CodegenError, match="t stays in spad while loop_ws runs"):
        program(load + body + "\n" + store)
    beside = program(load + store + body)
    check(beside, machine)
    rng = np.random.default_rng(0)
    got = {b.name: rng.integers(-128, 128, (16, 16)).astype(np.int8) for b in beside.args}
    a, b = (got[n].copy() for n in "ab")
    execute(beside, machine, got)
    np.testing.assert_array_equal(got["e"], a)
    np.testing.assert_array_equal(got["c"], np.clip(a.astype(np.int32) @ b, -128, 127))


def test_arrays_in_another_order_are_refused() -> None:
    machine = MACHINES[16]
    kernel = Gemm(16, 16, 16).scheduled(machine)
    turned = kernel.arg("b").with_(layout=Layout.parse("1 0"))
    body = replace_buffers(kernel.body, {"b": turned})
    assert isinstance(body, Block)
    kernel = kernel.with_(args=tuple(turned if b.name == "b" else b for b in kernel.args), body=body)
    with pytest.raises(CodegenError, match=r"product: it demands require\(stride\(b, 1\) == 1\)"):
        generate(kernel, machine, forms=FORMS)


def _calls(kernel):  # type: ignore[no-untyped-def]
    from tilewright.ir import stmt as st

    return [s for s in st.walk(kernel.body) if isinstance(s, st.Call)]


def wrong(old: str, new: str, rule: str, g: Gemm | None = None) -> None:
    """A program with ``old`` replaced by ``new`` breaks ``rule``."""
    machine = MACHINES[4]
    text = str(generate((g or Gemm(8, 8, 16, (8, 8, 8))).scheduled(machine), machine, forms=FORMS))
    check(parse_program(text), machine)
    assert old in text
    with pytest.raises(CodegenError, match=rule):
        check(parse_program(text.replace(old, new)), machine)


def test_check_of_bounds() -> None:
    wrong("i_blocks=2", "i_blocks=65536", r"i_blocks = 65536 does not fit 16 bits")
    wrong("i_blocks=2", "i_blocks=0", r"axis i has 0 blocks")
    wrong("k_pad=0", "k_pad=4", r"axis k has 2 blocks that lack 4 of 4 elements")


def test_check_of_room_and_arrays() -> None:
    wrong("j_blocks=2", "j_blocks=64", r"it takes \d+ lines of spad, a run may take 512")
    wrong("a=a + (ko * 8)", "a=a + (ko * 8 + 16)", r"bytes .* lie outside a, which has 128")


def test_check_of_chains() -> None:
    accumulate = "accumulate=where(ko == 0, index(0), 1)"
    wrong(accumulate, "accumulate=0", r"starts new sums where those of the run before wait to be stored")
    wrong(accumulate, "accumulate=1", r"adds to sums that no run started")
    wrong("d=0, c=c", "d=0, c=0", r"ends with sums of loop_ws that no run stored")
    wrong("i_blocks=2", "i_blocks=2 - ko", r"adds .*'i': 4.* to sums of .*'i': 8")


def test_check_of_words_and_state() -> None:
    wrong("loop_ws.input_pitches(a_pitch=16, b_pitch=8)\n", "pass\n", r"a run without input_pitches before it")
    wrong("config_ld(shrunk=0, repeats=1, block_stride=4", "config_ld(shrunk=0, repeats=1, block_stride=8", r"block_stride = 8, it needs 4")
    wrong("a_pitch=16", "a_pitch=12", r"state ld has stride = 16, it needs 12")
