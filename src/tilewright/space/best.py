"""The best point of a space by estimate, over the points its sketches find likely.

Sketches are looked at in the order of what they cost at least, and one that cannot win is never read: making formulas
of a program takes milliseconds. Nearly equal points stay in the order of the rules, simple ones first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.space.costs import Costs
from tilewright.space.sketch import Sketch

#: Points closer together than this are equal: no estimate is that good.
EQUAL = 0.02


@dataclass(frozen=True, slots=True)
class Found:
    """A point: the number of its sketch, the values of its knobs, and what it is estimated at."""

    sketch: int
    values: Mapping[str, int]
    seconds: float


def best(sketches: Sequence[Sketch], costs: Costs) -> Found | None:
    """The best of the likely points of ``sketches``; None when no sketch has any.

    Where a kernel has several reductions, their structures are changed one at a time.
    """
    order = [n for n in range(len(sketches)) if sketches[n].likely or sketches[n].preferred is not None]
    order.sort(key=lambda n: round(math.log(min(max(sketches[n].bound, 1.0), 1e18)) / EQUAL))
    if len(order) == 1 and (only := _first(sketches[order[0]])) is not None and only[1]:
        return Found(order[0], only[0], float("nan"))  # nothing to decide
    held: Found | None = None
    seen: set[int] = set()
    while True:
        before = held
        for n in order:
            s = sketches[n]
            if n in seen or (held and _far(sketches[held.sketch], s)):
                continue
            seen.add(n)
            if held and costs.machine.seconds(s.bound) >= held.seconds * (1 - EQUAL):
                continue
            found = _of(n, s, costs)
            if found and (held is None or found.seconds < held.seconds * (1 - EQUAL)):
                held = found
        if held is before:
            return held


def _far(a: Sketch, b: Sketch) -> bool:
    """Whether two sketches of one form of the kernel differ in the structures of several reductions."""
    same_form = len(a.parts) == len(b.parts) and a.parts[:1] == b.parts[:1]
    return same_form and sum(x != y for x, y in zip(a.parts, b.parts, strict=True)) > 1


def _first(sketch: Sketch) -> tuple[dict[str, int], bool] | None:
    """The first likely point of a sketch, and whether it is the only one; None when there is none."""
    groups = sketch.likely() if sketch.likely else []
    if groups is None:
        return None
    values = {k.name: k.values[0] for k in sketch.knobs} | dict(sketch.preferred or {})
    for g in groups:
        values |= {n: int(column[0]) for n, column in g.items()}
    return values, all(len(column) == 1 for g in groups for column in g.values())


def _of(number: int, sketch: Sketch, costs: Costs) -> Found | None:
    """The best likely point of one sketch: the knobs of each reduction in turn."""
    first = _first(sketch)
    if first is None:
        return None
    values, _ = first
    estimate, seconds = costs.estimator(number), float("inf")
    for g in (sketch.likely() if sketch.likely else None) or [{}]:
        count = len(next(iter(g.values()))) if g else 1
        spent = np.broadcast_to(estimate({n: g.get(n, np.full(count, v)) for n, v in values.items()}), count)
        at = int(np.argmax(spent <= spent.min() * (1 + EQUAL)))
        values |= {n: int(column[at]) for n, column in g.items()}
        seconds = float(spent[at])
    return Found(number, values, seconds)
