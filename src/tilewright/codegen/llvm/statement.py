"""Statements: blocks, stores, conditions, and loops that run one iteration after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilewright.codegen.llvm import access, arithmetic, control, instruction, parallel, reduction, storage, transposition, vector
from tilewright.codegen.llvm.expression import converted, narrowed, poly, value
from tilewright.codegen.llvm.frame import Frame
from tilewright.codegen.llvm.index import Poly
from tilewright.codegen.llvm.values import Value
from tilewright.ir.stmt import Alloc, Block, Call, For, If, LoopKind, Stmt, Store, While, walk
from tilewright.util.errors import CodegenError

#: Longest loop that is unrolled because the schedule says so; longer ones stay loops.
MAX_UNROLL = 1024


def emit(f: Frame, s: Stmt) -> None:
    """Write the code of one statement."""
    try:
        handler = _EMIT[type(s)]
    except KeyError:
        raise CodegenError(f"{type(s).__name__} cannot be compiled for a CPU") from None
    handler(f, s)


def _block(f: Frame, b: Block) -> None:
    declared: list[str] = []
    for s in b.stmts:
        if isinstance(s, Alloc):
            storage.declare(f, s.buffer)
            declared.append(s.buffer.name)
        else:
            emit(f, s)
    for name in reversed(declared):
        storage.release(f, name)


def _alloc(f: Frame, s: Alloc) -> None:
    storage.declare(f, s.buffer)


def _store(f: Frame, s: Store) -> None:
    target = f.storages[s.buffer.name]
    if s.op is not None and s.buffer.name in f.accumulators:
        reduction.accumulate(f, s, f.accumulators[s.buffer.name])
        return
    offset = access.physical_offset(f, target, tuple(poly(f, i) for i in s.indices))
    if s.op is None:
        access.store(f, target, offset, converted(f, s.value, s.buffer.dtype))
    elif f.lanes and not target.lanes and offset.is_uniform:
        reduction.reduce_into(f, s, target, offset)
    elif f.lanes and not target.lanes and not access.lane_is_injective(offset):
        reduction.update_each_lane(f, s, target, offset)
    else:
        old = access.load(f, target, offset, f.mask is None)
        access.store(f, target, offset, reduction.updated(f, s.op, old, s.value, s.buffer.dtype))


# --- conditions -------------------------------------------------------------------------------


def _if(f: Frame, s: If) -> None:
    cond = value(f, s.cond)
    if cond.is_literal and not cond.lanes:
        chosen = s.then if cond.ref == "true" else s.orelse
        if chosen:
            emit(f, chosen)
    elif cond.lanes:
        _where_active(f, narrowed(f, cond), s.then)
        if s.orelse:
            _where_active(f, narrowed(f, arithmetic.negate(f.w, cond)), s.orelse)
    else:
        orelse = s.orelse
        control.conditional(f, cond.ref, lambda: emit(f, s.then), (lambda: emit(f, orelse)) if orelse else None)


def _where_active(f: Frame, mask: Value, body: Block) -> None:
    """``body`` in the lanes of ``mask``, skipped when there are none."""
    anyone = f.w.pure(f"call i1 @llvm.vector.reduce.or.v{f.lanes}i1({mask.operand})")
    with f.masked(mask, True):
        control.conditional(f, anyone, lambda: emit(f, body), None)


def _while(f: Frame, s: While) -> None:
    w = f.w
    f.module.has_plain_loops = True
    head, body, end = w.block("while"), w.block("body"), w.block("done")
    w.jump(head)
    w.start(head)
    cond = value(f, s.cond)
    w.branch(cond.ref, body, end)
    w.start(body)
    emit(f, s.body)
    w.jump(head)
    w.start(end)


# --- loops ------------------------------------------------------------------------------------


def _for(f: Frame, s: For) -> None:
    if s.kind is LoopKind.VECTOR and not f.lanes and vector.vectorisable(f, s):
        with reduction.accumulators(f, s):
            vector.emit_loop(f, s, lambda: emit(f, s.body))
    elif s.kind is LoopKind.PARALLEL and not f.lanes and not f.thread:
        parallel.emit_loop(f, s, lambda inner: emit(inner, s.body))
    elif transposition.emit_loop(f, s, emit) or (s.kind in (LoopKind.UNROLL, LoopKind.VECTOR) and _unrolled(f, s)):
        return
    elif f.lanes:
        serial_loop(f, s)
    else:
        with reduction.accumulators(f, s):
            serial_loop(f, s)


def _unrolled(f: Frame, s: For) -> bool:
    """Write every iteration; False if there are too many or their number is unknown."""
    lo, hi = poly(f, s.lo), poly(f, s.hi)
    extent = hi - lo
    if not extent.is_const or extent.const > MAX_UNROLL * s.step:
        return False
    for i in range(0, extent.const, s.step):
        with f.bound(s.name, lo + Poly(i)):
            emit(f, s.body)
    return True


def serial_loop(f: Frame, s: For) -> None:
    """The iterations in order."""
    control.counted_loop(f, s.name, poly(f, s.lo), poly(f, s.hi), s.step, lambda: emit(f, s.body), _is_scheduled(f, s))


def _is_scheduled(f: Frame, s: For) -> bool:
    """Whether the loop is, or contains, code whose vectors the schedule chose."""
    if f.lanes:
        return True
    key = ("scheduled", id(s))
    if key not in f.module.analyses:
        kinds = (LoopKind.VECTOR, LoopKind.UNROLL)
        f.module.analyses[key] = any(isinstance(t, Call) or (isinstance(t, For) and t.kind in kinds) for t in walk(s.body))
    return f.module.analyses[key]


_EMIT: dict[type, Callable[[Frame, Any], None]] = {
    Block: _block,
    Alloc: _alloc,
    Store: _store,
    If: _if,
    While: _while,
    For: _for,
    Call: instruction.emit_call,
}
