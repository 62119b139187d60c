"""The fixed list of operators that are measured, each as a tensor expression and in the peers' terms.

Every workload has the operator's public interface: row-major arrays, NCHW images, weights given
with the call. Nothing is packed or reordered before the clock runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tilewright import lang
from tilewright.ir.expr import Expr, compare, const, idx, intrinsic, logical, where
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import f32
from tilewright.lang.tensors import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """An ONNX node. The workload's inputs are "x0", "x1" ..., the result is "y"; by default a node takes all and makes that."""

    kind: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] | None = None
    output: str = "y"
    opset: int = 20


@dataclass(frozen=True, slots=True)
class Workload:
    """One operator. ``torch(functional, *tensors, out)`` and ``numpy(np, *arrays, out)`` compute it for a peer.

    ``inputs`` and ``output`` are shapes, all float32. ``flops`` and ``nbytes`` are what it cannot do
    without: operations, and bytes of all operands once. ``target`` is the wanted ratio to the best peer.
    ``onnx`` are the nodes, ``older`` the same in operators that older runtimes know, if those differ. Inputs at the
    positions ``constants`` are weights: known before the clock runs, to us and to peers that can use it.
    """

    name: str
    group: str
    kernel: Callable[[], Kernel]
    inputs: tuple[Shape, ...]
    output: Shape
    flops: int
    torch: Callable[..., Any]
    onnx: tuple[OnnxNode, ...]
    numpy: Callable[..., Any] | None = None
    images: bool = False
    target: float | None = None
    older: tuple[OnnxNode, ...] = ()
    constants: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        return 4 * (sum(map(math.prod, self.inputs)) + math.prod(self.output))


def contraction(name: str, group: str, spec: str, inputs: Sequence[Shape], onnx: OnnxNode, target: float | None = None) -> Workload:
    """Sums of products as index text; peers get their matrix product where the text is one."""
    terms, _, result = spec.partition("->")
    extents = {letter: n for term, shape in zip(terms.split(","), inputs, strict=True) for letter, n in zip(term, shape, strict=True)}
    is_product = group in ("gemm", "batched")

    def kernel() -> Kernel:
        a, b = (lang.tensor(n, f32, s) for n, s in zip("ab", inputs, strict=True))
        return lang.build(group, [a, b], [lang.einsum(spec, a, b, name="c")])

    def torch(t: Any, a: Any, b: Any, out: Any) -> Any:
        return t.matmul(a, b, out=out) if is_product else t.einsum(spec, a, b)

    def numpy(np: Any, a: Any, b: Any, out: Any) -> Any:
        return np.matmul(a, b, out=out) if is_product else np.einsum(spec, a, b, out=out, optimize=True)

    output = tuple(extents[c] for c in result)
    return Workload(name, group, kernel, tuple(inputs), output, 2 * math.prod(extents.values()), torch, (onnx,), numpy, target=target)


def gemm(m: int, n: int, k: int) -> Workload:
    """C[m, n] = A[m, k] B[k, n]."""
    return contraction(f"gemm {m}x{n}x{k}", "gemm", "ik,kj->ij", [(m, k), (k, n)], OnnxNode("MatMul"), target=0.7)


def batched(b: int, m: int, n: int, k: int) -> Workload:
    """C[b, m, n] = A[b, m, k] B[b, k, n]."""
    return contraction(f"batched matmul {b}x{m}x{k}x{n}", "batched", "bik,bkj->bij", [(b, m, k), (b, k, n)], OnnxNode("MatMul"))


def gemv(n: int, transposed: bool = False) -> Workload:
    """y = A x, or y = A^T x, with A row-major in both."""

    def kernel() -> Kernel:
        a, x = lang.tensor("a", f32, (n, n)), lang.tensor("x", f32, (n,))
        return lang.build("gemv", [a, x], [lang.einsum("ji,j->i" if transposed else "ij,j->i", a, x, name="y")])

    def torch(t: Any, a: Any, x: Any, out: Any) -> Any:
        return t.mv(a.t() if transposed else a, x, out=out)

    def numpy(np: Any, a: Any, x: Any, out: Any) -> Any:
        return np.dot(a.T if transposed else a, x, out=out)

    node = OnnxNode("MatMul", inputs=("x1", "x0") if transposed else None)
    name = f"gemv {n}" + (" transposed" if transposed else "")
    return Workload(name, "gemv", kernel, ((n, n), (n,)), (n,), 2 * n * n, torch, (node,), numpy, target=0.9)


def einsum(spec: str, *inputs: Shape) -> Workload:
    """A contraction no library has a routine for."""
    sizes = " ".join("x".join(map(str, s)) for s in inputs)
    return contraction(f"einsum {spec} {sizes}", "einsum", spec, inputs, OnnxNode("Einsum", {"equation": spec}))


def conv(
    label: str, size: int, channels: int, filters: int, window: int = 3, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> Workload:
    """A square NCHW convolution of one image with padding that keeps the extent (at stride 1)."""
    pad = dilation * (window - 1) // 2
    out = (size + 2 * pad - dilation * (window - 1) - 1) // stride + 1
    depth, each = channels // groups, filters // groups

    def kernel() -> Kernel:
        x = lang.tensor("x", f32, (1, channels, size, size))
        w = lang.tensor("w", f32, (filters, depth, window, window))
        source = padded(x, pad) if pad else x
        extents = {"c": depth, "r": window, "s": window}
        axes = {name: lang.reduce_axis(0, e, name) for name, e in extents.items() if e > 1}
        c, r, s = (axes.get(name, idx(0)) for name in extents)

        def at(p: Expr, q: Expr) -> tuple[Expr, Expr]:
            return p * stride + r * dilation, q * stride + s * dilation

        if groups == 1:
            shape = (1, filters, out, out)
            y = lang.compute("y", shape, lambda n, k, p, q: lang.sum(source[(n, c, *at(p, q))] * w[k, c, r, s], list(axes.values())))
        elif depth == each == 1:
            shape = (1, filters, out, out)
            y = lang.compute("y", shape, lambda n, k, p, q: lang.sum(source[(n, k, *at(p, q))] * w[k, 0, r, s], list(axes.values())))
        else:
            # Channels as (group, channel of the group): every index stays affine.
            parts = lang.compute(
                "parts",
                (1, groups, each, out, out),
                lambda n, g, m, p, q: lang.sum(source[(n, g * depth + c, *at(p, q))] * w[g * each + m, c, r, s], list(axes.values())),
            )
            y = lang.compute("y", (1, filters, out, out), lambda n, k, p, q: parts[n, k // each, k % each, p, q])
        return lang.build("conv", [x, w], [y])

    def torch(t: Any, x: Any, w: Any, out: Any) -> Any:
        return t.nn.functional.conv2d(x, w, stride=stride, padding=pad, dilation=dilation, groups=groups)

    attributes = {"strides": [stride] * 2, "pads": [pad] * 4, "dilations": [dilation] * 2, "group": groups}
    shapes = ((1, channels, size, size), (filters, depth, window, window))
    flops = 2 * filters * out * out * depth * window * window
    name = f"conv {label} {size}x{size}x{channels}" + (f"->{filters}" if groups == 1 else "")
    node = OnnxNode("Conv", attributes)
    return Workload(name, "conv", kernel, shapes, (1, filters, out, out), flops, torch, (node,), images=True, target=0.7)


def padded(x: Tensor, pad: int) -> Tensor:
    """``x`` with ``pad`` zeros around its last two dimensions."""
    n, c, h, w = (int(e.value) for e in x.shape)  # type: ignore[attr-defined]

    def element(b: Expr, k: Expr, i: Expr, j: Expr) -> Expr:
        bounds = [(i, h), (j, w)]
        inside = [compare(op, v, limit) for v, e in bounds for op, limit in ((">=", pad), ("<", pad + e))]
        condition = inside[0]
        for more in inside[1:]:
            condition = logical("and", condition, more)
        return where(condition, x[b, k, i - pad, j - pad], const(0.0, f32))

    return lang.compute("padded", (n, c, h + 2 * pad, w + 2 * pad), element)


def softmax(rows: int, columns: int) -> Workload:
    """Along the rows; 5 operations an element (maximum, difference, exponential, sum, quotient)."""

    def kernel() -> Kernel:
        x, k, m = lang.tensor("x", f32, (rows, columns)), lang.reduce_axis(0, columns, "k"), lang.reduce_axis(0, columns, "m")
        peak = lang.compute("peak", (rows,), lambda i: lang.max(x[i, k], k))
        powers = lang.compute("powers", (rows, columns), lambda i, j: intrinsic("exp", x[i, j] - peak[i]))
        total = lang.compute("total", (rows,), lambda i: lang.sum(powers[i, m], m))
        inverse = lang.compute("inverse", (rows,), lambda i: 1 / total[i])  # one division a row, as networks get it
        return lang.build("softmax", [x], [lang.compute("y", (rows, columns), lambda i, j: powers[i, j] * inverse[i])])

    def torch(t: Any, x: Any, out: Any) -> Any:
        return t.softmax(x, -1)

    shape = (rows, columns)
    return Workload(
        f"softmax {rows}x{columns}", "rows", kernel, (shape,), shape, 5 * rows * columns, torch, (OnnxNode("Softmax", {"axis": -1}),)
    )


def layer_norm(rows: int, columns: int) -> Workload:
    """With scale and shift; 8 operations an element."""
    epsilon = 1e-5

    def kernel() -> Kernel:
        x, gamma, beta = lang.tensor("x", f32, (rows, columns)), lang.tensor("gamma", f32, (columns,)), lang.tensor("beta", f32, (columns,))
        k, m = lang.reduce_axis(0, columns, "k"), lang.reduce_axis(0, columns, "m")
        total = lang.compute("total", (rows,), lambda i: lang.sum(x[i, k], k))
        mean = lang.compute("mean", (rows,), lambda i: total[i] * (1.0 / columns))
        squares = lang.compute("squares", (rows,), lambda i: lang.sum((x[i, m] - mean[i]) * (x[i, m] - mean[i]), m))
        scale = lang.compute("scale", (rows,), lambda i: 1 / intrinsic("sqrt", squares[i] * (1.0 / columns) + epsilon))
        y = lang.compute("y", (rows, columns), lambda i, j: (x[i, j] - mean[i]) * scale[i] * gamma[j] + beta[j])
        return lang.build("layer_norm", [x, gamma, beta], [y])

    def torch(t: Any, x: Any, gamma: Any, beta: Any, out: Any) -> Any:
        return t.nn.functional.layer_norm(x, (columns,), gamma, beta, epsilon)

    node = OnnxNode("LayerNormalization", {"epsilon": epsilon})
    inputs = ((rows, columns), (columns,), (columns,))
    return Workload(f"layernorm {rows}x{columns}", "rows", kernel, inputs, (rows, columns), 8 * rows * columns, torch, (node,))


def gelu(rows: int, columns: int) -> Workload:
    """The exact form, with erf; 5 operations an element."""

    def kernel() -> Kernel:
        x = lang.tensor("x", f32, (rows, columns))
        y = lang.compute("y", (rows, columns), lambda i, j: x[i, j] * 0.5 * (1.0 + intrinsic("erf", x[i, j] * math.sqrt(0.5))))
        return lang.build("gelu", [x], [y])

    def torch(t: Any, x: Any, out: Any) -> Any:
        return t.nn.functional.gelu(x)

    shape = (rows, columns)
    return Workload(f"gelu {rows}x{columns}", "elements", kernel, (shape,), shape, 5 * rows * columns, torch, (OnnxNode("Gelu"),))


def attention(heads: int, tokens: int, width: int) -> Workload:
    """softmax(Q K^T / sqrt(width)) V for each head of one sequence."""
    shape = (1, heads, tokens, width)

    def kernel() -> Kernel:
        q, k, v = (lang.tensor(n, f32, shape) for n in "qkv")
        d, m, s, r = (lang.reduce_axis(0, n, name) for name, n in (("d", width), ("m", tokens), ("s", tokens), ("r", tokens)))
        rows, square = (1, heads, tokens), (1, heads, tokens, tokens)
        dots = lang.compute("dots", square, lambda b, h, i, j: lang.sum(q[b, h, i, d] * k[b, h, j, d], d))
        scores = lang.compute("scores", square, lambda b, h, i, j: dots[b, h, i, j] * width**-0.5)
        peak = lang.compute("peak", rows, lambda b, h, i: lang.max(scores[b, h, i, m], m))
        powers = lang.compute("powers", square, lambda b, h, i, j: intrinsic("exp", scores[b, h, i, j] - peak[b, h, i]))
        total = lang.compute("total", rows, lambda b, h, i: lang.sum(powers[b, h, i, s], s))
        mixed = lang.compute("mixed", shape, lambda b, h, i, e: lang.sum(powers[b, h, i, r] * v[b, h, r, e], r))
        return lang.build("attention", [q, k, v], [lang.compute("y", shape, lambda b, h, i, e: mixed[b, h, i, e] / total[b, h, i])])

    def torch(t: Any, q: Any, k: Any, v: Any, out: Any) -> Any:
        return t.nn.functional.scaled_dot_product_attention(q, k, v)

    flops = heads * tokens * tokens * (4 * width + 5)
    nodes = (OnnxNode("Attention", opset=23),)
    older = (
        OnnxNode("Transpose", {"perm": (0, 1, 3, 2)}, ("x1",), "transposed"),
        OnnxNode("MatMul", {}, ("x0", "transposed"), "dots"),
        OnnxNode("Constant", {"value_float": width**-0.5}, (), "scale"),
        OnnxNode("Mul", {}, ("dots", "scale"), "scores"),
        OnnxNode("Softmax", {"axis": -1}, ("scores",), "weights"),
        OnnxNode("MatMul", {}, ("weights", "x2")),
    )
    name = f"attention {heads}x{tokens}x{width}"
    return Workload(name, "attention", kernel, (shape,) * 3, shape, flops, torch, nodes, older=older)


def mlp(rows: int, width: int, hidden: int) -> Workload:
    """The feed-forward part of a transformer: gelu(x A + a) B + b, with the weights known."""

    def kernel() -> Kernel:
        x = lang.tensor("x", f32, (rows, width))
        a, a_bias = lang.tensor("a", f32, (width, hidden)), lang.tensor("a_bias", f32, (hidden,))
        b, b_bias = lang.tensor("b", f32, (hidden, width)), lang.tensor("b_bias", f32, (width,))
        first = lang.einsum("ik,kj->ij", x, a, name="first")
        biased = lang.compute("biased", (rows, hidden), lambda i, j: first[i, j] + a_bias[j])
        inner = lang.compute(
            "inner", (rows, hidden), lambda i, j: biased[i, j] * 0.5 * (1.0 + intrinsic("erf", biased[i, j] * math.sqrt(0.5)))
        )
        second = lang.einsum("ik,kj->ij", inner, b, name="second")
        y = lang.compute("y", (rows, width), lambda i, j: second[i, j] + b_bias[j])
        return lang.build("mlp", [x, a, a_bias, b, b_bias], [y])

    def torch(t: Any, x: Any, a: Any, a_bias: Any, b: Any, b_bias: Any, out: Any) -> Any:
        f = t.nn.functional
        return f.linear(f.gelu(f.linear(x, a.t(), a_bias)), b.t(), b_bias)

    nodes = (
        OnnxNode("MatMul", {}, ("x0", "x1"), "first"),
        OnnxNode("Add", {}, ("first", "x2"), "biased"),
        OnnxNode("Gelu", {}, ("biased",), "inner"),
        OnnxNode("MatMul", {}, ("inner", "x3"), "second"),
        OnnxNode("Add", {}, ("second", "x4")),
    )
    inputs = ((rows, width), (width, hidden), (hidden,), (hidden, width), (width,))
    flops = 4 * rows * width * hidden + 6 * rows * hidden + rows * width
    name = f"mlp {rows}x{width}x{hidden}x{width}"
    return Workload(name, "mlp", kernel, inputs, (rows, width), flops, torch, nodes, constants=(1, 2, 3, 4))


#: What benchmarks/operators.py measures.
WORKLOADS: tuple[Workload, ...] = (
    gemm(512, 512, 512),
    gemm(1024, 1024, 1024),
    gemm(197, 768, 768),
    gemm(197, 3072, 768),
    gemm(197, 768, 3072),
    gemm(512, 768, 768),
    batched(12, 197, 197, 64),
    gemv(4096),
    gemv(4096, transposed=True),
    conv("3x3", 56, 64, 64),
    conv("1x1", 56, 64, 256, 1),
    conv("3x3", 14, 256, 256),
    conv("3x3 stride 2", 56, 128, 128, stride=2),
    conv("3x3 depthwise", 56, 144, 144, groups=144),
    conv("3x3 dilated 2", 28, 128, 128, dilation=2),
    conv("3x3 32 groups", 56, 128, 128, groups=32),
    softmax(768, 197),
    softmax(1024, 1024),
    layer_norm(197, 768),
    gelu(197, 3072),
    einsum("acd,db->abc", (64, 80, 128), (128, 96)),
)

#: What benchmarks/tune_operators.py tunes.
TUNED: tuple[Workload, ...] = (*WORKLOADS, attention(12, 197, 64), attention(12, 512, 64), mlp(197, 768, 3072))
