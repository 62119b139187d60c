"""Reductions over axes, positions of extrema, running sums and products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tilewright.graph.lowering import Lowering, operator
from tilewright.graph.model import Tensor
from tilewright.graph.operators.elementwise import pointwise, quotient
from tilewright.ir import types as ty
from tilewright.ir.expr import Const, Expr, ExprLike, binary, cast, compare, const, idx, intrinsic, where

Pre = Callable[[Expr], ExprLike]


def fold_axes(op: Lowering, x: Tensor, axes: Sequence[int], f: Pre, combine: str, stem: str | None = None, keep: bool = True) -> Tensor:
    """``combine`` over ``axes`` of ``f(element)``; reduced axes keep extent 1 when ``keep``."""
    kept = [d for d in range(x.rank) if d not in axes]

    def element(*i: Expr) -> ExprLike:
        where_kept = {d: i[k] for k, d in enumerate(kept)}
        reduced = iter(i[len(kept) :])
        return f(x[tuple(where_kept[d] if d in where_kept else next(reduced) for d in range(x.rank))])

    if not keep:
        return op.reduce([x.shape[d] for d in kept], [x.shape[d] for d in axes], element, x.dtype, combine, stem=stem)
    # Extent-1 loops are left out: the kept axes alone index the reduction.
    shape = [1 if d in axes else s for d, s in enumerate(x.shape)]

    def keeping(*i: Expr) -> ExprLike:
        own, reduced = i[: x.rank], iter(i[x.rank :])
        return f(x[tuple(next(reduced) if d in axes else own[d] for d in range(x.rank))])

    return op.reduce(shape, [x.shape[d] for d in axes], keeping, x.dtype, combine, stem=stem)


def reduced_axes(op: Lowering, x: Tensor, axes: Tensor | None) -> list[int]:
    """The axes a Reduce* node reduces, sorted."""
    given = op.known_ints(axes, "axes")
    if not given:
        return [] if op.attribute("noop_with_empty_axes", 0) else list(range(x.rank))
    return sorted(op.axis(a, x.rank) for a in given)


_SUMS: dict[str, Pre] = {
    "ReduceSum": lambda v: v,
    "ReduceMean": lambda v: v,
    "ReduceL1": lambda v: intrinsic("abs", v) if v.dtype.signed else v,
    "ReduceL2": lambda v: v * v,
    "ReduceSumSquare": lambda v: v * v,
    "ReduceLogSum": lambda v: v,
}


@operator(*_SUMS, "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp")
def reduce_node(op: Lowering, x: Tensor, axes: Tensor | None = None) -> Tensor:
    over = reduced_axes(op, x, axes)
    if not op.attribute("keepdims", 1):
        shape = [s for d, s in enumerate(x.shape) if d not in over]
    else:
        shape = [1 if d in over else s for d, s in enumerate(x.shape)]
    return _shaped(op, _reduced(op, x, over), shape)


def _reduced(op: Lowering, x: Tensor, over: list[int]) -> Tensor:
    keep = bool(op.attribute("keepdims", 1))
    if op.kind in ("ReduceMax", "ReduceMin", "ReduceProd"):
        return fold_axes(op, x, over, lambda v: v, {"ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "*"}[op.kind], keep=keep)
    if op.kind == "ReduceLogSumExp":
        return _log_sum_exp(op, x, over, keep)
    total = fold_axes(op, x, over, _SUMS[op.kind], "+", keep=keep)
    count = math.prod(x.shape[d] for d in over)
    match op.kind:
        case "ReduceMean":
            return pointwise(op, lambda v: v * (1.0 / max(count, 1)) if v.dtype.is_float else quotient(v, const(count, v.dtype)), total)
        case "ReduceL2":
            return pointwise(op, lambda v: intrinsic("sqrt", v if v.dtype.is_float else cast(v, ty.f64)), total)
        case "ReduceLogSum":
            return pointwise(op, lambda v: intrinsic("log", v if v.dtype.is_float else cast(v, ty.f64)), total)
    return total


def _log_sum_exp(op: Lowering, x: Tensor, over: list[int], keep: bool) -> Tensor:
    """log(sum(exp(x))), with the largest element taken out so that exp cannot overflow."""
    peak = fold_axes(op, x, over, lambda v: v, "max", stem="peak")
    finite = (
        pointwise(op, lambda v: where(compare(">", intrinsic("abs", v), 3e38), const(0, v.dtype), v), peak) if x.dtype.is_float else peak
    )

    def spread(*i: Expr) -> Expr:
        own = tuple(idx(0) if d in over else i[d] for d in range(x.rank))
        return intrinsic("exp", x[i] - finite[own])

    powers = op.compute(x.shape, spread, x.dtype, "powers")
    total = fold_axes(op, powers, over, lambda v: v, "+")
    result = pointwise(op, lambda s, m: intrinsic("log", s) + m, total, finite)
    return result if keep else op.view(result, [s for d, s in enumerate(x.shape) if d not in over])


def _shaped(op: Lowering, x: Tensor, shape: Sequence[int]) -> Tensor:
    return x if list(x.shape) == list(shape) else op.view(x, shape)


@operator("ArgMax", "ArgMin")
def arg_extremum(op: Lowering, x: Tensor) -> Tensor:
    axis = op.axis(op.attribute("axis", 0), x.rank)
    return extremum_position(
        op, x, axis, "max" if op.kind == "ArgMax" else "min", bool(op.attribute("select_last_index", 0)), bool(op.attribute("keepdims", 1))
    )


def extremum_position(op: Lowering, x: Tensor, axis: int, which: str, last: bool = False, keep: bool = True) -> Tensor:
    """First (or last) index along ``axis`` of the extremum: two reductions, so no order is imposed."""
    peak = fold_axes(op, x, [axis], lambda v: v, which, stem="peak")
    length = x.shape[axis]
    shape = [1 if d == axis else s for d, s in enumerate(x.shape)]
    absent = Const(-1 if last else length, ty.i64)

    def candidate(*i: Expr) -> Expr:
        own, r = i[:-1], i[-1]
        here = x[tuple(r if d == axis else own[d] for d in range(x.rank))]
        return where(compare("==", here, peak[own]), cast(r, ty.i64), absent)

    found = op.reduce(shape, [length], candidate, ty.i64, "max" if last else "min")
    return found if keep else op.view(found, [s for d, s in enumerate(x.shape) if d != axis])


@operator("CumSum", "CumProd")
def cumulative(op: Lowering, x: Tensor, axis: Tensor) -> Tensor:
    """Running sum or product: ``y[j] = y[j-1] op x[j]`` in order along the axis."""
    along = op.axis(int(op.known(axis, "axis").reshape(())), x.rank)
    combine, neutral = ("+", 0) if op.kind == "CumSum" else ("*", 1)
    length, reverse, exclusive = x.shape[along], op.attribute("reverse", 0), op.attribute("exclusive", 0)
    out = op.tensor(x.shape, x.dtype)
    shape = [1 if d == along else s for d, s in enumerate(x.shape)]

    def position(i: tuple[Expr, ...], j: Expr) -> tuple[Expr, ...]:
        here = idx(length - 1) - j if reverse else j
        return tuple(here if d == along else i[d] for d in range(x.rank))

    def first(*i: Expr) -> ExprLike:
        return const(neutral, x.dtype) if exclusive else x[position(i, idx(0))]

    if length == 0:
        return out
    op.assign(out, first, shape, at=lambda *i: position(i, idx(0)))
    with op.sequential(length - 1, "step") as j:
        if length > 1:
            op.assign(
                out,
                lambda *i: binary(combine, out[position(i, j)], x[position(i, j if exclusive else j + 1)]),
                shape,
                at=lambda *i: position(i, j + 1),
            )
    return out
