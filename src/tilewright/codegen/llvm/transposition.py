"""Transpositions in registers: copies whose source is contiguous along another loop than their target.

Gathering takes one access for each element. Here whole vectors are loaded along the loop in which the source is
contiguous, and as many of them as they have lanes are turned into vectors along the other by shuffles:
lanes * log2(lanes) of them, all on registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tilewright.codegen.llvm import access
from tilewright.codegen.llvm.access import LANE
from tilewright.codegen.llvm.conversion import from_memory
from tilewright.codegen.llvm.expression import poly
from tilewright.codegen.llvm.frame import Frame, Storage
from tilewright.codegen.llvm.index import Atom, Poly
from tilewright.codegen.llvm.values import Value, memory_type
from tilewright.codegen.llvm.vector import first_lanes
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Block, For, LoopKind, Stmt, Store

#: Square blocks in one loop that are written out at most; more become a loop over blocks.
MAX_BLOCKS = 4


def emit_loop(f: Frame, s: For, emit: Callable[[Frame, Stmt], None]) -> bool:
    """Write loop ``s`` around a vector loop that copies across memory; False (and no access written) when it is something else.

    All loads of a block come before its stores: source and target are different buffers. ``emit`` writes the statements
    into which a long loop is taken apart.
    """
    inner = s.body.stmts[0] if len(s.body.stmts) == 1 else None
    if f.lanes or s.kind not in (LoopKind.SERIAL, LoopKind.UNROLL) or not isinstance(inner, For) or inner.kind is not LoopKind.VECTOR:
        return False
    store = inner.body.stmts[0] if len(inner.body.stmts) == 1 else None
    if not isinstance(store, Store) or store.op is not None or not isinstance(store.value, Load) or s.step != 1 or inner.step != 1:
        return False
    target, source = f.storages[store.buffer.name], f.storages[store.value.buffer.name]
    dtype = store.buffer.dtype
    if source.buffer.dtype != dtype or source is target or source.lanes or target.lanes or dtype.bits not in (16, 32, 64):
        return False
    if any(isinstance(e, Load) for i in (*store.indices, *store.value.indices) for e in ex.walk(i)):
        return False
    lanes = f.module.vector_bits // dtype.bits
    across, along = _extent(f, s), _extent(f, inner)
    if across < lanes or along == 0 or -(-along // lanes) > MAX_BLOCKS:
        return False
    if across % lanes or -(-along // lanes) * (across // lanes) > MAX_BLOCKS:
        if _plan(f, s, inner, store, 0, 0, lanes) is None:
            return False
        for part in _taken_apart(s, across // lanes, lanes):
            f.module.keep(part)
            emit(f, part)
        return True
    found = [_plan(f, s, inner, store, x, y, lanes) for x in range(0, across, lanes) for y in range(0, along, lanes)]
    plans = [p for p in found if p is not None]
    if len(plans) < len(found):
        return False
    for p in plans:
        _block(f, source, target, p, lanes)
    return True


def _taken_apart(s: For, blocks: int, lanes: int) -> Iterator[For]:
    """``s`` as a loop over ``blocks`` of ``lanes`` iterations, and the iterations that are left."""
    block = Var(f"{s.name} block")
    at = s.lo + block * lanes
    body = st.substitute(s.body, {s.name: at + s.var})
    assert isinstance(body, Block)  # substitution keeps the kind of statement
    within = replace(s, body=body, lo=ex.idx(0), hi=ex.idx(lanes))
    yield For(block, ex.idx(0), ex.idx(blocks), Block((within,)))
    yield replace(s, lo=s.lo + blocks * lanes)


_Offsets = tuple[list[Poly], list[Poly]]


def _extent(f: Frame, s: For) -> int:
    """The number of iterations; 0 where it is not known."""
    count = poly(f, s.hi) - poly(f, s.lo)
    return max(count.const, 0) if count.is_const else 0


def _plan(f: Frame, s: For, inner: For, store: Store, x: int, y: int, lanes: int) -> _Offsets | None:
    """Offsets by lane of the rows to load and of those to store in the block at iterations ``x`` and ``y``; None unless all
    are contiguous, and the source is not contiguous along the vector loop anyway."""
    assert isinstance(store.value, Load)  # the caller looked
    across, along = poly(f, s.lo) + Poly(x), poly(f, inner.lo) + Poly(y)
    count = min(lanes, (poly(f, inner.hi) - along).const)
    source, target = f.storages[store.value.buffer.name], f.storages[store.buffer.name]
    loads = [_offset(f, source, store.value.indices, {s.name: across}, {inner.name: along + Poly(n)}, lanes, lanes) for n in range(count)]
    stores = [_offset(f, target, store.indices, {inner.name: along}, {s.name: across + Poly(n)}, lanes, count) for n in range(lanes)]
    gathered = _offset(f, source, store.value.indices, {inner.name: along}, {s.name: across}, lanes, count)
    if any(not _contiguous(o) for o in (*loads, *stores)) or _contiguous(gathered):
        return None
    return loads, stores


def _offset(
    f: Frame, s: Storage, indices: tuple[Expr, ...], moving: dict[str, Poly], fixed: dict[str, Poly], lanes: int, active: int
) -> Poly:
    """Element number in memory by lane, the first ``active`` of which count, when the loop in ``moving`` is spread over them."""
    numbers = "<" + ", ".join(f"i64 {i}" for i in range(lanes)) + ">"
    lane = Poly.of(Atom(numbers, f.module.number(), 0, active - 1, lanes, is_lane=True))
    ((name, start),) = moving.items()
    ((other, at),) = fixed.items()
    with f.vector(lanes, None), f.bound(LANE, lane), f.bound(name, start + lane), f.bound(other, at):
        return access.physical_offset(f, s, tuple(poly(f, i) for i in indices))


def _contiguous(offset: Poly) -> bool:
    _, stride, varying = offset.lane_parts()
    return stride == 1 and not varying.terms


def _block(f: Frame, source: Storage, target: Storage, plan: _Offsets, lanes: int) -> None:
    loads, stores = plan
    dtype = source.buffer.dtype
    vec = memory_type(dtype, lanes)
    with f.vector(lanes, None):
        rows = [f.w.op(f"load {vec}, ptr {_start(f, source, o)}, align {access.element_align(source)}") for o in loads]
    rows += ["poison"] * (lanes - len(rows))
    for distance in _powers_of_two(lanes):
        for n in range(lanes):
            if not n & distance:
                rows[n], rows[n + distance] = _exchanged(f, vec, rows[n], rows[n + distance], lanes, distance)
    with f.vector(lanes, first_lanes(f, len(loads), lanes)):
        for o, row in zip(stores, rows, strict=True):
            access.store(f, target, o, from_memory(f.w, Value(row, dtype, lanes), dtype))


def _start(f: Frame, s: Storage, offset: Poly) -> str:
    return access.address(f, s, offset.lane_parts()[0])


def _powers_of_two(end: int) -> Iterator[int]:
    n = 1
    while n < end:
        yield n
        n *= 2


def _exchanged(f: Frame, vec: str, a: str, b: str, lanes: int, distance: int) -> tuple[str, str]:
    """``a`` and ``b`` with the lanes of ``a`` whose number has the bit ``distance`` and those of ``b`` that lack it exchanged."""
    if a == b == "poison":
        return a, b
    low = [lanes + c - distance if c & distance else c for c in range(lanes)]
    high = [lanes + c if c & distance else c + distance for c in range(lanes)]
    first, second = (", ".join(f"i32 {c}" for c in pick) for pick in (low, high))
    mask = f"<{lanes} x i32>"
    return (
        f.w.op(f"shufflevector {vec} {a}, {vec} {b}, {mask} <{first}>"),
        f.w.op(f"shufflevector {vec} {a}, {vec} {b}, {mask} <{second}>"),
    )
