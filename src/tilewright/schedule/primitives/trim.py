"""trim: loops end where their iterations begin to change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import reduce

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Cast, Const, Expr, Load, Var, Where
from tilewright.ir.simplify import Simplifier, bounds
from tilewright.ir.stmt import Alloc, Block, Call, For, If, Kernel, LoopKind, Stmt, Store, While, map_stmts, own_exprs, substmts, walk
from tilewright.schedule.primitive import primitive
from tilewright.schedule.thresholds import eliminated, false_from, gap, nonneg_from, small

#: Rounds of shortening: what one loop no longer reads, another one need not store.
_ROUNDS = 8


@primitive
def trim(kernel: Kernel) -> tuple[Kernel, tuple[str, ...]]:
    """Shorten serial loops whose last iterations change nothing.

    An iteration changes nothing if it only reduces by the neutral element, because a condition on indices says so or because
    that is all that was stored where it reads, and stores to elements of local buffers that nobody reads. In causal
    attention in blocks of rows these are the keys behind the last row of the block.

    Nests of which that holds as a whole stand under a condition then, what is left of blocks of keys for one.

    Returns the loops that became shorter or conditional; bounds may then depend on loops around. Never refuses.
    """
    if not any(_decides(e) for s in walk(kernel.body) for e in own_exprs(s)):
        return kernel, ()
    constant = _constant_ends(kernel)
    shorter: list[str] = []
    for _ in range(_ROUNDS):
        survey = _Survey(constant)
        survey.visit(kernel.body, ())
        ends = survey.ends()
        needs = survey.needs({*ends, *shorter})
        if not ends and not needs:
            break
        shorter += [n for n in (*ends, *needs) if n not in shorter]
        body = map_stmts(kernel.body, lambda s, e=ends, n=needs: _shortened(s, e, n))  # type: ignore[misc]
        assert isinstance(body, Block)  # a block maps to a block
        kernel = kernel.with_(body=body)
    return kernel, tuple(shorter)


def _decides(e: Expr) -> bool:
    """Whether a condition on indices chooses in ``e``."""
    return any(isinstance(n, Where) and isinstance(n.b, Const) and not ex.loads(n.cond) for n in ex.walk(e))


def _shortened(s: Stmt, ends: dict[str, Expr], needs: dict[str, Expr]) -> Stmt | None:
    if isinstance(s, For) and s.name in ends:
        return replace(s, hi=ex.binary("min", s.hi, ends[s.name]))
    return If(_is_needed(needs[s.name]), Block((s,))) if isinstance(s, For) and s.name in needs else None


def _is_needed(need: Expr) -> Expr:
    return ex.compare("<", 0, need)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A statement with the loops around it, outermost first, and the conditions it stands under."""

    node: Stmt
    around: tuple[For, ...]
    under: tuple[Expr, ...] = ()

    def inside(self, outer: int) -> tuple[For, ...]:
        """The loops around it but the first ``outer``."""
        return self.around[outer:]


@dataclass(frozen=True, slots=True)
class _End:
    """A store leaves ``value`` in all elements with an index of at least ``at`` (None: in none), and nothing below ``first``.

    The index is that in one dimension; ``at`` may depend on those in others, which :func:`_index` names.
    """

    first: Expr
    at: Expr | None
    value: float

    def of(self, ld: Load) -> Expr | None:
        """``at`` for the element that is loaded."""
        return None if self.at is None else ex.substitute(self.at, {_index(d).name: i for d, i in enumerate(ld.indices)})


#: For each dimension of a buffer what each store leaves in it.
Ends = dict[int, list[_End]]


def _index(dim: int) -> Var:
    return Var(f"index {dim}")


def _all(s: Stmt, around: tuple[For, ...] = (), under: tuple[Expr, ...] = ()) -> Iterator[_Placed]:
    yield _Placed(s, around, under)
    inside = (*around, s) if isinstance(s, For) else around
    for t in substmts(s):
        yield from _all(t, inside, (*under, s.cond) if isinstance(s, If) and t is s.then else under)


def _homes(kernel_body: Stmt) -> dict[str, int]:
    """Local buffers, and how many loops stand around their declaration."""
    return {p.node.buffer.name: len(p.around) for p in _all(kernel_body) if isinstance(p.node, Alloc)}


def _constant_ends(kernel: Kernel) -> dict[str, Ends]:
    """Where local buffers hold one value, as long as every read follows a write (what is undefined nobody may read)."""
    homes = _homes(kernel.body)
    writers: dict[str, list[_Placed]] = {}
    opaque = {w.buffer.name for s in walk(kernel.body) if isinstance(s, Call) for w in s.args}
    for p in _all(kernel.body):
        if isinstance(p.node, Store):
            writers.setdefault(p.node.buffer.name, []).append(p)
    out: dict[str, Ends] = {}
    for name, stores in writers.items():
        if name not in homes or name in opaque or any(p.node.op is not None for p in stores):  # type: ignore[attr-defined]
            continue
        for dim in range(stores[0].node.buffer.rank):  # type: ignore[attr-defined]
            found = [_stored_end(p, dim, homes[name]) for p in stores]
            known = [f for f in found if f is not None]
            if len(known) == len(found) and len({f.value for f in known if f.at is not None}) == 1:
                out.setdefault(name, {})[dim] = known
    return out


def _stored_end(p: _Placed, dim: int, home: int) -> _End | None:
    """What a store leaves, in terms of the loops around the buffer's declaration and of other indices; None where nothing is known."""
    s, inside, scope = p.node, p.inside(home), Simplifier({})
    assert isinstance(s, Store)  # callers' writers
    first = eliminated(s.indices[dim], inside, False)
    if first is None:
        return None
    if isinstance(s.value, Const):
        return _End(first, ex.idx(0), float(s.value.value))
    walked: dict[str, Expr] = {i.name: _index(d) for d, i in enumerate(s.indices) if isinstance(i, Var) and d != dim}
    for n, f in enumerate(inside):
        others = [g for g in (*inside[:n], *inside[n + 1 :]) if g.name not in walked]
        if f.name in walked or f.step != 1 or not _grows(s.indices[dim], f, scope):
            continue
        found = _value_from(s.value, f, others, scope, {})
        if found is not None:
            # Beyond the last index before the threshold: the index grows with the loop.
            last = eliminated(ex.substitute(s.indices[dim], {f.name: found[1] - 1}), others, True)
            if last is not None and f.name not in ex.free_vars(last):
                return _End(first, scope.expr(ex.substitute(last + 1, walked)), found[0])
    return _all_or_nothing(s, dim, first, inside, walked, scope)


def _all_or_nothing(s: Store, dim: int, first: Expr, inside: Sequence[For], walked: dict[str, Expr], scope: Simplifier) -> _End:
    """Of a store under a condition that does not depend on the loop along ``dim``: it leaves the constant everywhere or nowhere."""
    last = eliminated(s.indices[dim], inside, True)
    others = [g for g in inside if g.name not in walked]
    if isinstance(s.value, Where) and isinstance(s.value.b, Const) and last is not None and (room := gap(s.value.cond)) is not None:
        room = eliminated(room, others, True)
        if room is not None:  # at least 0 where the condition holds
            at = _where_holds(room) * (last + 1)
            return _End(first, scope.expr(ex.substitute(at, walked)), float(s.value.b.value))
    return _End(first, None, 0.0)


def _grows(e: Expr, f: For, scope: Simplifier) -> bool:
    form = scope.linear(e)
    return form.terms.get(f.var, 0) > 0 and not any(f.name in ex.free_vars(a) for a in form.terms if a != f.var)


def _value_from(e: Expr, f: For, inside: Sequence[For], scope: Simplifier, ends: dict[str, Ends]) -> tuple[float, Expr] | None:
    """(value, iteration): ``e`` is that value from that iteration of ``f`` on."""
    match e:
        case Where(b=Const(value=value)):
            at = false_from(e.cond, f, inside, scope)
            return None if at is None else (float(value), at)
        case Load():
            for dim, stored in ends.get(e.buffer.name, {}).items():
                at = _constant_from(e, dim, stored, f, inside, scope)
                if at is not None:
                    return next(x.value for x in stored if x.at is not None), at
        case Cast() if e.dtype.is_float:
            found = _value_from(e.a, f, inside, scope, ends)
            return found if found is not None and found[0] in (0.0, float("inf"), float("-inf")) else None
        case Binary(op="*"):
            a, b = (_value_from(x, f, inside, scope, ends) for x in (e.a, e.b))
            if a is not None and b is not None and a[0] == b[0] == 0:
                return 0.0, ex.binary("max", a[1], b[1])
    return None


def _constant_from(ld: Load, dim: int, stored: list[_End], f: For, inside: Sequence[For], scope: Simplifier) -> Expr | None:
    """From which iteration of ``f`` on every store leaves its constant where ``ld`` reads."""
    last = eliminated(ld.indices[dim], (f, *inside), True)
    out: Expr = f.lo
    for x in stored:
        if last is not None and scope.nonneg(scope.linear(x.first - last - 1)):
            continue  # elsewhere
        begins = x.of(ld)
        at = None if begins is None else nonneg_from(ld.indices[dim] - begins, f, inside, scope)
        if at is None:
            return None
        out = ex.binary("max", out, at)
    return out


@dataclass(frozen=True, slots=True)
class _Read:
    """A load with the loops around it, and the conditions under which it is needed."""

    load: Load
    around: tuple[For, ...]
    under: tuple[Expr, ...]

    def end(self, dim: int, home: int) -> Expr | None:
        """One more than the largest index that is read, in terms of the outermost ``home`` loops."""
        inside = self.around[home:]
        last = eliminated(self.load.indices[dim], inside, True)
        if last is None:
            return None
        out = last + 1
        for c in self.under:
            room = None if ex.free_vars(c) & ex.free_vars(self.load.indices[dim]) else gap(c)
            most = None if room is None else eliminated(room, inside, True)
            if most is not None:
                out = _where_holds(most) * out
        return out


def _reads(e: Expr, around: tuple[For, ...], under: tuple[Expr, ...]) -> Iterator[_Read]:
    if isinstance(e, Load):
        yield _Read(e, around, under)
    for n, c in enumerate(ex.children(e)):  # of a choice: the condition, what it chooses, what else there is
        yield from _reads(c, around, (*under, e.cond) if isinstance(e, Where) and n == 1 else under)


def _where_holds(room: Expr) -> Expr:
    """1 where ``room`` is at least 0, else 0."""
    return ex.binary("min", ex.binary("max", room + 1, 0), 1)


@dataclass(slots=True)
class _Survey:
    """What is read of each local buffer, and with that where each loop may end."""

    constant: dict[str, Ends]
    loops: list[_Placed] = field(default_factory=list)
    stores: list[_Placed] = field(default_factory=list)
    reads: dict[str, list[_Read]] = field(default_factory=dict)
    homes: dict[str, int] = field(default_factory=dict)
    opaque: set[str] = field(default_factory=set)

    def visit(self, body: Stmt, around: tuple[For, ...]) -> None:
        for p in _all(body, around):
            match p.node:
                case Alloc(buffer=b):
                    self.homes[b.name] = len(p.around)
                case Call(args=args):
                    self.opaque |= {w.buffer.name for w in args}
                case For():
                    self.loops.append(p)
                case Store():
                    self.stores.append(p)
            for e in own_exprs(p.node):
                for read in _reads(e, p.around, p.under):
                    self.reads.setdefault(read.load.buffer.name, []).append(read)

    def ends(self) -> dict[str, Expr]:
        """Loops that may end earlier, and where."""
        unread = {n: self._unread(n) for n in self.homes if n not in self.opaque}
        out: dict[str, Expr] = {}
        for p in self.loops:
            f = p.node
            assert isinstance(f, For)  # what visit() collected
            if f.kind is LoopKind.SERIAL and f.step == 1 and not any(g.name in out for g in p.around):
                end = self._end(f, p.around, unread)
                if end is not None:
                    out[f.name] = end
        return out

    def needs(self, done: Set[str]) -> dict[str, Expr]:
        """Nests that change nothing where an expression is not above 0, and that expression; nothing inside the loops ``done``."""
        unread = {n: self._unread(n) for n in self.homes if n not in self.opaque}
        out: dict[str, Expr] = {}
        for p in self.loops:
            f = p.node
            assert isinstance(f, For)  # what visit() collected
            own = f.kind in (LoopKind.SERIAL, LoopKind.VECTOR, LoopKind.UNROLL) and f.name not in done
            if own and p.around and not any(g.name in out or g.name in done for g in p.around):
                need = self._need(f, p.around, unread)
                if need is not None and _is_needed(need) not in p.under:
                    out[f.name] = need
        return out

    def _need(self, f: For, around: tuple[For, ...], unread: dict[str, list[tuple[int, Expr]]]) -> Expr | None:
        """What is above 0 where ``f`` changes something; None where that is not known, or always so."""
        scope = Simplifier({g.name: (bounds(g.lo, {})[0], _last(g)) for g in around})
        parts = []
        for p in self._effects(f, around):
            s, inside = p.node, p.inside(len(around) + 1)
            assert isinstance(s, Store)  # what visit() collected
            dead = [(at, eliminated(s.indices[dim], (f, *inside), False)) for dim, at in unread.get(s.buffer.name, [])]
            ways = [at - first for at, first in dead if first is not None]
            if (at := self._idle_from(s, f, inside, scope, {})) is not None:
                ways.append(at - f.lo)
            if not ways:
                return None
            parts.append(reduce(lambda a, b: ex.binary("min", a, b), ways))
        if not parts or any(isinstance(s, While | Call) for s in walk(f.body)):
            return None
        need = scope.expr(reduce(lambda a, b: ex.binary("max", a, b), parts))
        known = ex.free_vars(need) <= {g.name for g in around} and not ex.loads(need) and small(need)
        return need if known and not scope.nonneg(scope.linear(need - 1)) else None

    def _effects(self, f: For, around: tuple[For, ...]) -> list[_Placed]:
        """The stores inside ``f`` to what outlives an iteration."""
        depth = len(around)
        return [
            p
            for p in self.stores
            if len(p.around) > depth and p.around[depth] is f and self.homes.get(p.node.buffer.name, -1) <= depth  # type: ignore[attr-defined]
        ]

    def _unread(self, name: str) -> list[tuple[int, Expr]]:
        """(dimension, index): from which index on nobody reads a local buffer, in terms of the loops around its declaration."""
        reads = self.reads.get(name, [])
        out = []
        for dim in range(reads[0].load.buffer.rank if reads else 0):
            ends = [r.end(dim, self.homes[name]) for r in reads]
            known = dict.fromkeys(e for e in ends if e is not None)
            if None not in ends and small(at := reduce(lambda a, b: ex.binary("max", a, b), known)):
                out.append((dim, at))
        return out

    def _end(self, f: For, around: tuple[For, ...], unread: dict[str, list[tuple[int, Expr]]]) -> Expr | None:
        """From which iteration on ``f`` changes nothing; None where that is not known, or not before its end."""
        if any(isinstance(s, While | Call) for s in walk(f.body)):
            return None
        scope = Simplifier({g.name: (bounds(g.lo, {})[0], _last(g)) for g in around})
        needed: list[Expr] = []
        for p in self._effects(f, around):
            s = p.node
            assert isinstance(s, Store)  # what visit() collected
            at = self._idle_from(s, f, p.inside(len(around) + 1), scope, unread)
            if at is None:
                return None
            needed.append(at)
        if not needed:
            return None
        end = scope.expr(reduce(lambda a, b: ex.binary("max", a, b), needed))
        known = {g.name for g in around}
        plain = ex.free_vars(end) <= known and not ex.loads(end) and small(end) and small(f.hi)
        return end if plain and not scope.nonneg(scope.linear(end - f.hi)) and not _ends_there(f.hi, end) else None

    def _idle_from(
        self, s: Store, f: For, inside: tuple[For, ...], scope: Simplifier, unread: dict[str, list[tuple[int, Expr]]]
    ) -> Expr | None:
        """From which iteration on a store changes nothing."""
        for dim, at in unread.get(s.buffer.name, []):
            found = nonneg_from(s.indices[dim] - at, f, inside, scope)
            if found is not None:
                return found
        if s.op is None or s.buffer.dtype.kind not in (ty.FLOAT, ty.BFLOAT):
            return None
        value = _value_from(s.value, f, inside, scope, self.constant)
        return value[1] if value is not None and value[0] == _neutral(s.buffer, s.op) else None


def _neutral(b: Buffer, op: str) -> float:
    return float(b.dtype.neutral(op))


def _last(f: For) -> int | None:
    hi = bounds(f.hi, {})[1]
    return None if hi is None else hi - 1


def _ends_there(hi: Expr, end: Expr) -> bool:
    """Whether ``end`` already bounds the loop."""
    return hi == end or (isinstance(hi, Binary) and hi.op == "min" and (_ends_there(hi.a, end) or _ends_there(hi.b, end)))
