"""Tiles of several images as runs of loop_conv_ws: parts of the rows, and blocks of columns that the end of the image clips."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from benchmarks.gemmini_codegen import convolution

from tilewright.codegen.commands import check, generate
from tilewright.codegen.commands.forms import formed
from tilewright.hw.library.gemmini import gemmini
from tilewright.ir.interpreter import interpret
from tilewright.ir.simplify import simplify
from tilewright.sim.gemmini.baseline_conv import Convolution
from tilewright.sim.gemmini.generated import execute
from tilewright.space.space import Space

MACHINE = gemmini(dim=4)
FORMS = ("loop_conv_ws",)
#: Values of knobs; blocks of 4 columns and 4 channels.
WHOLE = {"n_1_tiles": 2, "q_1_tiles": 1, "k_1_tiles": 1, "r_tiles": 3, "s_tiles": 3, "c_1_tiles": 2}


@pytest.mark.parametrize(
    ("rows", "cols", "knobs"),
    [
        pytest.param(6, 7, {**WHOLE, "p_1_tiles": 3}, id="clipped columns"),
        pytest.param(6, 8, {**WHOLE, "p_1_tiles": 2}, id="whole columns"),
        pytest.param(6, 7, {**WHOLE, "n_1_tiles": 1, "p_1_tiles": 2}, id="one image"),
        pytest.param(6, 11, {**WHOLE, "p_1_tiles": 3, "q_1_tiles": 2}, id="two blocks of columns"),
    ],
)
def test_tiles_of_images_with_zeros_around_them_run_bit_exactly(rows: int, cols: int, knobs: Mapping[str, int]) -> None:
    kernel = convolution(Convolution(2, rows, cols, 8, 6, 3, 1, 1))
    space = Space(kernel, MACHINE)
    points = [space.decode({"sketch": s.name, "knobs": knobs}) for s in space.sketches if not s.extras]
    tiled = [space.schedule(p).kernel for p in points if "i<-q_1" in space.describe(p)]
    assert tiled
    rng = np.random.default_rng(0)
    x, f = (rng.integers(-128, 128, b.static_shape).astype(np.int8) for b in kernel.args[:2])
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2))
    want = np.clip(np.einsum("npqcrs,rsck->npqk", windows.astype(np.int64), f.astype(np.int64)), -128, 127).astype(np.int8)
    for k in tiled:
        meant, got = ({"x": x, "f": f, "y": np.full(want.shape, 85, np.int8)} for _ in range(2))
        interpret(formed(simplify(k), MACHINE, FORMS).kernel, meant)
        np.testing.assert_array_equal(meant["y"], want)
        program = generate(k, MACHINE, forms=FORMS)
        check(program, MACHINE)
        execute(program, MACHINE, got)
        np.testing.assert_array_equal(got["y"], want)
