"""Kernels that the schedule space makes become command programs that compute what the kernels say."""

from __future__ import annotations

import numpy as np
import pytest
from tests.space.test_rules_explicit import convolution, product

from tilewright.codegen.commands import generate
from tilewright.hw.library.gemmini import gemmini
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.sim.gemmini.generated import execute
from tilewright.space.space import Space

KERNELS = {
    "product": product(9, 10, 11),
    "one row": product(1, 7, 13),
    "one column": product(11, 1, 6),
    "convolution": convolution((5, 6), 5, 6, 3, 1, 1, True),
    "strides": convolution((7, 7), 4, 5, 3, 2, 1, True),
    "pointwise": convolution((3, 4), 6, 5, 1, 1, 0, True),
    "channels first": convolution((5, 4), 3, 5, 3, 1, 0, False),
}


@pytest.mark.parametrize("name", KERNELS)
def test_drawn_schedules_run_bit_exactly(name: str) -> None:
    kernel: Kernel = KERNELS[name]
    machine = gemmini(dim=4)
    rng = np.random.default_rng(len(name))
    weights = ("f",) if name == "channels first" else ()
    space = Space(kernel, machine, constants=weights)
    for p in [*space.sample(1, rng), space.default()]:
        scheduled = space.schedule(p).kernel
        if any(b.layout is not None for b in scheduled.args):
            continue  # arguments stored in another order are the runtime's to lay out
        arrays = {
            b.name: rng.integers(-128, 128, b.static_shape).astype(b.dtype.to_numpy())  # type: ignore[union-attr]
            for b in kernel.args
        }
        want = {n: a.copy() for n, a in arrays.items()}
        interpret(kernel, want)
        execute(generate(scheduled, machine), machine, arrays)
        for n, a in arrays.items():
            np.testing.assert_array_equal(a, want[n], err_msg=f"{n}: {space.describe(p)}")
