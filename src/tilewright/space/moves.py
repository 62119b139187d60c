"""Small steps in a space: neighbours, crossover, and the valid point nearest to given numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tilewright.util.errors import SpaceError

if TYPE_CHECKING:
    from tilewright.space.space import Points, Space

#: Attempts at a valid step before a fresh point of the same sketch is taken.
ATTEMPTS = 12
#: Chance that a step changes the structure instead of a number.
OTHER_STRUCTURE = 0.15


def neighbours(space: Space, points: Points, rng: np.random.Generator) -> Points:
    """See :meth:`tilewright.space.space.Space.neighbours`."""
    return _until_valid(space, points, rng)


def crossover(space: Space, a: Points, b: Points, rng: np.random.Generator) -> Points:
    """See :meth:`tilewright.space.space.Space.crossover`."""

    def mix(rows: Points, others: Points) -> Points:
        out = rows.copy()
        for s, of in space.groups(rows):
            for c, k in enumerate(space.sketches[s].knobs, 1):
                # The same knob of the other parent, whatever its structure: by name.
                for t, pair in space.groups(others[of]):
                    there = [x.name for x in space.sketches[t].knobs]
                    if k.name in there:
                        take = of[pair][rng.random(len(pair)) < 0.5]
                        out[take, c] = others[take, 1 + there.index(k.name)]
        return out

    children = np.where(rng.random((len(a), 1)) < 0.5, a, b)
    others = np.where((children == a).all(axis=1)[:, None], b, a)
    result = children.copy()
    todo = np.arange(len(a))
    for _ in range(ATTEMPTS):
        mixed = mix(children[todo], others[todo])
        good = space.valid(mixed)
        result[todo[good]] = mixed[good]
        todo = todo[~good]
        if not len(todo):
            break
    return result


def _until_valid(space: Space, points: Points, rng: np.random.Generator) -> Points:
    out = points.copy()
    todo = np.arange(len(points))
    for _ in range(ATTEMPTS):
        moved = _step(space, points[todo], rng)
        good = space.valid(moved) & (moved != points[todo]).any(axis=1)
        out[todo[good]] = moved[good]
        todo = todo[~good]
        if not len(todo):
            return out
    for s, rows in space.groups(out[todo]):
        diagram = space.diagrams[s]
        if diagram is not None:
            out[todo[rows], 1 : 1 + len(space.sketches[s].knobs)] = diagram.sample(len(rows), rng)
    return out


def _step(space: Space, points: Points, rng: np.random.Generator) -> Points:
    """One random change of each point, valid or not."""
    out = points.copy()
    flip = (rng.random(len(points)) < OTHER_STRUCTURE) & (len(space.sketches) > 1)
    for s, rows in space.groups(points):
        sketch = space.sketches[s]
        moved, flipped = rows[~flip[rows]], rows[flip[rows]]
        if sketch.knobs and len(moved):
            out[moved] = _change_numbers(space, s, out[moved], rng)
        if len(flipped) or not sketch.knobs:
            flipped = flipped if sketch.knobs else rows
            for t in np.unique(target := rng.integers(len(space.sketches), size=len(flipped))):
                out[flipped[target == t]] = _carried(space, s, int(t), points[flipped[target == t]], rng)
    return out


def _change_numbers(space: Space, s: int, points: Points, rng: np.random.Generator) -> Points:
    """Move one knob to a value near by; half of the time another one the opposite way (a factor moves between levels)."""
    knobs = space.sketches[s].knobs
    out = points.copy()
    first = rng.integers(len(knobs), size=len(points))
    second = rng.integers(len(knobs), size=len(points))
    both = (rng.random(len(points)) < 0.5) & (first != second)
    sign = rng.choice([-1, 1], size=len(points))
    size = rng.geometric(0.4, size=len(points))
    for c, k in enumerate(knobs):
        values = np.array(k.values)
        for rows, way in ((first == c, sign), ((second == c) & both, -sign)):
            at = np.searchsorted(values, out[rows, 1 + c]) + (way * size)[rows]
            out[rows, 1 + c] = values[np.clip(at, 0, len(values) - 1)]
    return out


def _carried(space: Space, s: int, t: int, points: Points, rng: np.random.Generator) -> Points:
    """Points of sketch ``s`` in sketch ``t``: knobs of the same name keep their values, others are drawn."""
    diagram = space.diagrams[t]
    out = np.zeros_like(points)
    if diagram is None:
        return points
    source = [k.name for k in space.sketches[s].knobs]
    out[:, 0] = t
    out[:, 1 : 1 + len(space.sketches[t].knobs)] = diagram.sample(len(points), rng)
    for c, k in enumerate(space.sketches[t].knobs, 1):
        if k.name in source:
            out[:, c] = points[:, 1 + source.index(k.name)]
    return out


def nearest(space: Space, number: int, knobs: Mapping[str, int]) -> np.ndarray:
    """A valid point of sketch ``number`` with values as near as possible to ``knobs`` (by their logarithms)."""
    sketch = space.sketches[number]
    out = np.zeros(space.columns, np.int64)
    out[0] = number
    wanted = np.array([knobs.get(k.name, k.values[0]) for k in sketch.knobs], np.int64)
    out[1 : 1 + len(wanted)] = wanted
    if space.valid(out[None])[0] or not len(wanted):
        return out
    diagram = space.diagrams[number]
    if diagram is None:
        raise SpaceError(f"{space.kernel.name}: {sketch.name} has no valid point", hint="decode into another sketch")
    out[1 : 1 + len(wanted)] = diagram.nearest(wanted[None])[0]
    return out
