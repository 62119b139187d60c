"""The best point of a space by estimate, over the points its sketches find likely.

Sketches are looked at in the order of what they cost at least, and one that cannot win is never read: making formulas
of a program takes milliseconds. Structures are changed one respect at a time, and the best so far is what changes start
from. Nearly equal points stay in the order of the rules, simple ones first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from tilewright.space.costs import Costs
from tilewright.space.sketch import Sketch

#: Points closer together than this are equal: no estimate is that good.
EQUAL = 0.02
#: What no lower bound knows (tiles begin and end, results are written): estimates are this much above it at least.
ABOVE = 1.04
#: Estimates this much above their bounds are made of what bounds know nothing of: then how a loop is divided may decide
#: between tiles, and the two are changed together.
UNKNOWN = 1.5


@dataclass(frozen=True, slots=True)
class Found:
    """A point: the number of its sketch, the values of its knobs, and what it is estimated at."""

    sketch: int
    values: Mapping[str, int]
    seconds: float


def best(sketches: Sequence[Sketch], costs: Costs) -> Found | None:
    """The best of the likely points of ``sketches``; None when no sketch has any.

    Where a kernel has several reductions, their structures are changed one at a time, and so are tiles and divided loops.
    """
    order = [n for n in range(len(sketches)) if sketches[n].likely]
    order.sort(key=lambda n: round(math.log(min(max(sketches[n].bound, 1.0), 1e18)) / EQUAL))
    if len(order) == 1 and (only := _likely(sketches[order[0]])) is not None and all(len(c) == 1 for g in only for c in g.values()):
        return Found(order[0], first(sketches[order[0]], only), float("nan"))  # nothing to decide
    held: Found | None = None
    seen: set[int] = set()
    left = {_structure(sketches[n]) for n in order}
    while True:
        before = held
        for n in order:
            s = sketches[n]
            if n in seen or (held and _far(sketches[held.sketch], s, costs.machine.seconds(s.bound) * UNKNOWN > held.seconds, left)):
                continue
            seen.add(n)
            if held and costs.machine.seconds(s.bound) * ABOVE >= held.seconds * (1 - EQUAL):
                continue
            found = _of(n, s, costs)
            if found is None:
                left.discard(_structure(s))
            elif held is None or found.seconds < held.seconds * (1 - EQUAL):
                held = found
        if held is before:
            return held


def _structure(sketch: Sketch) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    return sketch.parts, sketch.leads


def _far(a: Sketch, b: Sketch, tight: bool, left: Set[tuple[tuple[str, ...], tuple[str | None, ...]]]) -> bool:
    """Whether two sketches of one form of the kernel differ in the structures of several reductions.

    With ``tight`` bounds also if they differ in a reduction's tiles and in the loop that is divided, and one of the ``left``
    structures lies between them.
    """
    if len(a.parts) != len(b.parts) or a.parts[:1] != b.parts[:1]:
        return False
    tiles = sum(x != y for x, y in zip(a.parts, b.parts, strict=True))
    leads = sum(x != y for x, y in zip(a.leads, b.leads, strict=True))
    several = sum(x != y for x, y in zip(zip(a.parts[1:], a.leads, strict=True), zip(b.parts[1:], b.leads, strict=True), strict=True))
    return several > 1 or (tight and bool(tiles and leads) and (b.parts, a.leads) in left)


def _likely(sketch: Sketch) -> Sequence[Mapping[str, np.ndarray]] | None:
    return sketch.likely() if sketch.likely else None


def first(sketch: Sketch, groups: Sequence[Mapping[str, np.ndarray]]) -> dict[str, int]:
    """The first likely point of a sketch."""
    values = {k.name: k.values[0] for k in sketch.knobs}
    for g in groups:
        values |= {n: int(column[0]) for n, column in g.items()}
    return values


def _of(number: int, sketch: Sketch, costs: Costs) -> Found | None:
    """The best likely point of one sketch: the knobs of each reduction in turn."""
    groups = _likely(sketch)
    if groups is None:
        return None
    values = first(sketch, groups)
    seconds = float("inf")
    for g in groups or [{}]:
        count = len(next(iter(g.values()))) if g else 1
        spent = costs.seconds(number, {n: g.get(n, np.full(count, v)) for n, v in values.items()})
        at = int(np.argmax(spent <= spent.min() * (1 + EQUAL)))
        values |= {n: int(column[at]) for n, column in g.items()}
        seconds = float(spent[at])
    return Found(number, values, seconds)
