"""rfactor: a reduction is first done into independent partial results, which are then combined."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir.affine import reassociable
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load
from tilewright.ir.stmt import Alloc, Block, For, Kernel, Stmt, Store, names
from tilewright.schedule.nest import copied, fresh, loop_place, replace_stmt, trip_count
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError


@primitive
def rfactor(kernel: Kernel, loop: str) -> tuple[Kernel, tuple[str, ...]]:
    """Give each iteration of the reduction ``loop`` a partial result of its own.

    The perfect nest ``x[i] op= e`` around ``loop`` becomes three nests: initialise ``p[i, loop]``
    with the operator's neutral element, ``p[i, loop] op= e``, and ``x[i] op= p[i, loop]``; ``p`` has one dimension for each loop. Partial
    results are independent, so ``loop`` may then be vectorised without a horizontal step in
    each iteration. Returns (partial buffer, root of the initialisation, of the update, of the combination).

    Reductions may be reassociated, so the only conditions are structural. ScheduleError: the loop is not
    in a perfect nest around one reduction store, addresses the result, has bounds that are not constants,
    or the value reads the result.
    """
    chain, store = reduction_nest(kernel, loop, f"rfactor {loop}")
    f = next(c for c in chain if c.name == loop)
    if any(loop in ex.free_vars(i) for i in store.indices):
        raise ScheduleError(f"rfactor {loop}: {store.buffer.name} is indexed by it, so it is not a reduction loop", location=f.loc)
    return apart(kernel, chain, store, {n for i in store.indices for n in ex.free_vars(i)} | {loop}, f"rfactor {loop}")


def apart(kernel: Kernel, chain: list[For], store: Store, variables: set[str], subject: str) -> tuple[Kernel, tuple[str, ...]]:
    """The reduction nest ``chain`` around ``store`` with one partial result for each value of the loops ``variables``.

    Returns what :func:`rfactor` returns. ScheduleError in the name of ``subject``.
    """
    name, loc = store.buffer.name, store.loc
    if name in {ld.buffer.name for ld in ex.loads(store.value)}:
        raise ScheduleError(f"{subject}: the value added to {name} reads {name}", location=loc)
    if not reassociable(store):
        raise ScheduleError(
            f"{subject}: the order of the updates of {name} matters, each is narrowed to {store.buffer.dtype}",
            hint="accumulate in the type of the value",
            location=loc,
        )
    taken = names(kernel)
    kept = _needed(chain, variables)
    partial = Buffer(fresh(taken, name + "_part"), store.buffer.dtype, _extents(kept), store.buffer.memory)
    element = tuple((c.var - c.lo) // c.step for c in kept)
    update = _rebuild(chain, replace(store, buffer=partial, indices=element))
    start = _rebuild(kept, Store(partial, element, ex.const(partial.dtype.neutral(store.op or "+"), partial.dtype)))
    combine = _rebuild(kept, replace(store, value=Load(partial, element)))
    (init,), (final,) = copied(Block((start,)), taken).stmts, copied(Block((combine,)), taken).stmts
    out = replace_stmt(kernel, chain[0], Alloc(partial), init, update, final)
    return out, (partial.name, *(s.name for s in (init, update, final) if isinstance(s, For)))


def _extents(chain: list[For]) -> tuple[Expr, ...]:
    for f in chain:
        if trip_count(f) is None:
            raise ScheduleError(f"rfactor: the extent {f.extent} of loop {f.name} is not a constant", hint="split it first", location=f.loc)
    return tuple(ex.idx(trip_count(f) or 0) for f in chain)


def reduction_nest(kernel: Kernel, loop: str, subject: str) -> tuple[list[For], Store]:
    """The perfect nest around ``loop``, outermost first, and its store."""
    place = loop_place(kernel, loop, subject)
    chain: list[For] = [place.node]  # type: ignore[list-item]
    for a in reversed(place.ancestors):
        if isinstance(a, Block):
            if len(a.stmts) > 1:
                break
        elif isinstance(a, For):
            chain.insert(0, a)
        else:
            break
    inner: Stmt = place.node
    while isinstance(inner, For):
        if inner.name != loop and inner not in chain:
            chain.append(inner)
        if len(inner.body.stmts) != 1:
            break
        inner = inner.body.stmts[0]
    if not isinstance(inner, Store) or inner.op is None:
        raise ScheduleError(f"{subject}: it is not in a perfect nest around one reduction", hint="use fission to separate statements")
    return chain, inner


def _needed(chain: list[For], variables: set[str]) -> list[For]:
    """The loops that address the partial result, and those their bounds depend on."""
    wanted = set(variables)
    for f in reversed(chain):
        if f.name in wanted:
            wanted |= ex.free_vars(f.lo) | ex.free_vars(f.hi)
    return [f for f in chain if f.name in wanted]


def _rebuild(chain: list[For], inner: Stmt) -> Stmt:
    out = inner
    for f in reversed(chain):
        out = replace(f, body=Block((out,)))
    return out
