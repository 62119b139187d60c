"""Kernels that the schedule space makes become command programs that compute what the kernels say."""

from __future__ import annotations

import numpy as np
import pytest
from tests.space.test_rules_explicit import convolution, product

from tilewright.codegen.commands import Command, Host, Program, check, generate, walk
from tilewright.hw.library.gemmini import gemmini
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.sim.gemmini.generated import execute
from tilewright.space.space import Space

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
        agrees(space, p, rng)


def agrees(space: Space, point: np.ndarray, rng: np.random.Generator) -> Program:
    """The program of one schedule, which computes what the kernel says."""
    arrays = {
        b.name: rng.integers(-128, 128, b.static_shape).astype(b.dtype.to_numpy())  # type: ignore[union-attr]
        for b in space.kernel.args
    }
    want = {n: a.copy() for n, a in arrays.items()}
    interpret(space.kernel, want)
    program = generate(space.schedule(point).kernel, space.machine)
    check(program, space.machine)
    execute(program, space.machine, arrays)
    for n, a in arrays.items():
        np.testing.assert_array_equal(a, want[n], err_msg=f"{n}: {space.describe(point)}")
    return program


def dense(more: str, value: str) -> Kernel:
    """A product whose sums have ``value`` added, computed from the argument ``more``, before they are scaled."""
    return parse(f"""
@kernel
def dense(a: i8[9, 11], b: i8[11, 10], e: {more}, y: i8[9, 10]):
    acc = alloc(i32[9, 10])
    for i in range(9):
        for j in range(10):
            acc[i, j] = 0
    for i in range(9):
        for j in range(10):
            for k in range(11):
                acc[i, j] += a[i, k] * b[k, j]
    for i in range(9):
        for j in range(10):
            y[i, j] = i8(min(max(round(f32(i32(acc[i, j] + {value})) * 0.05), -128.0), 127.0))
""")


@pytest.mark.parametrize(
    ("kernel", "by_host"),
    [
        pytest.param(dense("i32[10]", "e[j]"), False, id="a bias"),
        pytest.param(dense("i32[9]", "e[i]"), True, id="a value for each row"),
        pytest.param(dense("i32[10]", "e[j] * 2"), True, id="computed"),
        pytest.param(dense("i8[10]", "i32(e[j])"), True, id="a narrow bias"),
        pytest.param(convolution((5, 4), 3, 5, 3, 1, 0, False), True, id="channels first"),
    ],
)
def test_the_host_adds_what_no_move_loads_the_accumulator_with(kernel: Kernel, by_host: bool) -> None:
    """An element repeated along a row, a computed or a narrow one: the sums stay the array's work."""
    space = Space(kernel, gemmini(dim=4), constants=("f",))
    program = agrees(space, space.default(), np.random.default_rng(0))
    items = list(walk(program.body))
    assert any(isinstance(i, Command) and "matmul" in str(i) for i in items)
    assert any(isinstance(i, Host) for i in items) == by_host
