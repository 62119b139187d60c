"""The fast reference against the interpreter (random programs) and NumPy (large sizes)."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.ir.arguments import random_arguments
from tests.ir.nests import NESTS
from tests.ir.strategies import runnable_kernels

from tilewright import lang
from tilewright.ir import reference as module
from tilewright.ir import types as ty
from tilewright.ir.interpreter import interpret
from tilewright.ir.reference import reference
from tilewright.ir.stmt import Kernel
from tilewright.util.errors import ExecutionError


@pytest.fixture(autouse=True)
def _vectorise_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL", 0)


def _only_exact(k: Kernel) -> bool:
    """No float feeds an integer: a last-bit difference would then be amplified."""
    return all(not b.dtype.is_float for b in k.args)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(runnable_kernels(), st.integers(0, 5))
def test_random_integer_programs_agree_exactly(k: Kernel, seed: int) -> None:
    got, want = random_arguments(k, seed), random_arguments(k, seed)
    reference(k, got)
    interpret(k, want)
    for b in k.args:
        if _only_exact(k):
            np.testing.assert_array_equal(got[b.name], want[b.name])


@pytest.mark.parametrize("name", NESTS)
def test_in_place_nests(name: str) -> None:
    nest = NESTS[name]
    got, want = nest.arguments(7), nest.arguments(7)
    reference(nest.kernel, got)
    nest.oracle(want)
    for array in want:
        np.testing.assert_allclose(got[array], want[array], rtol=1e-9, atol=1e-12)


def _matmul(n: int, t: ty.DType, acc: ty.DType | None = None) -> Kernel:
    a, b = lang.tensor("a", t, (n, n)), lang.tensor("b", t, (n, n))
    return lang.build("matmul", [a, b], [lang.einsum("ik,kj->ij", a, b, name="c", dtype=acc)])


@pytest.mark.parametrize(("t", "acc"), [(ty.f32, None), (ty.i8, ty.i32), (ty.i32, ty.i64), (ty.i16, ty.i8)])
def test_512_cubed_matmul(t: ty.DType, acc: ty.DType | None) -> None:
    k = _matmul(512, t, acc)
    args = random_arguments(k, 0)
    start = time.perf_counter()
    reference(k, args)
    assert time.perf_counter() - start < 10  # a second when alone; scalar execution would take minutes
    a, b = (args[n].astype(np.float64 if t.is_float else np.int64) for n in "ab")
    want = (a @ b).astype(k.args[2].dtype.to_numpy())  # integers wrap as the declared type does
    np.testing.assert_allclose(args["c"], want, rtol=1e-6 if t.is_float else 0, atol=1e-5 if t.is_float else 0)


def test_wrapping_of_large_integers_is_exact() -> None:
    k = _matmul(6, ty.i32, ty.i32)
    args = {n: np.random.default_rng(1).integers(-(2**31), 2**31, (6, 6)).astype(np.int32) for n in "abc"}
    want = {n: a.copy() for n, a in args.items()}
    reference(k, args)
    interpret(k, want)
    np.testing.assert_array_equal(args["c"], want["c"])


def test_convolution_with_padding() -> None:
    x, w = lang.tensor("x", ty.f32, (8, 14, 14)), lang.tensor("w", ty.f32, (16, 8, 3, 3))
    c, r, s = lang.reduce_axis(0, 8, "c"), lang.reduce_axis(0, 3, "r"), lang.reduce_axis(0, 3, "s")
    text = lang.parse(
        """
@kernel
def conv(x: f32[8, 14, 14], w: f32[16, 8, 3, 3], y: f32[16, 14, 14]):
    for k, p, q in grid(16, 14, 14):
        y[k, p, q] = 0.0
    for k, p, q, c, r, s in grid(16, 14, 14, 8, 3, 3):
        if p + r >= 1 and p + r <= 14 and q + s >= 1 and q + s <= 14:
            y[k, p, q] += x[c, p + r - 1, q + s - 1] * w[k, c, r, s]
"""
    )
    valid = lang.build(
        "valid", [x, w], [lang.compute("y", (16, 12, 12), lambda k, p, q: lang.sum(x[c, p + r, q + s] * w[k, c, r, s], [c, r, s]))]
    )
    args = random_arguments(text, 3)
    padded = np.pad(args["x"].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    want = np.einsum("cpqrs,kcrs->kpq", windows, args["w"])
    reference(text, args)
    np.testing.assert_allclose(args["y"], want, rtol=1e-5, atol=1e-5)
    inner = {"x": args["x"], "w": args["w"], "y": np.zeros((16, 12, 12), np.float32)}
    reference(valid, inner)
    np.testing.assert_allclose(inner["y"], want[:, 1:-1, 1:-1], rtol=1e-5, atol=1e-5)


def test_a_recurrence_is_not_vectorised() -> None:
    k = lang.parse("@kernel\ndef scan(a: f64[50]):\n    for i in range(1, 50):\n        a[i] = a[i] + a[i - 1]\n")
    a = np.arange(50.0)
    reference(k, [a])
    np.testing.assert_array_equal(a, np.cumsum(np.arange(50.0)))


def test_a_wrong_program_reports_as_the_interpreter_does() -> None:
    k = lang.parse("@kernel\ndef wrong(a: f32[4], b: f32[4]):\n    for i in range(4):\n        a[i] = b[i + 1]\n")
    a, b = np.zeros(4, np.float32), np.ones(4, np.float32)
    with pytest.raises(ExecutionError, match=r"b\[4\] is outside b"):
        reference(k, [a, b])
    assert not a.any()


def test_instruction_calls_run_on_views() -> None:
    k = lang.parse(
        """
@kernel(params=("N",), instruction="some.machine/axpy")
def axpy(y: f32[N], a: f32, x: f32[N]):
    for i in vector(N):
        y[i] += a * x[i]

@kernel
def gemm(a: f32[6, 5], b: f32[5, 8], c: f32[6, 8]):
    for i, k in grid(6, 5):
        axpy(8, c[i, 0:8], a[i, k], b[k, :])
"""
    )
    args = random_arguments(k, 0)
    want = args["c"] + args["a"] @ args["b"]
    reference(k, args)
    np.testing.assert_allclose(args["c"], want, rtol=1e-5, atol=1e-5)
