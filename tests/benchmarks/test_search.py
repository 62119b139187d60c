"""The measured spaces and what is made of them, on a small one; the tuning benchmark on one workload."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.search_spaces import Measured
from tests.tune.gemm_space import GemmSpace
from tests.tune.simulated import landscape

from benchmarks import search_quality, search_spaces, tune_operators

pytest.importorskip("onnxruntime")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    space = GemmSpace.of()
    points = space.enumerate(space.size)
    seconds = [landscape(tuple(p)) for p in points]
    np.savez(tmp_path / "gemm.npz", points=points, seconds=seconds, estimates=space.estimate(points), features=space.features(points))
    return tmp_path


def test_measured_spaces_stay_within_their_points(folder: Path) -> None:
    space, rng = Measured.load("gemm", folder), np.random.default_rng(0)
    points = space.sample(500, rng)
    near, children = space.neighbours(points, rng), space.crossover(points, space.sample(500, rng), rng)
    for some in (points, near, children):
        assert np.isfinite(space.measure(some)).all()  # KeyError for a point that was not measured
    assert ((near != points).sum(axis=1) <= 1).all() and (near != points).any(axis=1).mean() > 0.5
    assert space.features(points).shape == (500, 1, points.shape[1]) and space.measure(space.default()[None])[0] >= space.best


def test_curves_rise_to_the_best_point(folder: Path) -> None:
    space = Measured.load("gemm", folder)
    c = search_quality.curve(space, "random", 0, space.size)
    assert len(c) == space.size and (np.diff(c) >= 0).all() and c[-1] == 1.0 and c[0] < 1.0


def test_the_table_of_curves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "quality.json"
    assert search_quality.main(["--folder", str(folder), "--seeds", "2", "--json", str(out)]) == 0
    written = json.loads(out.read_text())["results"]
    assert [r["author"] for r in written] == list(search_quality.AUTHORS) and np.array(written[0]["curves"]).shape == (2, 100)
    assert "percent of the best" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        search_quality.main(["--folder", str(folder / "nowhere")])


@pytest.mark.slow
def test_spaces_are_collected_and_operators_tuned(tmp_path: Path) -> None:
    assert search_spaces.main(["gemm", "--limit", "20", "--folder", str(tmp_path)]) == 0
    space = Measured.load("gemm", tmp_path)
    assert 2 <= space.size <= 20 and np.isfinite(space.seconds).all()
    out = tmp_path / "tuned.json"
    options = ["--threads", "1", "--only", "^gemv 4096$", "--trials", "3", "--seconds", "120", "--repeats", "2"]
    assert tune_operators.main([*options, "--json", str(out)]) == 0
    (row,) = json.loads(out.read_text())["results"]
    assert row["workload"] == "gemv 4096" and row["trials"] == 4 and row["gain"] > 0 and row["ratio"] > 0
