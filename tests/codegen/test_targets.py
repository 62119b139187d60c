"""The same programs on narrower machines: AVX2, and bare x86-64 without masks, gathers or FMA."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tilewright.hw import load_machine
from tilewright.hw.machine import Target

PROGRAM = """
@kernel
def f(x: f32[53], p: i32[53], y: f32[53], z: f32[53], q: i8[53], s: f32[()], n: i64[()]):
    for j in vector(53):
        if j < 50:
            y[j] = exp(x[j]) + floor(x[j]) if x[j] > 0.0 else tanh(x[j])
        q[j] = i8(max(min(round(x[j] * 50.0), 127.0), -128.0))
    for k in vector(53):
        z[p[k]] = y[(k * 7) % 53]
        s[()] += x[k] * x[k]
        n[()] += p[k] * p[k]
"""


@dataclass(frozen=True)
class Bare:
    """What the code generator asks of a machine, and nothing more."""

    target: Target
    vector_bits: int = 128
    memories: tuple = ()
    instructions: tuple = ()


@pytest.mark.parametrize("name", ["x86.avx2", "bare"])
def test_narrower_machines(check, host, name):
    import numpy as np

    machine = Bare(Target("x86_64-unknown-linux-gnu", "x86-64", ())) if name == "bare" else load_machine(name)
    if not set(machine.target.features) <= set(host.target.features):
        pytest.skip(f"this CPU lacks features of {name}")
    check(PROGRAM, machine=machine, tolerance=1e-5, p=np.random.default_rng(0).permutation(53).astype(np.int32))
