"""factor_out: what every term of a sum or a maximum is multiplied by is multiplied once, where the result is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import inf

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Const, Expr, Load, Var
from tilewright.ir.stmt import Block, Call, For, Kernel, LoopKind, Stmt, Store, map_exprs, read_buffers, walk, written_buffers
from tilewright.schedule.nest import local_place, replace_stmt
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError


@primitive
def factor_out(kernel: Kernel, buffer: str) -> tuple[Kernel, tuple[str, ...]]:
    """Take the factors that do not depend on the reduction out of the sum or the maximum in the local ``buffer``.

    ``s[i] = 0;  s[i] += p[i, j] * r[i] * v[j]`` becomes ``s[i] += p[i, j] * v[j]``, and every read of ``s[i]`` becomes
    ``s[i] * r[i]``; divisors move likewise. So a softmax that is divided by its sum before it is used is divided once for
    each result, and its terms do not need the sum.

    ``m[i] = -inf;  m[i] = max(m[i], x[i, j] * c)`` with a positive constant ``c`` becomes ``m[i] = max(m[i], x[i, j])``, its reads
    ``m[i] * c``, and differences ``x * c - m[i] * c`` become ``(x - m[i]) * c``: a softmax scales its exponents and not its scores.

    Returns no names. Results are reassociated and distributed over: rounding differs, and so do infinite factors of terms
    that are zero. ScheduleError: ``buffer`` is an argument, or no sum (maximum) of floats that starts at zero (-inf) everywhere; no
    factor stays the same (is a positive constant), or nothing else is left; a factor changes before the last use.
    """
    subject = f"factor_out {buffer}"
    if any(b.name == buffer for b in kernel.args):
        raise ScheduleError(f"{subject}: it is an argument, which the caller sees", hint="cache_write gives it a local copy")
    declared, local = local_place(kernel, buffer, subject)
    home = declared.block
    at, loops, store = _reduction(home, local, subject)
    spatial = {i.name: d for d, i in enumerate(store.indices) if isinstance(i, Var)}
    summed = {f.name for f in loops} - spatial.keys()
    factors = _factors(store.value)
    same = [f for f in factors if f.is_positive] if store.op == "max" else [f for f in factors if not summed & ex.free_vars(f.value)]
    rest = [f for f in factors if not any(f is s for s in same)]
    if not same:
        wanted = "is a positive constant" if store.op == "max" else "is the same for the whole sum"
        raise ScheduleError(f"{subject}: no factor of '{store.value}' {wanted}", location=store.loc)
    if all(f.inverse for f in rest):
        raise ScheduleError(f"{subject}: nothing of '{store.value}' is left to reduce", location=store.loc)
    _check_uses(home, at, buffer, same, subject)

    def used(e: Expr) -> Expr | None:
        if store.op == "max" and isinstance(e, Binary) and e.op == "-":
            return _scaled_difference(e, buffer, same)
        if not isinstance(e, Load) or e.buffer.name != buffer:
            return None
        env = {name: e.indices[d] for name, d in spatial.items()}
        return _product([_Factor(e), *(replace(f, value=ex.substitute(f.value, env)) for f in same)])

    kernel = replace_stmt(kernel, store, replace(store, value=_product(rest)))
    body = map_exprs(kernel.body, lambda e: ex.transform(e, used))
    assert isinstance(body, Block)  # a block maps to a block
    return kernel.with_(body=body), ()


@dataclass(frozen=True, slots=True)
class _Factor:
    """A factor of a product, or a divisor."""

    value: Expr
    inverse: bool = False

    @property
    def is_positive(self) -> bool:
        """Whether it is a positive number, known here."""
        return isinstance(self.value, Const) and 0.0 < float(self.value.value) < inf


def _factors(e: Expr, inverse: bool = False) -> list[_Factor]:
    if isinstance(e, Binary) and e.op in ("*", "/"):
        return [*_factors(e.a, inverse), *_factors(e.b, inverse != (e.op == "/"))]
    return [_Factor(e, inverse)]


def _product(factors: Sequence[_Factor]) -> Expr:
    """The product, beginning with the first that is no divisor."""
    first = next(f for f in factors if not f.inverse)
    others = [f for f in factors if f is not first]
    return reduce(lambda e, f: e / f.value if f.inverse else e * f.value, others, first.value)


def _scaled_difference(e: Binary, buffer: str, same: Sequence[_Factor]) -> Expr | None:
    """``(x - m) * c`` for ``x * c - m * c``, where ``m`` is an element of ``buffer`` and ``same`` the factors that make ``c``."""
    sides = [_factors(e.a), _factors(e.b)]
    for factors in sides:
        for f in same:
            if f not in factors:
                return None
            factors.remove(f)
    minuend, subtrahend = sides
    at = subtrahend[0].value
    if len(subtrahend) != 1 or not isinstance(at, Load) or at.buffer.name != buffer or all(f.inverse for f in minuend):
        return None
    return _product([_Factor(_product(minuend) - at), *same])


#: What a reduction starts from, by how it combines.
_STARTS = {"+": 0.0, "max": -inf}


def _reduction(home: Block, target: Buffer, subject: str) -> tuple[int, tuple[For, ...], Store]:
    """Where ``home`` sums into ``target`` or finds its maxima: where the nest is, its loops, its store; refuses others."""
    writers = [n for n, s in enumerate(home.stmts) if target.name in written_buffers(s)]
    nests = [_nest(home.stmts[n]) for n in writers]
    if len(writers) != 2 or nests[1] is None or nests[1][1].op not in _STARTS or not target.dtype.is_float:
        raise ScheduleError(f"{subject}: it is not set to zero (-inf) and then the sum (maximum) of one perfect serial nest of floats")
    (_, start), (loops, store) = nests[0] or ((), None), nests[1]
    neutral = _STARTS[str(store.op)]
    begun = start is not None and start.op is None and isinstance(start.value, Const) and float(start.value.value) == neutral
    if not begun or any(n is None or not _covers(*n, target) for n in nests):
        raise ScheduleError(
            f"{subject}: its results do not all start at {neutral}, or only some are computed", hint="accumulate separates a start"
        )
    if target.name in {ld.buffer.name for ld in ex.loads(store.value)} or store.value.dtype != target.dtype:
        raise ScheduleError(f"{subject}: its terms read it, or are narrowed to {target.dtype}", location=store.loc)
    return writers[1], loops, store


def _nest(s: Stmt) -> tuple[tuple[For, ...], Store] | None:
    """Loops and store of a perfect serial nest from 0."""
    loops: list[For] = []
    while isinstance(s, For):
        if s.kind is not LoopKind.SERIAL or s.lo != ex.idx(0) or s.step != 1 or len(s.body.stmts) != 1:
            return None
        loops.append(s)
        s = s.body.stmts[0]
    return (tuple(loops), s) if isinstance(s, Store) else None


def _covers(loops: tuple[For, ...], store: Store, target: Buffer) -> bool:
    """Whether every element of ``target`` is stored to: each dimension is walked by a loop of its own, or has one element."""
    extents = {f.name: f.hi for f in loops}
    walked = [i.name for i in store.indices if isinstance(i, Var)]
    whole = [
        extents.get(i.name) == e if isinstance(i, Var) else i == ex.idx(0) and e == ex.idx(1)
        for i, e in zip(store.indices, target.shape, strict=True)
    ]
    return all(whole) and len(set(walked)) == len(walked)


def _check_uses(home: Block, at: int, buffer: str, same: Sequence[_Factor], subject: str) -> None:
    """The result is read after it is complete, by loads, while the factors are what they were."""
    last = max((n for n, s in enumerate(home.stmts) if n > at and buffer in read_buffers(s)), default=at)
    if any(buffer in read_buffers(s) for s in home.stmts[:at]):
        raise ScheduleError(f"{subject}: it is read before it is complete")
    needed = {ld.buffer.name for f in same for ld in ex.loads(f.value)}
    for s in home.stmts[at : last + 1]:
        if changed := sorted(needed & written_buffers(s)):
            head = str(s).strip().splitlines()[0]
            raise ScheduleError(f"{subject}: '{head}' changes {changed[0]}, a factor, before its last use")
        for t in walk(s):
            if isinstance(t, Call) and buffer in read_buffers(t):
                raise ScheduleError(f"{subject}: {t.kernel.name} is called with it", hint="move factors before tensorizing")
