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
    gain = {s.name: _gain(context, s) for s in reductions}
    # Where all of them gain they are cut together: a kernel of one row has its maximum and its sum in parts.
    paying = [s for s in reductions if gain[s.name] is not None and (gain[s.name] or 0.0) > 0.0]
    others = [s for s in reductions if gain[s.name] is not None and s not in paying]
    chosen = paying or others
    made = [f for each in EACH if chosen and (f := _form(context, chosen, each * context.threads)) is not None]
    if made and paying:
        yield replace(made.pop(0), preferred=True)
        yield Form(context, "", reductions, False)
    else:
        yield Form(context, "", reductions, True)
    yield from made


def _gain(context: Context, s: Stage) -> float | None:
    """Cycles that parts save by estimate; None where the loops around keep all threads busy, or the reduction is short."""
    core, threads = context.core(s), context.threads
    if _loop(s, threads) is None:
        return None
    choice = contraction.choose(s, core, threads, context.constants)
    along = rows.cycles(s, core)
    results = prod(s.loops[n] for n in s.spatial)
    if choice is None or along < choice.cycles:
        whole, chunks = along, _rows(s, threads)
    else:
        whole, chunks = choice.cycles, contraction.chunks(s, choice)
    alone = -(-chunks // threads) / chunks
    if alone * threads < UNBALANCED or whole == float("inf"):
        return None
    combined = results * threads / core.lanes * COMBINE + (contraction.PARALLEL_CYCLES if chunks == 1 else 0.0)
    return whole * (alone - 1 / threads) - combined


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
