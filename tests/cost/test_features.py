"""Features: columns against what a person counts, populations against single candidates."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.cost.columns import COLUMN, COLUMNS, PLAIN, STATEMENT
from tilewright.cost.features import extractor, features, padded
from tilewright.hw import load_machine
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.util.errors import IRTypeError

MACHINE = load_machine("x86.avx512")


def gemm() -> Kernel:
    return parse("""
@kernel(params=("m", "n", "blocks"))
def gemm(a: f32[96, 64], b: f32[64, 128], c: f32[96, 128]):
    for jo in parallel((128 + (n - 1)) // n):
        for io in range(blocks):
            for ii in range(((96 + (m - 1)) // m + (blocks - 1)) // blocks):
                t = alloc(f32[m, n], "reg")
                for i in unroll(m):
                    for j in vector(n):
                        t[i, j] = 0.0
                for k in range(64):
                    for i_1 in unroll(m):
                        for j_1 in vector(n):
                            t[i_1, j_1] += a[(io * (((96 + (m - 1)) // m + (blocks - 1)) // blocks) + ii) * m + i_1, k] * b[k, jo * n + j_1]
                for i_2 in unroll(m):
                    for j_2 in vector(n):
                        c[(io * (((96 + (m - 1)) // m + (blocks - 1)) // blocks) + ii) * m + i_2, jo * n + j_2] = max(t[i_2, j_2], 0.0)
""")


def column(f: np.ndarray, statement: int, name: str) -> float:
    """A column of the first candidate, magnitudes without the logarithm."""
    value = float(f[0, statement, COLUMN[name]])
    return value if name in PLAIN else 2**value - 1


def test_there_are_194_columns_of_which_164_describe_the_statement() -> None:
    assert (len(COLUMNS), len(set(COLUMNS)), len(STATEMENT)) == (194, 194, 164)
    assert COLUMNS[164:174] == tuple(c for c in COLUMNS if c.startswith("class_"))


def test_columns_are_what_a_person_counts() -> None:
    f = features(gemm(), MACHINE, {"m": 12, "n": 32, "blocks": 2})
    assert f.shape == (1, 3, 194) and f.dtype == np.float32

    def of(name: str) -> float:
        return column(f, 1, name)

    assert of("float_mad") == pytest.approx(96 * 128 * 64, rel=1e-5)
    assert of("float_mul") == of("float_addsub") == 0
    assert (of("vector_num"), of("vector_prod"), of("vector_len")) == pytest.approx((1, 32, 32), rel=1e-5)
    assert of("vector_pos_inner_spatial") == 1 and of("unroll_pos_middle_spatial") == 1 and of("parallel_pos_outer_spatial") == 1
    assert of("unroll_prod") == pytest.approx(12, rel=1e-5)
    assert of("parallel_len") == pytest.approx(4, rel=1e-5)
    # Buffers by size: b (32 KB), a (24 KB), the tile.
    assert of("buffer0_unique_bytes") == pytest.approx(64 * 128 * 4, rel=1e-5)
    assert of("buffer1_unique_bytes") == pytest.approx(96 * 64 * 4, rel=1e-5)
    assert of("buffer0_read") == of("buffer1_read") == of("buffer2_read_write") == 1
    assert of("buffer0_unique_lines") == pytest.approx(64 * 128 * 4 / 64, rel=1e-5)
    # A row of b is read again for each row of the tile: i_1 repeats it.
    assert (of("buffer0_reuse_multiple"), of("buffer0_reuse_count")) == pytest.approx((1, 12), rel=1e-5)
    assert of("buffer0_reuse_iterations") == pytest.approx(32, rel=1e-5)
    assert of("buffer0_stride") == pytest.approx(1, rel=1e-5)
    # An element of a goes to every lane.
    assert (of("buffer1_reuse_count"), of("buffer1_stride")) == pytest.approx((32, 0), rel=1e-4)
    assert (of("alloc_bytes"), of("alloc_count")) == pytest.approx((12 * 32 * 4, 4 * 2 * 4), rel=1e-5)
    assert of("intensity_0") == pytest.approx(96 * 128 * 64 / (4 * (64 * 128 + 96 * 64 + 12 * 32)), rel=1e-4)
    assert of("class_dense") == 1 and sum(of(c) for c in COLUMNS[164:174]) == 1
    assert of("num_loops") == 6
    assert column(f, 2, "class_elementwise") == 1 and column(f, 2, "float_cmp") == pytest.approx(96 * 128, rel=1e-5)
    assert column(f, 2, "buffer0_write") == 1


def test_a_population_gives_what_each_candidate_gives() -> None:
    rng = np.random.default_rng(0)
    n = 5000  # more than one chunk
    env = {"m": rng.integers(1, 14, n), "n": rng.choice([16, 32, 48], n), "blocks": rng.integers(1, 8, n)}
    together, seconds = extractor(gemm(), MACHINE)(env)
    assert together.shape == (n, 3, 194) and np.isfinite(together).all() and (seconds > 0).all()
    for i in (0, 7, 4095, 4096, n - 1):
        alone, one = extractor(gemm(), MACHINE)({k: int(v[i]) for k, v in env.items()})
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-6)
        assert one[0] == pytest.approx(seconds[i])


CONVOLUTION = """
@kernel
def f(x: f32[{x}], w: f32[{w}], y: f32[{y}]):
    for k in range(8):
        for p in range(6):
            for q in range(6):
                for c in range(4):
                    for r in range(3):
                        for s in range(3):
                            y[{yi}] += x[{xi}] * w[{wi}]
"""


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("conv2d", {"x": "4, 8, 8", "w": "8, 4, 3, 3", "y": "8, 6, 6", "yi": "k, p, q", "xi": "c, p + r, q + s", "wi": "k, c, r, s"}),
        ("conv1d", {"x": "6, 4, 3, 8", "w": "8, 4, 3, 3", "y": "8, 6, 6", "yi": "k, p, q", "xi": "p, c, r, q + s", "wi": "k, c, r, s"}),
        (
            "grouped",
            {"x": "8, 4, 8, 8", "w": "8, 4, 3, 3", "y": "8, 6, 6", "yi": "k, p, q", "xi": "k, c, p + r, q + s", "wi": "k, c, r, s"},
        ),
        ("dense", {"x": "6, 6, 4, 3, 3", "w": "8, 4, 3, 3", "y": "8, 6, 6", "yi": "k, p, q", "xi": "p, q, c, r, s", "wi": "k, c, r, s"}),
        (
            "batch_matmul",
            {"x": "6, 6, 4, 3, 3", "w": "8, 6, 4, 3, 3", "y": "8, 6, 6", "yi": "k, p, q", "xi": "p, q, c, r, s", "wi": "k, p, c, r, s"},
        ),
    ],
)
def test_operators_are_told_apart(name: str, fields: dict[str, str]) -> None:
    f = features(parse(CONVOLUTION.format(**fields)), MACHINE)
    assert [c for c in COLUMNS[164:174] if column(f, 0, c)] == [f"class_{name}"]


def test_softmax_is_a_normalisation_and_a_sum_is_a_reduction() -> None:
    text = """
@kernel
def f(x: f32[8, 32], s: f32[8], y: f32[8, 32]):
    for i in range(8):
        for j in range(32):
            s[i] += {}
"""
    plain = features(parse(text.format("x[i, j]")), MACHINE)
    assert column(plain, 0, "class_reduction") == 1
    softmax = features(parse(text.format("exp(x[i, j])")), MACHINE)
    assert column(softmax, 0, "class_normalisation") == 1
    assert column(softmax, 0, "float_math") == pytest.approx(256, rel=1e-5)


def test_programs_of_different_lengths_are_padded() -> None:
    text = "@kernel\ndef f(x: f32[8], y: f32[8]):\n    for i in range(8):\n        y[i] = x[i]\n"
    both = padded([features(gemm(), MACHINE, {"m": 4, "n": 16, "blocks": 1}), features(parse(text), MACHINE)])
    assert both.shape == (2, 3, 194)
    assert both[1, 0].any() and not both[1, 1:].any()


def test_bad_environments_are_refused() -> None:
    with pytest.raises(IRTypeError, match="knob 'n' has no value"):
        features(gemm(), MACHINE, {"m": 4, "blocks": 1})
    with pytest.raises(IRTypeError, match="different numbers of values"):
        features(gemm(), MACHINE, {"m": np.arange(1, 4), "n": np.array([16, 32]), "blocks": np.ones(3)})
