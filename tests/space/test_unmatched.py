"""Loops that no rule understands: lanes and threads where dependences allow, values unchanged."""

from __future__ import annotations

import numpy as np

import tilewright as tw
from tilewright import lang
from tilewright.ir import stmt as st
from tilewright.ir.stmt import LoopKind
from tilewright.space.unmatched import in_lanes

FILTER = """@kernel
def filter(x: f32[20, 3, 50], y: f32[20, 3, 50]):
    for p in range(3):
        state = alloc(f32[50])
        for i in range(50):
            state[i] = 0.0
        for t in range(20):
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


def kinds(kernel: st.Kernel) -> dict[str, LoopKind]:
    return {f.name: f.kind for f in st.loops(kernel)}


def test_nests_run_in_lanes_and_programs_on_threads() -> None:
    kernel = tw.parse(FILTER)
    done = in_lanes(tw.default_schedule(kernel, tw.load_machine("x86.avx512")), 2).kernel
    found = kinds(done)
    assert found["p"] is LoopKind.PARALLEL and found["t"] is LoopKind.SERIAL
    assert sum(k is LoopKind.VECTOR for k in found.values()) == 3
    x, y, want = (np.random.default_rng(n).standard_normal((20, 3, 50)).astype(np.float32) for n in range(3))
    tw.interpret(done, [x, y])
    tw.interpret(kernel, [x, want])
    assert (y == want).all()


def test_dependences_stay() -> None:
    kernel = tw.parse(CARRIED)
    done = in_lanes(tw.default_schedule(kernel, tw.load_machine("x86.avx512")), 2).kernel
    found = kinds(done)
    assert found["i"] is LoopKind.SERIAL and LoopKind.VECTOR in found.values(), "only the second nest has independent iterations"
    x, y = (np.random.default_rng(n).standard_normal((9, 40)).astype(np.float32) for n in range(2))
    want = y.copy()
    tw.interpret(done, [x, y])
    tw.interpret(kernel, [x, want])
    assert (y == want).all()


def test_what_rules_did_is_left_alone() -> None:
    a, b = lang.tensor("a", lang.f32, (64, 64)), lang.tensor("b", lang.f32, (64, 64))
    product = lang.build("product", [a, b], [lang.einsum("ik,kj->ij", a, b, name="c")])
    machine = tw.load_machine("x86.avx512")
    assert in_lanes(tw.default_schedule(product, machine), 2).kernel == tw.default_schedule(product, machine).kernel
