"""Pooling: reductions over a sliding window of a padded input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tilewright.graph.lowering import Lowering, extreme, operator, ravel
from tilewright.graph.model import Tensor
from tilewright.graph.operators.convolution import Window, pad_spatial, position_names, window, window_names
from tilewright.graph.operators.elementwise import pointwise
from tilewright.graph.operators.reduction import fold_axes
from tilewright.ir import types as ty
from tilewright.ir.expr import Const, Expr, ExprLike, cast, compare, intrinsic, logical, where


def slide(op: Lowering, x: Tensor, g: Window, combine: str, pad_value: ExprLike, f: Callable[[Expr], Expr] = lambda v: v) -> Tensor:
    """``combine`` over the window of ``f(x)``; padding elements are ``pad_value`` after ``f``."""
    source, read = (x, f) if not g.padded else (pad_spatial(op, x, g.begin, g.end, pad_value, f), lambda v: v)
    n = len(g.out)

    def element(*i: Expr) -> Expr:
        return read(source[(i[0], i[1], *g.position(i[2 : 2 + n], i[2 + n :]))])

    names = ["n", "c", *position_names(n), *window_names(n)]
    return op.reduce([*x.shape[:2], *g.out], g.kernel, element, x.dtype, combine, names=names)


def pool_window(op: Lowering, x: Tensor) -> Window:
    """The window of a pooling node over [N, C, spatial..]."""
    if x.rank < 3:
        raise op.refuse(f"its operand {list(x.shape)} is not [N, C, spatial..]")
    return window(op, x.shape[2:], op.attribute("kernel_shape"), bool(op.attribute("ceil_mode", 0)))


@operator("MaxPool")
def max_pool(op: Lowering, x: Tensor) -> tuple[Tensor, ...]:
    g = pool_window(op, x)
    out = slide(op, x, g, "max", extreme(x.dtype, "max"))
    if len(op.outputs) < 2 or not op.outputs[1]:
        return (out,)
    return out, _max_positions(op, x, g, out)


def _max_positions(op: Lowering, x: Tensor, g: Window, peak: Tensor) -> Tensor:
    """Flat index in ``x`` of the first window element that equals the maximum."""
    n = len(g.out)
    spatial = x.shape[2:]
    size = math.prod(x.shape)
    column_major = op.attribute("storage_order", 0)

    def candidate(*i: Expr) -> Expr:
        at = tuple(p - b for p, b in zip(g.position(i[2 : 2 + n], i[2 + n :]), g.begin, strict=True))
        inside: Expr | None = None
        for p, s in zip(at, spatial, strict=True):
            both = logical("and", compare(">=", p, 0), compare("<", p, s))
            inside = both if inside is None else logical("and", inside, both)
        inner = ravel(at[::-1], spatial[::-1]) if column_major else ravel(at, spatial)
        flat = (i[0] * x.shape[1] + i[1]) * math.prod(spatial) + inner
        # Only elements inside are loaded: the condition guards the comparison.
        same = (
            where(inside, compare("==", x[(i[0], i[1], *at)], peak[i[: 2 + n]]), Const(False, ty.boolean)) if inside is not None else None
        )
        return cast(flat, ty.i64) if same is None else where(same, cast(flat, ty.i64), Const(size, ty.i64))

    return op.reduce([*x.shape[:2], *g.out], g.kernel, candidate, ty.i64, "min", "positions")


@operator("AveragePool")
def average_pool(op: Lowering, x: Tensor) -> Tensor:
    g = pool_window(op, x)
    total = slide(op, x, g, "+", 0)
    counts = _window_counts(op, x.shape[2:], g)
    if (counts == counts.flat[0]).all():
        return pointwise(op, lambda v: v * (1.0 / float(counts.flat[0])), total)
    scale = op.array((1.0 / counts).astype(np.float32))
    return op.compute(total.shape, lambda *i: total[i] * cast(scale[i[2:]], x.dtype), x.dtype)


def _window_counts(op: Lowering, spatial: tuple[int, ...], g: Window) -> np.ndarray:
    """How many elements each output position averages: real ones, or also declared padding."""
    n = len(spatial)
    with_padding = op.attribute("count_include_pad", 0)
    pads = (op.attribute("pads") or [0] * (2 * n)) if op.attribute("auto_pad", "NOTSET") == "NOTSET" else [*g.begin, *g.end]
    counts = np.ones(())
    for d in range(n):
        positions = np.arange(g.out[d])[:, None] * g.strides[d] + np.arange(g.kernel[d])[None, :] * g.dilations[d]
        lo, hi = (0, g.begin[d] + spatial[d] + pads[n + d]) if with_padding else (g.begin[d], g.begin[d] + spatial[d])
        counts = counts[..., None] * ((positions >= lo) & (positions < hi)).sum(1)
    return counts


@operator("LpPool")
def lp_pool(op: Lowering, x: Tensor) -> Tensor:
    p = op.attribute("p", 2)
    g = pool_window(op, x)
    total = slide(op, x, g, "+", 0, lambda v: v * v if p == 2 else intrinsic("pow", intrinsic("abs", v), float(p)))
    return pointwise(op, lambda v: intrinsic("sqrt", v) if p == 2 else intrinsic("pow", v, 1.0 / p), total)


@operator("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(op: Lowering, x: Tensor) -> Tensor:
    axes = list(range(2, x.rank))
    if op.kind == "GlobalMaxPool":
        return fold_axes(op, x, axes, lambda v: v, "max")
    if op.kind == "GlobalAveragePool":
        size = math.prod(x.shape[2:])
        return pointwise(op, lambda v: v * (1.0 / size), fold_axes(op, x, axes, lambda v: v, "+"))
    p = float(op.attribute("p", 2))
    total = fold_axes(op, x, axes, lambda v: intrinsic("pow", intrinsic("abs", v), p), "+")
    return pointwise(op, lambda v: intrinsic("pow", v, 1.0 / p), total)


@operator("MaxUnpool")
def max_unpool(op: Lowering, x: Tensor, positions: Tensor, shape: Tensor | None = None) -> Tensor:
    """Each element goes to the flat position it came from (in the unpadded default shape); the rest is 0."""
    n = x.rank - 2
    kernel, strides = op.attribute("kernel_shape"), op.attribute("strides") or [1] * n
    pads = op.attribute("pads") or [0] * (2 * n)
    default = [(s - 1) * st + k - pads[d] - pads[n + d] for d, (s, st, k) in enumerate(zip(x.shape[2:], strides, kernel, strict=True))]
    full = [*x.shape[:2], *default]
    wanted = full if shape is None else [int(v) for v in op.known(shape, "output_shape")]
    out = op.tensor(wanted, x.dtype)
    op.assign(out, lambda *i: Const(0.0, x.dtype))

    def target(*i: Expr) -> tuple[Expr, ...]:
        flat = cast(positions[i], ty.index)
        at: list[Expr] = []
        for s in reversed(full):
            at.insert(0, flat % s)
            flat = flat // s
        return tuple(at)

    op.assign(out, lambda *i: x[i], x.shape, at=target)
    return out
