"""Reductions in parts: where results are too few to keep all threads busy, each thread sums a part of its own.

The reduction loop is cut, every part gets partial results of its own (``rfactor``), and those are combined at the
end. What comes out is an ordinary kernel again, in which the loop over parts addresses the result: all rules apply
to it as they do to any other, so a form of a kernel is just another context.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from tilewright.cost.core import VectorCore
from tilewright.ir import stmt as st
from tilewright.schedule.schedule import Schedule
from tilewright.space.context import Context
from tilewright.space.rules import contraction, pointwise, rows
from tilewright.space.stages import Stage, stage_of, stages
from tilewright.util.errors import ScheduleError

#: Parts for each thread: one, or several so that threads that are slower get fewer.
EACH = (1, 4)
#: Steps of a part at least.
SHORTEST = 64
#: Time with the loops around divided, relative to a perfect division, from which on parts are looked at.
UNBALANCED = 1.15
#: Cycles to combine one vector of partial results.
COMBINE = 4.0


@dataclass(frozen=True, slots=True)
class Form:
    """A kernel with some of its reductions in parts.

    ``label`` names them ("" for none); ``reductions`` are those for which there is something to decide, ``preferred``
    says that it is the form for a kernel that is not tuned.
    """

    context: Context
    label: str
    reductions: tuple[Stage, ...]
    preferred: bool


def forms(context: Context) -> Iterator[Form]:
    """The kernel as it is and with its reductions in parts, the preferred form first."""
    reductions = tuple(s for s in context.stages if s.is_reduction)
    if context.threads == 1:
        yield Form(context, "", reductions, True)
        return
    uneven = [u for s in reductions if (u := _uneven(context, s)) is not None]
    # Where all of them gain they are cut together: a kernel of one row has its maximum and its sum in parts.
    paying = [u for u in uneven if u.busiest > u.whole / context.threads + u.combined]
    chosen = [u.stage for u in paying or uneven]
    made = [f for each in EACH if chosen and (f := _form(context, chosen, each * context.threads)) is not None]
    if made and paying and _busiest(made[0]) + sum(u.combined for u in paying) < sum(u.busiest for u in paying):
        yield replace(made.pop(0), preferred=True)
        yield Form(context, "", reductions, False)
    else:
        yield Form(context, "", reductions, True)
    yield from made


@dataclass(frozen=True, slots=True)
class _Uneven:
    """A reduction whose loops around do not divide well: cycles on one core, of the busiest thread, and to combine parts."""

    stage: Stage
    whole: float
    busiest: float
    combined: float


def _uneven(context: Context, s: Stage) -> _Uneven | None:
    """None where the loops around keep all threads busy, or the reduction is short."""
    threads = context.threads
    if _loop(s, threads) is None:
        return None
    choice, cycles = _cheapest(context, s, threads)
    whole = _cheapest(context, s, 1)[1]
    chunks = contraction.chunks(s, choice) if choice else _rows(s, threads)
    busiest = cycles * -(-chunks // threads) / chunks
    if busiest * threads < whole * UNBALANCED or whole == float("inf"):
        return None
    results = prod(s.loops[n] for n in s.spatial)
    combined = results * threads / context.core(s).lanes * COMBINE + (contraction.PARALLEL_CYCLES if chunks == 1 else 0.0)
    return _Uneven(s, whole, busiest, combined)


def _cheapest(context: Context, s: Stage, threads: int) -> tuple[contraction.Tiling | None, float]:
    """The tiling of ``s`` for so many threads (None: done by rows) and its cycles on one core, all parts together."""
    core = context.core(s)
    choice, along = contraction.choose(s, core, threads, context.constants, context.dividing), rows.cycles(s, core)
    return (None, along) if choice is None or along < choice.cycles else (choice, choice.cycles)


def _busiest(form: Form) -> float:
    """Cycles of each thread for the reductions of a form: parts are as many as threads, or a multiple.

    In parts a reduction may cost more than whole: an operand that is cut along it is not laid out in panels.
    """
    threads = form.context.threads
    return sum(_cheapest(form.context, s, threads)[1] for s in form.reductions) / threads


def _rows(s: Stage, threads: int) -> int:
    """Iterations of the loop over rows that is divided, loops of few rows taken together."""
    found = 1
    for n in s.spatial:
        if found > 1 and (found >= rows.ENOUGH * threads or found % threads == 0):
            break
        found *= s.loops[n]
    return found


def _loop(s: Stage, parts: int) -> str | None:
    """The reduction loop that is cut: the one that moves farthest and is long enough."""
    inside = prod(s.loops[n] for n in s.reduction)
    long = [n for n in contraction.reduction_order(s, "") if s.loops[n] >= parts and inside // parts >= SHORTEST]
    return next((n for n in long if s.loops[n] % parts == 0), next((n for n in long if s.loops[n] >= 8 * parts), None))


def _form(context: Context, chosen: list[Stage], parts: int) -> Form | None:
    sch = context.base.copy()
    dividing: list[str] = []
    done: set[str] = set()
    labels = []
    for s in chosen:
        loop = _loop(s, parts)
        if loop is None:
            return None
        try:
            outer, *combining = cut(sch, s, loop, parts, context.core(s))
        except ScheduleError:
            return None  # a value that reads the result, or sums whose order matters
        dividing.append(outer)
        done |= set(combining)
        labels.append(f"{s.output.name} in {parts} parts of {loop}")
    made = replace(context, base=sch, stages=tuple(stages(sch.kernel)), dividing=frozenset(dividing))
    undecided = tuple(s for s in made.stages if s.is_reduction and not s.is_scheduled and s.name not in done)
    return Form(made, "; ".join(labels), undecided, False)


def cut(sch: Schedule, s: Stage, loop: str, parts: int, core: VectorCore) -> list[str]:
    """Cut the reduction ``loop`` of ``s`` into ``parts`` with results of their own.

    What does not divide is added at the end. Returns the loop over parts, and the outermost loops of the nests that
    combine. ScheduleError as of ``rfactor``.
    """
    others = [n for n in s.loops if n != loop]
    if others and next(iter(s.loops)) != loop:
        sch.reorder(loop, *others)
    outer, inner, *tail = sch.apply("split", loop, s.loops[loop] // parts, "peel")
    spatial = [n for n in others if n not in s.reduction]
    if spatial:
        sch.reorder(outer, *spatial, inner, *(n for n in others if n in s.reduction))
    *_, combined = sch.apply("rfactor", outer)
    for root in (combined, *tail):
        nest = stage_of(st.find_loop(sch.kernel, root))
        if nest.spatial and not nest.opaque:
            pointwise.apply(sch, nest, core, 1)
    return [outer, combined, *tail]
