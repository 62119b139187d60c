"""Smaller spaces made of rules: what a search is worth when structures or mappings are not searched.

Each takes rules and is a rule itself, which yields a part of their sketches::

    Space(kernel, rules=[OneMapping(discover())])
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.space.best import best
from tilewright.space.context import Context
from tilewright.space.costs import Costs
from tilewright.space.rule import Rule
from tilewright.space.sketch import Sketch

# Classes and not closures: rules travel to the processes that build candidates, and equal ones make one space there.


@dataclass(frozen=True, slots=True)
class PlainTiles:
    """Of the sketches with one mapping only that with the fewest extras (the first of several).

    No copies of operands where the mapping can do without, no blocks of a reduction.
    """

    rules: tuple[Rule, ...]

    def __call__(self, context: Context) -> Iterator[Sketch]:
        simplest: dict[str, Sketch] = {}
        for r in self.rules:
            for sketch in r(context):
                held = simplest.setdefault(sketch.mapping, sketch)
                if len(sketch.extras) < len(held.extras):
                    simplest[sketch.mapping] = sketch
        yield from simplest.values()


@dataclass(frozen=True, slots=True)
class OneMapping:
    """Only sketches with the mapping of the schedule a kernel has without tuning (of the first one where no rule finds any likely)."""

    rules: tuple[Rule, ...]

    def __call__(self, context: Context) -> Iterator[Sketch]:
        sketches = [s for r in self.rules for s in r(context)]
        found = best(sketches, Costs(sketches, context.machine, context.threads))
        mapping = sketches[found.sketch if found else 0].mapping if sketches else ""
        yield from (s for s in sketches if s.mapping == mapping)
