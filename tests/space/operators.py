"""Small operators of every kind the schedule space has rules for."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.workloads import batched, conv, einsum, gemm, layer_norm, softmax

from tilewright import lang
from tilewright.ir.expr import Expr, intrinsic
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import f32


def gelu(x: Expr) -> Expr:
    """x * Phi(x)."""
    return x * 0.5 * (intrinsic("erf", x * 0.70710678) + 1.0)


def matmul_gelu(m: int, n: int, k: int) -> Kernel:
    """gelu(A B + bias)."""
    a, b, bias = lang.tensor("a", f32, (m, k)), lang.tensor("b", f32, (k, n)), lang.tensor("bias", f32, (n,))
    product = lang.einsum("ik,kj->ij", a, b, name="product")
    return lang.build("linear", [a, b, bias], [lang.compute("y", (m, n), lambda i, j: gelu(product[i, j] + bias[j]))])


def scores(heads: int, tokens: int, width: int) -> Kernel:
    """softmax(Q K^T / sqrt(width)): the first half of attention."""
    q, k = (lang.tensor(n, f32, (heads, tokens, width)) for n in "qk")
    s = lang.einsum("hid,hjd->hij", q, k, name="s")
    j = lang.reduce_axis(0, tokens, "j")
    top = lang.compute("top", (heads, tokens), lambda h, i: lang.max(s[h, i, j], [j]))
    e = lang.compute("e", (heads, tokens, tokens), lambda h, i, t: intrinsic("exp", (s[h, i, t] - top[h, i]) * width**-0.5))
    u = lang.reduce_axis(0, tokens, "u")
    norm = lang.compute("norm", (heads, tokens), lambda h, i: lang.sum(e[h, i, u], [u]))
    p = lang.compute("p", (heads, tokens, tokens), lambda h, i, t: e[h, i, t] / norm[h, i])
    return lang.build("scores", [q, k], [p])


def sums(m: int, n: int) -> Kernel:
    """The sum of a matrix, and of each of its columns."""
    x = lang.tensor("x", f32, (m, n))
    i, j, k = (lang.reduce_axis(0, extent, name) for extent, name in ((m, "i"), (n, "j"), (m, "k")))
    whole = lang.compute("whole", (), lambda: lang.sum(x[i, j], [i, j]))
    return lang.build("sums", [x], [whole, lang.compute("columns", (n,), lambda c: lang.sum(x[k, c], [k]))])


#: Kernels with the arguments that are constant.
OPERATORS: dict[str, tuple[Callable[[], Kernel], tuple[str, ...]]] = {
    "gemm": (lambda: gemm(37, 50, 29).kernel(), ()),
    "gemm, constant": (lambda: gemm(64, 96, 64).kernel(), ("b",)),
    "gemm, deep": (lambda: gemm(33, 80, 270).kernel(), ()),
    "batched": (lambda: batched(3, 19, 16, 21).kernel(), ()),
    "linear": (lambda: matmul_gelu(33, 70, 24), ("b",)),
    "conv": (lambda: conv("c", 9, 6, 20).kernel(), ()),
    "conv 7x7": (lambda: conv("c", 7, 16, 32).kernel(), ("w",)),
    "conv 1x1": (lambda: conv("c", 8, 16, 16, 1).kernel(), ()),
    "conv strided": (lambda: conv("c", 9, 8, 18, stride=2).kernel(), ("w",)),
    "conv dilated": (lambda: conv("c", 8, 8, 40, dilation=2).kernel(), ()),
    "conv depthwise": (lambda: conv("c", 7, 24, 24, groups=24).kernel(), ()),
    "conv grouped": (lambda: conv("c", 8, 32, 32, groups=4).kernel(), ("w",)),
    "softmax": (lambda: softmax(24, 77).kernel(), ()),
    "layernorm": (lambda: layer_norm(19, 96).kernel(), ()),
    "attention scores": (lambda: scores(2, 23, 16), ()),
    "gemv transposed": (lambda: einsum("ij,i->j", (67, 1010), (67,)).kernel(), ()),
    "gemv, few rows": (lambda: einsum("ij,j->i", (3, 9_010), (9_010,)).kernel(), ()),
    "gemm, few results": (lambda: gemm(5, 16, 4_010).kernel(), ()),
    "sums": (lambda: sums(129, 700), ()),
    "einsum": (lambda: einsum("acd,db->abc", (5, 12, 17), (17, 24)).kernel(), ()),
}
