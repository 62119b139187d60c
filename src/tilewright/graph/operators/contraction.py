"""Matrix products and everything einsum-like: a zero nest and a multiply-accumulate nest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tilewright.graph.lowering import Lowering, operator
from tilewright.graph.model import Tensor
from tilewright.ir.expr import Expr, idx
from tilewright.ir.types import DType

Element = Callable[[Expr], Expr]


def matmul(op: Lowering, a: Tensor, b: Tensor, dtype: DType, left: Element = lambda v: v, right: Element = lambda v: v) -> Tensor:
    """NumPy's matmul of ``left(a)`` and ``right(b)``: batch dimensions broadcast, vectors are rows or columns."""
    if not a.rank or not b.rank:
        raise op.refuse("its operands must have at least one dimension")
    rows, columns = a.rank > 1, b.rank > 1
    depth = a.shape[-1]
    if depth != (b.shape[-2] if columns else b.shape[0]):
        raise op.refuse(
            f"shapes {list(a.shape)} and {list(b.shape)} do not multiply: {depth} columns meet {b.shape[-2 if columns else 0]} rows"
        )
    batch_a, batch_b = a.shape[:-2], b.shape[:-2]
    batch = _broadcast_batch(op, batch_a, batch_b)
    shape = [*batch, *([a.shape[-2]] if rows else []), *([b.shape[-1]] if columns else [])]
    names = [*(f"b{d}" for d in range(len(batch))), *(["i"] if rows else []), *(["j"] if columns else []), "k"]

    def product(*i: Expr) -> Expr:
        outer, k = i[: len(batch)], i[-1]
        row = (i[len(batch)],) if rows else ()
        column = (i[-2],) if columns else ()
        of_a = (*_at_batch(outer, batch_a), *row, k)
        of_b = (*_at_batch(outer, batch_b), k, *column)
        return left(a[of_a]) * right(b[of_b])

    return op.reduce(shape, [depth], product, dtype, names=names)


def _broadcast_batch(op: Lowering, a: Sequence[int], b: Sequence[int]) -> list[int]:
    try:
        return [int(s) for s in np.broadcast_shapes(tuple(a), tuple(b))]
    except ValueError:
        raise op.refuse(f"batch dimensions {list(a)} and {list(b)} do not broadcast") from None


def _at_batch(outer: Sequence[Expr], own: Sequence[int]) -> tuple[Expr, ...]:
    tail = outer[len(outer) - len(own) :]
    return tuple(i if s != 1 else idx(0) for i, s in zip(tail, own, strict=True))


@operator("MatMul")
def matmul_node(op: Lowering, a: Tensor, b: Tensor) -> Tensor:
    return matmul(op, a, b, a.dtype)


@operator("Gemm")
def gemm(op: Lowering, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    alpha, beta = op.attribute("alpha", 1.0), op.attribute("beta", 1.0)
    trans_a, trans_b = op.attribute("transA", 0), op.attribute("transB", 0)
    m, depth = reversed(a.shape) if trans_a else a.shape
    depth_b, n = reversed(b.shape) if trans_b else b.shape
    if depth != depth_b:
        raise op.refuse(f"A {list(a.shape)} and B {list(b.shape)} do not multiply (transA={trans_a}, transB={trans_b})")

    def product(i: Expr, j: Expr, k: Expr) -> Expr:
        return (a[k, i] if trans_a else a[i, k]) * (b[j, k] if trans_b else b[k, j])

    out = op.reduce([m, n], [depth], product, a.dtype)
    if alpha == 1.0 and (c is None or beta == 0.0):
        return out

    def scaled(i: Expr, j: Expr) -> Expr:
        value = out[i, j] if alpha == 1.0 else out[i, j] * _factor(alpha, a.dtype)
        if c is None or beta == 0.0:
            return value
        added = c.at((i, j))
        return value + (added if beta == 1.0 else added * _factor(beta, a.dtype))

    return op.compute([m, n], scaled, a.dtype)


def _factor(value: float, dtype: DType) -> float | int:
    return value if dtype.is_float else int(value)


@operator("Einsum")
def einsum(op: Lowering, *xs: Tensor) -> Tensor:
    terms, result = _einsum_terms(op, [x.rank for x in xs])
    extents: dict[str, int] = {}
    for term, x in zip(terms, xs, strict=True):
        for label, s in zip(term, x.shape, strict=True):
            if s != 1 or label not in extents:
                if extents.setdefault(label, s) not in (s, 1):
                    raise op.refuse(f"index {label!r} has extents {extents[label]} and {s}")
                extents[label] = s
    over = [label for label in dict.fromkeys("".join(terms)) if label not in result]

    def product(*i: Expr) -> Expr:
        at = dict(zip([*result, *over], i, strict=True))
        out: Expr | None = None
        for term, x in zip(terms, xs, strict=True):
            value = x.at(tuple(at[label] for label in term))
            out = value if out is None else out * value
        assert out is not None  # an Einsum node has at least one operand
        return out

    shape = [extents[label] for label in result]
    if not over:
        return op.compute(shape, product, xs[0].dtype)
    return op.reduce(shape, [extents[label] for label in over], product, xs[0].dtype)


def _einsum_terms(op: Lowering, ranks: Sequence[int]) -> tuple[list[str], str]:
    """One label per dimension for each operand and for the result; an ellipsis becomes digits."""
    equation = op.attribute("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise op.refuse(f"equation {equation!r} has {len(terms)} terms but the node has {len(ranks)} operands")
    hidden = max((r - len(t.replace("...", "")) for t, r in zip(terms, ranks, strict=True) if "..." in t), default=0)
    labels = "0123456789"[:hidden]

    def expand(term: str, rank: int) -> str:
        if "..." not in term:
            return term
        number = rank - len(term.replace("...", ""))
        return term.replace("...", labels[hidden - number :])

    full = [expand(t, r) for t, r in zip(terms, ranks, strict=True)]
    if any(len(t) != r for t, r in zip(full, ranks, strict=True)):
        raise op.refuse(f"equation {equation!r} does not fit operands of ranks {list(ranks)}")
    if arrow:
        return full, right.replace("...", labels)
    letters = "".join(full)
    return full, labels + "".join(sorted(c for c in set(letters) if letters.count(c) == 1 and c not in labels))


@operator("Det")
def determinant(op: Lowering, x: Tensor) -> Tensor:
    """Elimination without pivoting would divide by zero; partial pivoting is not a static nest."""
    size = x.shape[-1]
    if size > 3:
        raise op.refuse(f"determinants of {size}x{size} matrices are not lowered", hint="matrices up to 3x3 are")

    def minor(i: tuple[Expr, ...], row: int, columns: tuple[int, ...]) -> Expr:
        if len(columns) == 1:
            return x[(*i, idx(row), idx(columns[0]))]
        out: Expr | None = None
        for sign, c in enumerate(columns):
            part = x[(*i, idx(row), idx(c))] * minor(i, row + 1, columns[:sign] + columns[sign + 1 :])
            out = part if out is None else (out - part if sign % 2 else out + part)
        assert out is not None
        return out

    return op.compute(x.shape[:-2], lambda *i: minor(i, 0, tuple(range(size))), x.dtype)
