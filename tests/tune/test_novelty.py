"""Batches are spread out, and still good."""

from __future__ import annotations

import numpy as np

from tilewright.tune.novelty import distances, diverse

POINTS = np.array([[0, 8, 16], [0, 8, 16], [0, 16, 16], [0, 16, 64], [1, 8, 16]], np.int64)


def test_distance_counts_knobs_factors_of_two_and_the_sketch() -> None:
    d = distances(POINTS, POINTS)
    assert np.allclose(d, d.T) and d[0].tolist() == [0.0, 0.0, 1.0, 2.5, 2.0]
    assert distances(np.array([[0, 0, 0]]), np.array([[0, 1, 1]]))[0, 0] == 0.0  # padding and a trip of one are alike


def test_equal_scores_take_the_most_unlike_and_never_one_twice() -> None:
    chosen = diverse(POINTS, np.zeros(5), POINTS[:1], error=0.1, n=10)
    assert chosen.tolist()[0] == 3 and sorted(chosen.tolist()) == list(range(5))


def test_a_model_without_error_is_followed() -> None:
    scores = np.array([0.4, 0.3, 0.2, 0.1, 0.5])
    assert diverse(POINTS, scores, POINTS[:0], error=0.0, n=3).tolist() == [3, 2, 1]


def test_much_better_scores_outweigh_novelty() -> None:
    scores = np.array([0.0, 0.0, 5.0, 5.0, 5.0])
    assert set(diverse(POINTS, scores, POINTS[:0], error=0.1, n=2).tolist()) == {0, 1}
