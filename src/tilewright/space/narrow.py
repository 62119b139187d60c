"""Smaller spaces made of rules: what a search is worth when structures or mappings are not searched.

Each function takes rules and gives a rule that yields a part of their sketches::

    Space(kernel, rules=[fixed_mapping(*discover())])
"""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.space.context import Context
from tilewright.space.rule import Rule
from tilewright.space.sketch import Sketch


def plain(*rules: Rule) -> Rule:
    """Plain tiles: of the sketches with one mapping only that with the fewest extras (the first of several).

    No copies of operands where the mapping can do without, no blocks of a reduction.
    """

    def plain_tiles(context: Context) -> Iterator[Sketch]:
        simplest: dict[str, Sketch] = {}
        for sketch in _all(rules, context):
            held = simplest.setdefault(sketch.mapping, sketch)
            if len(sketch.extras) < len(held.extras):
                simplest[sketch.mapping] = sketch
        yield from simplest.values()

    return plain_tiles


def fixed_mapping(*rules: Rule) -> Rule:
    """One mapping: that of the schedule a kernel has without tuning (the first sketch where no rule prefers one)."""

    def one_mapping(context: Context) -> Iterator[Sketch]:
        sketches = list(_all(rules, context))
        chosen = next((s for s in sketches if s.preferred is not None), sketches[0] if sketches else None)
        yield from (s for s in sketches if chosen is not None and s.mapping == chosen.mapping)

    return one_mapping


def _all(rules: tuple[Rule, ...], context: Context) -> Iterator[Sketch]:
    for r in rules:
        yield from r(context)
