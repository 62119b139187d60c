"""factor_out: sums agree with the original wherever a factor stays the same; what may not move is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.schedule import Schedule, replay
from tilewright.util.errors import ScheduleError


def mixed(rows: int, terms: int, width: int, value: str) -> str:
    """A sum over ``k`` of ``value``, then used twice."""
    return f"""
@kernel
def mix(p: f64[{rows}, {terms}], r: f64[{rows}], v: f64[{terms}, {width}], y: f64[{rows}, {width}], z: f64[{width}, {rows}]):
    o = alloc(f64[{rows}, {width}])
    for i in range({rows}):
        for e in range({width}):
            o[i, e] = 0.0
    for i_1 in range({rows}):
        for e_1 in range({width}):
            for k in range({terms}):
                o[i_1, e_1] += {value}
    for i_2 in range({rows}):
        for e_2 in range({width}):
            y[i_2, e_2] = o[i_2, e_2] + 1.0
    for a in range({width}):
        for b in range({rows}):
            z[a, b] = o[b, {width - 1} - a] * r[b]
"""


def results(kernel: Kernel, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    args = {b.name: rng.uniform(0.5, 2.0, b.static_shape) for b in kernel.args}
    interpret(kernel, args)
    return [args["y"], args["z"]]


VALUES = {
    "p[i_1, k] * r[i_1] * v[k, e_1]": "p[i_1, k] * v[k, e_1]",
    "(p[i_1, k] / r[i_1]) * v[k, e_1]": "p[i_1, k] * v[k, e_1]",
    "v[k, e_1] / (r[i_1] / p[i_1, k])": "v[k, e_1] * p[i_1, k]",
    "r[i_1] * p[i_1, k]": "p[i_1, k]",
    "0.125 * p[i_1, k] * (r[i_1] + 1.0)": "p[i_1, k]",
    "r[i_1] / v[k, e_1] * p[i_1, k]": "p[i_1, k] / v[k, e_1]",
}


@settings(max_examples=40, deadline=None)
@given(
    value=st.sampled_from(list(VALUES)), rows=st.integers(1, 4), terms=st.integers(2, 5), width=st.integers(1, 4), seed=st.integers(0, 99)
)
def test_the_interpreter_agrees(value: str, rows: int, terms: int, width: int, seed: int) -> None:
    sch = Schedule(parse(mixed(rows, terms, width, value)))
    sch.factor_out("o")
    verify(sch.kernel)
    assert f"o[i_1, e_1] += {VALUES[value]}\n" in str(sch.kernel)
    for ours, theirs in zip(results(sch.kernel, seed), results(parse(mixed(rows, terms, width, value)), seed), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert replay(parse(mixed(rows, terms, width, value)), sch.trace).kernel == sch.kernel


PLAIN = mixed(3, 4, 2, "p[i_1, k] * r[i_1] * v[k, e_1]")
REFUSED = {
    "no such buffer": (PLAIN, "s", "no local buffer 's'"),
    "argument": (PLAIN, "y", "an argument, which the caller sees"),
    "all factors vary": (mixed(3, 4, 2, "p[i_1, k] * v[k, e_1]"), "o", "no factor of .* is the same"),
    "factor along the sum": (mixed(4, 4, 2, "p[i_1, k] * r[k]"), "o", "no factor of .* is the same"),
    "sum of terms": (mixed(3, 4, 2, "p[i_1, k] + r[i_1]"), "o", "no factor of .* is the same"),
    "nothing left": (mixed(3, 4, 2, "r[i_1] * r[i_1]"), "o", "nothing of .* is left"),
    "only a divisor left": (mixed(3, 4, 2, "r[i_1] / p[i_1, k]"), "o", "nothing of .* is left"),
    "product": (PLAIN.replace("o[i_1, e_1] +=", "o[i_1, e_1] *="), "o", "set to zero .* and then the sum"),
    "other start": (PLAIN.replace("o[i, e] = 0.0", "o[i, e] = 1.0"), "o", "do not all start at 0.0"),
    "part of the sums": (PLAIN.replace("for e_1 in range(2)", "for e_1 in range(1)"), "o", "only some are computed"),
    "part of the starts": (PLAIN.replace("o[i, e]", "o[i, 0]"), "o", "only some are computed"),
    "one term for each": (PLAIN.replace("o[i_1, e_1]", "o[i_1, i_1 % 2]"), "o", "only some are computed"),
    "factor changed": (PLAIN.replace("    for a in", "    r[0] = 2.0\n    for a in"), "o", "changes r, a factor"),
    "integers": (PLAIN.replace("f64", "i32").replace(".0", ""), "o", "of floats"),
    "narrowed": (PLAIN.replace("alloc(f64", "alloc(bf16"), "o", "are narrowed to bf16"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_not_move_is_refused(case: str) -> None:
    text, buffer, message = REFUSED[case]
    sch = Schedule(parse(text))
    before = sch.kernel
    with pytest.raises(ScheduleError, match=message):
        sch.factor_out(buffer)
    assert sch.kernel is before


def test_a_factor_that_changes_after_the_last_use_may_move() -> None:
    sch = Schedule(parse(PLAIN.rstrip() + "\n    r[0] = 2.0\n"))
    sch.factor_out("o")
    assert "o[i_1, e_1] += p[i_1, k] * v[k, e_1]" in str(sch.kernel)


def peaked(rows: int, terms: int, value: str, exponent: str) -> str:
    """Maxima of ``value`` along rows, then something of both."""
    return f"""
@kernel
def peaks(x: f64[{rows}, {terms}], r: f64[{rows}], y: f64[{rows}, {terms}], z: f64[{rows}]):
    m = alloc(f64[{rows}])
    for i in range({rows}):
        m[i] = -inf
    for i_1 in range({rows}):
        for k in range({terms}):
            m[i_1] = max(m[i_1], {value})
    for i_2 in range({rows}):
        for e in range({terms}):
            y[i_2, e] = exp({exponent})
    for b in range({rows}):
        z[b] = m[b] + 1.0
"""


SCALED = {
    ("x[i_1, k] * 0.125", "x[i_2, e] * 0.125 - m[i_2]"): ("x[i_1, k]", "(x[i_2, e] - m[i_2]) * 0.125", "m[b] * 0.125 + 1.0"),
    ("x[i_1, k] / 8.0", "x[i_2, e] / 8.0 - m[i_2]"): ("x[i_1, k]", "(x[i_2, e] - m[i_2]) / 8.0", "m[b] / 8.0 + 1.0"),
    ("3.0 * x[i_1, k] * r[i_1]", "m[i_2] - x[i_2, e]"): ("x[i_1, k] * r[i_1]", "m[i_2] * 3.0 - x[i_2, e]", "m[b] * 3.0 + 1.0"),
    ("x[i_1, k] * 0.5", "x[i_2, e] * 0.25 - m[i_2]"): ("x[i_1, k]", "x[i_2, e] * 0.25 - m[i_2] * 0.5", "m[b] * 0.5 + 1.0"),
    ("x[i_1, k] * 0.5", "x[i_2, e] * 0.5 - r[i_2]"): ("x[i_1, k]", "x[i_2, e] * 0.5 - r[i_2]", "m[b] * 0.5 + 1.0"),
}


@settings(max_examples=30, deadline=None)
@given(case=st.sampled_from(list(SCALED)), rows=st.integers(1, 4), terms=st.integers(2, 5), seed=st.integers(0, 99))
def test_maxima_are_scaled_where_they_are_used(case: tuple[str, str], rows: int, terms: int, seed: int) -> None:
    text = peaked(rows, terms, *case)
    sch = Schedule(parse(text))
    sch.factor_out("m")
    verify(sch.kernel)
    value, exponent, later = SCALED[case]
    for line in (f"m[i_1] = max(m[i_1], {value})", f"exp({exponent})", f"z[b] = {later}"):
        assert line in str(sch.kernel)
    for ours, theirs in zip(results(sch.kernel, seed), results(parse(text), seed), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert replay(parse(text), sch.trace).kernel == sch.kernel


@pytest.mark.parametrize("value", ["x[i_1, k] * -2.0", "x[i_1, k] * r[i_1]", "x[i_1, k] * 0.0", "x[i_1, k] / -1.0", "x[i_1, k] + 1.0"])
def test_maxima_of_what_may_turn_their_order_keep_their_factors(value: str) -> None:
    with pytest.raises(ScheduleError, match=r"no factor of .* is a positive constant"):
        Schedule(parse(peaked(3, 4, value, "x[i_2, e] - m[i_2]"))).factor_out("m")


def test_maxima_that_start_at_a_number_keep_their_factors() -> None:
    text = peaked(3, 4, "x[i_1, k] * 2.0", "x[i_2, e] - m[i_2]").replace("m[i] = -inf", "m[i] = 0.0")
    with pytest.raises(ScheduleError, match="do not all start at -inf"):
        Schedule(parse(text)).factor_out("m")
