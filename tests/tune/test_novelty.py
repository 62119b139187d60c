"""Batches are spread out, and still good; how far to trust the model is learned from its errors."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest

from tilewright.tune.novelty import Doubt, _log_improvement, distances, promising

POINTS = np.array([[0, 8, 16], [0, 8, 16], [0, 16, 16], [0, 16, 64], [1, 8, 16]], np.int64)
DOUBT = Doubt(1.0, 0.01, 0.0)


def spread_points(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([np.zeros(count, np.int64), 2 ** rng.integers(0, 8, (count, 4))])


def test_distance_counts_knobs_factors_of_two_and_the_sketch() -> None:
    d = distances(POINTS, POINTS)
    assert np.allclose(d, d.T) and d[0].tolist() == [0.0, 0.0, 1.0, 2.5, 2.0]
    assert distances(np.array([[0, 0, 0]]), np.array([[0, 1, 1]]))[0, 0] == 0.0  # padding and a trip of one are alike


def test_equal_scores_take_the_most_unlike_and_never_one_twice() -> None:
    chosen = promising(POINTS, np.zeros(5), 0.0, POINTS[:1], DOUBT, n=10)
    assert chosen.tolist()[0] == 3 and sorted(chosen.tolist()) == list(range(5))
    assert set(chosen[-2:].tolist()) == {0, 1}, "what was measured comes last"


def test_a_model_without_doubt_is_followed() -> None:
    scores = np.array([0.4, 0.3, 0.2, 0.1, 0.5])
    assert promising(POINTS, scores, 0.1, POINTS[:0], Doubt(1.0, 0.0, 0.0), n=3).tolist() == [3, 2, 1]


@pytest.mark.parametrize("variance", [0.01, 0.0])
def test_points_that_are_alike_are_chosen_from_without_noise(variance: float) -> None:
    """What an estimate that is right leaves: no noise, and measured points at distance 0."""
    measured = np.array([[0, 0, 16], [0, 1, 16]], np.int64)
    assert distances(measured, measured).max() == 0
    chosen = promising(POINTS, np.arange(5.0), 0.0, measured, Doubt(1.0, variance, 0.0), n=5)
    assert sorted(chosen.tolist()) == list(range(5))


def test_much_better_scores_outweigh_novelty() -> None:
    scores = np.array([-5.0, 0.0, 0.0, 0.0, -5.0])
    assert promising(POINTS, scores, 0.0, POINTS[2:3], DOUBT, n=1).tolist() in ([0], [4])
    assert 4 in promising(POINTS, scores, 0.0, POINTS[:1], DOUBT, n=2)


def test_a_chosen_point_takes_the_doubt_from_its_neighbours() -> None:
    """Two equal points and one elsewhere that is a little worse: one of the two, then the other place."""
    pool = np.array([[0, 8, 16], [0, 8, 16], [0, 64, 64]], np.int64)
    assert promising(pool, np.array([0.0, 0.0, 0.02]), 0.0, pool[:0], DOUBT, n=2).tolist() in ([0, 2], [1, 2])


@pytest.mark.parametrize("length", [1.0, 4.0])
def test_the_length_scale_of_errors_is_found(length: float) -> None:
    """Errors drawn from a process whose scale is known; the median over draws, each is within the grid's steps."""
    points, found = spread_points(150, 1), []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        root = np.linalg.cholesky(0.04 * np.exp(-distances(points, points) / length) + 1e-9 * np.eye(len(points)))
        errors = root @ rng.standard_normal(len(points))
        found.append(Doubt.fitted(points, errors - errors.mean(), DOUBT))
    assert length / 2 <= np.median([d.length for d in found]) <= length * 2
    assert 0.02 < np.median([d.variance for d in found]) < 0.08 and np.median([d.noise / d.variance for d in found]) <= 0.1


def test_errors_without_order_are_noise() -> None:
    """Beside a measured point there is then almost as much doubt as elsewhere."""
    points = spread_points(150, 1)
    errors = np.random.default_rng(0).standard_normal(len(points))
    doubt = Doubt.fitted(points, errors - errors.mean(), DOUBT)
    left = np.diag(doubt.left(points[:20] * np.array([1, 2, 1, 1, 1]), points))
    assert np.median(left) > 0.9 * left.max()


def test_doubt_is_small_where_it_was_measured_and_whole_far_away() -> None:
    doubt = Doubt(1.0, 0.04, 1e-6)
    left = np.diag(doubt.left(np.array([[0, 8, 16], [0, 8, 32], [0, 4096, 4096]]), POINTS[:1]))
    assert left[0] < 1e-5 < left[1] < left[2] and left[2] == pytest.approx(0.04, rel=1e-4)


@pytest.mark.parametrize("count", [0, 2])
def test_few_errors_change_nothing(count: int) -> None:
    assert Doubt.fitted(POINTS[2 : 2 + count], np.ones(count), DOUBT) is DOUBT
    assert Doubt.fitted(POINTS, np.zeros(5), DOUBT) is DOUBT


def test_expected_improvement_is_that_of_a_normal_variable() -> None:
    draws = np.random.default_rng(0).standard_normal(2_000_000)
    for margin, deviation in ((0.5, 1.0), (0.0, 0.3), (-1.0, 1.0), (-2.0, 0.9)):
        ours = exp(_log_improvement(np.array([margin]), np.array([deviation]))[0])
        assert ours == pytest.approx(np.maximum(margin + deviation * draws, 0.0).mean(), rel=0.03)
    near, far = (_log_improvement(np.array([z]), np.array([1.0]))[0] for z in (-5.999, -6.001))
    assert near == pytest.approx(far, abs=0.1)
    assert np.all(np.diff(_log_improvement(np.linspace(-100, -1, 50), np.ones(50))) > 0), "it orders what is hopeless, too"
    assert _log_improvement(np.array([0.0]), np.array([1.0]))[0] == pytest.approx(log(0.3989), abs=1e-3)
