"""Buffers brought to life: arguments, and the places the plan gave to declared ones."""

from __future__ import annotations

from math import prod

from tilewright.codegen.llvm.expression import poly
from tilewright.codegen.llvm.frame import Frame, Storage
from tilewright.codegen.llvm.index import Poly
from tilewright.codegen.llvm.values import memory_type
from tilewright.codegen.llvm.workspace import ALIGN, FRAME, HEAP, SHARED
from tilewright.ir.buffer import Buffer
from tilewright.util.errors import CodegenError

#: Elements of slack behind a buffer in the function's frame, for lanes that a mask switches off.
_SLACK = 64


def adopt(f: Frame, b: Buffer, ref: str, align: int, lanes: int = 0, room: int = 0, row: Poly | None = None) -> None:
    """Buffer ``b`` lives at pointer ``ref``; ``row`` is the distance of its rows in memory where that is not their length."""
    extents, filled = tuple(poly(f, e) for e in b.physical_shape()), 0
    if row is not None:
        filled = max(extents[-1].const, 0) if extents[-1].is_const else 0
        extents = (*extents[:-1], row)
    f.storages[b.name] = Storage(b, ref, extents, align, lanes, room, filled)


def declare(f: Frame, b: Buffer) -> None:
    """The storage of a buffer that a kernel declares."""
    place = f.module.plan.places[b.name]
    if place.where == FRAME:
        _in_frame(f, b)
    elif place.where == HEAP:
        _on_heap(f, b)
    else:
        adopt(f, b, _workspace_pointer(f, place.offset, place.where == SHARED), ALIGN)


def release(f: Frame, name: str) -> None:
    """End of the buffer's life."""
    if f.module.plan.places[name].where == HEAP:
        f.w.line(f"call void @free(ptr {f.storages[name].ref})")
    del f.storages[name]


def _in_frame(f: Frame, b: Buffer) -> None:
    extents = []
    for e in b.physical_shape():
        most = poly(f, e).range()[1]
        if most is None:
            raise CodegenError(
                f"buffer {b.name} is declared in a vector loop or in registers but its extent {e} has no known bound",
                hint="give it a constant shape",
            )
        extents.append(max(most, 0))
    lanes = f.lanes
    row = None
    if len(extents) > 1 and not lanes:
        # Whole vectors a row: masked lanes of one row's tail must not share a vector with the next row,
        # or the optimiser could not keep the rows in registers of their own.
        extents[-1] = _vectors_wide(extents[-1], f.module.vector_bits // max(b.dtype.nbytes * 8, 8))
        row = Poly(extents[-1])
    elements = prod(extents)
    room = 0 if lanes else elements + _SLACK
    ref = f.w.alloca(memory_type(b.dtype), max(elements * lanes if lanes else room, 1), ALIGN)
    adopt(f, b, ref, ALIGN, lanes, room, row)


def _vectors_wide(extent: int, lanes: int) -> int:
    """``extent`` rounded up to what the chunks of a vector loop over it touch."""
    rest = extent % max(lanes, 1)
    return extent - rest + (min(lanes, 1 << (rest - 1).bit_length()) if rest else 0)


def _on_heap(f: Frame, b: Buffer) -> None:
    total = Poly(b.dtype.nbytes)
    for e in b.physical_shape():
        total = total * poly(f, e)
    w = f.w
    size = w.scalar_index(total)
    whole = w.pure(f"and i64 {w.pure(f'add i64 {size}, {2 * ALIGN - 1}')}, {-ALIGN}")
    f.module.declares["aligned_alloc"] = "declare noalias ptr @aligned_alloc(i64, i64)"
    f.module.declares["free"] = "declare void @free(ptr)"
    adopt(f, b, w.op(f"call ptr @aligned_alloc(i64 {ALIGN}, i64 {whole})"), ALIGN)


def _workspace_pointer(f: Frame, offset: int, shared: bool) -> str:
    w = f.w
    if shared:
        return w.op(f"getelementptr inbounds i8, ptr {f.workspace}, i64 {offset}")
    plan = f.module.plan
    skip = w.op(f"mul nsw i64 {f.thread or '0'}, {plan.thread}")
    mine = w.op(f"getelementptr inbounds i8, ptr {f.workspace}, i64 {skip}")
    return w.op(f"getelementptr inbounds i8, ptr {mine}, i64 {plan.shared + offset}")
