"""seed: what is added to a finished sum is where the sum starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Cast, Const, Expr, Load, Var
from tilewright.ir.simplify import scope_of
from tilewright.ir.stmt import Alloc, Block, For, Kernel, Stmt, Store
from tilewright.ir.types import INT, UINT, DType
from tilewright.schedule.guarded import check_unguarded
from tilewright.schedule.nest import replace_stmt
from tilewright.schedule.primitive import primitive
from tilewright.schedule.unify import Chain, chain_of
from tilewright.util.errors import ScheduleError


@primitive
def seed(kernel: Kernel, buffer: str) -> tuple[Kernel, tuple[str, ...]]:
    """``s = 0; s += ..; y = f(i32(s + b))`` becomes ``s = b; s += ..; y = f(s)``: accumulators can be loaded with ``b``.

    ``buffer`` is the local array of sums ``s``, here of i32. Sums of integers that wrap may be formed in any order, so ``s + b`` must be
    narrowed to their type, and what is added may be anything that does not change in between. Sums of floats may, as those of a reduction,
    but round differently: only elements are moved that rows of accumulators can be loaded with, of an array of their type whose last
    dimension is walked as the innermost of the result. Returns the loops of the nest that starts the sums. ScheduleError: not such a
    program.
    """
    subject = f"seed {buffer}"
    block = kernel.body.stmts
    local = next((s.buffer for s in block if isinstance(s, Alloc) and s.buffer.name == buffer), None)
    if local is None or not (local.dtype.kind in (INT, UINT) or local.dtype.is_float):
        raise ScheduleError(f"{subject}: it is no array of integers or floats allocated at the top of kernel {kernel.name}")
    writers = [s for s in block if buffer in st.written_buffers(s)]
    readers = [s for s in block if buffer in st.read_buffers(s) and s not in writers]
    first, last = chain_of(writers[0]) if writers else None, chain_of(readers[0]) if len(readers) == 1 else None
    if first is None or last is None or not _zero(first.store):
        raise ScheduleError(f"{subject}: it does not start at 0, or is not read by one perfect nest")
    for s in writers[1:]:
        chain = chain_of(s)
        if chain is None or chain.store.op != "+":
            raise ScheduleError(f"{subject}: `{str(s).splitlines()[0]}` does not add to it", location=getattr(s, "loc", None))
    inner = _innermost(last.store)
    whole, own, addend = _addend(last.store.value, local, inner, subject)
    env = _renamed(own, first, last, subject)
    moved = ex.substitute(addend, env)
    _check_unchanged(block, writers[0], readers[0], addend, subject)
    value = moved if moved.dtype == local.dtype else ex.cast(moved, local.dtype)
    started = _with_store(first, replace(first.store, value=value))
    check_unguarded(scope_of(kernel), last.store.value, addend, started, subject)
    finished = _with_store(last, replace(last.store, value=_with(own, whole, last.store.value)))
    out = replace_stmt(replace_stmt(kernel, writers[0], started), readers[0], finished)
    return out, tuple(f.name for f in first.loops)


def _zero(s: Store) -> bool:
    return s.op is None and isinstance(s.value, Const) and s.value.value == 0


def _narrowed(e: Expr, own: str, dtype: DType, inner: Expr) -> tuple[Load, Expr] | None:
    """``dtype(own[..] + b)``: the load and b. Only what wraps like the sums may be added in another order; floats are added as they are."""
    if not dtype.is_float:
        if not (isinstance(e, Cast) and e.dtype == dtype):
            return None
        e = e.a
    if isinstance(e, Binary) and e.op == "+":
        for a, b in ((e.a, e.b), (e.b, e.a)):
            if (
                isinstance(a, Load)
                and a.buffer.name == own
                and (_in_rows(b, dtype, inner) if dtype.is_float else e.dtype.is_int and b.dtype.is_int)
            ):
                return a, b
    return None


def _in_rows(b: Expr, dtype: DType, inner: Expr) -> bool:
    """Whether ``b`` is an element of this type whose last index is ``inner``."""
    return isinstance(b, Load) and b.dtype == dtype and b.indices[-1:] == (inner,)


def _innermost(s: Store) -> Expr:
    """The index along which neighbours in memory are stored."""
    layout = s.buffer.layout
    return s.indices[layout.dims[-1][0] if layout else -1] if s.indices else ex.idx(0)


def _addend(value: Expr, own: Buffer, inner: Expr, subject: str) -> tuple[Expr, Load, Expr]:
    """The sum in ``value`` that can be formed before, the load in it, and what is added to that."""
    uses = [ld for ld in ex.loads(value) if ld.buffer.name == own.name]
    found = [(e, *x) for e in ex.walk(value) if (x := _narrowed(e, own.name, own.dtype, inner)) is not None]
    if len(uses) != 1 or len(found) != 1:
        wraps = f"write {own.dtype}({own.name}[..] + b[..]), which wraps like the sums"
        way_out = f"write {own.name}[..] + b[..] with b of {own.dtype}, in rows like the sums" if own.dtype.is_float else wraps
        raise ScheduleError(f"{subject}: nothing is added to it where it is read, once, by {value}", hint=way_out)
    return found[0]


def _with(own: Load, whole: Expr, value: Expr) -> Expr:
    """``value`` with the load in place of the one sum that starts with the addend: sums around that stay."""
    return ex.transform(value, lambda e: own if e == whole else None)


def _renamed(own: Load, first: Chain, last: Chain, subject: str) -> dict[str, Expr]:
    """The loops of the reading nest as those of the starting nest: both walk every element."""
    env: dict[str, Expr] = {}
    for mine, theirs in zip(first.store.indices, own.indices, strict=True):
        if isinstance(mine, Var) and isinstance(theirs, Var):
            env[theirs.name] = mine
        elif mine != theirs:
            raise ScheduleError(f"{subject}: it is not read element by element ({theirs})")
    if missing := {f.name for f in last.loops} - env.keys():
        raise ScheduleError(f"{subject}: loop {sorted(missing)[0]} of the nest that reads it does not walk it")
    bounds = {f.name: (f.lo, f.hi, f.step) for f in first.loops}
    for f in last.loops:
        target = env[f.name]
        if not isinstance(target, Var) or bounds.get(target.name) != (f.lo, f.hi, f.step):
            raise ScheduleError(f"{subject}: loop {f.name} does not walk what loop {target} starts")
    return env


def _check_unchanged(block: Sequence[Stmt], start: Stmt, end: Stmt, addend: Expr, subject: str) -> None:
    used = {ld.buffer.name for ld in ex.loads(addend)}
    inside = False
    for s in block:
        inside = inside or s is start
        if s is end:
            return
        if changed := sorted(used & st.written_buffers(s)) if inside else []:
            raise ScheduleError(f"{subject}: {changed[0]} is written while the sums are formed", location=getattr(s, "loc", None))
        if isinstance(s, Alloc) and s.buffer.name in used and inside:
            raise ScheduleError(f"{subject}: {s.buffer.name} does not exist yet where the sums start")


def _with_store(chain: Chain, store: Store) -> Stmt:
    body: Stmt = store
    for f in reversed(chain.loops):
        body = For(f.var, f.lo, f.hi, Block((body,)), f.kind, f.step, f.unit, f.loc)
    return body
