"""Tensor expressions against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright import lang
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import loops
from tilewright.ir.verify import verify
from tilewright.lang import build, compute, einsum, parse, reduce_axis, size, tensor
from tilewright.util.errors import LanguageError


def _run(k: object, *arrays: np.ndarray) -> None:
    verify(k)  # type: ignore[arg-type]
    assert parse(str(k)) == k
    interpret(k, list(arrays))  # type: ignore[arg-type]


def test_a_reduction_becomes_an_initialisation_and_an_update_nest() -> None:
    a, b = tensor("a", ty.f64, (3, 4)), tensor("b", ty.f64, (4, 5))
    k = reduce_axis(0, 4, "k")
    gemm = build("gemm", [a, b], [compute("c", (3, 5), lambda i, j: lang.sum(a[i, k] * b[k, j], k))])
    assert [f.name for f in loops(gemm)] == ["i", "j", "i_1", "j_1", "k"]
    rng = np.random.default_rng(0)
    x, y, z = rng.standard_normal((3, 4)), rng.standard_normal((4, 5)), np.full((3, 5), np.nan)
    _run(gemm, x, y, z)
    np.testing.assert_allclose(z, x @ y)


def test_a_softmax_row_by_row() -> None:
    x = tensor("x", ty.f64, (3, 7))
    j = reduce_axis(0, 7, "j")
    top = compute("top", (3,), lambda i: lang.max(x[i, j], j))
    e = compute("e", (3, 7), lambda i, q: ex.intrinsic("exp", x[i, q] - top[i]))
    total = compute("total", (3,), lambda i: lang.sum(e[i, j], j))
    y = compute("y", (3, 7), lambda i, q: e[i, q] / total[i])
    values, out = np.random.default_rng(0).standard_normal((3, 7)), np.zeros((3, 7))
    _run(build("softmax", [x], [y]), values, out)
    want = np.exp(values - values.max(1, keepdims=True))
    np.testing.assert_allclose(out, want / want.sum(1, keepdims=True))


@pytest.mark.parametrize("spec", ["ik,kj->ij", "bik,bkj->bij", "i,i->", "ij->ji", "ii->i", "ijk,k->ij", "i,j->ij"])
def test_einsum(spec: str) -> None:
    extents = dict(zip("bijk", (2, 3, 3, 4), strict=True))
    terms = spec.split("->")[0].split(",")
    arrays = [np.random.default_rng(n).integers(-9, 9, [extents[c] for c in t]).astype(np.int8) for n, t in enumerate(terms)]
    inputs = [tensor(f"x{n}", ty.i8, a.shape) for n, a in enumerate(arrays)]
    out = einsum(spec, *inputs, dtype=ty.i32)
    result = np.zeros([int(s.value) for s in out.shape], np.int32)  # type: ignore[attr-defined]
    _run(build("contraction", inputs, [out]), *arrays, result)
    np.testing.assert_array_equal(result, np.einsum(spec, *(a.astype(np.int32) for a in arrays)))


def test_min_any_and_all_start_from_their_identities() -> None:
    x = tensor("x", ty.i8, (4, 3))
    j = reduce_axis(0, 3, "j")
    outputs = [
        compute("low", (4,), lambda i: lang.min(x[i, j], j)),
        compute("some", (4,), lambda i: lang.any(ex.compare(">", x[i, j], 5), j)),
        compute("each", (4,), lambda i: lang.all(ex.compare(">", x[i, j], -5), j)),
        compute("count", (), lambda: lang.sum(x[j, j], j)),
    ]
    v = np.random.default_rng(2).integers(-9, 9, (4, 3)).astype(np.int8)
    low, some, each, count = np.zeros(4, np.int8), np.zeros(4, np.bool_), np.zeros(4, np.bool_), np.array(0, np.int32)
    _run(build("stats", [x], outputs), v, low, some, each, count)
    np.testing.assert_array_equal(low, v.min(1))
    np.testing.assert_array_equal(some, (v > 5).any(1))
    np.testing.assert_array_equal(each, (v > -5).all(1))
    assert count == v[0, 0] + v[1, 1] + v[2, 2]


def test_symbolic_extents_become_sizes() -> None:
    m, n = size("M"), size("N")
    x = tensor("x", ty.f64, (m, n))
    j = reduce_axis(0, n, "j")
    k = build("rows", [x], [compute("y", (m,), lambda i: lang.sum(x[i, j], j))])
    assert [v.name for v in k.sizes] == ["M", "N"]
    v, y = np.ones((3, 5)), np.zeros(3)
    _run(k, v, y)
    assert (y == 5).all()


def test_what_is_refused() -> None:
    x, y = tensor("x", ty.f32, (4,)), tensor("y", ty.f32, (5,))
    k = reduce_axis(0, 4, "k")
    with pytest.raises(LanguageError, match="arithmetic on a reduction"):
        compute("z", (), lambda: lang.sum(x[k], k) * 2)
    with pytest.raises(LanguageError, match="'y' is neither computed nor an input"):
        build("f", [x], [compute("z", (4,), lambda i: y[i])])
    with pytest.raises(LanguageError, match="'i' is 4 and, in y, 5"):
        einsum("i,i->", x, y)
    with pytest.raises(LanguageError, match="does not describe"):
        einsum("i,i", x, y)
    with pytest.raises(LanguageError, match="axis names"):
        compute("z", (4,), lambda k: lang.sum(x[k], reduce_axis(0, 2, "k")))
    with pytest.raises(LanguageError, match="two tensors are called 'x'"):
        build("f", [x], [compute("x", (4,), lambda i: x[i])])
