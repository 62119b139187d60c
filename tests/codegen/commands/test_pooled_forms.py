"""Runs of loop_conv_ws whose store takes maxima over windows: recognised in drawn schedules, against NumPy and the interpreter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.codegen.commands.pooled_conv import Pooled

from tilewright.codegen.commands import check, generate, parse_program
from tilewright.codegen.commands.forms import formed
from tilewright.hw.library.gemmini import gemmini
from tilewright.ir.interpreter import interpret
from tilewright.ir.simplify import simplify
from tilewright.ir.stmt import Kernel
from tilewright.sim.gemmini.generated import execute
from tilewright.space.space import Space
from tilewright.util.errors import CodegenError

MACHINE = gemmini(dim=4)
FORMS = ("loop_conv_ws",)
PADDED = Pooled((9, 8), 3, 6, 2, 1, 0, 3, 2, 1)
CASES = {
    "zeros around the tile": PADDED,
    "windows side by side, negative numbers": Pooled((9, 9), 3, 5, 2, 1, 0, 2, 2, 0, relu=False),
    "zeros around image and tile": Pooled((9, 9), 3, 5, 3, 2, 1, 2, 1, 1),
}


def scheduled(case: Pooled, cut: bool) -> Kernel:
    """A schedule whose blocks are all rows of the image, or some, and that loads operands only where a run can do it."""
    space = Space(case.kernel(), MACHINE)
    for p in space.sample(200, np.random.default_rng(0)):
        rows = [(k.values[-1], v) for k, v in zip(space.sketch(p).knobs, p[1:], strict=False) if k.name.startswith("p_")]
        if (rows[0][1] < rows[0][0]) == cut and "a at q_1" not in space.describe(p):
            return space.schedule(p).kernel
    raise AssertionError("no such schedule was drawn")


@pytest.mark.parametrize(("name", "cut"), [(n, cut) for n in CASES for cut in (False, True)])
def test_runs_agree_with_numpy(name: str, cut: bool) -> None:
    case = CASES[name]
    kernel = scheduled(case, cut)
    arrays = case.arrays(3)
    want = case.result(arrays)
    meant = {n: a.copy() for n, a in arrays.items()}
    interpret(formed(simplify(kernel), MACHINE, FORMS).kernel, meant)
    np.testing.assert_array_equal(meant["z"], want)
    program = generate(kernel, MACHINE, forms=FORMS)
    assert parse_program(str(program)) == program
    check(program, MACHINE)
    execute(program, MACHINE, arrays)
    np.testing.assert_array_equal(arrays["z"], want)


@pytest.fixture(scope="module")
def text() -> str:
    return str(generate(scheduled(PADDED, False), MACHINE, forms=FORMS))


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("out_extent1=", "out_extent1=1 + ", r"its windows go over \d+ sums along p|bytes .* lie outside z"),
        ("sums_before1=", "sums_before1=-1 + ", r"does not fit 11 bits|its windows go over \d+ sums along p"),
        ("v_extent=", "v_extent=1 + ", r"axis u of pooled2_\w*relu has 4 iterations"),
        ("pool_stride=", "pool_stride=2 + ", r"words say nothing|it starts|ends with sums"),
    ],
)
def test_check_refuses(text: str, old: str, new: str, rule: str) -> None:
    with pytest.raises(CodegenError, match=rule):
        check(parse_program(text.replace(old, new)), MACHINE)


def test_zeros_that_would_be_larger_than_the_results_are_refused() -> None:
    """Without a rectifier the space leaves a padded pool to the host, and no form takes the convolution with it."""
    case = replace(PADDED, relu=False)
    program = generate(scheduled(case, False), MACHINE, forms=FORMS)
    assert "no_pool=where" not in str(program) and "pool_stride=0" in str(program)
