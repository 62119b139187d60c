"""Descents of the estimate: knobs as real numbers, many starts at once, rounded to valid points on the way.

A round looks at some forms (a sketch with its structural knobs at some values): those that promise most by what was
found of them, and those that had fewest rounds. Half of the starts are neighbours of the fastest measured points (before
there are any, the best of random ones by the estimate), the other half random points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tilewright.cost.adam import Adam
from tilewright.space.relaxed import Relaxed
from tilewright.tune.author import SearchSpace
from tilewright.tune.screening import Score


class DifferentiableSpace(SearchSpace, Protocol):
    """A space whose estimate has gradients: :class:`tilewright.space.Space`."""

    def relaxed(self) -> Sequence[Relaxed]:
        """The forms of its programs with real numbers for knobs."""

    def nearest(self, points: np.ndarray) -> np.ndarray:
        """The valid point of the same sketch near each of ``points``, valid or not."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a round: ``drawn`` random points, ``forms`` that are looked at (``seldom`` of them those with fewest rounds), of each ``starts``.

    They take ``steps``, of which the first changes knobs by a factor of about exp(``rate``), and are rounded each ``interval`` steps.
    Of each form ``kept`` points stay.
    """

    drawn: int = 2048
    forms: int = 4
    seldom: int = 1
    starts: int = 48
    steps: int = 24
    interval: int = 6
    rate: float = 0.2
    kept: int = 64


class Descents:
    """``points`` found so far, valid and distinct."""

    def __init__(self, space: DifferentiableSpace, rng: np.random.Generator, settings: Settings | None = None):
        self.settings = settings or Settings()
        self.forms = tuple(space.relaxed())
        self.points = space.sample(0, rng)
        self._space, self._rng = space, rng
        self._rounds = np.zeros(len(self.forms), np.int64)

    def round(self, score: Score, fastest: np.ndarray) -> None:
        """Descend in some forms. ``score`` says how good points are by what is known by now, ``fastest`` are measured ones."""
        s = self.settings
        drawn = self._space.sample(s.drawn, self._rng)
        pool = np.unique(np.concatenate([self.points, drawn]), axis=0)
        scores = score(pool)
        order = np.argsort(scores, kind="stable")
        own = [order[form.holds(pool[order])] for form in self.forms]
        promise = np.array([scores[rows[0]] if len(rows) else np.inf for rows in own])
        found = [self.points, *(pool[rows[: s.kept // 8]] for rows in own)]
        for n in self._chosen(promise):
            form = self.forms[n]
            self._rounds[n] += 1
            found.append(self._best(self._descent(form, self._starts(form, pool[own[n]], fastest)), score))
        self.points = np.unique(np.concatenate(found), axis=0)

    def _chosen(self, promise: np.ndarray) -> list[int]:
        """Forms to descend in, of those of which a point is known and something moves."""
        s = self.settings
        able = [n for n in np.argsort(promise, kind="stable") if np.isfinite(promise[n]) and self.forms[n].moving]
        first = able[: s.forms - s.seldom]
        return [*first, *sorted(able[len(first) :], key=lambda n: self._rounds[n])[: s.seldom]]

    def _starts(self, form: Relaxed, known: np.ndarray, fastest: np.ndarray) -> np.ndarray:
        """Half of them beside measured points, or else the best of ``known``; the other half any of those."""
        half = self.settings.starts // 2
        near = fastest[form.holds(fastest)] if len(fastest) else fastest
        if len(near):
            beside = self._space.neighbours(near[np.arange(half) % len(near)], self._rng)
            first = beside[form.holds(beside)]
        else:
            first = known[:half]
        return np.concatenate([first, known[self._rng.permutation(len(known))[:half]]])

    def _descent(self, form: Relaxed, starts: np.ndarray) -> np.ndarray:
        """Points that ``starts`` lead to."""
        s, logs, found = self.settings, form.logs(starts), []
        adam = Adam(logs.shape, s.rate, s.steps)
        for step in range(1, s.steps + 1):
            logs = form.clipped(logs - adam.step(form(logs)[1]))
            if step % s.interval == 0 or step == s.steps:
                found.append(form.nearest(logs))
        return self._space.nearest(np.unique(np.concatenate(found), axis=0))

    def _best(self, points: np.ndarray, score: Score) -> np.ndarray:
        points = np.unique(points, axis=0)
        return points[np.argsort(score(points), kind="stable")[: self.settings.kept]]
