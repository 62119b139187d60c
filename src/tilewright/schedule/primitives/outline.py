"""outline: a part of what a nest computes is computed before, into a buffer of its own."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Cast, Const, Expr, Load, Var
from tilewright.ir.printer import expr_text
from tilewright.ir.stmt import Alloc, Block, For, Kernel, Stmt, Store, names
from tilewright.ir.types import DType, parse_dtype
from tilewright.schedule.guarded import check_unguarded
from tilewright.schedule.nest import fresh, loop_place, replace_stmt, trip_count
from tilewright.schedule.primitive import primitive
from tilewright.schedule.region import scope_at
from tilewright.schedule.unify import Chain, chain_of
from tilewright.util.errors import ScheduleError


@primitive
def outline(kernel: Kernel, loop: str, value: str, dtype: str) -> tuple[Kernel, tuple[str, ...]]:
    """``y[i] = f(a[i] + b[i])`` becomes ``t[i] = a[i] + b[i]`` for all ``i``, then ``y[i] = f(t[i])``: the reverse of ``inline``.

    ``loop`` is the outermost of a perfect nest of loops from 0 with constant extents around one store, ``value`` the part of
    what it stores, as printed; ``dtype`` the elements of the new buffer. That has the dimensions of the one stored to, or, where its
    indices are more than loops and constants, one for each loop. Returns the buffer and the outermost loop of the nest that computes it.

    ScheduleError: another kind of nest, no such part, a type that does not hold all its values, a part that reads what the nest
    writes (which would be read before it is written), or one that a condition guards and that may have no value without it.
    """
    subject = f"outline {loop}"
    place = loop_place(kernel, loop, subject)
    chain = chain_of(place.node)
    if chain is None or any(f.lo != ex.idx(0) or f.step != 1 or trip_count(f) is None for f in chain.loops):
        raise ScheduleError(f"{subject}: it is no perfect nest of loops from 0 with constant extents around one store")
    found = next((e for e in ex.walk(chain.store.value) if expr_text(e) == value), None)
    if found is None:
        raise ScheduleError(f"{subject}: {chain.store.value} has no part {value}", hint="write it as it is printed")
    kind = parse_dtype(dtype)
    if not _holds(kind, found.dtype):
        raise ScheduleError(f"{subject}: {kind} does not hold all values of {value}, which is {found.dtype}")
    if chain.store.buffer.name in {ld.buffer.name for ld in ex.loads(found)}:
        raise ScheduleError(f"{subject}: {value} reads {chain.store.buffer.name}, which the nest writes")
    taken = names(kernel)
    own = [Var(fresh(taken, f.name)) for f in chain.loops]
    env: dict[str, Expr] = {f.name: v for f, v in zip(chain.loops, own, strict=True)}
    extents = {f.name: ex.idx(trip_count(f) or 0) for f in chain.loops}
    index = _index(chain)
    shape = tuple(extents[i.name] if isinstance(i, Var) else ex.idx(1) for i in index)
    made = Buffer(fresh(taken, f"{chain.store.buffer.name}_part"), kind, shape)
    first = _nest(chain, own, Store(made, tuple(ex.substitute(i, env) for i in index), ex.substitute(found, env)))
    with scope_at(kernel, place, inside=False) as scope:
        check_unguarded(scope, chain.store.value, found, first, subject)
    load = Load(made, index)
    rest = _replaced(chain.store.value, found, load)
    rest = rest if rest.dtype == chain.store.value.dtype else ex.cast(rest, chain.store.value.dtype)
    last = _nest(chain, [f.var for f in chain.loops], replace(chain.store, value=rest))
    return replace_stmt(kernel, place.node, Alloc(made), first, last), (made.name, own[0].name)


def _index(chain: Chain) -> tuple[Expr, ...]:
    """The element of the new buffer: 0 in dimensions that no loop walks."""
    stored = chain.store.indices
    walked = [i.name for i in stored if isinstance(i, Var)]
    plain = all(isinstance(i, (Var, Const)) for i in stored) and sorted(walked) == sorted(f.name for f in chain.loops)
    return tuple(i if isinstance(i, Var) else ex.idx(0) for i in stored) if plain else tuple(f.var for f in chain.loops)


def _holds(wide: DType, narrow: DType) -> bool:
    if wide == narrow:
        return True
    whole = wide.is_int and narrow.is_int and ty.INDEX not in (wide.kind, narrow.kind)
    return whole and wide.range[0] <= narrow.range[0] and narrow.range[1] <= wide.range[1]


def _replaced(e: Expr, part: Expr, load: Load) -> Expr:
    """``e`` with ``load`` for ``part``: integers of a wider type give wider results, which are exact."""
    if e == part:
        return load
    old = ex.children(e)
    new = tuple(_replaced(c, part, load) for c in old)
    if all(a is b for a, b in zip(old, new, strict=True)):
        return e
    match e:
        case Binary():
            return ex.binary(e.op, *new)
        case Cast():
            return ex.cast(new[0], e.dtype)
    return ex.rebuild(e, tuple(n if n.dtype == o.dtype else ex.cast(n, o.dtype) for o, n in zip(old, new, strict=True)))


def _nest(chain: Chain, variables: list[Var], store: Store) -> Stmt:
    """``store`` inside loops like those of ``chain``, with these variables."""
    out: Stmt = store
    for f, v in reversed(list(zip(chain.loops, variables, strict=True))):
        out = For(v, f.lo, f.hi, Block((out,)), f.kind, f.step, f.unit)
    return out
