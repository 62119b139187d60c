"""Elements of blocks: one operation on one element each, in the types of the program form.

Integers that are known from positions alone stay index expressions, which is what addresses and masks are made
of; integers from memory wrap around like those of the block program.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Const, Expr, Logical
from tilewright.ir.types import DType
from tilewright.lang.block.builder import ARITHMETIC, COMPARE
from tilewright.lang.block.ir import Op
from tilewright.lang.block.source import BlockError

_OPERATOR = {name: op for op, name in ARITHMETIC.items()}
_COMPARISON = {name: op for op, name in COMPARE.items()}


def constant(value: Any, dtype: DType) -> Expr:
    """A literal; integers are indices."""
    if dtype.kind in (ty.INT, ty.UINT):
        return Const(int(value), ty.index)
    return ex.const(value, dtype)


def elementwise(op: Op, x: list[Expr], dtype: DType) -> Expr:
    """The element of an operation on elements; integers known from positions stay indices."""
    if op.name in _OPERATOR:
        return _arithmetic(_OPERATOR[op.name], x[0], x[1], dtype)
    if op.name in _COMPARISON:
        return ex.compare(_COMPARISON[op.name], *_alike(x[0], x[1]))
    match op.name:
        case "not":
            return ex.Not(x[0])
        case "cast":
            kept = x[0].dtype.kind == ty.INDEX and dtype.kind in (ty.INT, ty.UINT) and dtype.bits >= 32
            return x[0] if kept else ex.cast(x[0], dtype)
        case "bitcast":
            assert op.operands[0].type.is_data
            return ex.bitcast(ex.cast(x[0], op.operands[0].type.dtype), dtype)
        case "where":
            a, b = _alike(x[1], x[2])
            return ex.where(x[0], a, b)
        case "math":
            kind = dtype if dtype.kind != ty.BOOL else op.operands[0].type.dtype
            return ex.intrinsic(op.attributes["function"], *(ex.cast(e, kind) for e in x))
    raise BlockError(f"operation {op.name} has no lowering")


def _alike(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """Two elements of one block type in one type of the program form."""
    if a.dtype.kind == ty.INDEX and b.dtype.kind != ty.INDEX:
        return ex.cast(a, b.dtype), b
    if b.dtype.kind == ty.INDEX and a.dtype.kind != ty.INDEX:
        return a, ex.cast(b, a.dtype)
    return a, b


def _arithmetic(op: str, a: Expr, b: Expr, dtype: DType) -> Expr:
    if dtype.kind == ty.BOOL:
        if op == "^":
            return Logical("or", Logical("and", a, ex.Not(b)), Logical("and", ex.Not(a), b))
        return Logical("and" if op in ("&", "min") else "or", a, b)
    a, b = _alike(a, b)
    if a.dtype.kind == ty.INDEX and op != "/" and dtype.is_int:
        return ex.binary(op, a, b)
    a, b = ex.cast(a, dtype), ex.cast(b, dtype)
    if isinstance(a, Const) and isinstance(b, Const) and dtype in (ty.f32, ty.f64) and op in ("+", "-", "*"):
        with np.errstate(all="ignore"):
            x, y = (np.asarray(c.value, dtype.to_numpy())[()] for c in (a, b))
            return ex.const(float(x + y if op == "+" else x - y if op == "-" else x * y), dtype)
    return ex.cast(ex.binary(op, a, b), dtype)
