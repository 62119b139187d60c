"""Reductions in parts: where results are too few to keep all threads busy, each thread sums a part of its own.

The reduction loop is cut, every part gets partial results of its own (``rfactor``), and those are combined at the
end. What comes out is an ordinary kernel again, in which the loop over parts addresses the result: all rules apply
to it as they do to any other, so a form of a kernel is just another context.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from tilewright.cost.contraction import best
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

    ``label`` names them ("" for none); ``reductions`` are those for which there is something to decide.
    """

    context: Context
    label: str
    reductions: tuple[Stage, ...]


def forms(context: Context) -> Iterator[Form]:
    """The kernel as it is, and with its reductions in parts where the loops around do not keep all threads busy."""
    yield Form(context, "", tuple(s for s in context.stages if s.is_reduction))
    if context.threads == 1:
        return
    uneven = [u for s in context.stages if s.is_reduction and (u := _uneven(context, s)) is not None]
    # Where all of them gain they are cut together: a kernel of one row has its maximum and its sum in parts.
    paying = [u for u in uneven if u.busiest > u.whole / context.threads + u.combined]
    chosen = [u.stage for u in paying or uneven]
    for each in EACH if chosen else ():
        if (made := _form(context, chosen, each * context.threads)) is not None:
            yield made


@dataclass(frozen=True, slots=True)
class _Uneven:
    """A reduction whose loops around do not divide well: cycles at least on one core, of the busiest thread, and to combine parts."""

    stage: Stage
    whole: float
    busiest: float
    combined: float


def _uneven(context: Context, s: Stage) -> _Uneven | None:
    """None where the loops around keep all threads busy, or the reduction is short."""
    threads, core = context.threads, context.core(s)
    if _loop(s, threads) is None:
        return None
    chunks = _rows(s, threads)
    whole = rows.cycles(s, core)
    busiest, divided = whole * _share(chunks, 1, threads), chunks > 1
    problem = contraction.problem_of(s, context.constants, context.dividing)
    tiles = best(problem, core) if problem.spatial else None
    if tiles is not None and len(tiles):
        share = np.ones(len(tiles))
        for n, loop in enumerate(problem.spatial):
            each = np.where(tiles.vector == n, tiles.vectors * core.lanes, np.where(tiles.row == n, tiles.rows, 1))
            share = np.minimum(share, _share(problem.loops[loop], each, threads))
        at = int(np.argmin(tiles.cycles * share))
        whole = min(whole, float(tiles.cycles.min()))
        if tiles.cycles[at] * share[at] < busiest:
            busiest, divided = float(tiles.cycles[at] * share[at]), bool(share[at] < 1)
    if busiest * threads < whole * UNBALANCED or whole == float("inf"):
        return None
    results = prod(s.loops[n] for n in s.spatial)
    combined = results * threads / core.lanes * COMBINE + (0.0 if divided else contraction.PARALLEL_CYCLES)
    return _Uneven(s, whole, busiest, combined)


def _share(extent: int, each: Any, threads: int) -> Any:
    """Part of the work of the busiest thread when ``extent`` iterations are divided in chunks of ``each``."""
    each = np.minimum(each, extent)
    whole = extent // each
    return (-(-whole // threads) * each + (extent - whole * each) / threads) / extent


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
        labels.append(described(s, loop, parts))
    made = replace(context, base=sch, stages=tuple(stages(sch.kernel)), dividing=frozenset(dividing))
    undecided = tuple(s for s in made.stages if s.is_reduction and not s.is_scheduled and s.name not in done)
    return Form(made, "; ".join(labels), undecided)


def described(s: Stage, loop: str, parts: int) -> str:
    """How sketches, and so decisions and records, name a reduction in parts."""
    return f"{s.output.name} in {parts} parts of {loop}"


def cut(sch: Schedule, s: Stage, loop: str, parts: int, core: VectorCore) -> list[str]:
    """Cut the reduction ``loop`` of ``s`` into ``parts`` with results of their own.

    What does not divide is added at the end. Returns the loop over parts, and the outermost loops of the nests that
    combine. ScheduleError as of ``rfactor``.
    """
    outer, _, *combining = apart(sch, s, loop, parts)
    for root in combining:
        nest = stage_of(st.find_loop(sch.kernel, root))
        if nest.spatial and not nest.opaque:
            pointwise.apply(sch, nest, core, 1)
    return [outer, *combining]


def apart(sch: Schedule, s: Stage, loop: str, parts: int) -> list[str]:
    """The same, with the nests that combine as they are. Returns the loop over parts, the partial results, and the roots of those nests."""
    others = [n for n in s.loops if n != loop]
    if others and next(iter(s.loops)) != loop:
        sch.reorder(loop, *others)
    outer, inner, *tail = sch.apply("split", loop, s.loops[loop] // parts, "peel")
    spatial = [n for n in others if n not in s.reduction]
    if spatial:
        sch.reorder(outer, *spatial, inner, *(n for n in others if n in s.reduction))
    partial, *_, combined = sch.apply("rfactor", outer)
    return [outer, partial, combined, *tail]
