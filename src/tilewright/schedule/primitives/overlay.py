"""overlay: a nest that chooses between a value and a constant fills with the constant, then writes the value where it is chosen."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir.expr import Const, Where
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Block, For, If, Kernel, Stmt, names
from tilewright.schedule.legality import check_independent, region_of
from tilewright.schedule.nest import copied, loop_place, replace_stmt
from tilewright.schedule.primitive import primitive
from tilewright.schedule.region import scope_at
from tilewright.schedule.unify import chain_of
from tilewright.util.errors import ScheduleError


@primitive
def overlay(kernel: Kernel, loop: str) -> tuple[Kernel, tuple[str, ...]]:
    """``b[i] = where(inside, x[i - 1], 0)`` becomes ``b[i] = 0`` and then ``b[i] = x[i - 1]`` where ``inside`` holds.

    Conditions on loops become their bounds: what moves data sees a plain rectangle (a padded input is zeros and a copy of
    the inside). Returns the two outermost loops. ScheduleError: ``loop`` is no perfect nest around one store of such a choice, the
    constant is not the second alternative, or the nest reads what it writes or stores an element twice (the last choice would count).
    """
    subject = f"overlay {loop}"
    place = loop_place(kernel, loop, "overlay")
    nest = place.node
    chain = chain_of(nest)
    if not isinstance(nest, For) or chain is None or chain.store.op is not None:
        raise ScheduleError(f"{subject}: it is not loops around one plain store", location=getattr(nest, "loc", None))
    store = chain.store
    choice = store.value
    if not isinstance(choice, Where) or not isinstance(choice.b, Const):
        raise ScheduleError(f"{subject}: {store.value} does not choose between a value and a constant", location=store.loc)
    if any(ld.buffer.name == store.buffer.name for ld in ex.loads(choice)):
        raise ScheduleError(f"{subject}: the nest reads {store.buffer.name}, which it writes", location=store.loc)
    for f in chain.loops:
        check_independent(region_of(kernel, f), f.name, subject)
    fill = copied(Block((_around(chain.loops, replace(store, value=choice.b)),)), names(kernel)).stmts[0]
    assert isinstance(fill, For)  # a copy of a loop
    with scope_at(kernel, place, inside=False) as scope:
        inside = If(choice.cond, Block((replace(store, value=choice.a),)))
        tight = Simplifier(scope.ranges, list(scope.facts), tighten=True)
        chosen = tight.block(Block((_around(chain.loops, inside),)), frozenset(f.name for f in chain.loops))
    return replace_stmt(kernel, nest, fill, *chosen.stmts), (fill.name, loop)


def _around(loops: tuple[For, ...], body: Stmt) -> Stmt:
    for f in reversed(loops):
        body = replace(f, body=Block((body,)))
    return body
