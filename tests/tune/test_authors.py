"""Every author keeps the protocol: new valid points, deterministic, to the last one; and the clever ones find the best sooner."""

from __future__ import annotations

import numpy as np
import pytest
from tests.tune.gemm_space import GemmSpace
from tests.tune.simulated import BEST, landscape

from tilewright.tune.author import History, draw
from tilewright.tune.authors import AUTHORS, make_author
from tilewright.tune.surrogate import KnobTrees, StatementTrees
from tilewright.util.errors import TuneError

#: Those that search on their own.
SEARCHING = [name for name in AUTHORS if name != "replay"]


@pytest.fixture(scope="module")
def space() -> GemmSpace:
    return GemmSpace.of()


def seconds(points: np.ndarray, fail: bool = False) -> np.ndarray:
    """The landscape; every point with 16 rows fails if ``fail``."""
    return np.array([np.inf if fail and p[1] == 16 else landscape(tuple(p)) for p in points])


def play(space: GemmSpace, name: str, seed: int, trials: int, batch: int = 10, fail: bool = False) -> np.ndarray:
    """The points an author tries in order."""
    author, found = make_author(name, space, seed), []
    while trials > 0 and len(points := author.propose(min(batch, trials))):
        author.observe(points, seconds(points, fail))
        found.append(points)
        trials -= len(points)
    return np.concatenate(found)


@pytest.mark.parametrize("name", SEARCHING)
def test_proposals_are_new_valid_and_reach_every_point(space: GemmSpace, name: str) -> None:
    every = space.enumerate(space.size)
    tried = play(space, name, 1, 10_000, batch=16, fail=True)
    assert space.valid(tried).all()
    assert len(np.unique(tried, axis=0)) == len(tried) == len(every)


@pytest.mark.parametrize("name", SEARCHING)
def test_equal_seeds_and_outcomes_give_equal_proposals(space: GemmSpace, name: str) -> None:
    a, b, c = (play(space, name, seed, 40) for seed in (3, 3, 4))
    assert np.array_equal(a, b)
    assert name in ("exhaustive", "analytical") or not np.array_equal(a, c)


@pytest.mark.parametrize("name", SEARCHING)
def test_points_somebody_else_tried_are_not_proposed(space: GemmSpace, name: str) -> None:
    author = make_author(name, space, 0)
    known = space.enumerate(space.size)[::2]
    author.observe(known, seconds(known))
    mine = []
    while len(points := author.propose(20)):
        author.observe(points, seconds(points))
        mine += [tuple(p) for p in points]
    assert not set(mine) & {tuple(p) for p in known} and len(mine) + len(known) == len(space.enumerate(space.size))


def needed(space: GemmSpace, name: str, seed: int) -> int:
    """Trials until the best of the 225 points is met."""
    author, trials = make_author(name, space, seed), 0
    while len(points := author.propose(10)):
        author.observe(points, seconds(points))
        met = np.flatnonzero((points == BEST).all(axis=1))
        if len(met):
            return trials + int(met[0]) + 1
        trials += len(points)
    raise AssertionError("never met")


@pytest.mark.parametrize("name", ["xgb", "xgb-plain", "xgb-features", "evolutionary", "annealing"])
def test_learning_from_measurements_beats_chance(space: GemmSpace, name: str) -> None:
    chance = np.mean([needed(space, "random", s) for s in range(20)])
    assert np.mean([needed(space, name, s) for s in range(6)]) < 0.7 * chance


def test_the_analytical_author_follows_the_estimate(space: GemmSpace) -> None:
    tried = play(space, "analytical", 0, 60)
    estimates = space.estimate(tried)
    assert (np.diff(estimates) >= 0).all() and estimates[-1] <= np.sort(space.estimate(space.enumerate(space.size)))[60]


def test_the_favourite_of_every_sketch_is_tried(space: GemmSpace) -> None:
    """An estimate that finds one structure a hundred times worse than it is costs a few trials, not the search."""

    class Structures(GemmSpace):
        size = 4 * space.size

        def enumerate(self, limit: int) -> np.ndarray:
            own = space.enumerate(limit)
            return np.concatenate([np.column_stack([np.full(len(own), s), own[:, 1:]]) for s in range(4)])[:limit]

        def estimate(self, points: np.ndarray) -> np.ndarray:
            return space.estimate(points) * 100.0 ** (points[:, 0] > 0)

    tried = play(Structures(space.kernel, space.machine), "xgb", 0, 30)
    best = space.estimate(space.enumerate(space.size)).min()
    for sketch in range(4):
        assert space.estimate(tried[tried[:, 0] == sketch]).min() == best, sketch


@pytest.mark.parametrize("name", ["xgb", "xgb-features"])
def test_the_model_starts_from_the_estimate(space: GemmSpace, name: str) -> None:
    every = space.estimate(space.enumerate(space.size))
    first = make_author(name, space, 0).propose(10)
    assert np.median(space.estimate(first)[:8]) < np.quantile(every, 0.15)


def test_features_without_the_estimate_begin_with_chance(space: GemmSpace) -> None:
    first = make_author("xgb-features", space, 0, assisted=False).propose(10)
    assert np.array_equal(first, make_author("random", space, 0).propose(10))


def test_predictions_of_both_models_are_logarithms_of_seconds_from_one_zero(space: GemmSpace) -> None:
    """Before measurements those of the estimate, afterwards those that were measured: differences count as they do in ``best``."""
    every = space.enumerate(space.size)
    rng = np.random.default_rng(0)
    measured = every[rng.permutation(len(every))[:120]]
    for model in (KnobTrees(space), StatementTrees(space)):
        estimates = np.log(space.estimate(every))
        assert abs(model.predict(every) - estimates)[estimates < np.median(estimates)].max() < 0.1, model
        model.fit(measured, 1e6 * seconds(measured))  # in another unit
        assert model.best is not None
        error = (model.predict(measured) - model.best) - np.log(seconds(measured) / seconds(measured).min())
        assert abs(error)[seconds(measured) < np.median(seconds(measured))].max() < 0.15, model


@pytest.mark.parametrize("name", ["xgb", "xgb-features"])
def test_an_estimate_that_misleads_is_corrected(space: GemmSpace, name: str) -> None:
    """The estimate's favourites are slow: after a few batches the model no longer proposes them."""
    author = make_author(name, space, 0)
    for _ in range(6):
        points = author.propose(10)
        author.observe(points, 1e-10 / space.estimate(points))
    late = author.propose(10)[:8]
    assert np.median(space.estimate(late)) > np.median(space.estimate(space.enumerate(space.size)))


def test_draw_lists_small_spaces_when_chance_finds_nothing_new(space: GemmSpace) -> None:
    history, every = History(), space.enumerate(space.size)
    history.observe(every[:-3], np.ones(len(every) - 3))
    found = draw(space, history, 10, np.random.default_rng(0))
    assert {tuple(p) for p in found} == {tuple(p) for p in every[-3:]}


def test_history_keeps_the_shorter_time_and_forgets_failures() -> None:
    h, points = History(), np.arange(6).reshape(3, 2)
    h.observe(points, np.array([2.0, np.inf, 1.0]))
    h.observe(points[:1], np.array([3.0]))
    measured, times = h.measured()
    assert times.tolist() == [2.0, 1.0] and np.array_equal(measured, points[[0, 2]])
    assert np.array_equal(h.best(5), points[[2, 0]]) and len(h) == 3
    assert not len(h.new(points)) and not len(h.propose(points))


def test_replay_gives_what_it_was_given(space: GemmSpace) -> None:
    known = space.enumerate(space.size)[[5, 9, 5, 7]]
    author = make_author("replay", space, 0, points=known)
    assert np.array_equal(author.propose(2), known[:2]) and np.array_equal(author.propose(5), known[3:]) and not len(author.propose(5))
    with pytest.raises(TuneError, match="nothing to replay"):
        make_author("replay", space)


def test_unknown_authors_and_spaces_too_large_are_refused(space: GemmSpace) -> None:
    with pytest.raises(TuneError, match="no author 'genius'") as e:
        make_author("genius", space)
    assert "xgb" in (e.value.hint or "")
    with pytest.raises(TuneError, match="225 points cannot be searched exhaustively"):
        make_author("exhaustive", space, limit=100)
