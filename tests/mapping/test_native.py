"""Mappings compiled for this computer: the way from a mapping to machine code, against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.hw import Machine
from tilewright.ir.reference import reference
from tilewright.mapping import find_mappings, rank
from tilewright.mapping import operators as ops
from tilewright.runtime import build
from tilewright.schedule.schedule import Schedule


def test_best_and_worst_conv2d_mappings_run_natively():
    machine = Machine.host()
    instr = next((i for i in machine.instructions if i.name == "fma_outer"), None)
    if instr is None:
        pytest.skip(f"{machine.name} declares no outer product")
    kernel = ops.c2d(n=1, k=40, p=9, q=7, c=12, r=3, s=3)
    rng = np.random.default_rng(3)
    arrays = {b.name: rng.standard_normal(b.static_shape, dtype=np.float32) for b in kernel.args}
    expected = {n: a.copy() for n, a in arrays.items()}
    reference(kernel, expected)
    found = rank(find_mappings(kernel, instr))
    assert len(found) == 7
    for m in (found[0], found[-1]):
        schedule = Schedule(m.lower(calls=False), machine)
        for step in m.steps(machine):
            schedule.apply(step["primitive"], **step["arguments"])
        actual = {n: a.copy() for n, a in arrays.items()}
        build(schedule.kernel, machine, threads=1)(*actual.values())
        np.testing.assert_allclose(actual["out"], expected["out"], rtol=1e-4, atol=1e-4)
