"""The gradient author: the estimate's optimum on declared machines, valid proposals, learning by sketch, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from tests.space.test_relaxed import SPACES, matmul, space_of
from tests.tune.gemm_space import GemmSpace

from tilewright.hw import load_machine
from tilewright.ir.expr import compare
from tilewright.space.knob import Knob
from tilewright.space.sketch import Sketch
from tilewright.space.space import Space
from tilewright.tune.authors import make_author
from tilewright.tune.descents import Descents, Settings
from tilewright.tune.surrogate import SketchFactors
from tilewright.util.errors import SpaceError, TuneError

SMALL = Settings(drawn=256, starts=16, steps=16, interval=4)


@pytest.mark.parametrize("name", SPACES)
def test_the_optimum_of_the_estimate_is_found(name: str) -> None:
    """Few of the points are looked at, and one within a percent of the best by estimate is among them."""
    space = space_of(name)
    every = space.estimate(space.enumerate(200_000))
    found = []
    for seed in range(2):
        descents = Descents(space, np.random.default_rng(seed), SMALL)
        for _ in range(2):
            descents.round(space.estimate, descents.points[:0])
        assert space.valid(descents.points).all() and len(np.unique(descents.points, axis=0)) == len(descents.points)
        found.append(space.estimate(descents.points).min())
    assert max(found) <= 1.01 * every.min()


def test_descents_find_what_few_random_points_do_not() -> None:
    """From a handful of random points: better than they are, by a wide margin."""
    space = space_of("avx512")
    best = []
    for seed in range(4):
        drawn = space.estimate(space.sample(8, np.random.default_rng(seed))).min()
        descents = Descents(space, np.random.default_rng(seed), Settings(drawn=8, starts=8, steps=24))
        descents.round(space.estimate, descents.points[:0])
        best.append(drawn / space.estimate(descents.points).min())
    assert np.mean(best) > 1.05 and min(best) >= 1.0


@pytest.mark.parametrize("name", ["gemmini", "cuda"])
def test_proposals_are_valid_new_and_follow_measurements(name: str) -> None:
    space = space_of(name)
    author = make_author("gradient", space, 0, settings=SMALL)
    sketches = np.unique(space.enumerate(200_000)[:, 0])
    slow = int(author.propose(1)[0, 0])  # the estimate's favourite structure is a hundred times slower than it says
    seen: set[tuple[int, ...]] = set()
    for _ in range(3):
        points = author.propose(10)
        assert space.valid(points).all() and len(points) == 10
        seen |= {tuple(p) for p in points}
        author.observe(points, space.estimate(points) * np.where(points[:, 0] == slow, 100.0, 1.0))
    assert len(seen) == 30
    if len(sketches) > 1:
        assert (author.propose(10)[:8, 0] != slow).all()


def test_a_factor_is_learned_for_each_sketch() -> None:
    """Twice as slow as estimated in one of two sketches: with many measurements, the logarithms differ by log 2, with one by less."""
    space = GemmSpace.of()
    points = space.enumerate(space.size)[:60]
    points[::2, 0] = 1
    factors = SketchFactors(space)
    factors.fit(points, space.estimate(points) * np.where(points[:, 0] == 1, 2.0, 1.0) * 1e3)
    ratio = factors.predict(points) - np.log(space.estimate(points))
    assert ratio[0] - ratio[1] == pytest.approx(np.log(2), rel=0.1)
    factors.fit(points[:2], space.estimate(points[:2]) * np.array([2.0, 1.0]))
    ratio = factors.predict(points) - np.log(space.estimate(points))
    assert 0.1 < ratio[0] - ratio[1] < 0.6
    unseen = points[:1].copy()
    unseen[0, 0] = 7
    assert factors.predict(unseen)[0] == pytest.approx(np.log(space.estimate(unseen)[0]))


def of(space: Space, *sketches: Sketch) -> Space:
    return Space(space.kernel, space.machine, 1, rules=[lambda context: sketches])


def test_spaces_of_no_points_one_point_and_one_knob() -> None:
    host = Space(matmul(8, 32, 8), load_machine("x86.avx512"), 1)
    s = next(s for s in host.sketches if len(s.knobs) > 1)
    best = host.enumerate(1)[0, 1:]

    def limited(values: list[tuple[int, ...]], *more: object) -> Space:
        knobs = tuple(Knob(k.name, v) for k, v in zip(s.knobs, values, strict=True))
        return of(host, Sketch(s.name, knobs, (*s.constraints, *more), s.source, s.steps, s.plan))  # type: ignore[arg-type]

    one = [(int(v),) for v in best[: len(s.knobs)]]
    with pytest.raises(SpaceError, match="no valid schedule"):
        make_author("gradient", limited(one, compare("<=", s.knobs[0].var, 0)))
    single = make_author("gradient", limited(one), settings=SMALL)
    assert single.propose(5)[:, 1:].tolist() == [[v for (v,) in one]] and not len(single.propose(5))
    moving = limited([s.knobs[0].values, *one[1:]])
    author, found = make_author("gradient", moving, settings=SMALL), []
    while len(points := author.propose(3)):
        found.append(points)
    tried = np.concatenate(found)
    assert sorted(map(tuple, tried)) == sorted(map(tuple, moving.enumerate(1000))) and len(tried) > 1
    assert moving.estimate(tried).argmin() < 3


def test_a_space_without_formulas_is_refused() -> None:
    class Bare(GemmSpace):
        relaxed = None  # type: ignore[assignment]

    space = GemmSpace.of()
    with pytest.raises(TuneError, match="estimate of Bare has no gradients") as e:
        make_author("gradient", Bare(space.kernel, space.machine))
    assert "another author" in (e.value.hint or "")
