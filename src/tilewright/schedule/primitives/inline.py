"""inline: consumers recompute an element-wise producer instead of reading its buffer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load
from tilewright.ir.linear import Linear
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import (
    Block,
    Call,
    For,
    If,
    Kernel,
    Span,
    Stmt,
    Store,
    While,
    Window,
    loops,
    map_exprs,
    read_buffers,
    walk,
    written_buffers,
)
from tilewright.schedule.nest import Place, local_place, replace_stmt
from tilewright.schedule.primitive import primitive
from tilewright.schedule.region import accesses, scope_at
from tilewright.schedule.stage import Nest, stage_in
from tilewright.util.errors import ScheduleError


@primitive
def inline(kernel: Kernel, buffer: str) -> tuple[Kernel, tuple[str, ...]]:
    """Replace every read of the local ``buffer`` by the expression that computes it; nest and buffer disappear.

    Returns no names. ScheduleError unless one unconditional element-wise store computes the
    buffer, all its uses are reads of elements it computed, and its inputs keep their values until
    the last use.
    """
    if any(b.name == buffer for b in kernel.args):
        raise ScheduleError(f"inline {buffer}: it is an argument, which the caller sees", hint="compute_at keeps the buffer")
    declared, target = local_place(kernel, buffer, f"inline {buffer}")
    home = declared.block
    producer, at = _producer(home, buffer)
    if any(buffer in read_buffers(s) for s in home.stmts[:at]):
        raise ScheduleError(f"inline {buffer}: it is read before it is computed", hint="its contents are undefined there")
    users = [s for s in home.stmts[at + 1 :] if buffer in read_buffers(s)]
    with scope_at(kernel, Place(declared.ancestors[:-1], home), inside=False) as scope:
        nest = stage_in(scope, target, [producer], "inline").nests[0]
        store = _element_wise(producer, nest, target)
        _check_inputs(home.stmts[at + 1 :], users, producer, buffer)
        for s in users:
            _check_domain(scope, s, nest, target)
        substituted = {id(s): _inlined(s, store, nest) for s in users}
        stmts = [substituted.get(id(s), s) for s in home.stmts if s is not producer and s is not declared.node]
        new = Block(tuple(stmts))
        new = scope.block(new, frozenset(f.name for f in loops(new)))
    return _with_block(kernel, declared.ancestors[:-1], home, new), ()


def _producer(home: Block, buffer: str) -> tuple[Stmt, int]:
    writers = [n for n, s in enumerate(home.stmts) if buffer in written_buffers(s)]
    if len(writers) != 1:
        raise ScheduleError(
            f"inline {buffer}: {len(writers)} statements write it, not one",
            hint="a reduction has an initialisation and an update: use compute_at",
        )
    return home.stmts[writers[0]], writers[0]


def _element_wise(producer: Stmt, nest: Nest, target: Buffer) -> Store:
    stores = [s for s in walk(producer) if isinstance(s, Store)]
    extra = [f.name for f in loops(producer) if f.name not in nest.spatial]
    if len(stores) != 1 or extra or not nest.overwrites:
        why = f"loop {extra[0]} is no dimension of it" if extra else "it is not one unconditional plain store"
        raise ScheduleError(
            f"inline {target.name}: the producer is not element-wise ({why})", hint="use compute_at", location=stores[0].loc
        )
    return stores[0]


def _check_inputs(after: Sequence[Stmt], users: list[Stmt], producer: Stmt, buffer: str) -> None:
    inputs = read_buffers(producer)
    last = max((n for n, s in enumerate(after) if any(s is u for u in users)), default=-1)
    for s in after[: last + 1]:
        if changed := sorted(inputs & written_buffers(s)):
            head = str(s).strip().splitlines()[0]
            raise ScheduleError(
                f"inline {buffer}: '{head}' writes {changed[0]}, which the producer reads, before the last use of {buffer}",
                hint="use compute_at with a loop that does not change the input, or keep the buffer",
                location=getattr(s, "loc", None),
            )


def _check_domain(scope: Simplifier, s: Stmt, nest: Nest, target: Buffer) -> None:
    """Reads of elements that were never computed would be replaced by reads outside the inputs."""
    for access, here in accesses(scope, s, target.name):
        if isinstance(access.statement, Call):
            raise ScheduleError(f"inline {target.name}: {access.statement.kernel.name} is called with it", hint="inline before tensorizing")
        for d, (e, (lo, hi)) in enumerate(zip(access.first, nest.bounds, strict=True)):
            low = here.linear(e).plus(here.linear(lo), -1)
            high = here.linear(hi).plus(here.linear(e), -1)
            if not here.nonneg(low) or not here.nonneg(Linear(high.terms, high.const - 1)):
                read = Load(target, access.first)
                computed = Window(target, tuple(Span(a, b - a) for a, b in nest.bounds))
                raise ScheduleError(
                    f"inline {target.name}: {read} is not provably within the computed {computed} (dimension {d})",
                    hint="guard the read by where(inside, ..., 0), or keep the buffer",
                    location=getattr(access.statement, "loc", None),
                )


def _inlined(s: Stmt, store: Store, nest: Nest) -> Stmt:
    buffer = store.buffer
    value = ex.cast(store.value, buffer.dtype)
    by_dim = {at.dim: (name, at.offset) for name, at in nest.spatial.items()}

    def node(e: Expr) -> Expr | None:
        if not isinstance(e, Load) or e.buffer.name != buffer.name:
            return None
        return ex.substitute(value, {name: e.indices[d] - offset for d, (name, offset) in by_dim.items()})

    return map_exprs(s, lambda e: ex.transform(e, node))


def _with_block(kernel: Kernel, ancestors: tuple[Stmt, ...], old: Block, new: Block) -> Kernel:
    """``kernel`` with the body of a loop or the branch of a conditional replaced."""
    if not ancestors:
        return kernel.with_(body=new)
    owner = ancestors[-1]
    match owner:
        case If() if owner.then is not old:
            return replace_stmt(kernel, owner, replace(owner, orelse=new))
        case If():
            return replace_stmt(kernel, owner, replace(owner, then=new))
        case For() | While():
            return replace_stmt(kernel, owner, replace(owner, body=new))
    raise ScheduleError(f"kernel {kernel.name}: a block stands directly in a block", hint="simplify the kernel")
