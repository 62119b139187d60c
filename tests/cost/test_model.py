"""The tree model: what it learns, how statements add up, files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tilewright.cost.columns import COLUMNS
from tilewright.cost.model import Training, TreeModel
from tilewright.util.errors import TilewrightError

pytest.importorskip("xgboost")
FAST = Training(first=40, rounds=40)


def candidates(n: int, seed: int, statements: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Features and seconds: a sum over statements of a function of two columns; the last statement is missing for half of them."""
    rng = np.random.default_rng(seed)
    f = np.zeros((n, statements, len(COLUMNS)), np.float32)
    f[:, :, 3:8] = rng.integers(1, 9, (n, statements, 5))
    f[n // 2 :, -1] = 0
    throughput = (f[:, :, 3] * (f[:, :, 5] > 4)).sum(axis=1) + 1.0
    return f, 1.0 / throughput


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(x)).astype(float) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_it_learns_sums_over_statements_and_ranks_unseen_candidates() -> None:
    f, seconds = candidates(600, 0)
    model = TreeModel(FAST)
    model.fit([f], [1 / seconds])
    unseen, truth = candidates(300, 1)
    assert rank_correlation(model.predict(unseen), 1 / truth) > 0.9


def test_padding_has_no_score_and_statements_may_come_in_any_order() -> None:
    f, seconds = candidates(200, 0)
    model = TreeModel(FAST)
    model.fit([f], [1 / seconds])
    wider = np.concatenate([np.zeros((200, 2, len(COLUMNS)), np.float32), f[:, ::-1]], axis=1)
    np.testing.assert_allclose(model.predict(wider), model.predict(f), rtol=1e-5, atol=1e-6)


def test_pretraining_on_an_estimate_helps_with_few_measurements() -> None:
    f, seconds = candidates(800, 0)
    estimate = seconds * np.random.default_rng(2).uniform(0.8, 1.25, len(seconds)) * 7  # in other units, a little wrong
    unseen, truth = candidates(300, 1)
    plain, informed = TreeModel(FAST), TreeModel(FAST)
    informed.pretrain([f], [estimate])
    assert rank_correlation(informed.predict(unseen), 1 / truth) > 0.8
    for model in (plain, informed):
        model.fit([f[:15]], [1 / seconds[:15]])
    assert rank_correlation(informed.predict(unseen), 1 / truth) > rank_correlation(plain.predict(unseen), 1 / truth) + 0.05


def test_measurements_win_over_a_wrong_estimate() -> None:
    f, seconds = candidates(800, 0)
    model = TreeModel(FAST)
    model.pretrain([f], [np.random.default_rng(3).permutation(seconds)])
    model.fit([f], [1 / seconds])
    unseen, truth = candidates(300, 1)
    assert rank_correlation(model.predict(unseen), 1 / truth) > 0.8


def test_each_task_is_normalised_by_its_own_best() -> None:
    """A task a thousand times slower teaches the same; rows of tasks may be mixed."""
    f, seconds = candidates(400, 0)
    scale = np.where(np.arange(400) % 2 == 0, 1.0, 1000.0)
    tasks = np.arange(400) % 2
    mixed, parts = TreeModel(FAST), TreeModel(FAST)
    mixed.fit(f, 1 / (seconds * scale), tasks)
    parts.fit([f[::2], f[1::2]], [1 / seconds[::2], 1e-3 / seconds[1::2]])
    unseen, truth = candidates(300, 1)
    assert rank_correlation(mixed.predict(unseen), 1 / truth) > 0.85
    np.testing.assert_allclose(mixed.predict(unseen), parts.predict(unseen), rtol=1e-4, atol=1e-4)


def test_failed_candidates_rank_last() -> None:
    f, seconds = candidates(400, 0)
    fails = (f[:, :, 7] == 8).any(axis=1)
    model = TreeModel(FAST)
    model.fit([f], [np.where(fails, 0.0, 1 / seconds)])
    prediction = model.predict(f)
    assert prediction[fails].mean() < 0.6 * prediction[~fails].mean()


@pytest.mark.parametrize("stages", ["pretrain", "fit", "both"])
def test_a_saved_model_predicts_the_same(tmp_path: Path, stages: str) -> None:
    f, seconds = candidates(200, 0)
    model = TreeModel(Training(first=20, rounds=20, seed=4))
    if stages != "fit":
        model.pretrain([f], [seconds])
    if stages != "pretrain":
        model.fit([f], [1 / seconds])
    model.save(tmp_path / "m.json")
    again = TreeModel.load(tmp_path / "m.json")
    np.testing.assert_array_equal(again.predict(f), model.predict(f))
    assert again.training == model.training


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("{}")
    with pytest.raises(TilewrightError, match="not a saved tree model"):
        TreeModel.load(path)
    f, seconds = candidates(50, 0)
    model = TreeModel(FAST)
    model.fit([f], [1 / seconds])
    model.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"features": 999}))
    with pytest.raises(TilewrightError, match="features of version 999"):
        TreeModel.load(path)


def test_a_model_that_learned_nothing_says_so(tmp_path: Path) -> None:
    f, _ = candidates(10, 0)
    with pytest.raises(TilewrightError, match="not learned anything"):
        TreeModel().predict(f)
    with pytest.raises(TilewrightError, match="not learned anything"):
        TreeModel().save(tmp_path / "m.json")
    with pytest.raises(TilewrightError, match="no candidate has a throughput"):
        TreeModel().fit([f], [np.zeros(10)])


def test_without_xgboost_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    f, seconds = candidates(10, 0)
    with pytest.raises(TilewrightError, match=r"pip install 'tilewright\[tune\]'"):
        TreeModel().fit([f], [1 / seconds])
