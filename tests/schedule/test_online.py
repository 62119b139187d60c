"""online: softmax in blocks of its row agrees with the original for every shape, mask and block; what is not one is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Alloc, Kernel, walk
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.schedule import Schedule, replay
from tilewright.util.errors import ScheduleError


def attention(rows: int, keys: int, width: int, dtype: str = "f64") -> str:
    """softmax(x) v with the scores given."""
    return f"""
@kernel
def attend(x: {dtype}[{rows}, {keys}], v: {dtype}[{keys}, {width}], y: {dtype}[{rows}, {width}], top: {dtype}[{rows}]):
    for i in range({rows}):
        top[i] = -inf
    for i_1 in range({rows}):
        for j in range({keys}):
            top[i_1] = max(top[i_1], x[i_1, j])
    p = alloc({dtype}[{rows}, {keys}])
    for i_2 in range({rows}):
        for j_1 in range({keys}):
            p[i_2, j_1] = exp(x[i_2, j_1] - top[i_2])
    o = alloc({dtype}[{rows}, {width}])
    for i_3 in range({rows}):
        for e in range({width}):
            o[i_3, e] = 0.0
    for i_4 in range({rows}):
        for e_1 in range({width}):
            for r in range({keys}):
                o[i_4, e_1] += p[i_4, r] * v[r, e_1]
    s = alloc({dtype}[{rows}])
    for i_5 in range({rows}):
        s[i_5] = 0.0
    for i_6 in range({rows}):
        for k in range({keys}):
            s[i_6] += p[i_6, k]
    for i_7 in range({rows}):
        for e_2 in range({width}):
            y[i_7, e_2] = o[i_7, e_2] / s[i_7]
"""


def result(kernel: Kernel, x: np.ndarray, v: np.ndarray, width: int) -> dict[str, np.ndarray]:
    args = {"x": x, "v": v, "y": np.zeros((len(x), width)), "top": np.zeros(len(x))}
    with np.errstate(invalid="ignore"):
        interpret(kernel, args)
    return args


def softmax(x: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_random_shapes_masks_and_blocks(data: st.DataObject) -> None:
    rows, keys, width = (data.draw(st.integers(1, n)) for n in (4, 11, 3))
    block = data.draw(st.integers(1, keys))
    kernel = parse(attention(rows, keys, width))
    sch = Schedule(kernel)
    loops = sch.apply("online", "j", block)
    assert len(loops) == (2 if keys % block else 1)
    verify(sch.kernel)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.standard_normal((rows, keys)) * data.draw(st.sampled_from([1.0, 30.0, 800.0]))
    x[rng.random((rows, keys)) < data.draw(st.sampled_from([0.0, 0.5, 0.95]))] = -np.inf  # whole blocks, and now and then whole rows
    v = rng.standard_normal((keys, width))
    found = result(sch.kernel, x, v, width)
    np.testing.assert_allclose(found["y"], softmax(x) @ v, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(found["top"], x.max(axis=1))
    np.testing.assert_allclose(found["y"], result(kernel, x, v, width)["y"], rtol=1e-10, atol=1e-12)
    assert replay(kernel, sch.trace).kernel == sch.kernel
    assert parse(str(sch.kernel)) == sch.kernel


def test_rows_masked_throughout_stay_nan() -> None:
    """Even where nothing divides by the sum afterwards."""
    text = attention(2, 6, 2).replace("o[i_7, e_2] / s[i_7]", "o[i_7, e_2] + s[i_7]")
    x = np.zeros((2, 6))
    x[1] = -np.inf
    sch = Schedule(parse(text))
    sch.online("j", 2)
    found = result(sch.kernel, x, np.ones((6, 2)), 2)["y"]
    assert np.isnan(found[1]).all() and np.isfinite(found[0]).all()


def test_weights_shrink_to_a_block_and_scores_can_follow() -> None:
    text = attention(4, 12, 3).replace("x: f64[4, 12]", "q: f64[4, 12]")
    scores = """    x = alloc(f64[4, 12])
    for a in range(4):
        for b in range(12):
            x[a, b] = q[a, b] * 0.5
"""
    head, rest = text.split("    for i in range", 1)
    kernel = parse(head + scores + "    for i in range" + rest)
    sch = Schedule(kernel)
    loops = sch.apply("online", "j", 5)
    sch.compute_at("x", loops)
    sizes = {s.buffer.name: s.buffer.static_shape for s in walk(sch.kernel.body) if isinstance(s, Alloc)}
    assert sizes["p"] == sizes["x"] == (4, 5) and sizes["p_1"] == sizes["x_1"] == (4, 2)
    rng = np.random.default_rng(0)
    q, v = rng.standard_normal((4, 12)), rng.standard_normal((12, 3))
    args = {"q": q, "v": v, "y": np.zeros((4, 3)), "top": np.zeros(4)}
    interpret(sch.kernel, args)
    np.testing.assert_allclose(args["y"], softmax(q * 0.5) @ v, rtol=1e-12)


def test_the_row_of_an_outer_loop() -> None:
    """All nests inside one loop over rows: only elements of one row are left."""
    text = """
@kernel
def rows(x: f64[5, 9], y: f64[5]):
    for i in range(5):
        top = alloc(f64[1])
        top[0] = -inf
        for j in range(9):
            top[0] = max(top[0], x[i, j])
        p = alloc(f64[9])
        for j_1 in range(9):
            p[j_1] = exp(x[i, j_1] - top[0])
        y[i] = 0.0
        for k in range(9):
            y[i] += p[k]
"""
    kernel = parse(text)
    sch = Schedule(kernel)
    sch.online("j", 4)
    x = np.random.default_rng(1).standard_normal((5, 9))
    args = {"x": x, "y": np.zeros(5)}
    interpret(sch.kernel, args)
    np.testing.assert_allclose(args["y"], np.exp(x - x.max(axis=1, keepdims=True)).sum(axis=1), rtol=1e-12)


PLAIN = attention(4, 6, 2)
REFUSED = {
    "not a maximum": (PLAIN.replace("max(top[i_1], x[i_1, j])", "min(top[i_1], x[i_1, j])"), "finds a maximum"),
    "other start": (PLAIN.replace("top[i] = -inf", "top[i] = 0.0"), "set to -inf everywhere"),
    "not exp": (PLAIN.replace("exp(x[i_2, j_1] - top[i_2])", "tanh(x[i_2, j_1] - top[i_2])"), "not one nest p = exp"),
    "negative exponent": (
        PLAIN.replace("exp(x[i_2, j_1] - top[i_2])", "exp((x[i_2, j_1] - top[i_2]) * -2.0)"),
        "or a positive constant times",
    ),
    "exponent times zero": (
        PLAIN.replace("exp(x[i_2, j_1] - top[i_2])", "exp((x[i_2, j_1] - top[i_2]) * 0.0)"),
        "or a positive constant times",
    ),
    "exponent times something": (PLAIN.replace("exp(x[i_2, j_1] - top[i_2])", "exp((x[i_2, j_1] - top[i_2]) * v[0, 0])"), "or a positive"),
    "other values": (PLAIN.replace("exp(x[i_2, j_1] - top", "exp(x[i_2, 5 - j_1] - top"), "is not what top is the maximum of"),
    "other row": (PLAIN.replace("exp(x[i_2, j_1] - top[i_2])", "exp(x[i_2, j_1] - top[3 - i_2])"), "is not what top is the maximum of"),
    "not linear": (PLAIN.replace("p[i_4, r] * v[r, e_1]", "p[i_4, r] * p[i_4, r]"), "must sum p"),
    "part of a row": (PLAIN.replace("for k in range(6)", "for k in range(5)"), "along its rows"),
    "columns": (PLAIN.replace("s[i_6] += p[i_6, k]", "s[i_6] += p[k % 4, i_6]"), "along its rows"),
    "sum that starts at one": (PLAIN.replace("s[i_5] = 0.0", "s[i_5] = 1.0"), "set to 0.0 everywhere"),
    "weights used otherwise": (
        PLAIN.replace("o[i_7, e_2] / s[i_7]", "o[i_7, e_2] / s[i_7] + p[i_7, 0]"),
        "not a perfect serial nest that sums",
    ),
    "scores changed between": (
        PLAIN.replace("    o = alloc", "    for z in range(4):\n        x[z, 0] = 0.0\n    o = alloc"),
        "stands between the nests",
    ),
    "sum used before it is complete": (
        PLAIN.replace("    for i_6 in", "    for z in range(4):\n        y[z, 0] = s[z]\n    for i_6 in"),
        "stands between the nests and uses s",
    ),
    "maximum changed between": (
        PLAIN.replace("    o = alloc", "    for z in range(4):\n        top[z] = top[z] + 1.0\n    o = alloc"),
        "must be set to -inf everywhere",
    ),
    "sum over the other sum": (PLAIN.replace("p[i_4, r] * v[r, e_1]", "p[i_4, r] * top[i_4]"), "both an operand and a result"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_softmax_is_refused(case: str) -> None:
    text, message = REFUSED[case]
    assert text != PLAIN
    sch = Schedule(parse(text))
    before = sch.kernel
    with pytest.raises(ScheduleError, match=message):
        sch.online("j", 2)
    assert sch.kernel is before


@pytest.mark.parametrize("block", [0, 7, -1])
def test_blocks_that_do_not_exist_are_refused(block: int) -> None:
    with pytest.raises(ScheduleError, match="is not an int from 1 to 6"):
        Schedule(parse(PLAIN)).online("j", block)


def test_other_loops_are_refused() -> None:
    with pytest.raises(ScheduleError, match="finds a maximum"):
        Schedule(parse(PLAIN)).online("r", 2)
    with pytest.raises(ScheduleError):
        Schedule(parse(PLAIN)).online("i_1", 2)


SCALED = {"* 2.0": 2.0, "/ 8.0": 0.125, "* 0.5 / 2.0 * 3.0": 0.75}


@pytest.mark.parametrize("scale", SCALED)
@pytest.mark.parametrize("block", [1, 2, 4, 6])
def test_exponents_may_be_scaled(scale: str, block: int) -> None:
    text = PLAIN.replace("exp(x[i_2, j_1] - top[i_2])", f"exp((x[i_2, j_1] - top[i_2]) {scale})")
    sch = Schedule(parse(text))
    sch.online("j", block)
    rng = np.random.default_rng(block)
    x, v = rng.standard_normal((4, 6)) * 3, rng.standard_normal((6, 2))
    x[2, :3] = -np.inf  # nothing seen in the first blocks
    got = result(sch.kernel, x.copy(), v, 2)
    np.testing.assert_allclose(got["y"], softmax(x * SCALED[scale]) @ v, rtol=1e-12)


def test_what_uses_a_result_on_the_way_moves_behind_the_blocks() -> None:
    """The reciprocal of a sum, what is made of it, and the maximum: all read the complete values, in their order."""
    between = """
    w = alloc(f64[4])
    for a in range(4):
        w[a] = 1.0 / s[a]
    for b in range(4):
        y[b, 0] = top[b]
    for c in range(4):
        w[c] = w[c] + y[c, 0]
"""
    inits = PLAIN.index("    s = alloc"), PLAIN.index("    for i_7")
    sums = PLAIN[slice(*inits)]
    text = (
        PLAIN.replace(sums, "")
        .replace("    o = alloc", sums + between.lstrip("\n") + "    o = alloc")
        .replace("o[i_7, e_2] / s[i_7]", "o[i_7, e_2] * w[i_7]")
    )
    rng = np.random.default_rng(3)
    x, v = rng.standard_normal((4, 6)), rng.standard_normal((6, 2))
    want = result(parse(text), x.copy(), v, 2)
    for block in (2, 4):
        sch = Schedule(parse(text))
        sch.online("j", block)
        got = result(sch.kernel, x.copy(), v, 2)
        np.testing.assert_allclose(got["y"], want["y"], rtol=1e-12)
        np.testing.assert_array_equal(got["top"], want["top"])
