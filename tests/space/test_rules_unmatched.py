"""Loops that no rule understands: lanes and threads where dependences allow, values unchanged, one space for every way in."""

from __future__ import annotations

import numpy as np
import pytest
from examples.block_attention import attention

import tilewright as tw
from tilewright import lang
from tilewright.ir import stmt as st
from tilewright.ir.stmt import Kernel, LoopKind
from tilewright.runtime.planned import planned
from tilewright.runtime.pool import default_threads
from tilewright.space.default import plan
from tilewright.space.space import Space

FILTER = """@kernel
def filter(x: f32[60, 8, 50], y: f32[60, 8, 50]):
    for p in range(8):
        state = alloc(f32[50])
        for i in range(50):
            state[i] = 0.0
        for t in range(60):
            for i_1 in range(50):
                y[t, p, i_1] = state[i_1] * 0.5 + x[t, p, i_1]
            for i_2 in range(50):
                state[i_2] = state[i_2] * 0.25 + max(x[t, p, i_2], state[i_2])
"""
CARRIED = """@kernel
def carried(x: f32[9, 40], y: f32[9, 40]):
    for p in range(1, 9):
        for i in range(1, 40):
            y[p, i] = y[p, i - 1] * 0.5 + x[p, i]
        for k in range(40):
            y[p - 1, k] = y[p, k] + x[p - 1, k]
"""
SOLVE = """@kernel
def solve(l: f32[12, 12], b: f32[12, 37]):
    for r in range(12):
        for k in range(r):
            for c in range(37):
                b[r, c] = b[r, c] - l[r, k] * b[k, c]
        for c_1 in range(37):
            b[r, c_1] = b[r, c_1] / l[r, r]
"""
ACROSS = """@kernel
def across(x: f32[40, 30], y: f32[40, 30]):
    for t in range(1, 30):
        for j in range(30):
            for i in range(40):
                y[i, j] = x[i, j] + 1.0
        for i_1 in range(40):
            y[i_1, t] = y[i_1, t - 1]
"""


@pytest.fixture(scope="module")
def avx512() -> tw.Machine:
    return tw.load_machine("x86.avx512")


def kinds(kernel: Kernel) -> dict[str, LoopKind]:
    return {f.name: f.kind for f in st.loops(kernel)}


def results(kernel: Kernel) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(b.static_shape).astype(np.float32) for b in kernel.args]
    tw.interpret(kernel, arrays)
    return arrays


def test_nests_run_in_lanes_and_programs_on_threads(avx512: tw.Machine) -> None:
    found = kinds(tw.default_schedule(tw.parse(FILTER), avx512, threads=2).kernel)
    assert found["p"] is LoopKind.PARALLEL and found["t"] is LoopKind.SERIAL
    assert sum(k is LoopKind.VECTOR for k in found.values()) == 6, "three nests, each with a remainder"
    short = tw.default_schedule(tw.parse(FILTER.replace("60", "6")), avx512, threads=2).kernel
    assert kinds(short)["p"] is LoopKind.SERIAL, "too short to wake another core"


def test_dependences_stay(avx512: tw.Machine) -> None:
    chosen = plan(tw.parse(CARRIED), avx512, threads=2)
    assert any(r.startswith("lanes of i: ") and "must run before" in r for r in chosen.refused), "and it is said which ones"
    found = kinds(chosen.schedule.kernel)
    assert found["i"] is LoopKind.SERIAL and LoopKind.VECTOR in found.values(), "only the second nest has independent iterations"


def test_the_loop_along_memory_becomes_the_innermost(avx512: tw.Machine) -> None:
    chosen = tw.default_schedule(tw.parse(ACROSS), avx512, threads=1).kernel
    nest = next(f for f in st.loops(chosen) if f.name == "i")
    assert {f.kind for f in st.loops(nest.body)} == {LoopKind.VECTOR}


@pytest.mark.parametrize("text", [FILTER.replace("60", "9"), CARRIED, SOLVE, ACROSS])
def test_every_point_computes_the_same(text: str, avx512: tw.Machine) -> None:
    kernel = tw.parse(text)
    space = Space(kernel, avx512, 2)
    points = space.enumerate(100)
    assert {k.name for s in space.sketches for k in s.knobs} == {"abreast"} and len(points) == 4
    seconds = space.estimate(points)
    assert np.isfinite(seconds).all() and (seconds > 0).all() and np.isfinite(space.features(points)).all()
    wanted = results(kernel)
    for point in points:
        for got, want in zip(results(space.schedule(point).kernel), wanted, strict=True):
            np.testing.assert_array_equal(got, want)


def test_wider_steps_are_other_schedules(avx512: tw.Machine) -> None:
    space = Space(tw.parse(FILTER), avx512, 1)
    assert len({str(space.schedule(p).kernel) for p in space.enumerate(3)}) == 3
    one, two, four = space.estimate(space.enumerate(3))
    assert one != two != four, "the estimate sees how wide a step is"


def test_a_launch_runs_what_compile_and_tune_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block program that runs program by program: one schedule, whoever asks, and a point of the space."""
    monkeypatch.setattr("tilewright.runtime.launch.WORKSPACE", 100)
    q, k, v, out = (np.zeros((1, 1, 40, 8), np.float32) for _ in range(4))
    fresh = tw.jit(attention.block_function)
    arguments = ((3, 1), q, k, v, out, 0.3, 320, 320, 8, 1, 1, 40)
    module = fresh.module(*arguments, CAUSAL=True, WIDTH=8, BM=16, BN=16)
    (launch,) = fresh.launches.values()
    threads = default_threads()
    space = Space(launch.kernel, threads=threads)
    assert all(s.opaque for s in space.context.stages) and space.size > 1
    assert module.kernel == space.schedule(space.default()).kernel
    assert module.kernel == planned(launch.kernel, threads=threads, cache=False).kernel
    assert LoopKind.VECTOR in kinds(module.kernel).values()


def test_beside_a_product_both_have_knobs(avx512: tw.Machine) -> None:
    kernel = tw.parse(
        FILTER.replace("def filter(", "def both(a: f32[64, 48], b: f32[48, 32], c: f32[64, 32], ")
        + """    for m in range(64):
        for n in range(32):
            c[m, n] = 0.0
    for m_1 in range(64):
        for n_1 in range(32):
            for k in range(48):
                c[m_1, n_1] += a[m_1, k] * b[k, n_1]
"""
    )
    space = Space(kernel, avx512, 1)
    tiled = next(s for s in space.sketches if len(s.knobs) > 2)
    assert "abreast" in {k.name for k in tiled.knobs}
    found = kinds(space.schedule(space.default()).kernel)
    assert found["t"] is LoopKind.SERIAL and sum(k is LoopKind.VECTOR for k in found.values()) >= 8


def test_what_rules_understand_has_no_such_knob(avx512: tw.Machine) -> None:
    a, b = lang.tensor("a", lang.f32, (64, 64)), lang.tensor("b", lang.f32, (64, 64))
    product = lang.build("product", [a, b], [lang.einsum("ik,kj->ij", a, b, name="c")])
    assert not any(k.name == "abreast" for s in Space(product, avx512, 2).sketches for k in s.knobs)
