"""Vector loops: their iterations in chunks of as many lanes as the hardware's vectors hold.

A chunk runs every statement of the body for all its lanes before the next statement. That is the
meaning of a vector loop: the primitive that made it proved that no iteration depends on
another except through reductions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tilewright.codegen.llvm import control
from tilewright.codegen.llvm.access import LANE
from tilewright.codegen.llvm.expression import poly
from tilewright.codegen.llvm.frame import Frame
from tilewright.codegen.llvm.index import Atom, Poly
from tilewright.codegen.llvm.values import Value
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Cast, Const, Expr, Load
from tilewright.ir.stmt import Alloc, Call, For, If, LoopKind, Store, While, own_exprs, walk

#: Most chunks written one after the other; more become a loop over chunks.
MAX_CHUNKS = 8
#: Vectors of a reduction that are in flight at once: latency times throughput of an addition.
IN_FLIGHT = 4


def emit_loop(f: Frame, s: For, body: Callable[[], None]) -> None:
    """Write vector loop ``s``; ``body`` writes its body in the current lanes."""
    lo, hi = poly(f, s.lo), poly(f, s.hi)
    lanes = lanes_of(f, s, accumulating=bool(_accumulated(f, s)))
    extent = hi - lo
    if s.step != 1:
        extent = _steps(f, extent, s.step)
    if extent.is_const:
        _constant_extent(f, s, lo, max(extent.const, 0), lanes, body)
    else:
        _symbolic_extent(f, s, lo, extent, lanes, body)


def _steps(f: Frame, span: Poly, step: int) -> Poly:
    from tilewright.codegen.llvm.access import floordiv

    return floordiv(f, span + Poly(step - 1), step)


def _accumulated(f: Frame, s: For) -> list[str]:
    return [t.buffer.name for t in walk(s.body) if isinstance(t, Store) and t.op and t.buffer.name in f.accumulators]


def _constant_extent(f: Frame, s: For, lo: Poly, n: int, lanes: int, body: Callable[[], None]) -> None:
    full = n // lanes
    if full > MAX_CHUNKS and not _uses_registers(f, s):
        _chunk_loop(f, s, lo, Poly(full * lanes), lanes, body)
    else:
        for c in range(full):
            _chunk(f, s, lo + Poly(c * lanes * s.step), lanes, body)
    rest = n - full * lanes
    if rest:
        width = lanes if _accumulated(f, s) else min(lanes, 1 << (rest - 1).bit_length())
        _chunk(f, s, lo + Poly(full * lanes * s.step), width, body, active=rest)


def _symbolic_extent(f: Frame, s: For, lo: Poly, extent: Poly, lanes: int, body: Callable[[], None]) -> None:
    w = f.w
    n = w.scalar_index(extent)
    positive = w.pure(f"call i64 @llvm.smax.i64(i64 {n}, i64 0)")
    hi = extent.range()[1]
    whole = f.atom(w.pure(f"and i64 {positive}, {-lanes}"), 0, hi)
    _chunk_loop(f, s, lo, whole, lanes, body)
    rest = w.pure(f"and i64 {positive}, {lanes - 1}")
    then, end = w.block("tail"), w.block("endtail")
    w.branch(w.pure(f"icmp ne i64 {rest}, 0"), then, end)
    w.start(then)
    _chunk(f, s, lo + whole.scaled(s.step), lanes, body, active=rest)
    w.jump(end)
    w.start(end)


def _chunk_loop(f: Frame, s: For, lo: Poly, end: Poly, lanes: int, body: Callable[[], None]) -> None:
    def one() -> None:
        _chunk(f, s, lo + f.env[name].scaled(s.step), lanes, body)

    name = "%chunk " + s.name
    most = end.range()[1]
    control.counted_loop(f, name, Poly(), end, lanes, one, scheduled=True, last=None if most is None else most - lanes)


def _chunk(f: Frame, s: For, base: Poly, lanes: int, body: Callable[[], None], active: int | str = 0) -> None:
    """Lanes ``base .. base + lanes``, of which the first ``active`` (0: all) execute."""
    known = active if isinstance(active, int) and active else lanes if active == 0 else lanes - 1
    numbers = "<" + ", ".join(f"i64 {i}" for i in range(lanes)) + ">"
    lane = Poly.of(Atom(numbers, f.module.number(), 0, known - 1, lanes, is_lane=True))
    with f.vector(lanes, first_lanes(f, active, lanes)), f.bound(LANE, lane), f.bound(s.name, base + lane.scaled(s.step)):
        body()


def first_lanes(f: Frame, active: int | str, lanes: int) -> Value | None:
    """Mask of the first ``active`` lanes; None for all."""
    if active in (0, lanes):
        return None
    if isinstance(active, int):
        bits = "<" + ", ".join(f"i1 {'true' if i < active else 'false'}" for i in range(lanes)) + ">"
        return Value(bits, ty.boolean, lanes)
    numbers = "<" + ", ".join(f"i32 {i}" for i in range(lanes)) + ">"
    count = f.w.spread_text(f.w.pure(f"trunc i64 {active} to i32"), "i32", lanes)
    return Value(f.w.pure(f"icmp ult <{lanes} x i32> {numbers}, {count}"), ty.boolean, lanes)


# --- analysis ---------------------------------------------------------------------------------


def lanes_of(f: Frame, s: For, accumulating: bool) -> int:
    """Lanes of a chunk: the widest element in the body fills a hardware vector."""
    lanes = max(f.module.vector_bits // _widest(f, s), 2)
    extent = s.extent
    if isinstance(extent, Const):
        n = int(extent.value)
        if accumulating and n >= IN_FLIGHT * lanes:
            return lanes * IN_FLIGHT
        while lanes // 2 >= max(n, 2):
            lanes //= 2
        return lanes
    return lanes * IN_FLIGHT if accumulating else lanes


def _widest(f: Frame, s: For) -> int:
    """Bits of the widest element in the body (a loop in an unrolled one is asked once for each copy)."""
    key = ("widest", id(s))
    if key not in f.module.analyses:
        f.module.analyses[key] = max((_element_bits(e) for t in walk(s.body) for e in _elements(t)), default=32)
    return int(f.module.analyses[key])


def _element_bits(t: ty.DType) -> int:
    return max(t.nbytes * 8, 32 if t.is_float else 8)


def _elements(t: object) -> Iterator[ty.DType]:
    if isinstance(t, Store):
        yield t.buffer.dtype
    if isinstance(t, (Store, If)):
        for e in own_exprs(t):
            for n in ex.walk(e):
                if isinstance(n, Load) or (isinstance(n, Cast) and n.dtype.kind != ty.INDEX):
                    yield n.dtype


def _uses_registers(f: Frame, s: For) -> bool:
    """Whether the body indexes a buffer in registers with the vector variable: chunks must then be written out."""
    for t in walk(s.body):
        refs = [(ld.buffer, ld.indices) for e in own_exprs(t) for ld in ex.loads(e)]
        if isinstance(t, Store):
            refs.append((t.buffer, t.indices))
        for b, indices in refs:
            where = f.storages.get(b.name)
            if where and where.room and any(s.name in ex.free_vars(i) for i in indices):
                return True
    return False


def vectorisable(f: Frame, s: For) -> bool:
    """Whether the body can run for many lanes at once: inner loops have the same bounds in all lanes."""
    key = ("vectorisable", id(s))
    if key not in f.module.analyses:
        f.module.analyses[key] = _vectorisable(s)
    return f.module.analyses[key]


def _vectorisable(s: For) -> bool:
    private = {t.buffer.name for t in walk(s.body) if isinstance(t, Alloc)}
    varying_names = {s.name}

    def varies(e: Expr) -> bool:
        return any(
            (isinstance(n, ex.Var) and n.name in varying_names) or (isinstance(n, Load) and n.buffer.name in private) for n in ex.walk(e)
        )

    for t in walk(s.body):
        match t:
            case While() | Call():
                return False
            case For():
                if t.kind is LoopKind.VECTOR or varies(t.lo) or varies(t.hi):
                    return False
            case Store():
                to_one = t.buffer.name not in private and not any(varies(i) for i in t.indices)
                if to_one and t.op is None and varies(t.value):
                    return False
    return True
