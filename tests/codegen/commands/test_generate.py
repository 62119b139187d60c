"""Generated command programs on the functional model against the reference execution of the kernel they were made from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from numpy.typing import NDArray
from tests.codegen.commands.scheduled_gemm import FULL, RELU, SATURATE, SCALE, SCALE_RELU, Gemm

from tilewright.codegen.commands import Command, Fence, check, generate, parse_program, stream, walk
from tilewright.hw import Machine
from tilewright.hw.library.gemmini import gemmini
from tilewright.hw.library.gemmini_control import Control
from tilewright.ir.reference import reference
from tilewright.lang import parse
from tilewright.sim.gemmini import Configuration
from tilewright.sim.gemmini.generated import execute, starts, timed
from tilewright.util.errors import CodegenError

#: Its number.
MVIN = 2
MACHINES = {16: gemmini(), 4: gemmini("gemmini.4", dim=4, scratchpad_bytes=4096, accumulator_bytes=2048)}


def arrays(g: Gemm, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(seed)
    full = np.iinfo(np.int32)
    made: dict[str, NDArray[np.generic]] = {}
    for b in g.kernel().args:
        kind = b.dtype.to_numpy()
        lo, hi = (-128, 127) if kind == np.int8 else (full.min // 4, full.max // 4)
        made[b.name] = rng.integers(lo, hi, b.static_shape, endpoint=True).astype(kind)
    return made


def agrees(g: Gemm, machine: Machine) -> None:
    kernel = g.scheduled(machine)
    given = arrays(g)
    want = {n: a.copy() for n, a in given.items()}
    reference(g.kernel(), want)
    for pipeline in (False, True):
        program = generate(kernel, machine, pipeline=pipeline)
        assert parse_program(str(program)) == program
        check(program, machine)
        got = {n: a.copy() for n, a in given.items()}
        execute(program, machine, got)
        np.testing.assert_array_equal(got["c"], want["c"])


@pytest.mark.parametrize(
    ("epilogue", "init"), [(SATURATE, "0"), (RELU, "bias[j]"), (SCALE, "d[i, j]"), (SCALE_RELU, "bias[j]"), (FULL, "d[i, j]")]
)
def test_epilogues_and_starts_match_moves(epilogue: str, init: str) -> None:
    agrees(Gemm(37, 34, 45, (32, 32, 32), init, epilogue), MACHINES[16])


@settings(max_examples=8, deadline=None)
@given(
    hs.sampled_from([4, 16]),
    hs.tuples(*[hs.integers(1, 70)] * 3),
    hs.tuples(*[hs.integers(1, 3)] * 3),
    hs.sampled_from([SATURATE, SCALE, RELU]),
    hs.sampled_from(["0", "bias[j]"]),
)
def test_any_size(dim: int, sizes: tuple[int, int, int], blocks: tuple[int, int, int], epilogue: str, init: str) -> None:
    m, n, k = (min(x, 5 * dim) for x in sizes)
    agrees(Gemm(m, n, k, (blocks[0] * dim, blocks[1] * dim, blocks[2] * dim), init, epilogue), MACHINES[dim])


def test_first_addition_replaces_and_weights_stay() -> None:
    text = str(generate(Gemm(48, 64, 80).scheduled(MACHINES[16]), MACHINES[16], pipeline=False))
    assert "accumulate=min(ko + kio, 1)" in text
    assert "matmul.preload_nothing" in text
    assert text.count("config_ld(") == text.count("config_ld2(") == text.count("config_st(") == text.count("config_ex(") == 1


def test_only_fence_is_at_the_end() -> None:
    program = generate(Gemm(64, 64, 64).scheduled(MACHINES[16]), MACHINES[16])
    assert [i for i in walk(program.body) if isinstance(i, Fence)] == [program.body[-1]]
    assert not any(isinstance(i, Command) and i.word.startswith("config") for i in walk(program.body[-2:]))


def test_host_does_what_the_machine_cannot_between_fences() -> None:
    machine = MACHINES[16]
    kernel = Gemm(20, 20, 20, epilogue=FULL).scheduled(machine)
    text = str(kernel).replace("c: i32[20, 20]", "c: i32[20, 20], e: i32[20, 20]")
    text += "\n    for p in range(20):\n        for q in range(20):\n            e[p, q] = c[p, q] // 7\n"
    callee = next(s.kernel for s in _calls(kernel))
    kernel = parse(text, matmul=callee)
    program = generate(kernel, machine)
    assert parse_program(str(program)) == program
    rng = np.random.default_rng(1)
    got = {b.name: rng.integers(-128, 127, b.static_shape).astype(b.dtype.to_numpy()) for b in kernel.args}
    execute(program, machine, got)
    product = got["a"].astype(np.int32) @ got["b"].astype(np.int32)
    np.testing.assert_array_equal(got["e"], product // 7)


def _calls(kernel):  # type: ignore[no-untyped-def]
    from tilewright.ir import stmt as st

    return [s for s in st.walk(kernel.body) if isinstance(s, st.Call)]


def test_buffers_too_large_are_named() -> None:
    with pytest.raises(CodegenError, match=r"spad has 1024 lines, its buffers take a_spad 512, b_spad 1024"):
        generate(Gemm(4, 8, 512, (4, 8, 512)).scheduled(MACHINES[4]), MACHINES[4])


def test_nests_that_no_move_does_are_shown() -> None:
    with pytest.raises(CodegenError, match=r"no instruction of gemmini does"):
        generate(Gemm(16, 16, 16, epilogue="i8(acc[i_2, j_2] * acc[i_2, j_2])").scheduled(MACHINES[16]), MACHINES[16])


def test_pipelining_keeps_the_array_busy() -> None:
    machine = MACHINES[16]
    kernel = Gemm(64, 128, 128, (32, 64, 32)).scheduled(machine)
    plain, piped = (timed(generate(kernel, machine, pipeline=p), machine) for p in (False, True))
    assert piped.utilisation(64 * 128 * 128, Configuration.of(machine)) > 0.8
    assert piped.cycles < 0.75 * plain.cycles


def test_programs_follow_the_bus_and_the_queues() -> None:
    g = Gemm(8, 256, 256, (8, 128, 64))  # bound by moving B
    controls = {
        "default": Control(),
        "slow bus": Control(dma_bytes=8),
        "wide bus": Control(dma_bytes=32),
        "large requests": Control(dma_bytes=32, dma_max_bytes=128),
        "short queues": Control(load_entries=1, store_entries=1, execute_entries=2),
    }
    cycles, columns = {}, {}
    for name, control in controls.items():
        machine = gemmini(control=control)
        program = generate(g.scheduled(machine), machine)
        cycles[name] = timed(program, machine).cycles
        columns[name] = max(w[2] >> 32 & 0xFFFF for w in stream(program, machine, starts(program)) if w is not None and w[0] == MVIN)
        assert cycles[name] >= g.n * g.k / control.dma_bytes
    assert columns == {name: control.dma_max_bytes for name, control in controls.items()}
    assert cycles["wide bus"] < cycles["default"] < cycles["slow bus"] < cycles["short queues"]
    agrees(g, gemmini(control=controls["large requests"]))


def test_no_pipelining_without_room_for_two_copies() -> None:
    g = Gemm(24, 8, 300, (16, 8, 120))
    text = str(generate(g.scheduled(MACHINES[4]), MACHINES[4]))
    assert "_next" not in text
    agrees(g, MACHINES[4])


def test_weights_are_loaded_first_and_stores_follow_their_block() -> None:
    program = generate(Gemm(16, 64, 16, (16, 64, 16)).scheduled(MACHINES[16]), MACHINES[16])
    words = [i for i in walk(program.body) if isinstance(i, Command) and not i.word.startswith("config")]
    assert "src=b" in str(words[0])
    assert "src=a" in str(words[1])
    assert words[-1].word.startswith("mvout")
