"""Contractions ``c[...] += a[...] * b[...]`` over affine indices, as strided views and one einsum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tilewright.ir import types as ty
from tilewright.ir.expr import Binary, Cast, Const, Expr, Load, Var
from tilewright.ir.grid import convert, supported, wrap
from tilewright.ir.stmt import Store

#: Bounds below which sums of integers are exact in f64 and int64, with room for the bound's own rounding.
_EXACT_F64 = 2.0**52
_EXACT_I64 = 2.0**62


@dataclass(frozen=True, slots=True)
class LoopRange:
    """Iterations ``lo, lo + step, ...`` (``extent`` of them) of a loop whose bounds are known."""

    name: str
    lo: int
    extent: int
    step: int


def contract(s: Store, loops: Sequence[LoopRange], arrays: Mapping[str, np.ndarray], env: Mapping[str, int]) -> bool:
    """Run the nest ``loops`` around ``s`` if it is a contraction; False if it is not one.

    Products are formed and summed in f64 (integers: only if that is exact), and each element of the
    target is rounded to its type once.
    """
    factors = _factors(s.value) if s.op == "+" else None
    if factors is None or len(factors) != 2 or any(f.buffer.name == s.buffer.name for f in factors):
        return False
    if not all(supported(t) for t in (s.buffer.dtype, s.value.dtype)) or len(loops) > 26:
        return False
    target = _view(arrays[s.buffer.name], s.indices, loops, env)
    if target is None or not _injective(target[0]):
        return False
    seen = [_view(arrays[f.buffer.name], f.indices, loops, env) for f in factors]
    operands = [v for v in seen if v is not None]
    if len(operands) < 2:
        return False
    integer = not s.buffer.dtype.is_float
    wide = _accumulator([v for v, _ in operands], loops) if integer else np.float64
    if wide is None:
        return False
    letters = {r.name: chr(ord("a") + n) for n, r in enumerate(loops)}
    terms = ["".join(letters[n] for n in names) for _, names in (*operands, target)]
    once = {n for _, names in (*operands, target) for n in names}
    repeats = prod(r.extent for r in loops if r.name not in once)
    if set(target[1]) - {n for _, names in operands for n in names}:
        return False
    total = np.einsum(f"{terms[0]},{terms[1]}->{terms[2]}", *(_widened(v, wide) for v, _ in operands), optimize=True) * repeats
    if integer:
        target[0][...] = wrap(target[0] + total.astype(np.int64), s.buffer.dtype)
    else:
        target[0][...] = convert(target[0].astype(np.float64) + total, ty.f64, s.buffer.dtype)
    return True


def _factors(e: Expr) -> list[Load] | None:
    """The loads whose product ``e`` is; widening casts do not matter. None for anything else."""
    match e:
        case Load():
            return [e]
        case Cast() if isinstance(e.a, Load) and _widens(e.a.dtype, e.dtype):
            return [e.a]
        case Binary(op="*") if e.dtype.kind != ty.BFLOAT and e.dtype != ty.f16:
            a, b = _factors(e.a), _factors(e.b)
            return None if a is None or b is None else a + b
    return None


def _widens(a: ty.DType, b: ty.DType) -> bool:
    if a.is_float and b.is_float:
        return b.bits > a.bits or a == b
    return a.is_int and ((b.is_int and b.bits > a.bits and b.signed) or (b.is_float and a.bits <= {16: 11, 32: 24, 64: 53}[b.bits]))


def _accumulator(operands: Sequence[np.ndarray], loops: Sequence[LoopRange]) -> type | None:
    """f64 (for its fast products) or int64, whichever holds all partial sums of integers; None if neither does."""
    bound = float(np.prod([r.extent for r in loops], dtype=np.float64))
    for v in operands:
        bound *= max(abs(float(v.max())), abs(float(v.min())))
    return np.float64 if bound < _EXACT_F64 else np.int64 if bound < _EXACT_I64 else None


def _widened(view: np.ndarray, dtype: type) -> np.ndarray:
    """``view`` converted; of overlapping windows (larger than their array) only the array is copied."""
    base = view
    while isinstance(base.base, np.ndarray):
        base = base.base
    if view.size <= base.size or base.dtype != view.dtype or not base.flags.c_contiguous:
        return view.astype(dtype)
    start = (view.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // base.itemsize
    wide: np.ndarray = base.reshape(-1).astype(dtype)
    return as_strided(wide[start:], view.shape, [s // base.itemsize * wide.itemsize for s in view.strides])


def affine(e: Expr, names: frozenset[str], env: Mapping[str, int]) -> tuple[int, dict[str, int]] | None:
    """``e`` as constant plus coefficients of the loop variables ``names``; None if it is not affine."""
    match e:
        case Const():
            return int(e.value), {}
        case Var():
            return (0, {e.name: 1}) if e.name in names else (int(env[e.name]), {})
        case Binary(op="+" | "-" | "*"):
            a, b = affine(e.a, names, env), affine(e.b, names, env)
            if a is None or b is None:
                return None
            if e.op == "*":
                if a[1] and b[1]:
                    return None
                (k, _), (c, terms) = (a, b) if not a[1] else (b, a)
                return k * c, {n: k * v for n, v in terms.items()}
            sign = 1 if e.op == "+" else -1
            return a[0] + sign * b[0], {n: a[1].get(n, 0) + sign * b[1].get(n, 0) for n in {*a[1], *b[1]}}
    return None


def _view(
    array: np.ndarray, indices: tuple[Expr, ...], loops: Sequence[LoopRange], env: Mapping[str, int]
) -> tuple[np.ndarray, list[str]] | None:
    """A view of ``array`` with one axis for each loop that the indices use; None if not affine or out of bounds."""
    names = frozenset(r.name for r in loops)
    first_at, strides = [], dict.fromkeys((r.name for r in loops), 0)
    for e, n, stride in zip(indices, array.shape, array.strides, strict=True):
        form = affine(e, names, env)
        if form is None:
            return None
        lowest = highest = form[0]
        for r in loops:
            c = form[1].get(r.name, 0)
            first, last = c * r.lo, c * (r.lo + (r.extent - 1) * r.step)
            lowest, highest = lowest + min(first, last), highest + max(first, last)
            strides[r.name] += c * r.step * stride
        if lowest < 0 or highest >= n:
            return None
        start = form[0] + sum(form[1].get(r.name, 0) * r.lo for r in loops)
        first_at.append(slice(start, start + 1))
    used = [r for r in loops if strides[r.name]]
    origin = array[tuple(first_at)]
    return as_strided(origin, [r.extent for r in used], [strides[r.name] for r in used]), [r.name for r in used]


def _injective(view: np.ndarray) -> bool:
    """Do different indices of a strided view reach different elements (by nesting of its strides)?"""
    reach = 0
    for stride, extent in sorted((abs(s), n) for s, n in zip(view.strides, view.shape, strict=True) if n > 1):
        if stride <= reach:
            return False
        reach += stride * (extent - 1)
    return True
