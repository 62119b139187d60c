"""Vector loops: strides, guards, tails, reductions, scatters, private buffers."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.codegen.llvm import emit
from tilewright.hw import load_machine
from tilewright.lang import parse

LOOPS = ("range", "vector", "unroll", "parallel")


@pytest.mark.parametrize("extent", [1, 2, 3, 7, 8, 16, 23, 40, 200])
def test_every_extent(check, extent):
    check(f"""
@kernel
def f(x: f32[{extent}], y: f32[{extent}], z: i8[{extent}], w: i32[{extent}]):
    for j in vector({extent}):
        y[j] = x[j] + y[j]
        w[j] = z[j] + w[j]
""")


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["f32", "i8", "f64"])
def test_strided_loads_and_stores(check, stride, dtype):
    check(f"""
@kernel
def f(x: {dtype}[{stride * 31 + 1}], y: {dtype}[32], z: {dtype}[{stride * 31 + 1}]):
    for j in vector(32):
        y[j] = x[{stride} * j]
    for k in vector(32):
        z[{stride} * k] = x[{stride * 31} - {stride} * k]
""")


def test_reversed(check):
    check("""
@kernel
def f(x: i32[40], y: i32[40]):
    for j in vector(40):
        y[39 - j] = x[39 - j] + 1
    for k in vector(40):
        y[39 - k] = x[k] * 3
""")


def test_gather_and_scatter_by_table(check):
    import numpy as np

    p = np.random.default_rng(0).permutation(37).astype(np.int32)
    check(
        """
@kernel
def f(x: f32[37], p: i32[37], y: f32[37], z: f32[37]):
    for j in vector(37):
        y[j] = x[p[j]]
    for k in vector(37):
        z[p[k]] = x[k]
""",
        p=p,
    )


def test_histogram_lanes_may_meet(check):
    import numpy as np

    check(
        """
@kernel
def f(p: u8[50], h: i32[8]):
    for j in vector(50):
        if p[j] != 3:
            h[p[j] % 8] += 1
""",
        p=np.random.default_rng(0).integers(0, 8, 50).astype(np.uint8),
    )


@pytest.mark.parametrize("kind", LOOPS)
def test_guarded_tail(check, kind):
    check(f"""
@kernel
def f(x: f32[37], y: f32[37], a: f32[5]):
    for i in {kind}(3):
        for j in vector(16):
            if i * 16 + j < 37:
                y[i * 16 + j] = x[i * 16 + j] * a[i]
""")


def test_nested_guards_and_else(check):
    check("""
@kernel
def f(x: i32[64], y: i32[64], lo: i32[1]):
    for j in vector(64):
        if x[j] > lo[0]:
            if j % 2 == 0:
                y[j] = x[j] - lo[0]
            else:
                y[j] += lo[0]
        else:
            y[j] = 7
""")


def test_where_guards_loads_outside(check):
    check("""
@kernel
def f(x: f32[30], y: f32[32]):
    for j in vector(32):
        y[j] = x[j - 1] if j >= 1 and j < 31 else 0.0
    for i in range(32):
        y[i] += x[i - 1] if i >= 1 and i < 31 else 0.0
""")


@pytest.mark.parametrize("op", ["+=", "*=", "max", "min"])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "i8", "u16", "f16", "bf16"])
@pytest.mark.parametrize("extent", [16, 23, 150])
def test_reduction_over_a_vector_loop(check, op, dtype, extent):
    import numpy as np

    update = f"s[i] {op} x[i, j]" if "=" in op else f"s[i] = {op}(s[i], x[i, j])"
    given = {}
    if op == "*=" and dtype in ("f32", "f64", "f16"):
        given["x"] = (1 + 0.01 * np.random.default_rng(0).standard_normal((3, extent))).astype(dtype.replace("f", "float"))
        given["s"] = np.ones(3, dtype.replace("f", "float"))
    check(
        f"""
@kernel
def f(x: {dtype}[3, {extent}], s: {dtype}[3]):
    for i in range(3):
        for j in vector({extent}):
            {update}
""",
        tolerance={"f16": 0.1, "bf16": 1.0 if op == "+=" else 0.5}.get(dtype, 1e-4),
        **given,
    )


@pytest.mark.parametrize("dtype,ops", [("i16", "&|^"), ("bool", "&|^"), ("u8", "&|^")])
def test_bit_reductions(check, dtype, ops):
    for op in ops:
        check(f"""
@kernel
def f(x: {dtype}[50], s: {dtype}[()]):
    for j in vector(50):
        s[()] {op}= x[j]
""")


def test_accumulators_survive_outer_loops_and_masks(check):
    check("""
@kernel
def f(x: i32[4, 6, 37], s: i32[4], t: i64[()]):
    for i in range(4):
        for k in range(6):
            for j in vector(37):
                if x[i, k, j] > 5:
                    s[i] += x[i, k, j]
                t[()] += x[i, k, j] * x[i, k, j]
""")


def test_accumulators_of_unrolled_targets(check, host):
    program = """
@kernel
def f(a: f32[8, 128], x: f32[128], y: f32[8]):
    for i in range(2):
        for k in range(8):
            for ii in unroll(4):
                for kk in vector(16):
                    y[i * 4 + ii] += a[i * 4 + ii, k * 16 + kk] * x[k * 16 + kk]
"""
    check(program, tolerance=1e-4)
    assert emit(parse(program), host).text.count("vector.reduce") == 4  # after the k loop, not in it


def test_guarded_reduction_does_not_touch_what_the_guard_excludes(check, host):
    """Rows 5..7 do not exist: their partial results must not be written anywhere."""
    program = """
@kernel
def f(x: f32[5, 64], y: f32[5]):
    for io in range(2):
        for ii in range(4):
            for ko in range(4):
                for k in vector(16):
                    if io * 4 + ii < 5:
                        y[io * 4 + ii] += x[io * 4 + ii, ko * 16 + k]
"""
    check(program, tolerance=1e-4)
    outer, inner = (emit(parse(program.replace("[5]", f"[{n}]")), host).text.count("<16 x float> splat (float 0x8000") for n in (5, 8))
    assert outer == 0 and inner == 1


def test_division_by_the_lane_number_behind_a_guard(check):
    check("""
@kernel
def f(x: i32[16], y: i64[16], z: i32[16]):
    for i in range(3):
        for j in vector(16):
            if j > 0:
                y[j] = i // j
                z[j] = x[j] // (x[j] - x[j] + j)
""")


def test_private_scalars_and_arrays(check):
    check(
        """
@kernel
def f(x: f32[40, 3], y: f32[40]):
    for j in vector(40):
        t = alloc(f32)
        v = alloc(f32[3])
        t = 0.0
        for k in range(3):
            v[k] = x[j, k] * 2.0
        for k2 in unroll(3):
            t += v[k2] * v[2 - k2]
        y[j] = t
""",
        tolerance=1e-5,
    )


def test_serial_loop_inside_a_vector_loop(check):
    check("""
@kernel
def f(a: i8[9], b: i8[9, 48], c: i32[48]):
    for j in vector(48):
        for k in range(9):
            c[j] += a[k] * b[k, j]
""")


def test_triangular_inner_loop_falls_back(check):
    check("""
@kernel
def f(x: i32[12, 12], y: i32[12]):
    for j in vector(12):
        for k in range(j):
            y[j] += x[j, k]
""")


def test_vector_loop_with_step_and_offset(check):
    check("""
@kernel
def f(x: f32[100], y: f32[100]):
    for j in vector(3, 95, 3):
        y[j] = x[j] + 1.0
""")


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 64, 100])
def test_symbolic_extent(check, n):
    check(
        """
@kernel(params=("N",))
def f(x: f32[N], y: f32[N], s: f32[()]):
    for j in vector(N):
        y[j] = x[j] * 2.0
        s[()] += x[j]
""",
        N=n,
        tolerance=1e-4,
    )


@pytest.mark.parametrize("n", [1, 16, 30])
def test_symbolic_guard(check, n):
    check(
        """
@kernel(params=("N",))
def f(x: f32[N, N], y: f32[N, N]):
    for i in range(N):
        for jo in range((N + 15) // 16):
            for j in vector(16):
                if jo * 16 + j < N:
                    y[i, jo * 16 + j] = x[i, jo * 16 + j] + x[jo * 16 + j, i]
""",
        N=n,
    )


def test_nested_vector_loops(check):
    check("""
@kernel
def f(x: f32[4, 16], y: f32[4, 16]):
    for i in vector(4):
        for j in vector(16):
            y[i, j] = x[i, j] + 1.0
""")


@pytest.mark.parametrize("narrow", ["u8", "i16", "i32", "f32"])
@pytest.mark.parametrize(
    "guard",
    [
        "j > 0",
        "j == 5",
        "j % 8 == 3",
        "j < 9 and j >= 8",
        "(j + 3) // 8 != 1",
        "index(u8(j + 250)) == 1",
        "i8(j + 120) > 126",
        "f32(j) * 0.5 == 2.5",
    ],
)
def test_one_lane_of_what_is_narrowed(check, guard, narrow):
    """Neighbours keep what they have: in stores of one known lane LLVM forgets that it narrows."""
    check(f"""
@kernel
def f(x: i64[19], v: f64[19], y: {narrow}[19], z: {narrow}[19]):
    for j in vector(19):
        if {guard}:
            y[j] = x[j]
        else:
            z[j] = v[j]
            y[j] = v[j]
""")


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16"])
@pytest.mark.parametrize("n", [3, 16, 37, 150])
@pytest.mark.parametrize("op", ["min", "max"])
def test_extremum_of_a_row_is_nan_where_the_row_has_one(check, op, n, dtype):
    program = f"""
@kernel
def rows(x: {dtype}[{n + 2}, {n}], y: {dtype}[{n + 2}], z: {dtype}[{n}]):
    for i in range({n + 2}):
        for j in vector({n}):
            y[i] = {op}(y[i], x[i, j])
    for i_1 in range({n + 2}):
        for j_1 in vector({n}):
            z[j_1] = {op}(z[j_1], x[i_1, j_1])
"""
    x = np.random.default_rng(0).standard_normal((n + 2, n)).astype({"f32": np.float32, "f64": np.float64, "f16": np.float16}[dtype])
    np.fill_diagonal(x[:n], np.nan)  # each column of the tail and of every vector once; the last two rows have none
    x[n + 1] = np.inf if op == "min" else -np.inf
    given = np.full(n + 2, 0.5, x.dtype)
    given[n] = np.nan
    got = check(program, x=x, y=given, z=x[0].copy())
    assert np.isnan(got["y"][: n + 1]).all() and got["y"][n + 1] == 0.5 and np.isnan(got["z"]).all()


TILE = """
@kernel
def f(a: i32[3, 9], b: i32[9, 40], c: i32[3, 40]):
    t = alloc(i32[3, 28], "reg")
    for i in unroll(3):
        for j in vector(28):
            t[i, j] = 0
    for k in range(9):
        for i_1 in unroll(3):
            for j_1 in vector(28):
                t[i_1, j_1] += a[i_1, k] * b[k, j_1]
    for i_2 in unroll(3):
        for j_2 in vector({kept}):
            t[i_2, j_2] = 2
    for i_3 in unroll(3):
        for j_3 in vector(28):
            c[i_3, j_3] = t[i_3, j_3]
"""


@pytest.mark.parametrize(("kept", "merged"), [(28, False), (26, True)])
def test_remainders_of_tiles_are_not_merged_with_what_nobody_reads(check, kept, merged):
    """Lanes beyond a row meet its padding; those that a shorter loop leaves out keep their elements."""
    check(TILE.format(kept=kept))
    text = emit(parse(TILE.format(kept=kept)), load_machine("x86.avx512")).text
    assert ("select <16 x i1>" in text) == merged
