"""Convolutions as runs of Gemmini's loop_conv_ws: schedules of the space, recognised with strides and zeros around the images."""

from __future__ import annotations

import numpy as np
import pytest
from tests.space.test_rules_explicit import convolution

from tilewright.codegen.commands import Program, check, generate, parse_program
from tilewright.codegen.commands.forms import formed
from tilewright.hw.library.gemmini import gemmini
from tilewright.ir.interpreter import interpret
from tilewright.ir.simplify import simplify
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.sim.gemmini.generated import execute
from tilewright.space.space import Space
from tilewright.util.errors import CodegenError

MACHINE = gemmini(dim=4)
FORMS = ("loop_conv_ws",)
KERNELS = {
    "padded": convolution((5, 6), 5, 6, 3, 1, 1, True),
    "few channels": convolution((6, 5), 2, 5, 3, 1, 1, True),
    "strides of two": convolution((7, 7), 4, 5, 3, 2, 1, True),
    "strides of three": convolution((9, 8), 3, 4, 2, 3, 0, True),
    "pointwise": convolution((3, 4), 6, 5, 1, 1, 0, True),
    "pointwise, strides of two": convolution((8, 8), 3, 5, 1, 2, 0, True),
}


def scheduled(kernel: Kernel, draw: int) -> Kernel:
    space = Space(kernel, MACHINE)
    return space.schedule(space.sample(draw + 1, np.random.default_rng(0))[draw]).kernel


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("draw", [0, 1])
def test_drawn_schedules_run_bit_exactly(name: str, draw: int) -> None:
    kernel = KERNELS[name]
    tiled = scheduled(kernel, draw)
    rng = np.random.default_rng(draw)
    arrays = {b.name: rng.integers(-128, 128, b.static_shape).astype(b.dtype.to_numpy()) for b in kernel.args}
    want, meant, got = ({n: a.copy() for n, a in arrays.items()} for _ in range(3))
    interpret(kernel, want)
    interpret(formed(simplify(tiled), MACHINE, FORMS).kernel, meant)
    np.testing.assert_array_equal(meant["y"], want["y"])
    program = generate(tiled, MACHINE, forms=FORMS)
    assert parse_program(str(program)) == program
    check(program, MACHINE)
    execute(program, MACHINE, got)
    np.testing.assert_array_equal(got["y"], want["y"])


@pytest.fixture(scope="module")
def program() -> Program:
    return generate(scheduled(KERNELS["strides of two"], 1), MACHINE, forms=FORMS)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("x_before1=1", "x_before1=0", r"bytes .* lie outside x, which has 196"),
        (", stride=2", ", stride=1", r"state ex has a_stride = 2, it needs 1"),
        ("stride=2", "stride=300", r"stride = 300 does not fit 8 bits"),
        ("r_extent=3", "r_extent=0", r"axis r has 0 iterations"),
        ("n_extent=1", "n_extent=900", r"it takes \d+ lines of spad"),
        ("d=bias +", "d=0 *", r"it adds to sums that no run started"),
    ],
)
def test_check_refuses(program: Program, old: str, new: str, rule: str) -> None:
    text = str(program)
    assert old in text
    with pytest.raises(CodegenError, match=rule):
        check(parse_program(text.replace(old, new)), MACHINE)


def test_few_channels_leave_room_for_neighbours() -> None:
    """Two of four lanes: two columns of the window in one compute, and no more."""
    text = str(generate(scheduled(KERNELS["few channels"], 0), MACHINE, forms=FORMS))
    assert "pixels=2" in text and "pixels=1" in str(generate(scheduled(KERNELS["padded"], 0), MACHINE, forms=FORMS))
    with pytest.raises(CodegenError, match="its pixels is 3, its extents allow 2"):
        check(parse_program(text.replace("pixels=2", "pixels=3")), MACHINE)


def test_images_that_are_zero_elsewhere_are_not_taken_for_copies() -> None:
    """Zeros that are not around the image: the last row is left out although the image has it."""
    text = str(KERNELS["padded"]).replace("h < 6", "h < 5")
    with pytest.raises(CodegenError, match=r"no tile is what loop_conv_ws does"):
        generate(scheduled(parse(text), 0), MACHINE, forms=FORMS)
