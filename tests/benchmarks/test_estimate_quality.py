"""How predictions are compared with measurements, on a small space whose measurements are made up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.workloads import Workload, gemm

from benchmarks import estimate_quality
from tilewright.space import Space

pytest.importorskip("xgboost")


def test_an_estimate_that_is_right_up_to_a_factor_orders_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(workload: Workload, space: Space, points: np.ndarray) -> np.ndarray:
        seconds = 3 * space.estimate(points)
        seconds[0] = np.inf  # could not be built
        return seconds

    monkeypatch.setattr(estimate_quality, "measured", measured)
    monkeypatch.setattr(estimate_quality, "CASES", (gemm(64, 64, 64), gemm(48, 64, 32)))
    monkeypatch.setattr(estimate_quality, "DRAWN", 100)
    out, page = tmp_path / "quality.json", tmp_path / "page.md"
    assert estimate_quality.main(["--points", "40", "--only", "64x64x64", "--json", str(out), "--markdown", str(page)]) == 0
    (row,) = json.loads(out.read_text())["results"]
    assert row["space"] == "gemm 64x64x64" and len(row["measurements"]) == row["points"] < 40
    assert row["spearman"] == pytest.approx(1.0) and row["first"] == row["first_ten"] == pytest.approx(1.0)
    assert row["pretrained"] > 0.5
    assert f"| gemm 64x64x64 | {row['points']} | 1.000 | 1.000 | 1.000 |" in page.read_text()
    with pytest.raises(SystemExit):
        estimate_quality.main(["--only", "no such space"])
