"""Kernels that the schedule space makes become command programs that compute what the kernels say."""

from __future__ import annotations

import numpy as np
import pytest
from tests.space.test_rules_explicit import convolution, product

from tilewright.codegen.commands import check, generate
from tilewright.hw.library.gemmini import gemmini
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.sim.gemmini.generated import execute
from tilewright.space.space import Space
from tilewright.util.errors import CodegenError

KERNELS = {
    "product": product(9, 10, 11),
    "one row": product(1, 7, 13),
    "one column": product(11, 1, 6),
    "convolution": convolution((5, 6), 5, 6, 3, 1, 1, True),
    "strides": convolution((7, 7), 4, 5, 3, 2, 1, True),
    "pointwise": convolution((3, 4), 6, 5, 1, 1, 0, True),
}


@pytest.mark.parametrize("name", KERNELS)
def test_drawn_schedules_run_bit_exactly(name: str) -> None:
    kernel: Kernel = KERNELS[name]
    machine = gemmini(dim=4)
    rng = np.random.default_rng(len(name))
    space = Space(kernel, machine, constants=("f",))
    for p in [*space.sample(1, rng), space.default()]:
        scheduled = space.schedule(p).kernel
        arrays = {
            b.name: rng.integers(-128, 128, b.static_shape).astype(b.dtype.to_numpy())  # type: ignore[union-attr]
            for b in kernel.args
        }
        want = {n: a.copy() for n, a in arrays.items()}
        interpret(kernel, want)
        program = generate(scheduled, machine)
        check(program, machine)
        execute(program, machine, arrays)
        for n, a in arrays.items():
            np.testing.assert_array_equal(a, want[n], err_msg=f"{n}: {space.describe(p)}")


def test_a_bias_along_the_rows_of_the_accumulator_is_refused() -> None:
    """Channels first, an element of it would be repeated along a row, which no move does."""
    space = Space(convolution((5, 4), 3, 5, 3, 1, 0, False), gemmini(dim=4), constants=("f",))
    with pytest.raises(CodegenError, match="its columns do not start at a line of acc"):
        generate(space.schedule(space.default()).kernel, space.machine)
