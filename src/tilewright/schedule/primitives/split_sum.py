"""split_sum: a sum of several terms is stored one term after the other, each added to what is there."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Expr, Var
from tilewright.ir.stmt import Block, For, Kernel, Stmt, names
from tilewright.schedule.nest import fresh, loop_place, replace_stmt
from tilewright.schedule.primitive import primitive
from tilewright.schedule.unify import chain_of
from tilewright.util.errors import ScheduleError


@primitive
def split_sum(kernel: Kernel, loop: str) -> tuple[Kernel, tuple[str, ...]]:
    """``t[i] = a[i] + b[i]`` for all ``i`` becomes ``t[i] = a[i]`` for all ``i``, then ``t[i] += b[i]``.

    ``loop`` is the outermost of a perfect nest around one store of a sum: memories whose transfers add can then be filled with it.
    Integer sums wrap, so they are taken apart however they are nested; floats in the order in which they are added. Returns the
    outermost loops of the nests.

    ScheduleError: no such nest or sum, a sum that is not of the elements' type or a narrower integer, a term that reads the buffer, or an
    element that is stored several times.
    """
    subject = f"split_sum {loop}"
    node = loop_place(kernel, loop, subject).node
    chain = chain_of(node)
    if chain is None or chain.store.op is not None:
        raise ScheduleError(f"{subject}: it is no perfect nest around one plain store")
    store = chain.store
    parts = terms(store.value, store.buffer)
    if len(parts) < 2:
        raise ScheduleError(f"{subject}: {store.value} is no sum that {store.buffer.dtype} adds up in the same way")
    if store.buffer.name in {ld.buffer.name for ld in ex.loads(store.value)}:
        raise ScheduleError(f"{subject}: {store.value} reads {store.buffer.name}, which it is stored to")
    if any(f.var not in store.indices for f in chain.loops):
        raise ScheduleError(f"{subject}: {store.buffer.name} is stored to several times: not every loop walks a dimension of it")
    taken = names(kernel)
    nests: list[Stmt] = []
    for n, value in enumerate(parts):
        own = [Var(fresh(taken, f.name)) if n else f.var for f in chain.loops]
        env: dict[str, Expr] = {f.name: v for f, v in zip(chain.loops, own, strict=True)}
        indices = tuple(ex.substitute(i, env) for i in store.indices)
        body: Stmt = replace(store, indices=indices, value=ex.substitute(value, env), op="+" if n else None)
        for f, v in reversed(list(zip(chain.loops, own, strict=True))):
            body = For(v, ex.substitute(f.lo, env), ex.substitute(f.hi, env), Block((body,)), f.kind, f.step, f.unit)
        nests.append(body)
    return replace_stmt(kernel, node, *nests), tuple(f.name for f in nests if isinstance(f, For))


def terms(value: Expr, target: Buffer) -> tuple[Expr, ...]:
    """The terms that add up to ``value`` in elements of ``target``, in order; ``(value,)`` where it is no sum or adds up otherwise."""
    exact = value.dtype.is_int and target.dtype.is_int
    if not isinstance(value, Binary) or value.op != "+" or not (exact or value.dtype == target.dtype):
        return (value,)
    right = terms(value.b, target) if exact else (value.b,)
    left = terms(value.a, target)
    return (*left, *right)
