"""Reductions: ``x op= v`` in scalar code, across lanes, and in vector accumulators.

A reduction into one element over a vector loop keeps a vector of partial results in registers for
as long as the target stays the same element (over outer loops too), and combines its
lanes once at the end. The order of the sum is free by the definition of a reduction.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

from tilewright.codegen.llvm import access, arithmetic, vector
from tilewright.codegen.llvm.conversion import convert, literal
from tilewright.codegen.llvm.expression import converted, poly, value
from tilewright.codegen.llvm.frame import Accumulator, Frame, Storage
from tilewright.codegen.llvm.index import Poly
from tilewright.codegen.llvm.values import Value, container_bits, suffix, value_type
from tilewright.codegen.llvm.writer import Writer
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Expr
from tilewright.ir.stmt import For, If, LoopKind, Store, While, own_exprs, walk
from tilewright.ir.types import DType

_REASSOC = "reassoc contract "
#: Most vector accumulators of one reduction: about the number of registers.
_MOST_ACCUMULATORS = 32
_LANES = {"+": "add", "*": "mul", "&": "and", "|": "or", "^": "xor"}


def updated(f: Frame, op: str, old: Value, e: Expr, dtype: DType) -> Value:
    """``old op e`` narrowed to ``dtype``."""
    return _combine(f, op, old, _operand(f, op, e, dtype), dtype, "contract " if f.lanes else _REASSOC)


def _operand(f: Frame, op: str, e: Expr, dtype: DType) -> Value:
    """``e`` as the right side of ``op=``: only the bits that reach the result."""
    if op in arithmetic.MODULAR and dtype.kind in (ty.INT, ty.UINT) and e.dtype.is_int:
        return converted(f, e, _whole(dtype))
    return value(f, e)


def _whole(dtype: DType) -> DType:
    """The integer type that fills the container of ``dtype``."""
    return DType(dtype.kind, container_bits(dtype))


def _combine(f: Frame, op: str, old: Value, v: Value, dtype: DType, flags: str) -> Value:
    if op in arithmetic.MODULAR and dtype.kind in (ty.INT, ty.UINT) and v.dtype.is_int:
        whole = _whole(dtype)
        a, b = arithmetic.together(f.w, old, convert(f.w, v, whole))
        total = f.w.value(f"{arithmetic.MODULAR[op]} {value_type(whole, a.lanes)} {a.ref}, {b.ref}", whole, a.lanes)
        return convert(f.w, total, dtype) if dtype != whole else total
    joined = ty.arithmetic_type(op, dtype, v.dtype)
    return convert(f.w, arithmetic.binary(f.w, op, old, v, joined, flags), dtype)


# --- across lanes -----------------------------------------------------------------------------


def reduce_into(f: Frame, s: Store, target: Storage, offset: Poly) -> None:
    """All active lanes into one element."""
    op = str(s.op)
    v = _active(f, op, f.w.spread(_partial(f, op, s.value, s.buffer.dtype), f.lanes))
    _finish(f, op, _across(f, op, v), target, offset)


def _finish(f: Frame, op: str, total: Value, target: Storage, offset: Poly) -> None:
    old = access.load(f, target, offset, True)
    access.store(f, target, offset, _combine(f, op, old, total, target.buffer.dtype, _REASSOC))


def _partial(f: Frame, op: str, e: Expr, dtype: DType) -> Value:
    """``e`` in the type in which partial results are kept: see :func:`partial_type`."""
    return convert(f.w, _operand(f, op, e, dtype), partial_type(op, dtype, e.dtype))


def partial_type(op: str, dtype: DType, operand: DType) -> DType:
    """Wide enough for partial results: the target's container for modular integers, f32 at least for floats."""
    joined = ty.arithmetic_type(op, dtype, operand)
    if joined.is_float:
        return joined if joined.bits > 16 else ty.f32
    if joined.is_fixed:
        return dtype if dtype.is_fixed and dtype.frac >= operand.frac else joined
    if op in arithmetic.MODULAR and dtype.is_int:
        return _whole(dtype) if dtype.kind != ty.INDEX else ty.i64
    return operand if op in ("min", "max") else joined


def _active(f: Frame, op: str, v: Value) -> Value:
    """Inactive lanes replaced by the neutral element."""
    return v if f.mask is None else f.w.select(f.mask, v, neutral(op, v.dtype, v.lanes))


def neutral(op: str, dtype: DType, lanes: int) -> Value:
    """The element that changes nothing."""
    if dtype.is_float:
        number = {"+": -0.0, "*": 1.0, "min": float("inf"), "max": float("-inf")}[op]
        return literal(number, dtype, lanes)
    lo, hi = dtype.range
    raw = {"+": 0, "*": 1, "min": hi, "max": lo, "&": -1 if dtype.signed else hi, "|": 0, "^": 0}[op]
    if dtype.kind == ty.BOOL:
        return literal(bool(raw), dtype, lanes)
    return literal(raw, DType(ty.INT if dtype.signed else ty.UINT, dtype.bits), lanes)._replace(dtype=dtype)


def _across(f: Frame, op: str, v: Value) -> Value:
    """The lanes of ``v`` combined."""
    scalar, name = value_type(v.dtype), suffix(v.type)
    if v.dtype.is_float:
        if op in ("min", "max"):
            return _extremum_across(f.w, op, v)
        start = neutral(op, v.dtype, 0)
        return f.w.value(f"call reassoc {scalar} @llvm.vector.reduce.f{_LANES[op]}.{name}({start.operand}, {v.operand})", v.dtype)
    if v.dtype.kind == ty.BOOL:
        kind = {"min": "and", "max": "or"}.get(op) or _LANES[op]
    else:
        kind = _LANES.get(op) or ("s" if v.dtype.signed else "u") + op
    return f.w.value(f"call {scalar} @llvm.vector.reduce.{kind}.{name}({v.operand})", v.dtype)


def _extremum_across(w: Writer, op: str, v: Value) -> Value:
    """min or max of the lanes by halving; NaN if there is one, which is looked for beside the chain of halves."""
    cond = value_type(ty.boolean, v.lanes)
    unordered = w.pure(f"fcmp uno {v.operand}, {v.ref}")
    some = Value(w.pure(f"call i1 @llvm.vector.reduce.or.{suffix(cond)}({cond} {unordered})"), ty.boolean)
    while v.lanes > 1:
        v = _halved(w, op, v)
    best = Value(w.pure(f"extractelement {v.operand}, i64 0"), v.dtype)
    return w.select(some, literal(float("nan"), v.dtype), best)


def _halved(w: Writer, op: str, v: Value) -> Value:
    """The first half of the lanes combined with the second (of an odd number the last lane meets itself)."""
    half = (v.lanes + 1) // 2
    parts = []
    for start in (0, v.lanes - half):
        lanes = "<" + ", ".join(f"i32 {start + i}" for i in range(half)) + ">"
        parts.append(w.value(f"shufflevector {v.operand}, {v.type} poison, <{half} x i32> {lanes}", v.dtype, half))
    return arithmetic.ordered_extremum(w, op, parts[0], parts[1])


def update_each_lane(f: Frame, s: Store, target: Storage, offset: Poly) -> None:
    """Lanes that may meet in one element: one after the other."""
    assert s.op is not None
    v = f.w.spread(_operand(f, s.op, s.value, s.buffer.dtype), f.lanes)
    offsets = [access.lane_offset(f, offset, i) for i in range(f.lanes)]
    values = [access.lane_value(f, v, i) for i in range(f.lanes)]
    masks = [f"extractelement {f.mask.operand}, i64 {i}" for i in range(f.lanes)] if f.mask else []
    conds = [f.w.pure(m) for m in masks]
    with f.vector(0, None):
        for i in range(len(offsets)):
            end = ""
            if conds:
                then, end = f.w.block("then"), f.w.block("endif")
                f.w.branch(conds[i], then, end)
                f.w.start(then)
            _finish(f, s.op, values[i], target, offsets[i])
            if conds:
                f.w.jump(end)
                f.w.start(end)


# --- accumulators -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A reduction, the lanes of its vector loop, and the unrolled loops that choose its target.

    ``guarded``: a condition inside the loop may keep the target from being touched at all.
    """

    store: Store
    lanes: int
    unrolled: tuple[For, ...]
    guarded: bool

    @property
    def name(self) -> str:
        return self.store.buffer.name


def accumulate(f: Frame, s: Store, a: Accumulator) -> None:
    """Add the active lanes to the partial results."""
    op = str(s.op)
    ref = a.refs[tuple(f.env[n].const for n in a.names)]
    v = _active(f, op, f.w.spread(_partial(f, op, s.value, s.buffer.dtype), a.lanes))
    vec = value_type(a.dtype, a.lanes)
    old = Value(f.w.op(f"load {vec}, ptr {ref}, align 64"), a.dtype, a.lanes)
    if op in _LANES and not a.dtype.is_float and a.dtype.kind != ty.BOOL:
        total = f.w.value(f"{_LANES[op]} {vec} {old.ref}, {v.ref}", a.dtype, a.lanes)
    else:
        total = arithmetic.binary(f.w, op, old, v, a.dtype)
    f.w.line(f"store {vec} {total.ref}, ptr {ref}, align 64")


@contextmanager
def accumulators(f: Frame, loop: For) -> Iterator[None]:
    """Around ``loop``: vector accumulators for the reductions whose targets it does not change."""
    free = [c for c in _candidates(f, loop) if c.name not in f.accumulators and not f.storages[c.name].lanes]
    mine = [c for c in free if not c.guarded or all(access.in_bounds(*_target(f, c, at)) for at in _choices(c))]
    for c in mine:
        f.accumulators[c.name] = _start(f, c)
    yield
    for c in mine:
        _combine_lanes(f, c, f.accumulators.pop(c.name))


def _start(f: Frame, c: _Candidate) -> Accumulator:
    """Vectors of neutral elements."""
    op = str(c.store.op)
    dtype = partial_type(op, c.store.buffer.dtype, c.store.value.dtype)
    vec = value_type(dtype, c.lanes)
    refs: dict[tuple[int, ...], str] = {}
    for at in _choices(c):
        refs[at] = f.w.alloca(vec, 1, 64)
        f.w.line(f"store {neutral(op, dtype, c.lanes).operand}, ptr {refs[at]}, align 64")
    return Accumulator(tuple(u.name for u in c.unrolled), refs, dtype, c.lanes)


def _combine_lanes(f: Frame, c: _Candidate, a: Accumulator) -> None:
    """Each accumulator's lanes into its element."""
    op = str(c.store.op)
    target = f.storages[c.name]
    for at, ref in a.refs.items():
        total = _across(f, op, Value(f.w.op(f"load {value_type(a.dtype, a.lanes)}, ptr {ref}, align 64"), a.dtype, a.lanes))
        _finish(f, op, total, target, access.physical_offset(f, target, _target(f, c, at)[0]))


def _choices(c: _Candidate) -> Iterator[tuple[int, ...]]:
    """Values of the unrolled variables, one tuple for each target element."""
    return itertools.product(*(_values(u) for u in c.unrolled))


def _target(f: Frame, c: _Candidate, at: tuple[int, ...]) -> tuple[tuple[Poly, ...], tuple[Poly, ...]]:
    """Indices of the target for one choice, and the extents they must stay below."""
    names = [u.name for u in c.unrolled]
    f.env.update(zip(names, map(Poly, at), strict=True))
    index = tuple(poly(f, i) for i in c.store.indices)
    for name in names:
        del f.env[name]
    return index, tuple(poly(f, e) for e in c.store.buffer.shape)


def _values(u: For) -> range:
    return range(_const(u.lo), _const(u.hi), u.step)


def _const(e: Expr) -> int:
    assert isinstance(e, ex.Const)  # _find takes only unrolled loops with constant bounds
    return int(e.value)


def _candidates(f: Frame, loop: For) -> list[_Candidate]:
    key = ("reductions", id(loop))
    if key not in f.module.analyses:
        f.module.analyses[key] = _find(f, loop)
    return f.module.analyses[key]


def _find(f: Frame, loop: For) -> list[_Candidate]:
    """Stores ``x[e] op= v`` inside a vector loop of ``loop``, with x not touched otherwise.

    ``e`` is fixed in ``loop`` except for variables of unrolled loops with constant bounds.
    """
    inside = [s for s in walk(loop) if isinstance(s, For)]
    if any(s.kind is LoopKind.PARALLEL for s in inside):
        return []
    unrolled = {s.name: s for s in inside if s is not loop and _is_unrolled(s)}
    changing = {s.name for s in inside} - unrolled.keys()
    guarded = {id(s) for t in walk(loop) if isinstance(t, (If, While)) for s in walk(t)}
    found: list[_Candidate] = []
    for v in inside:
        if v.kind is LoopKind.VECTOR and vector.vectorisable(f, v):
            lanes = vector.lanes_of(f, v, accumulating=True)
            for s in walk(v.body):
                if isinstance(s, Store) and s.op is not None and _is_fixed(s, changing) and s.buffer.name in f.storages:
                    names = sorted(set().union(*(ex.free_vars(i) for i in s.indices)) & unrolled.keys())
                    found.append(_Candidate(s, lanes, tuple(unrolled[n] for n in names), id(s) in guarded))
    uses = _uses(loop) if found else {}
    return [c for c in found if uses[c.name] == 1 and prod(len(_values(u)) for u in c.unrolled) <= _MOST_ACCUMULATORS]


def _is_unrolled(s: For) -> bool:
    return s.kind is LoopKind.UNROLL and isinstance(s.lo, ex.Const) and isinstance(s.hi, ex.Const)


def _is_fixed(s: Store, changing: set[str]) -> bool:
    return all(not ex.loads(i) and not ex.free_vars(i) & changing for i in s.indices)


def _uses(loop: For) -> dict[str, int]:
    """How many loads and stores in ``loop`` name each buffer."""
    uses: dict[str, int] = {}
    for s in walk(loop):
        names = [ld.buffer.name for e in own_exprs(s) for ld in ex.loads(e)]
        if isinstance(s, Store):
            names.append(s.buffer.name)
        for name in names:
            uses[name] = uses.get(name, 0) + 1
    return uses
