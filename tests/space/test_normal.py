"""However a reduction is written, it ends up in a register tile; nests that cannot be cut stay whole."""

from __future__ import annotations

import numpy as np
import pytest
from tests.ir.nests import NESTS
from tests.schedule.programs import assert_same, kernel_of

from tilewright.hw import load_machine
from tilewright.ir.interpreter import interpret
from tilewright.schedule import Schedule
from tilewright.space.default import plan
from tilewright.space.normal import accumulate_apart, separate_nests
from tilewright.space.stages import stages

FORMS = {
    "inside": ["c[i, j] = 0.0", "for k in range(9):", "    c[i, j] += a[i, k] * b[k, j]"],
    "added": ["for k in range(9):", "    c[i, j] += a[i, k] * b[k, j]"],
    "scalar": ["s: f32 = 0.0", "for k in range(9):", "    s += a[i, k] * b[k, j]", "c[i, j] = max(s, 0.5)"],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gets_a_register_tile(form: str) -> None:
    body = "\n".join(" " * 12 + line for line in FORMS[form])
    head = "def mm(a: f32[37, 9], b: f32[9, 40], c: f32[37, 40]):\n    for i in range(37):\n        for j in range(40):\n"
    kernel = kernel_of(head + body)
    made = plan(kernel, load_machine("x86.avx512"), threads=1)
    assert made.decisions and not made.refused
    assert '"reg"' in str(made.schedule.kernel)
    rng = np.random.default_rng(0)
    arrays = {b.name: rng.standard_normal(b.static_shape).astype(np.float32) for b in kernel.args}
    scheduled = {n: a.copy() for n, a in arrays.items()}
    interpret(kernel, arrays)
    interpret(made.schedule.kernel, scheduled)
    np.testing.assert_allclose(scheduled["c"], arrays["c"], rtol=1e-4, atol=1e-5)


def test_perfect_nests_are_left_alone() -> None:
    kernel = kernel_of("def f(x: i32[8], y: i32[8]):\n    for i in range(8):\n        y[i] = x[i] + 1")
    sch = Schedule(kernel)
    separate_nests(sch)
    assert sch.kernel is kernel


@pytest.mark.parametrize("name", sorted(NESTS))
def test_in_place_nests_keep_their_meaning(name: str) -> None:
    kernel = NESTS[name].kernel
    sch = Schedule(kernel)
    separate_nests(sch)
    if sch.kernel is not kernel:
        arrays = NESTS[name].arguments(0)
        expected = {n: a.copy() for n, a in arrays.items()}
        interpret(kernel, expected)
        interpret(sch.kernel, arrays)
        for n, a in arrays.items():
            np.testing.assert_array_equal(a, expected[n])


def test_rows_with_scalars_are_cut_into_stages() -> None:
    kernel = kernel_of("""
def means(x: i32[6, 8], y: i32[6, 8]):
    for i in range(6):
        s: i32 = 0
        for j in range(8):
            s += x[i, j]
        for j in range(8):
            y[i, j] = x[i, j] - s
""")
    sch = Schedule(kernel)
    separate_nests(sch)
    assert len(stages(sch.kernel)) == 3
    assert_same(kernel, sch.kernel)


def test_nests_with_conditions_stay_whole() -> None:
    kernel = kernel_of("""
def f(x: i32[8], y: i32[8], z: i32[8]):
    for i in range(8):
        if x[i] < 3:
            y[i] = 1
        z[i] = 2
""")
    sch = Schedule(kernel)
    separate_nests(sch)
    assert sch.kernel is kernel


_SUM = "    for {0} in range(8):\n        for {1} in range(6):\n            y[{0}] += x[{0}, {1}]\n"
SUMS = {
    "started": ("    for i in range(8):\n        y[i] = 0\n" + _SUM.format("j", "k"), 0),
    "added": (_SUM.format("j", "k"), 1),
    "twice": (_SUM.format("i", "l") + _SUM.format("j", "k"), 2),
    "one number": ("    for k in range(6):\n        y[3] += x[3, k]", 0),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_without_a_start_of_their_own_are_summed_apart(name: str) -> None:
    """Those that have one, and single numbers (nothing runs beside them), stay as they are."""
    body, count = SUMS[name]
    kernel = kernel_of(f"def f(x: i32[8, 6], y: i32[8]):\n{body}")
    sch = Schedule(kernel)
    accumulate_apart(sch)
    assert [s.primitive for s in sch.trace.steps].count("accumulate") == count
    assert_same(kernel, sch.kernel)
