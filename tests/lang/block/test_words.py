"""Words that users bring, against NumPy; random numbers against the answers that their authors publish."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from tests.lang.block import words
from tests.lang.block.agreement import interpreted

import tilewright as tw
from tilewright.ir import stmt as st

FEW = settings(max_examples=6, deadline=None)


def run(program: Any, grid: Any, **named: Any) -> Any:
    """The kernel of a launch, interpreted on the launch's arrays."""
    return interpreted(program, grid, named)


#: Counter, key and result of philox4x32-10 in the file of known answers that comes with Random123.
KNOWN = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


def philox(seed: int, offsets: np.ndarray) -> np.ndarray:
    """Four words for each offset, in NumPy: [4, offsets]."""
    mask = np.uint64(0xFFFFFFFF)
    c = [offsets.astype(np.uint64) & mask, *(np.zeros(offsets.shape, np.uint64) for _ in range(3))]
    k = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32 & 0xFFFFFFFF)]
    for _ in range(10):
        p, q = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [q >> np.uint64(32) ^ c[1] ^ k[0], q & mask, p >> np.uint64(32) ^ c[3] ^ k[1], p & mask]
        k = [k[0] + np.uint64(0x9E3779B9) & mask, k[1] + np.uint64(0xBB67AE85) & mask]
    return np.stack(c).astype(np.uint32)


def uniform(words: np.ndarray) -> np.ndarray:
    x = words.view(np.int32)
    return np.where(x < 0, -1 - x, x).astype(np.float32) * np.float32(4.6566127342e-10)


@pytest.mark.parametrize(("counter", "key", "want"), KNOWN)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], want: tuple[int, ...]) -> None:
    counters, out = np.array([counter] * 2, np.uint32), np.zeros((2, 4), np.uint32)
    run(words.words_of_philox, (1,), counter_ptr=counters, out_ptr=out, seed=key[0] | key[1] << 32, B=2)
    assert [tuple(map(int, row)) for row in out] == [want] * 2


@FEW
@given(some.integers(0, 2**63), some.integers(1, 90), some.sampled_from([0.0, 0.25, 0.5]))
def test_dropout(seed: int, n: int, p: float) -> None:
    x, out = np.random.default_rng(n).standard_normal(n, np.float32), np.zeros(n, np.float32)
    run(words.seeded_dropout, (tw.cdiv(n, 32),), x_ptr=x, out_ptr=out, n=n, p=p, seed=seed, B=32)
    drawn = uniform(philox(seed, np.arange(n))[0])
    np.testing.assert_allclose(out, np.where(drawn > p, x / np.float32(1 - p), 0), rtol=1e-6)


def test_dropout_launched() -> None:
    """Compiled, it draws the same; about as many as asked for are dropped."""
    x, out = np.ones(10_000, np.float32), np.zeros(10_000, np.float32)
    words.seeded_dropout[(tw.cdiv(10_000, 1024),)](x, out, 10_000, 0.3, 123, B=1024)
    kept = uniform(philox(123, np.arange(10_000))[0]) > 0.3
    np.testing.assert_array_equal(out != 0, kept)
    assert abs(kept.mean() - 0.7) < 0.02


def test_seeds_from_memory() -> None:
    seeds, out = np.array([1, 2**40 + 7, 99], np.int64), np.zeros((3, 16), np.uint32)
    run(words.seeds_from_memory, (3,), seeds_ptr=seeds, out_ptr=out, B=16)
    for s, row in zip(seeds, out, strict=True):
        np.testing.assert_array_equal(row, philox(int(s), np.arange(16))[0])


def test_normal_numbers() -> None:
    out = np.zeros(64, np.float32)
    run(words.normal, (2,), out_ptr=out, seed=5, B=32)
    x, y = (uniform(w).astype(np.float64) for w in philox(5, np.arange(64))[:2])
    np.testing.assert_allclose(out, np.sqrt(-2 * np.log(np.maximum(x, 1e-7))) * np.cos(2 * np.pi * y), rtol=1e-3, atol=1e-5)


@FEW
@given(some.integers(1, 4), some.integers(1, 16), some.booleans(), some.booleans())
def test_running_sums_and_products(rows: int, n: int, reverse: bool, product: bool) -> None:
    x, out = np.random.default_rng(n).standard_normal((rows, n), np.float32), np.zeros((rows, n), np.float32)
    run(words.running, (rows,), x_ptr=x, out_ptr=out, n=n, REVERSE=reverse, B=16, PRODUCT=product)
    f = np.cumprod if product else np.cumsum
    want = f(x[:, ::-1], axis=1)[:, ::-1] if reverse else f(x, axis=1)
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-5)


def test_running_sums_take_few_steps_over_whole_arrays() -> None:
    x = np.ones((40, 64), np.float32)
    kernel = words.running.kernel((40,), x, np.zeros_like(x), 64, REVERSE=False, B=64, PRODUCT=False)
    assert max(len(st.loops(s)) for s in kernel.body.stmts) <= 2, "rows and positions, no loop over what comes before"
    assert len([s for s in kernel.body.stmts if isinstance(s, st.For)]) <= 8


def test_running_sums_launched() -> None:
    x, out = np.random.default_rng(0).standard_normal((30, 100), np.float32), np.zeros((30, 100), np.float32)
    words.running[(30,)](x, out, 100, REVERSE=False, B=128, PRODUCT=False)
    np.testing.assert_allclose(out, np.cumsum(x, 1), rtol=1e-3, atol=1e-4)


def test_a_scan_of_pairs() -> None:
    a, x = np.random.default_rng(0).uniform(0.5, 1, (2, 6, 8)).astype(np.float32)
    out, h = np.zeros((6, 8), np.float32), np.zeros(6)
    run(words.recurrence, (3,), a_ptr=a, x_ptr=x, out_ptr=out, ROWS=2, B=8)
    for i in range(8):
        h = a[:, i] * h + x[:, i]
        np.testing.assert_allclose(out[:, i], h, rtol=1e-5)


def test_a_reduction_of_the_programs_own() -> None:
    x, out = np.random.default_rng(1).standard_normal((5, 16), np.float32), np.zeros(5, np.float32)
    run(words.farthest, (5,), x_ptr=x, out_ptr=out, B=16)
    np.testing.assert_array_equal(out, x[np.arange(5), np.abs(x).argmax(1)])


@pytest.mark.parametrize("launched", [False, True])
def test_elements_in_another_order(launched: bool) -> None:
    x, y = np.random.default_rng(2).standard_normal((2, 8), np.float32)
    out = np.zeros(88, np.float32)
    if launched:
        words.rearranged[(1,)](x, y, out, B=8)
    else:
        run(words.rearranged, (1,), x_ptr=x, y_ptr=y, out_ptr=out, B=8)
    parts = [
        np.stack([x, y[::-1]], 1).ravel(),
        x,
        y,
        2 * x,
        2 * y,
        x[np.arange(8) * 3 % 8],
        np.sort(x),
        -np.sort(-y),
        np.stack([x, y], 1).ravel(),
    ]
    np.testing.assert_array_equal(out, np.concatenate(parts))


def test_no_number_is_lost_beside_one_that_is_none() -> None:
    """NaN is larger than all others, as NumPy has it; zeros keep their signs."""
    x = np.array([3, np.nan, 1, -0.0, np.inf, 2, np.nan, -np.inf], np.float32)
    out = np.zeros(88, np.float32)
    words.rearranged[(1,)](x, x, out, B=8)
    np.testing.assert_array_equal(out[56:64], np.sort(x))
    np.testing.assert_array_equal(out[64:72], np.sort(x)[::-1])
    assert np.signbit(out[57]) and out[57] == 0


@pytest.mark.parametrize("launched", [False, True])
def test_along_one_of_two_dimensions(launched: bool) -> None:
    rng = np.random.default_rng(5)
    x, at, out = rng.standard_normal((12, 8), np.float32), rng.integers(0, 8, (12, 8), np.int32), np.zeros((6, 12, 8), np.float32)
    named = {"x_ptr": x, "at_ptr": at, "out_ptr": out, "SIZE": 96, "M": 4, "N": 8}
    if launched:
        words.in_two_dimensions[(3,)](**named)
    else:
        run(words.in_two_dimensions, (3,), **named)
    held = x.reshape(3, 4, 8)
    wanted = [
        np.maximum.accumulate(x, 1),
        np.cumsum(held, 1).reshape(12, 8),
        x + x.min(1, keepdims=True),
        np.take_along_axis(x, at, 1),
        np.sort(x, 1),
        held[:, ::-1].reshape(12, 8),
    ]
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-6)


@FEW
@given(some.lists(some.integers(0, 9), min_size=1, max_size=16))
def test_histograms(values: list[int]) -> None:
    x, out = np.array(values, np.int32), np.zeros(8, np.int32)
    run(words.counted, (1,), x_ptr=x, out_ptr=out, n=len(x), B=16, BINS=8)
    np.testing.assert_array_equal(out, np.bincount(x, minlength=10)[:8])


def test_what_is_printed_while_a_program_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    words.counted.block_ir((1,), np.zeros(3, np.int32), np.zeros(4, np.int32), 3, B=4, BINS=4)
    assert capsys.readouterr().out == "bins 4\n"


@pytest.mark.parametrize("launched", [False, True])
def test_programs_that_add_up_and_compare(launched: bool) -> None:
    x = np.random.default_rng(3).standard_normal((7, 16), np.float32)
    out = np.array([10, -np.inf, np.inf], np.float32)
    if launched:
        words.together[(7,)](x, out, B=16)
    else:
        run(words.together, (7,), x_ptr=x, out_ptr=out, B=16)
    np.testing.assert_allclose(out, [10 + x.sum(), x.max(), x.min()], rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 5, 2), (7, 4, 3), (3, 3, 8)])
def test_tiles_in_groups(shape: tuple[int, int, int]) -> None:
    """Each tile once; the first group is walked down its columns."""
    m, n, group = shape
    out = np.full((m, n), -1, np.int32)
    run(words.swizzled, (m, n), out_ptr=out, M=m, N=n, GROUP=group)
    order = [(i, j) for first in range(0, m, group) for j in range(n) for i in range(first, min(first + group, m))]
    assert [tuple(map(int, np.argwhere(out == k)[0])) for k in range(m * n)] == order


def test_functions_of_a_library() -> None:
    x = np.linspace(-0.9, 0.9, 33, dtype=np.float32)
    out = np.zeros_like(x)
    run(words.by_libdevice, (2,), x_ptr=x, out_ptr=out, n=33, B=32)
    np.testing.assert_allclose(out, np.arcsin(x) + np.arctanh(x) + np.fmod(x, np.float32(0.3)), rtol=1e-5, atol=1e-6)


def test_upper_words() -> None:
    x, y = np.random.default_rng(4).integers(0, 2**32, (2, 8), np.uint64)
    out = np.zeros(8, np.uint32)
    run(words.high_words, (1,), x_ptr=x.astype(np.uint32), y_ptr=y.astype(np.uint32), out_ptr=out, B=8)
    np.testing.assert_array_equal(out, x * y >> np.uint64(32))
