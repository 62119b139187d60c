"""Loads and stores: physical addresses, and the vector form that fits the stride of the lanes."""

from __future__ import annotations

from math import gcd

from tilewright.codegen.llvm.conversion import from_memory, to_memory
from tilewright.codegen.llvm.division import floor_division
from tilewright.codegen.llvm.frame import Frame, Storage
from tilewright.codegen.llvm.index import Atom, Poly
from tilewright.codegen.llvm.values import Value, memory_type, suffix, value_type
from tilewright.ir import types as ty
from tilewright.ir.interval import quotient_range
from tilewright.ir.types import DType

#: Widest constant stride for which whole vectors are loaded and shuffled instead of gathered.
SHUFFLED_STRIDE = 8


# --- index arithmetic -------------------------------------------------------------------------


def floordiv(f: Frame, p: Poly, c: int) -> Poly:
    """``p // c`` for a constant c > 0."""
    return _divide(f, p, c)[0]


def modulo(f: Frame, p: Poly, c: int) -> Poly:
    """``p % c`` for a constant c > 0."""
    return _divide(f, p, c)[1]


def _divide(f: Frame, p: Poly, c: int) -> tuple[Poly, Poly]:
    whole, rest = p.split_multiples(c)
    lo, hi = rest.range()
    if lo is not None and hi is not None and lo // c == hi // c:
        k = lo // c
        return whole + Poly(k), rest + Poly(-k * c)
    # What stays within a step of the others is left alone: (16 a + l) // 64 with l < 16 is a // 4, the same in all lanes.
    for g in sorted({gcd(k, c) for k in rest.terms.values()} - {1}, reverse=True):
        steps, inside = rest.split_multiples(g)
        least, most = inside.range()
        if least is not None and least >= 0 and most is not None and most < g:
            quotient, remainder = _divide(f, steps, c // g)
            return whole + quotient, remainder.scaled(g) + inside
    nonneg = lo is not None and lo >= 0
    w = f.w
    lanes = 0 if rest.is_uniform else f.lanes
    x = w.index_value(rest, lanes)
    divisor = f"splat (i64 {c})" if lanes else str(c)
    number = f.module.number
    above = Atom(floor_division(w, "//", x, divisor, 64, not nonneg, lanes, known=True), number(), *quotient_range((lo, hi), c), lanes)
    below = Atom(floor_division(w, "%", x, divisor, 64, not nonneg, lanes, known=True), number(), 0, c - 1, lanes)
    above.quotient_of = below.remainder_of = rest, c
    return whole + Poly.of(above), Poly.of(below)


def physical_offset(f: Frame, s: Storage, index: tuple[Poly, ...]) -> Poly:
    """Element number of logical ``index`` in memory."""
    coordinates = list(index)
    if s.buffer.layout:
        coarser: dict[int, int] = {}
        coordinates = []
        for d, b in s.buffer.layout.dims:
            c = index[d]
            if d in coarser:
                c = modulo(f, c, coarser[d])
            coordinates.append(floordiv(f, c, b) if b > 1 else c)
            coarser[d] = b
    offset = Poly()
    for c, extent in zip(coordinates, s.extents, strict=True):
        offset = offset * extent + c
    return offset.recombined()


def in_bounds(index: tuple[Poly, ...], logical: tuple[Poly, ...]) -> bool:
    """Whether ``index`` is inside the buffer for all values its atoms can take."""
    for p, n in zip(index, logical, strict=True):
        lo, _ = p.range()
        room, _ = (n - p).range()
        if lo is None or lo < 0 or room is None or room < 1:
            return False
    return True


# --- addresses --------------------------------------------------------------------------------


def address(f: Frame, s: Storage, uniform: Poly) -> str:
    """Pointer to an element; the constant part comes last so that neighbours share the rest."""
    element = memory_type(s.buffer.dtype)
    ref = s.ref
    if uniform.terms:
        ref = f.w.pure(f"getelementptr {element}, ptr {ref}, i64 {f.w.scalar_index(Poly(0, uniform.terms))}")
    if uniform.const:
        ref = f.w.pure(f"getelementptr {element}, ptr {ref}, i64 {uniform.const}")
    return ref


def _lane_addresses(f: Frame, s: Storage, offset: Poly) -> str:
    uniform, stride, varying = offset.lane_parts()
    element = memory_type(s.buffer.dtype)
    base = address(f, s, uniform)
    lanes = f.w.index_value(Poly(0, {**varying.terms, **_lane_terms(offset, stride)}), f.lanes)
    return f.w.pure(f"getelementptr {element}, ptr {base}, <{f.lanes} x i64> {lanes}")


def _lane_terms(offset: Poly, stride: int) -> dict:
    return {m: c for m, c in offset.terms.items() if len(m) == 1 and m[0].is_lane} if stride else {}


def element_align(s: Storage) -> int:
    return min(s.align, s.buffer.dtype.nbytes)


# --- loads ------------------------------------------------------------------------------------


def load(f: Frame, s: Storage, offset: Poly, safe: bool) -> Value:
    """Element ``offset`` (per lane where it varies). ``safe``: no lane could be out of bounds."""
    dtype = s.buffer.dtype
    if s.lanes:
        return _load_private(f, s, offset)
    safe = safe or _has_room(f, s, offset)
    if offset.is_uniform:
        return _load_uniform(f, s, offset, safe)
    uniform, stride, varying = offset.lane_parts()
    mask = None if safe else f.mask
    if varying.terms or stride not in (1, -1, *range(2, SHUFFLED_STRIDE + 1)) or (mask and stride != 1):
        return _gather(f, s, offset, mask)
    if stride == 1:
        return from_memory(f.w, Value(_load_vector(f, s, address(f, s, uniform), mask), dtype, f.lanes), dtype)
    if stride == -1:
        raw = _load_vector(f, s, address(f, s, uniform + Poly(1 - f.lanes)), None)
        return from_memory(f.w, Value(_shuffle(f, dtype, raw, raw, list(reversed(range(f.lanes)))), dtype, f.lanes), dtype)
    return _load_strided(f, s, uniform, stride)


def _load_uniform(f: Frame, s: Storage, offset: Poly, safe: bool) -> Value:
    dtype = s.buffer.dtype
    element = memory_type(dtype)
    p = address(f, s, offset)
    align = element_align(s)
    if f.mask is None or f.some_lane or safe:
        return from_memory(f.w, Value(f.w.op(f"load {element}, ptr {p}, align {align}"), dtype), dtype)
    anyone = f.w.pure(f"call i1 @llvm.vector.reduce.or.v{f.lanes}i1({f.mask.operand})")
    one = f.w.pure(f"insertelement <1 x i1> poison, i1 {anyone}, i64 0")
    vec = memory_type(dtype, 1)
    raw = f.w.op(f"call {vec} @llvm.masked.load.{suffix(vec)}.p0(ptr align {align} {p}, <1 x i1> {one}, {vec} zeroinitializer)")
    return from_memory(f.w, Value(f.w.op(f"extractelement {vec} {raw}, i64 0"), dtype), dtype)


def _load_vector(f: Frame, s: Storage, p: str, mask: Value | None) -> str:
    vec = memory_type(s.buffer.dtype, f.lanes)
    align = element_align(s)
    if mask is None:
        return f.w.op(f"load {vec}, ptr {p}, align {align}")
    return f.w.op(f"call {vec} @llvm.masked.load.{suffix(vec)}.p0(ptr align {align} {p}, {mask.operand}, {vec} zeroinitializer)")


def _load_strided(f: Frame, s: Storage, uniform: Poly, stride: int) -> Value:
    """``stride`` whole vectors inside the span of the lanes, then shuffles that pick the elements."""
    dtype, n = s.buffer.dtype, f.lanes
    last = stride * (n - 1)
    starts = [min(t * n, last + 1 - n) for t in range(stride)]
    raws = [_load_vector(f, s, address(f, s, uniform + Poly(start)), None) for start in starts]
    merged = _shuffle(f, dtype, raws[0], raws[0], [k * stride if k * stride < n else 0 for k in range(n)])
    for start, before, raw in zip(starts[1:], starts, raws[1:], strict=False):
        pick = [n + k * stride - start if before + n <= k * stride < start + n else k for k in range(n)]
        merged = _shuffle(f, dtype, merged, raw, pick)
    return from_memory(f.w, Value(merged, dtype, n), dtype)


def _shuffle(f: Frame, dtype: DType, a: str, b: str, pick: list[int]) -> str:
    vec = memory_type(dtype, f.lanes)
    lanes = "<" + ", ".join(f"i32 {i}" for i in pick) + ">"
    return f.w.op(f"shufflevector {vec} {a}, {vec} {b}, <{f.lanes} x i32> {lanes}")


def _gather(f: Frame, s: Storage, offset: Poly, mask: Value | None) -> Value:
    dtype = s.buffer.dtype
    vec = memory_type(dtype, f.lanes)
    pointers = _lane_addresses(f, s, offset)
    active = mask.operand if mask else f"<{f.lanes} x i1> splat (i1 true)"
    where = f"<{f.lanes} x ptr> align {element_align(s)} {pointers}"
    raw = f.w.op(f"call {vec} @llvm.masked.gather.{suffix(vec)}.v{f.lanes}p0({where}, {active}, {vec} zeroinitializer)")
    return from_memory(f.w, Value(raw, dtype, f.lanes), dtype)


def _load_private(f: Frame, s: Storage, offset: Poly) -> Value:
    """One element of each lane's own copy."""
    dtype = s.buffer.dtype
    if offset.is_uniform:
        raw = _load_vector(f, s, address(f, s, offset.scaled(s.lanes)), None)
        return from_memory(f.w, Value(raw, dtype, f.lanes), dtype)
    return _gather(f, s, _private(f, s, offset), f.mask)


def _private(f: Frame, s: Storage, offset: Poly) -> Poly:
    return offset.scaled(s.lanes) + f.env[LANE]


#: Name in Frame.env of the lane number.
LANE = "%lane"


# --- stores -----------------------------------------------------------------------------------


def store(f: Frame, s: Storage, offset: Poly, v: Value) -> None:
    """Write ``v`` (already of the element type) to element ``offset`` in the active lanes."""
    if s.lanes:
        offset = _private(f, s, offset)
    if offset.is_uniform:
        v = last_lane(f, v)
        f.w.line(f"store {memory_type(s.buffer.dtype)} {to_memory(f.w, v)}, ptr {address(f, s, offset)}, align {element_align(s)}")
        return
    v = f.w.spread(v, f.lanes)
    uniform, stride, varying = offset.lane_parts()
    vec = memory_type(s.buffer.dtype, f.lanes)
    raw = to_memory(f.w, v)
    align = element_align(s)
    if varying.terms or stride not in (1, -1) or (f.mask and stride == -1):
        pointers = _lane_addresses(f, s, offset)
        active = f.mask.operand if f.mask else f"<{f.lanes} x i1> splat (i1 true)"
        f.w.line(
            f"call void @llvm.masked.scatter.{suffix(vec)}.v{f.lanes}p0({vec} {raw}, <{f.lanes} x ptr> align {align} {pointers}, {active})"
        )
        return
    if stride == -1:
        uniform = uniform + Poly(1 - f.lanes)
        raw = _shuffle(f, s.buffer.dtype, raw, raw, list(reversed(range(f.lanes))))
    p = address(f, s, uniform)
    if f.mask and _beyond_row(f, s, uniform):
        f.w.line(f"store {vec} {raw}, ptr {p}, align {align}")
    elif f.mask and (s.lanes or _has_room(f, s, offset)):  # a plain store that keeps the others: it can live in registers
        old = f.w.op(f"load {vec}, ptr {p}, align {align}")
        raw = f.w.op(f"select {f.mask.operand}, {vec} {raw}, {vec} {old}")
        f.w.line(f"store {vec} {raw}, ptr {p}, align {align}")
    elif f.mask and f.mask.active and sum(f.mask.active) == 1:
        # A masked store of one known lane: LLVM 22 forgets that it narrows integers and writes beyond (llvm-project#179489).
        lane = f.mask.active.index(True)
        one = f.w.op(f"extractelement {vec} {raw}, i64 {lane}")
        f.w.line(f"store {memory_type(s.buffer.dtype)} {one}, ptr {address(f, s, uniform + Poly(lane))}, align {align}")
    elif f.mask:
        f.w.line(f"call void @llvm.masked.store.{suffix(vec)}.p0({vec} {raw}, ptr align {align} {p}, {f.mask.operand})")
    else:
        f.w.line(f"store {vec} {raw}, ptr {p}, align {align}")


def _beyond_row(f: Frame, s: Storage, uniform: Poly) -> bool:
    """Whether the lanes that are switched off, those of a loop's remainder, meet only what is unused at the end of a row.

    Then they need not keep what is there: merging would cost an operation, and a register, for each vector of a tile.
    """
    lanes = f.mask.active if f.mask else None
    if not s.filled or lanes is None or list(lanes) != sorted(lanes, reverse=True):
        return False  # not known, or not the first lanes
    active = sum(lanes)
    row = s.extents[-1].const
    rest = uniform.split_multiples(row)[1]
    return rest.is_const and rest.const + active == s.filled and rest.const + f.lanes <= row


def _has_room(f: Frame, s: Storage, offset: Poly) -> bool:
    """Whether all lanes, active or not, stay inside the memory reserved in the function's frame."""
    if not s.room:
        return False
    uniform, stride, varying = offset.lane_parts()
    lo, hi = uniform.range()
    reach = stride * (f.lanes - 1)
    return not varying.terms and lo is not None and hi is not None and lo + min(reach, 0) >= 0 and hi + max(reach, 0) < s.room


def last_lane(f: Frame, v: Value) -> Value:
    """The value of the last lane (the one that remains when all lanes write one element)."""
    if not v.lanes:
        return v
    return Value(f.w.pure(f"extractelement {v.operand}, i64 {v.lanes - 1}"), v.dtype)


def lane_is_injective(offset: Poly) -> bool:
    """Whether two lanes certainly address different elements."""
    _, stride, varying = offset.lane_parts()
    return stride != 0 and not varying.terms


def lane_value(f: Frame, v: Value, lane: int) -> Value:
    """One lane of a value."""
    return Value(f.w.pure(f"extractelement {v.operand}, i64 {lane}"), v.dtype) if v.lanes else v


def lane_offset(f: Frame, offset: Poly, lane: int) -> Poly:
    """``offset`` of one lane, as a scalar."""
    vec = f.w.index_value(offset, f.lanes)
    return f.atom(f.w.pure(f"extractelement {value_type(ty.index, f.lanes)} {vec}, i64 {lane}"))
