"""online: a softmax that sees its row in blocks, with a running maximum and sums that are rescaled when it grows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Const, Expr, Intrinsic, Load, Var
from tilewright.ir.stmt import (
    Alloc,
    Block,
    For,
    Kernel,
    LoopKind,
    Stmt,
    Store,
    map_stmts,
    names,
    read_buffers,
    written_buffers,
)
from tilewright.schedule.nest import copied, fresh, loop_place
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError


@primitive
def online(kernel: Kernel, loop: str, block: int) -> tuple[Kernel, tuple[str, ...]]:
    """Compute a softmax and the sums over it for ``block`` elements of the row at a time.

    ``loop`` is the reduction loop of the maximum. Next to its nest, in one block, stand

        m[i] = -inf;  m[i] = max(m[i], x[i, j]);  p[i, j] = exp(x[i, j] - m[i])
        s[i] = 0;     s[i] += p[i, k] * v[k, ..]      (one or more such sums, with or without a second factor)

    They become one loop over blocks of j, in which the sums are first multiplied by ``exp(old m - new m)``, because
    ``exp(x - new m) = exp(x - old m) * exp(old m - new m)``. The exponent may be a positive constant times ``x - m``.
    ``p`` shrinks to a block; what computes ``x`` stays before the loop and can follow with ``compute_at``; what uses one of the
    results before the last sum (``1 / s``) moves behind it. Rows that are -inf throughout stay NaN, as they were.

    Returns the loop over full blocks, and that over the elements left if there are any (it runs once).
    Sums are reassociated. ScheduleError: the nests are not of this form, ``p`` is used otherwise, or something between them
    needs one of their results or changes one of their operands.
    """
    subject = f"online {loop}"
    place = loop_place(kernel, loop, "online")
    home = next((a for a in reversed(place.ancestors) if isinstance(a, Block) and len(a.stmts) > 1), kernel.body)
    row = _read(home, loop, subject)
    if not isinstance(block, int) or not 0 < block <= row.extent:
        raise ScheduleError(f"{subject}: block {block!r} is not an int from 1 to {row.extent}, the length of the row")
    later = _check_between(home, row, subject)
    new, loops = _rewritten(home, row, later, block, names(kernel))
    return _replaced(kernel, home, new), loops


# --- reading the pattern ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Nest:
    """A perfect serial nest from 0 around one store."""

    root: Stmt
    loops: tuple[For, ...]
    store: Store

    def extent(self, loop: str) -> int | None:
        hi = next((f.hi for f in self.loops if f.name == loop), None)
        return int(hi.value) if isinstance(hi, Const) else None


@dataclass(frozen=True, slots=True)
class _Sum:
    """A sum over the weights: ``loop`` walks the row, ``at`` is the element of the maximum that belongs to its result."""

    nest: _Nest
    loop: str
    at: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """The maximum (over ``loop`` of ``extent`` iterations), the weights (``key`` walks their dimension ``dim``), the sums.

    ``at`` is the element of the maximum that belongs to a weight, by the weights' loops.
    """

    peak: _Nest
    loop: str
    extent: int
    weights: _Nest
    key: str
    dim: int
    at: tuple[Expr, ...]
    sums: tuple[_Sum, ...]

    @property
    def nests(self) -> list[_Nest]:
        return [self.peak, self.weights, *(s.nest for s in self.sums)]


def _nest(s: Stmt) -> _Nest | None:
    loops: list[For] = []
    inner = s
    while isinstance(inner, For):
        if inner.kind is not LoopKind.SERIAL or inner.lo != ex.idx(0) or inner.step != 1 or len(inner.body.stmts) != 1:
            return None
        loops.append(inner)
        inner = inner.body.stmts[0]
    return _Nest(s, tuple(loops), inner) if isinstance(inner, Store) else None


def _read(home: Block, loop: str, subject: str) -> _Row:
    """The pattern in ``home`` whose maximum has the loop ``loop``; refuses what is not of the form."""
    found = [n for s in home.stmts if (n := _nest(s)) is not None]
    peak = next((n for n in found if any(f.name == loop for f in n.loops)), None)
    if peak is None or peak.store.op != "max" or not peak.store.buffer.dtype.is_float or peak.extent(loop) is None:
        raise ScheduleError(
            f"{subject}: it is not the loop of a perfect serial nest that finds a maximum", hint="name the loop of m = max(m, x)"
        )
    top = peak.store.buffer.name
    if any(loop in ex.free_vars(i) for i in peak.store.indices) or len(_loops_outside(peak)) != 1:
        raise ScheduleError(f"{subject}: {top} must be reduced by this loop and no other")
    _check_start(home, found, peak, -inf, subject)
    weights = [n for n in found if _exponent(n.store, top) is not None]
    if not weights and (other := next((n.store.value for n in found if _is_power(n.store, top)), None)) is not None:
        raise ScheduleError(
            f"{subject}: the exponent of '{other}' is not x - {top}, or a positive constant times that",
            hint=f"a negative factor makes {top} the smallest exponent, and one that is not known may",
        )
    if len(weights) != 1:
        raise ScheduleError(f"{subject}: there is not one nest p = exp(x - {top}) after it", hint="fuse or inline what stands between")
    key, at = _same_row(peak, loop, weights[0], subject)
    name = weights[0].store.buffer.name
    dims = [d for d, i in enumerate(weights[0].store.indices) if i == Var(key)]
    walked = [d for d, i in enumerate(weights[0].store.indices) if key in ex.free_vars(i)]
    if len(dims) != 1 or dims != walked or not any(isinstance(s, Alloc) and s.buffer.name == name for s in home.stmts):
        raise ScheduleError(f"{subject}: {name} must be declared beside the nests, with a dimension that {key} walks")
    extent = peak.extent(loop)
    assert extent is not None  # checked above
    readers = [s for s in home.stmts if name in read_buffers(s)]
    if [s for s in home.stmts if name in written_buffers(s)] != [weights[0].root]:
        raise ScheduleError(f"{subject}: {name} is written more than once")
    unordered = [_sum_of(_nest(s), s, weights[0], dims[0], extent, at, subject) for s in readers]
    # Plain sums first: they can share the pass that makes the weights.
    sums = tuple(sorted(unordered, key=lambda s: len(s.nest.loops)))
    if not sums:
        raise ScheduleError(f"{subject}: nothing sums {name}")
    for s in sums:
        _check_start(home, found, s.nest, 0.0, subject)
    stores = [n.store for n in (peak, weights[0], *(s.nest for s in sums))]
    if len({s.buffer.dtype for s in stores}) > 1 or any(ex.loads(i) for s in stores for i in s.indices):
        raise ScheduleError(f"{subject}: the nests compute in different types, or places depend on values")
    return _Row(peak, loop, extent, weights[0], key, dims[0], at, sums)


def _loops_outside(n: _Nest) -> list[str]:
    """Loops that do not address what the nest stores."""
    used = {v for i in n.store.indices for v in ex.free_vars(i)}
    return [f.name for f in n.loops if f.name not in used]


def _check_start(home: Block, found: list[_Nest], update: _Nest, value: float, subject: str) -> None:
    """Before ``update`` its whole result is ``value``, and nothing else writes it."""
    name = update.store.buffer.name
    writers = [s for s in home.stmts if name in written_buffers(s)]
    starts = [n for n in found if n.store.buffer.name == name and n.store.op is None and n.root is writers[0]]
    plain = bool(starts) and isinstance(starts[0].store.value, Const) and float(starts[0].store.value.value) == value
    same = bool(starts) and _box(starts[0]) == _box(update)
    if len(writers) != 2 or not plain or not same or writers[1] is not update.root:
        raise ScheduleError(
            f"{subject}: {name} must be set to {value} everywhere and then updated once", hint="accumulate separates a sum from its start"
        )


def _box(n: _Nest) -> list[Expr | int | None]:
    """What a nest stores to: the extents of the loops in each dimension, or the index."""
    return [n.extent(i.name) if isinstance(i, Var) and n.extent(i.name) is not None else i for i in n.store.indices]


@dataclass(frozen=True, slots=True)
class _Exponent:
    """``(x - top)``, multiplied or divided by positive constants in turn."""

    x: Expr
    top: Load
    steps: tuple[tuple[str, Const], ...]

    def of(self, difference: Expr) -> Expr:
        """The exponent with another difference in place of ``x - top``."""
        for op, c in self.steps:
            difference = difference * c if op == "*" else difference / c
        return difference


def _exponent(store: Store, top: str) -> _Exponent | None:
    """The exponent of a store ``p = exp(x - m)`` or ``p = exp((x - m) * c)``, c > 0."""
    e = store.value
    if not _is_power(store, top):
        return None
    (inner,) = ex.children(e)
    steps: list[tuple[str, Const]] = []
    while isinstance(inner, Binary) and inner.op in ("*", "/"):
        left, right = (inner.b, inner.a) if inner.op == "*" and isinstance(inner.a, Const) else (inner.a, inner.b)
        if not isinstance(right, Const) or not 0.0 < float(right.value) < inf:
            return None
        steps.insert(0, (inner.op, right))
        inner = left
    if not isinstance(inner, Binary) or inner.op != "-" or not isinstance(inner.b, Load) or inner.b.buffer.name != top:
        return None
    return None if any(ld.buffer.name == top for ld in ex.loads(inner.a)) else _Exponent(inner.a, inner.b, tuple(steps))


def _is_power(store: Store, top: str) -> bool:
    """Whether the store is e to the power of something with ``top``."""
    e = store.value
    return store.op is None and isinstance(e, Intrinsic) and e.name == "exp" and any(ld.buffer.name == top for ld in ex.loads(e))


def _same_row(peak: _Nest, loop: str, weights: _Nest, subject: str) -> tuple[str, tuple[Expr, ...]]:
    """The weights' loop along the row, and the element of the maximum they subtract; refuses other exponents."""
    found = _exponent(weights.store, peak.store.buffer.name)
    assert found is not None  # how the nest was chosen
    value, top = found.x, found.top
    rows = {v for i in top.indices for v in ex.free_vars(i)}
    keys = [f.name for f in weights.loops if f.name not in rows and weights.extent(f.name) == peak.extent(loop)]
    theirs: dict[str, Expr] = {}
    for mine, other in zip(peak.store.indices, top.indices, strict=True):
        if isinstance(mine, Var) and any(f.name == mine.name for f in peak.loops):
            theirs[mine.name] = other
        elif mine != other:
            theirs = {}
            break
    for key in keys:
        if ex.substitute(peak.store.value, {**theirs, loop: Var(key)}) == value and _whole(peak, weights, theirs):
            return key, top.indices
    raise ScheduleError(f"{subject}: the exponent '{value}' is not what {peak.store.buffer.name} is the maximum of, '{peak.store.value}'")


def _whole(peak: _Nest, weights: _Nest, theirs: dict[str, Expr]) -> bool:
    """Whether the weights' loops walk the rows as the maximum's do."""
    return all(isinstance(e, Var) and weights.extent(e.name) == peak.extent(n) for n, e in theirs.items())


def _sum_of(nest: _Nest | None, s: Stmt, weights: _Nest, dim: int, extent: int, top: tuple[Expr, ...], subject: str) -> _Sum:
    """A reader of the weights as a sum over them; refuses other uses."""
    name = weights.store.buffer.name
    if nest is None or nest.store.op != "+" or not nest.store.buffer.dtype.is_float:
        raise ScheduleError(
            f"{subject}: '{str(s).strip().splitlines()[0]}' uses {name}, and is not a perfect serial nest that sums", location=None
        )
    value = nest.store.value
    factors = [value.a, value.b] if isinstance(value, Binary) and value.op == "*" else [value]
    used = [f for f in factors if isinstance(f, Load) and f.buffer.name == name]
    others = [f for f in factors if not any(f is u for u in used)]
    touched = {ld.buffer.name for f in others for ld in ex.loads(f)}
    result = nest.store.buffer.name
    if len(used) != 1 or touched & {name, result}:
        raise ScheduleError(f"{subject}: {result} must sum {name}, or {name} times something that depends on neither")
    at = used[0].indices
    inside, key = _addressing(nest), at[dim]
    along = isinstance(key, Var) and nest.extent(key.name) == extent and key.name not in inside
    if not isinstance(key, Var) or not along or sum(key.name in ex.free_vars(i) for i in at) > 1:
        raise ScheduleError(f"{subject}: {result} must sum {name} along its rows")
    own: dict[str, Expr] = {i.name: a for i, a in zip(weights.store.indices, at, strict=True) if isinstance(i, Var)}
    rows = tuple(ex.substitute(i, own) for i in top)
    walked = {v for i in rows for v in ex.free_vars(i)}
    if walked & {f.name for f in weights.loops} or not walked & {f.name for f in nest.loops} <= inside:
        raise ScheduleError(f"{subject}: elements of {result} must belong to one row of {name}")
    return _Sum(nest, key.name, rows)


def _addressing(n: _Nest) -> set[str]:
    """Variables in the indices of what a nest stores."""
    return {v for i in n.store.indices for v in ex.free_vars(i)}


def _check_between(home: Block, row: _Row, subject: str) -> list[Stmt]:
    """The nests move to the last of them, and run block by block: nothing on the way may change an operand, and their operands
    may not be results. What uses complete results on the way must move behind the loop, and is returned."""
    places = [_position(home, n.root) for n in row.nests]
    if not places[0] < places[1] < min(places[2:]):
        raise ScheduleError(f"{subject}: the maximum, the weights and their sums must follow in this order")
    results = {n.store.buffer.name for n in row.nests}
    operands = set().union(*(read_buffers(n.root) for n in row.nests))
    foreign = {ld.buffer.name for n in (row.peak, *(s.nest for s in row.sums)) for ld in ex.loads(n.store.value)}
    if bad := sorted(foreign & results - {row.weights.store.buffer.name}) or (len(results) < len(places) and sorted(results)):
        raise ScheduleError(f"{subject}: {bad[0]} is both an operand and a result")
    later: list[Stmt] = []
    complete: set[str] = set()
    for s in home.stmts[places[0] : max(places)]:
        if nest := next((n for n in row.nests if s is n.root), None):
            complete.add(nest.store.buffer.name)
        elif not isinstance(s, Alloc):
            read, written = read_buffers(s), written_buffers(s)
            # What sets a sum to zero stays before the loop.
            changed = (written & operands) - ({x.nest.store.buffer.name for x in row.sums} - complete)
            if changed or read & results - complete:
                used = min(changed | (read & results - complete))
                raise ScheduleError(f"{subject}: {_headline(s)} stands between the nests and uses {used}", hint="move it away")
            touched = set().union(*(read_buffers(t) | written_buffers(t) for t in later))
            if read & results or written & touched or read & set().union(*map(written_buffers, later)):
                later.append(s)
    return later


def _headline(s: Stmt) -> str:
    return f"'{str(s).strip().splitlines()[0]}'"


def _position(home: Block, s: Stmt) -> int:
    return next(n for n, t in enumerate(home.stmts) if t is s)


# --- rewriting --------------------------------------------------------------------------------


def _rewritten(home: Block, row: _Row, later: list[Stmt], block: int, taken: set[str]) -> tuple[Block, tuple[str, ...]]:
    roots = [n.root for n in row.nests]
    last = max(_position(home, r) for r in roots)
    weights = row.weights.store.buffer

    def kept(s: Stmt) -> bool:
        return not any(s is r for r in (*roots, *later)) and not (isinstance(s, Alloc) and s.buffer.name == weights.name)

    whole, rest = divmod(row.extent, block)
    outer = Var(fresh(taken, f"{row.loop}o"))
    loops = [For(outer, ex.idx(0), ex.idx(whole), _block(row, outer * block, block, taken))]
    if rest:
        tail = Var(fresh(taken, f"{row.loop}t"))
        body = copied(_block(row, ex.idx(whole * block), rest, taken), taken)
        loops.append(For(tail, ex.idx(0), ex.idx(1), body))
    masked = [_masked(row, s, taken) for s in row.sums]
    before = [s for s in home.stmts[:last] if kept(s)]
    return Block((*before, *loops, *masked, *later, *home.stmts[last + 1 :])), tuple(f.name for f in loops)


def _block(row: _Row, start: Expr, length: int, taken: set[str]) -> Block:
    """One block of the row: the new maximum, how much smaller the old one was, weights, sums."""
    top, weights = row.peak.store.buffer, row.weights.store.buffer
    old, shift, scale = (top.with_(name=fresh(taken, f"{top.name}_{n}")) for n in ("old", "shift", "scale"))
    small = weights.with_(shape=tuple(ex.idx(length) if d == row.dim else e for d, e in enumerate(weights.shape)))
    minimum = Const(-inf, top.dtype)
    at = row.peak.store.indices
    spread = [f for f in row.peak.loops if f.name != row.loop]
    # The smallest maximum is no number to subtract: a row that is -inf so far weighs nothing.
    finite = ex.where(ex.compare("==", Load(top, at), minimum), Const(0.0, top.dtype), Load(top, at))
    exponent = _exponent(row.weights.store, top.name)
    assert exponent is not None  # how the nest was chosen
    stmts: list[Stmt] = [
        Alloc(old),
        _fresh_nest(spread, Store(old, at, Load(top, at)), taken),
        _part(row.peak, row.loop, start, length),
        Alloc(shift),
        _fresh_nest(spread, Store(shift, at, finite), taken),
        Alloc(scale),
        _fresh_nest(spread, Store(scale, at, ex.intrinsic("exp", exponent.of(Load(old, at) - Load(shift, at)))), taken),
        Alloc(small),
    ]
    x = ex.substitute(exponent.x, {row.key: start + Var(row.key)})
    value = ex.intrinsic("exp", exponent.of(x - Load(shift, row.at)))
    stmts.append(_around(_shortened(row.weights.loops, row.key, length), replace(row.weights.store, buffer=small, value=value)))
    for s in row.sums:
        store = s.nest.store
        result = [f for f in s.nest.loops if f.name in _addressing(s.nest)]
        stmts.append(_fresh_nest(result, Store(store.buffer, store.indices, Load(scale, s.at), "*"), taken))
        stmts.append(_sum_part(s, small, start, length))
    return Block(tuple(stmts))


def _part(n: _Nest, loop: str, start: Expr, length: int) -> Stmt:
    """The nest for ``length`` iterations of ``loop`` from ``start``."""
    store = replace(n.store, value=ex.substitute(n.store.value, {loop: start + Var(loop)}))
    return _around(_shortened(n.loops, loop, length), store)


def _sum_part(s: _Sum, small: Buffer, start: Expr, length: int) -> Stmt:
    """A sum over one block of weights, which are indexed from 0."""

    def factor(e: Expr) -> Expr:
        if isinstance(e, Load) and e.buffer.name == small.name:
            return Load(small, e.indices)
        return ex.substitute(e, {s.loop: start + Var(s.loop)})

    value = s.nest.store.value
    value = replace(value, a=factor(value.a), b=factor(value.b)) if isinstance(value, Binary) else factor(value)
    return _around(_shortened(s.nest.loops, s.loop, length), replace(s.nest.store, value=value))


def _masked(row: _Row, s: _Sum, taken: set[str]) -> Stmt:
    """Sums of rows that are -inf throughout become NaN: exp(-inf - -inf) is."""
    top, store = Load(row.peak.store.buffer, s.at), s.nest.store
    value = ex.where(ex.compare("==", top, Const(-inf, top.dtype)), top - top, Const(0.0, store.buffer.dtype))
    return _fresh_nest([f for f in s.nest.loops if f.name in _addressing(s.nest)], Store(store.buffer, store.indices, value, "+"), taken)


def _shortened(loops: tuple[For, ...], name: str, length: int) -> list[For]:
    return [replace(f, hi=ex.idx(length)) if f.name == name else f for f in loops]


def _around(loops: list[For], inner: Stmt) -> Stmt:
    for f in reversed(loops):
        inner = replace(f, body=Block((inner,)))
    return inner


def _fresh_nest(loops: list[For], store: Store, taken: set[str]) -> Stmt:
    """``store`` in a nest like ``loops``, with loops of its own."""
    (nest,) = copied(Block((_around(loops, store),)), taken).stmts
    return nest


def _replaced(kernel: Kernel, home: Block, new: Block) -> Kernel:
    if home is kernel.body:
        return kernel.with_(body=new)

    def swap(s: Stmt) -> Stmt | None:
        return replace(s, body=new) if isinstance(s, For) and s.body is home else None

    body = map_stmts(kernel.body, swap)
    assert isinstance(body, Block)  # a block maps to a block
    return kernel.with_(body=body)
