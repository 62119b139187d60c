"""Iterations that a schedule need not make: keys that no row of a block sees, under a mask of a product's factors.

Whether a factor is masked decides: other conditions (the frame of a convolution) are cheaper than loops of unknown length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Where
from tilewright.ir.stmt import Block, Kernel, LoopKind, Stmt, Store
from tilewright.space.attempts import Attempts
from tilewright.space.stages import Stage, unmasked


def masked(every: Iterable[Stage]) -> bool:
    """Whether one of the stages sums products of which a factor is zero under a condition on indices."""
    return any(s.is_reduction and s.factors() is None and s.factors(masked=True) is not None for s in every)


def skip(done: Attempts, every: Iterable[Stage]) -> None:
    """Leave out of a schedule of ``every`` what changes nothing, and where everything counts the question whether it does."""
    if not masked(every):
        return
    trial = done.sch.copy()
    if not trial.apply("trim"):
        return
    done.sch = trial
    for f in [f for f in st.loops(trial.kernel) if f.kind is LoopKind.SERIAL]:
        if not any(g.kind is LoopKind.SERIAL for g in st.loops(f.body)) and any(map(_asks, st.walk(f.body))):
            done.attempt(f"masks in {f.name}", partial(done.sch.apply, "partition", f.name))
    done.sch.simplify(keep_loops=False)


def priced(every: Iterable[Stage], program: Callable[[], Kernel]) -> Kernel:
    """What a schedule of ``every`` is estimated by: ``program`` without the masks of factors, which few iterations ask for."""
    kernel = program()
    if not masked(every):
        return kernel

    def plain(s: Stmt) -> Stmt | None:
        if not isinstance(s, Store) or s.op != "+":
            return None
        return replace(s, value=ex.transform(s.value, lambda e: unmasked(e) if isinstance(e, Where) else None))

    body = st.map_stmts(kernel.body, plain)
    assert isinstance(body, Block)  # a block maps to a block
    return kernel.with_(body=body)


def _asks(s: Stmt) -> bool:
    return any(isinstance(n, Where) and not ex.loads(n.cond) for e in st.own_exprs(s) for n in ex.walk(e))
