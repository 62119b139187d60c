"""recenter: a sum of products with one operand stored in the integer type of the other signedness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer, buffer
from tilewright.ir.expr import Binary, Cast, Expr, Load, Var
from tilewright.ir.stmt import Alloc, Block, For, Kernel, Stmt, Store, names
from tilewright.ir.types import INT, UINT, DType
from tilewright.schedule.nest import copied, fresh, loop_place, trip_count
from tilewright.schedule.primitive import primitive
from tilewright.schedule.primitives.rfactor import reduction_nest
from tilewright.util.errors import ScheduleError


@primitive
def recenter(kernel: Kernel, loop: str, operand: str) -> tuple[Kernel, tuple[str, ...]]:
    """Read ``operand`` of the sum of products around ``loop`` as ``operand + h``, in the integer type of the other signedness.

    ``h`` is half the range, 128 for i8 as u8 and -128 for u8 as i8, and ``sum a*b = sum (a+h)*b - h * sum b``: exact,
    since integers wrap. Instructions often multiply one signed by one unsigned number only. ``c = 0; c += a * b``
    becomes: copy ``a + h``; sum ``b``; ``p = 0``; ``p += (a + h) * b``; ``c = p - h * sum``. Returns (copy, sums of
    the other operand, accumulator). ScheduleError: no such sum of products of integers at the top of the kernel.
    """
    subject = f"recenter {operand}, {loop}"
    chain, store = reduction_nest(kernel, loop, subject)
    factors = _factors(store, operand)
    if factors is None:
        raise ScheduleError(
            f"{subject}: {store} is not a sum of exact products of {operand} and one other integer",
            hint="widen both factors before multiplying",
            location=store.loc,
        )
    if any(trip_count(f) is None or f.step != 1 or f.lo != ex.idx(0) for f in chain):
        raise ScheduleError(f"{subject}: loops must count from 0 to a constant", location=chain[0].loc)
    block = loop_place(kernel, chain[0].name, "recenter").block
    if block is not kernel.body:
        raise ScheduleError(f"{subject}: the nest is not at the top of the kernel", location=chain[0].loc)
    rewrite = _Rewrite(chain, store, *factors, names(kernel))
    at = next(n for n, s in enumerate(block.stmts) if s is chain[0])
    start = _start(block.stmts[:at], rewrite)
    before = tuple(s for n, s in enumerate(block.stmts[:at]) if n != start)
    made, buffers = rewrite.statements(fresh_start=start is not None)
    return kernel.with_(body=Block((*before, *made, *block.stmts[at + 1 :]))), buffers


def opposite(t: DType) -> DType:
    """The integer type as wide as ``t`` of the other signedness."""
    return DType(UINT if t.kind == INT else INT, t.bits)


def _factors(store: Store, operand: str) -> tuple[Load, Load] | None:
    """The two loads that are multiplied, that of ``operand`` first."""
    value, t = store.value, store.buffer.dtype
    while isinstance(value, Cast) and value.dtype.kind in (INT, UINT) and value.dtype.bits >= t.bits:
        value = value.a  # what wraps at least as late as the sum
    if store.op != "+" or t.kind not in (INT, UINT) or not isinstance(value, Binary) or value.op != "*":
        return None
    loads = [_loaded(e) for e in (value.a, value.b)]
    if loads[0] is not None and loads[0].buffer.name != operand:
        loads.reverse()
    a, b = loads
    if a is None or b is None or a.buffer.name != operand or b.buffer.name == operand:
        return None
    small = all(x.dtype.kind in (INT, UINT) and x.dtype.bits < t.bits for x in (a, b)) and value.dtype.bits >= a.dtype.bits + b.dtype.bits
    return (a, b) if small and store.buffer.name not in (a.buffer.name, b.buffer.name) else None


def _loaded(e: Expr) -> Load | None:
    """The load that ``e`` widens."""
    if isinstance(e, Cast) and e.a.dtype.is_int and e.a.dtype.bits <= e.dtype.bits:
        return _loaded(e.a)
    return e if isinstance(e, Load) else None


@dataclass(slots=True)
class _Rewrite:
    """The nest ``chain`` around ``store``, which multiplies ``a`` by ``b``; names in use."""

    chain: list[For]
    store: Store
    a: Load
    b: Load
    taken: set[str]

    @property
    def spatial(self) -> list[For]:
        used = {n for i in self.store.indices for n in ex.free_vars(i)}
        return [f for f in self.chain if f.name in used]

    def statements(self, fresh_start: bool) -> tuple[tuple[Stmt, ...], tuple[str, ...]]:
        """What stands in place of the nest (and of the result's start, if ``fresh_start``), and the new buffers."""
        store, t = self.store, self.store.buffer.dtype
        source, h = self.a.buffer, 1 << (self.a.dtype.bits - 1)
        h = h if self.a.dtype.kind == INT else -h
        copy = source.with_(name=fresh(self.taken, f"{source.name}_shifted"), dtype=opposite(source.dtype))
        at = tuple(Var(f"{source.name}_{d}") for d in range(source.rank))
        fill = _nest([(v, e) for v, e in zip(at, source.shape, strict=True)], Store(copy, at, _shifted(Load(source, at), h, copy.dtype, t)))
        spatial = self.spatial
        moving = [f for f in spatial if f.name in {n for i in self.b.indices for n in ex.free_vars(i)}]
        summed = [f for f in self.chain if f not in spatial]
        sums = self.local(f"{self.b.buffer.name}_sums", moving)
        parts = self.local(f"{store.buffer.name}_shifted", spatial)
        own, every = tuple(f.var for f in moving), tuple(f.var for f in spatial)
        zero = ex.const(0, t)
        total = [_nest(_box(moving), Store(sums, own, zero)), _nest(_box([*moving, *summed]), Store(sums, own, ex.cast(self.b, t), "+"))]
        start = _nest(_box(spatial), Store(parts, every, zero))
        product = ex.cast(Load(copy, self.a.indices), t) * ex.cast(self.b, t)
        result = Load(parts, every) - ex.const(h, t) * Load(sums, own)
        last = _nest(_box(spatial), replace(store, value=result, op=None if fresh_start else "+"))
        update = _nest(_box(self.chain), Store(parts, every, product, "+"))
        nests = [copied(Block((s,)), self.taken).stmts[0] for s in (fill, *total, start, last)]
        made = (Alloc(copy), nests[0], Alloc(sums), nests[1], nests[2], Alloc(parts), nests[3], update, nests[4])
        return made, (copy.name, sums.name, parts.name)

    def local(self, name: str, loops: Sequence[For]) -> Buffer:
        return buffer(fresh(self.taken, name), self.store.buffer.dtype, tuple(f.hi for f in loops), self.store.buffer.memory)


def _shifted(value: Expr, h: int, to: DType, wide: DType) -> Expr:
    return ex.cast(ex.cast(value, wide) + ex.const(h, wide), to)


def _box(loops: Sequence[For]) -> list[tuple[Var, Expr]]:
    return [(f.var, f.hi) for f in loops]


def _nest(loops: Sequence[tuple[Var, Expr]], inner: Stmt) -> Stmt:
    for var, extent in reversed(loops):
        inner = For(var, ex.idx(0), extent, Block((inner,)))
    return inner


def _start(before: Sequence[Stmt], rewrite: _Rewrite) -> int | None:
    """The position of the nest that sets the whole result to zero just before, where the update walks the whole result too."""
    out = rewrite.store.buffer
    last = next((n for n in reversed(range(len(before))) if out.name in st.written_buffers(before[n]) | st.read_buffers(before[n])), None)
    if last is None or not _covers(rewrite.store, rewrite.spatial):
        return None
    loops, s = list[For](), before[last]
    while isinstance(s, For) and len(s.body.stmts) == 1:
        loops.append(s)
        s = s.body.stmts[0]
    zero = isinstance(s, Store) and s.op is None and isinstance(s.value, ex.Const) and s.value.value == 0 and s.buffer == out
    return last if zero and isinstance(s, Store) and _covers(s, loops) else None


def _covers(s: Store, loops: Sequence[For]) -> bool:
    """Whether every element is stored to once: one loop from 0 to the end in each dimension."""
    walked = {f.name: f for f in loops}
    if len(loops) != len(s.indices) or {i.name for i in s.indices if isinstance(i, Var)} != set(walked):
        return False
    found = [walked[i.name] for i in s.indices if isinstance(i, Var)]
    return all(f.lo == ex.idx(0) and f.step == 1 and f.hi == e for f, e in zip(found, s.buffer.shape, strict=True))
