"""Accuracy of the mathematical functions against double precision, in units in the last place."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.stmt import Block, For, Kernel, LoopKind, store

LIMITS = {
    "exp": 1.0,
    "exp2": 1.0,
    "expm1": 2.0,
    "log": 1.0,
    "log2": 2.0,
    "log1p": 2.0,
    "sin": 2.0,
    "cos": 2.0,
    "tan": 3.0,
    "asin": 2.5,
    "acos": 2.0,
    "atan": 2.0,
    "sinh": 2.0,
    "cosh": 2.0,
    "tanh": 2.0,
    "sigmoid": 3.0,
    "erf": 2.0,
    "sqrt": 0.5,
    "rsqrt": 0.5001,
}
_ORACLE = {
    "erf": np.vectorize(math.erf),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: np.where(x < 0, np.exp(np.minimum(x, 0)) / (1 + np.exp(np.minimum(x, 0))), 1 / (1 + np.exp(-np.maximum(x, 0)))),
}


def function(name: str, dtype: ty.DType, n: int, kind: LoopKind, arity: int = 1) -> Kernel:
    i = ex.Var("i")
    args = [buffer(f"x{k}", dtype, (n,)) for k in range(arity)]
    y = buffer("y", dtype, (n,))
    body = Block((store(y[i], ex.intrinsic(name, *(a[i] for a in args))),))
    return Kernel("k", (*args, y), Block((For(i, ex.idx(0), ex.idx(n), body, kind),)))


def every_exponent() -> np.ndarray:
    """Random mantissas at all exponents and signs, dense around 1, and the special numbers."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 60000, dtype=np.uint64).astype(np.uint32)
    around = np.concatenate([rng.standard_normal(40000) * s for s in (0.05, 1, 5, 30)])
    near_one = 1 + rng.standard_normal(10000) * 1e-3
    special = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1.0,
        -1.0,
        1e-45,
        -1e-45,
        88.722839,
        88.72284,
        -87.33655,
        -103.97,
        -103.98,
        128.0,
        -149.0,
        -150.0,
    ]
    return np.concatenate([bits.view(np.float32), around.astype(np.float32), near_one.astype(np.float32), np.array(special, np.float32)])


@pytest.fixture(scope="module", params=["all features", "without AVX-512"])
def machine(request, host):
    """The host, and the host as if it were older: functions have forms for both."""
    if request.param == "all features":
        return host
    kept = tuple(f for f in host.target.features if not f.startswith("avx512"))
    if kept == host.target.features:
        pytest.skip("the host has no AVX-512")
    return replace(host, target=replace(host.target, cpu="x86-64-v3", features=kept))


@pytest.mark.parametrize("name", LIMITS)
def test_ulp_error_over_all_exponents(machine, execute, name):
    x = every_exponent()
    y = np.empty_like(x)
    execute(function(name, ty.f32, len(x), LoopKind.VECTOR), machine, {"x0": x, "y": y})
    with np.errstate(all="ignore"):
        exact = _ORACLE.get(name, getattr(np, name.replace("asin", "arcsin").replace("acos", "arccos").replace("atan", "arctan"), None))(
            x.astype(np.float64)
        )
        want = exact.astype(np.float32)
        ulp = np.maximum(np.spacing(np.abs(want)), np.float32(2.0**-149)).astype(np.float64)
        error = np.abs(y.astype(np.float64) - exact) / ulp
    np.testing.assert_array_equal(np.isnan(y), np.isnan(want))
    plain = np.isfinite(want) & np.isfinite(y)
    at_infinity = ~plain & ~np.isnan(want)
    # Next to the overflow threshold either neighbour, the largest number or infinity, is within the bound.
    edge = np.abs(exact[at_infinity]) < 3.4028240e38
    np.testing.assert_array_equal(y[at_infinity][~edge], want[at_infinity][~edge])
    worst = np.argmax(np.where(plain, error, 0))
    assert error[plain].max() <= LIMITS[name], f"{name}({x[worst]!r}) = {y[worst]!r}, not {exact[worst]!r}"


@pytest.mark.parametrize("scaled", [lambda x: x * 0.125, lambda x: x * -1.75, lambda x: x / 3.0], ids=["* 0.125", "* -1.75", "/ 3"])
def test_exponents_with_a_constant_factor_are_as_exact_as_if_factor_and_product_were_rounded(machine, execute, scaled):
    x = every_exponent()
    i, y = ex.Var("i"), np.empty_like(x)
    a, b = buffer("x", ty.f32, x.shape), buffer("y", ty.f32, x.shape)
    body = Block((store(b[i], ex.intrinsic("exp", scaled(a[i]))),))
    execute(Kernel("k", (a, b), Block((For(i, ex.idx(0), ex.idx(len(x)), body, LoopKind.VECTOR),))), machine, {"x": x, "y": y})
    with np.errstate(all="ignore"):
        exponent = scaled(x.astype(np.float64))
        low, exact, high = (np.exp(exponent * (1 + side * 2.0**-23)) for side in (-1, 0, 1))
        slack = np.spacing(np.maximum(np.abs(exact.astype(np.float32)), np.float32(2.0**-126))).astype(np.float64)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(exact))
    sure = ~np.isnan(exact) & (np.maximum(low, high) < 3.4e38)
    least, most = np.minimum(low, high)[sure], np.maximum(low, high)[sure]
    assert (np.abs(y[sure] - np.clip(y[sure], least, most)) <= 1.1 * slack[sure]).all()
    assert np.isposinf(y[np.minimum(low, high) > 3.41e38]).all()


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_circular_functions_around_multiples_of_a_quarter_turn(machine, execute, name):
    turns = np.concatenate([np.arange(-40000, 40000), np.arange(2**20, 2**20 + 1000)])
    near = (turns * (np.pi / 2)).astype(np.float32)
    x = np.concatenate([near, np.nextafter(near, np.float32(np.inf))])
    y = np.empty_like(x)
    execute(function(name, ty.f32, len(x), LoopKind.VECTOR), machine, {"x0": x, "y": y})
    exact = getattr(np, name)(x.astype(np.float64))
    error = np.abs(y - exact) / np.spacing(np.abs(exact.astype(np.float32)))
    assert error.max() <= LIMITS[name], f"{name}({x[error.argmax()]!r})"


SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 1.5, -2.5, np.inf, -np.inf, np.nan]
SPECIAL += [1e-45, -1e-45, 3e38, -3e38, 16777215.0, 16777216.0, -16777217.0, 1 + 2.0**-23, 1 - 2.0**-24]


def test_power(machine, execute):
    rng = np.random.default_rng(0)
    special, any_number = np.array(SPECIAL, np.float32), every_exponent()
    x = np.concatenate([np.repeat(special, len(special)), np.exp(rng.standard_normal(60000, np.float32) * 20), any_number])
    y = np.concatenate([np.tile(special, len(special)), rng.standard_normal(60000, np.float32) * 4, rng.permutation(any_number)])
    z = np.empty_like(x)
    execute(function("pow", ty.f32, len(x), LoopKind.VECTOR, arity=2), machine, {"x0": x, "x1": y, "y": z})
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
        want = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(z), np.isnan(want))
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(z[number]), np.signbit(want[number]))
    plain = np.isfinite(want) & np.isfinite(z)
    np.testing.assert_array_equal(z[number & ~plain], want[number & ~plain])
    ulp = np.maximum(np.spacing(np.abs(want[plain])), np.float32(2.0**-149)).astype(np.float64)
    assert (np.abs(z[plain] - exact[plain]) / ulp).max() <= 0.6


@pytest.mark.parametrize("name", [n for n, k in ex.INTRINSICS.items() if k == 1])
@pytest.mark.parametrize("dtype", [ty.f32, ty.f64, ty.f16, ty.bf16], ids=str)
def test_every_function_scalar_and_vector(check, name, dtype):
    inside = np.linspace(0.05, 0.95, 21) + (1 if name == "acosh" else 0)
    if name in ("floor", "ceil", "round", "trunc", "abs", "tanh", "exp"):
        inside = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.4, -0.6] + [0.1] * 13)
    x = inside.astype(np.float32)
    given = (x.view(np.uint32) >> 16).astype(np.uint16) if dtype == ty.bf16 else inside.astype(dtype.to_numpy())
    for kind in (LoopKind.SERIAL, LoopKind.VECTOR):
        kernel = function(name, dtype, 21, kind)
        if name in ex.PREDICATES:
            i = ex.Var("i")
            y = buffer("y", ty.boolean, (21,))
            x0 = kernel.args[0]
            kernel = Kernel("k", (x0, y), Block((For(i, ex.idx(0), ex.idx(21), Block((store(y[i], ex.intrinsic(name, x0[i])),)), kind),)))
        check(kernel, tolerance={16: 1e-2, 32: 1e-6, 64: 1e-12}[dtype.bits], x0=given)


@pytest.mark.parametrize("name", [n for n, k in ex.INTRINSICS.items() if k > 1])
@pytest.mark.parametrize("dtype", [ty.f32, ty.f64], ids=str)
def test_functions_of_several_arguments(check, name, dtype):
    rng = np.random.default_rng(0)
    arity = ex.INTRINSICS[name]
    given = {f"x{k}": (rng.random(21) + 0.5).astype(dtype.to_numpy()) for k in range(arity)}
    for kind in (LoopKind.SERIAL, LoopKind.VECTOR):
        check(function(name, dtype, 21, kind, arity), tolerance=1e-6 if dtype == ty.f32 else 1e-12, **given)
