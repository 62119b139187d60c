"""Indices that are data: gathers, scatters, one-hot, top-k.

Negative indices count from the end. An index outside its axis is an error of the data; it is
clamped here, so that no input can make a kernel read or write foreign memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.graph.elements import user_array
from tilewright.graph.lowering import Lowering, operator
from tilewright.graph.model import Tensor
from tilewright.ir import types as ty
from tilewright.ir.expr import Const, Expr, binary, cast, compare, const, idx, logical, where


def wrapped(position: Expr, extent: int) -> Expr:
    """A data index as an index expression inside [0, extent)."""
    i = cast(position, ty.index)
    counted = where(compare("<", i, 0), i + extent, i) if position.dtype.signed else i
    return binary("min", binary("max", counted, 0), max(extent - 1, 0))


@operator("Gather")
def gather(op: Lowering, x: Tensor, positions: Tensor) -> Tensor:
    axis = op.axis(op.attribute("axis", 0), x.rank)
    n = positions.rank
    shape = [*x.shape[:axis], *positions.shape, *x.shape[axis + 1 :]]

    def element(*i: Expr) -> Expr:
        at = positions[i[axis : axis + n]]
        return x[(*i[:axis], wrapped(at, x.shape[axis]), *i[axis + n :])]

    return op.compute(shape, element, x.dtype)


@operator("GatherElements")
def gather_elements(op: Lowering, x: Tensor, positions: Tensor) -> Tensor:
    axis = op.axis(op.attribute("axis", 0), x.rank)
    return op.compute(
        positions.shape, lambda *i: x[tuple(wrapped(positions[i], x.shape[axis]) if d == axis else e for d, e in enumerate(i))], x.dtype
    )


@operator("GatherND")
def gather_nd(op: Lowering, x: Tensor, positions: Tensor) -> Tensor:
    batch, depth, n = op.attribute("batch_dims", 0), positions.shape[-1], positions.rank - 1
    shape = [*positions.shape[:-1], *x.shape[batch + depth :]]

    def element(*i: Expr) -> Expr:
        at = tuple(wrapped(positions[(*i[:n], idx(k))], x.shape[batch + k]) for k in range(depth))
        return x[(*i[:batch], *at, *i[n:])]

    return op.compute(shape, element, x.dtype)


_COMBINE = {"none": None, "add": "+", "mul": "*", "min": "min", "max": "max"}


def _combine(op: Lowering) -> str | None:
    how = op.attribute("reduction", "none")
    if how not in _COMBINE:
        raise op.refuse(f"unknown reduction {how!r}", hint=f"known: {', '.join(_COMBINE)}")
    return _COMBINE[how]


@operator("ScatterElements", "Scatter")
def scatter_elements(op: Lowering, x: Tensor, positions: Tensor, updates: Tensor) -> Tensor:
    axis = op.axis(op.attribute("axis", 0), x.rank)
    out = op.compute(x.shape, lambda *i: x[i], x.dtype)
    op.assign(
        out,
        lambda *i: updates[i],
        updates.shape,
        at=lambda *i: tuple(wrapped(positions[i], x.shape[axis]) if d == axis else e for d, e in enumerate(i)),
        op=_combine(op),
    )
    return out


@operator("ScatterND")
def scatter_nd(op: Lowering, x: Tensor, positions: Tensor, updates: Tensor) -> Tensor:
    depth, n = positions.shape[-1], positions.rank - 1
    out = op.compute(x.shape, lambda *i: x[i], x.dtype)

    def place(*i: Expr) -> tuple[Expr, ...]:
        return (*(wrapped(positions[(*i[:n], idx(k))], x.shape[k]) for k in range(depth)), *i[n:])

    op.assign(out, lambda *i: updates[i], updates.shape, at=place, op=_combine(op))
    return out


@operator("TensorScatter")
def tensor_scatter(op: Lowering, past: Tensor, update: Tensor, write: Tensor | None = None) -> Tensor:
    """Writes ``update`` into a cache along ``axis``, from a position per batch (modulo the length when circular)."""
    axis = op.axis(op.attribute("axis", -2), past.rank)
    circular = op.attribute("mode", "linear") == "circular"
    length = past.shape[axis]
    out = op.compute(past.shape, lambda *i: past[i], past.dtype)

    def place(*i: Expr) -> tuple[Expr, ...]:
        start = idx(0) if write is None else cast(write[i[0]], ty.index)
        at = (start + i[axis]) % length if circular else binary("min", binary("max", start + i[axis], 0), length - 1)
        return tuple(at if d == axis else e for d, e in enumerate(i))

    op.assign(out, lambda *i: update[i], update.shape, at=place)
    return out


@operator("OneHot")
def one_hot(op: Lowering, positions: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    classes = int(op.known(depth, "depth").reshape(()))
    axis = op.axis(op.attribute("axis", -1), positions.rank + 1)
    shape = [*positions.shape[:axis], classes, *positions.shape[axis:]]

    def element(*i: Expr) -> Expr:
        given = positions[(*i[:axis], *i[axis + 1 :])]
        raw = cast(given, ty.index)
        here = where(compare("<", raw, 0), raw + classes, raw)
        return where(compare("==", here, i[axis]), values.buffer[idx(1)], values.buffer[idx(0)])

    return op.compute(shape, element, values.dtype)


@operator("Compress")
def compress(op: Lowering, x: Tensor, condition: Tensor) -> Tensor:
    chosen = np.flatnonzero(op.known(condition, "condition"))
    if op.attribute("axis") is None:
        flat = x.shape
        table = op.array(np.stack(np.unravel_index(chosen, flat), 1).astype(np.int64).reshape(len(chosen), x.rank))
        return op.compute([len(chosen)], lambda i: x[tuple(wrapped(table.buffer[i, idx(d)], flat[d]) for d in range(x.rank))], x.dtype)
    axis = op.axis(op.attribute("axis"), x.rank)
    table = op.array(chosen.astype(np.int64))
    shape = [len(chosen) if d == axis else s for d, s in enumerate(x.shape)]
    return op.compute(
        shape, lambda *i: x[tuple(wrapped(table.buffer[e], x.shape[axis]) if d == axis else e for d, e in enumerate(i))], x.dtype
    )


@operator("NonZero")
def nonzero(op: Lowering, x: Tensor) -> np.ndarray:
    return np.stack(np.nonzero(op.known(x, "values (they decide how many there are)"))).astype(np.int64)


@operator("Unique")
def unique(op: Lowering, x: Tensor) -> tuple[np.ndarray, ...]:
    values, axis = op.known(x, "values (they decide how many there are)"), op.attribute("axis")
    found, first, inverse, counts = np.unique(values, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.reshape(-1)
    if not op.attribute("sorted", 1):
        order = np.argsort(first)
        rank = np.argsort(order)
        found = found[order] if axis is None else np.take(found, order, axis)
        first, counts, inverse = first[order], counts[order], rank[inverse]
    found = user_array(found, x.dtype)
    return found, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


@operator("TopK")
def top_k(op: Lowering, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Every element's rank is counted, then rank r is selected: affine nests, quadratic in the axis."""
    axis = op.axis(op.attribute("axis", -1), x.rank)
    number = (op.known_ints(k, "k") or [0])[0]
    length = x.shape[axis]
    if not 0 <= number <= length:
        raise op.refuse(f"k={number} is outside 0..{length}")
    before = ">" if op.attribute("largest", 1) else "<"

    def replaced(i: Sequence[Expr], j: Expr) -> tuple[Expr, ...]:
        return tuple(j if d == axis else e for d, e in enumerate(i))

    def ahead(*i: Expr) -> Expr:
        own, j = i[:-1], i[-1]
        mine, other = x[own], x[replaced(own, j)]
        tie = logical("and", compare("==", other, mine), compare("<", j, own[axis]))
        return where(logical("or", compare(before, other, mine), tie), Const(1, ty.i32), Const(0, ty.i32))

    rank = op.reduce(x.shape, [length], ahead, ty.i32, stem="rank")
    shape = [number if d == axis else s for d, s in enumerate(x.shape)]

    def chosen(*i: Expr) -> Expr:
        own, j = i[:-1], i[-1]
        return where(compare("==", rank[replaced(own, j)], cast(own[axis], ty.i32)), cast(j, ty.i64), Const(0, ty.i64))

    positions = op.reduce(shape, [length], chosen, ty.i64, stem="position")
    values = op.compute(shape, lambda *i: x[replaced(i, wrapped(positions[i], length))], x.dtype)
    return values, positions


@operator("NegativeLogLikelihoodLoss")
def nll_loss(op: Lowering, x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """-x[n, target, ...], weighted; summed, averaged by the total weight, or left as it is."""
    ignore, how = op.attribute("ignore_index"), op.attribute("reduction", "mean")

    def scale(i: tuple[Expr, ...]) -> Expr:
        label = target[i]
        w = const(1, x.dtype) if weight is None else weight[wrapped(label, weight.shape[0])]
        return w if ignore is None else where(compare("!=", label, ignore), w, const(0, x.dtype))

    def loss(*i: Expr) -> Expr:
        return x[(i[0], wrapped(target[i], x.shape[1]), *i[1:])] * scale(i) * -1

    if how == "none":
        return op.compute(target.shape, loss, x.dtype)
    total = op.reduce([], target.shape, loss, x.dtype)
    if how == "sum":
        return total
    weights = op.reduce([], target.shape, lambda *i: scale(i), x.dtype, stem="weights")
    return op.compute([], lambda: total[()] / weights[()], x.dtype)
