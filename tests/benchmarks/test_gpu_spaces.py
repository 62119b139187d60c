"""Searches on measured spaces of GPU kernels, on two made-up devices of which one misleads about the other."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.search_quality import curve

from benchmarks import gpu_spaces

pytest.importorskip("xgboost")
COLUMNS = ("block", "tile", "unroll")
VALUES = ((8, 16, 32, 64), (1, 2, 4, 8), (0, 1, 2))
#: Fastest on each device; the third is far from the others.
FASTEST = {"one": (32, 4, 1), "alike": (32, 4, 1), "unlike": (8, 8, 0)}


def seconds(device: str, p: tuple[int, ...]) -> float:
    return 1e-3 * (1 + sum(abs(np.log2(1 + a) - np.log2(1 + b)) for a, b in zip(p, FASTEST[device], strict=True)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for device in FASTEST:
        with gzip.open(tmp_path / f"kernel_{device}.csv.gz", "wt", newline="") as f:
            writer = csv.writer(f)
            writer.writerow((*COLUMNS, "time_ms", "status"))
            for p in itertools.product(*VALUES):
                fails = p[0] == 64 and p[1] == 8
                writer.writerow((*p, "" if fails else 1e3 * seconds(device, p), "error" if fails else "ok"))
    return tmp_path


def test_estimates_are_the_times_of_the_same_configurations_elsewhere(folder: Path) -> None:
    blind, informed = gpu_spaces.spaces(folder, "kernel_one", "kernel_unlike")
    assert blind.size == 48 and np.isinf(blind.seconds).sum() == 3 and len(set(blind.estimates)) == 1
    row = informed.points.tolist().index([0, 8, 8, 0])
    assert informed.estimates[row] == informed.estimates.min() == pytest.approx(1e-3)
    assert informed.seconds[row] == pytest.approx(seconds("one", (8, 8, 0)))
    failed = np.isinf(informed.seconds)
    assert (informed.estimates[failed] == informed.estimates.max()).all() and np.isfinite(informed.estimates).all()
    features = blind.features(blind.points)
    assert features.shape == (48, 1, 1 + 3 + 2 * 3) and (features[:, 0, 0] == 1).all()
    assert features[row, 0, 1:4] == pytest.approx(np.log2([9, 9, 1]))
    assert features[row, 0, 4:6] == pytest.approx(np.log2([81, 1]), abs=1e-6)  # product and ratio of the first two


def test_a_search_that_knows_a_device_like_this_one_begins_at_its_best(folder: Path) -> None:
    _, informed = gpu_spaces.spaces(folder, "kernel_one", "kernel_alike")
    for way in gpu_spaces.WAYS:
        if way.author in ("analytical", "xgb"):
            assert curve(informed, way.author, 0, 1)[0] == 1.0


def test_the_tables_say_where_transfer_harms(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu_spaces, "SPACES", {"kernel_one": "kernel_unlike", "kernel_alike": "kernel_one"})
    monkeypatch.setattr(gpu_spaces, "PUBLISHED", {"kernel_one": {10: 0.5}})
    monkeypatch.setattr(gpu_spaces, "DRAWS", 20)
    out, page = folder / "gpu.json", folder / "page.md"
    options = [str(folder), "--seeds", "2", "--trials", "20", "--json", str(out), "--markdown", str(page)]
    assert gpu_spaces.main(options) == 0
    rows = json.loads(out.read_text())["results"]
    assert len(rows) == 2 * len(gpu_spaces.WAYS) and [len(v) for v in rows[0]["shares"].values()] == [20] * 5
    assert [len(v) for v in rows[-1]["shares"].values()] == [2, 2] and rows[-1]["from"] == "kernel_one"
    first, second = page.read_text().split("### kernel_")[1:]
    assert "random search: 20 draws" in first and "gives for random search: 50 after 10" in first
    assert "Below the same search without the other device: xgb after 20 (" in first
    assert "| xgb from kernel_one | 100.0 (100.0) |" in second and "device: none." in second


def test_harm_is_what_seeds_do_not_explain() -> None:
    way = next(w for w in gpu_spaces.WAYS if w.label == "xgb")
    scratch = np.array([[0.8] * 50, [0.82] * 50, [0.81] * 50])
    assert gpu_spaces.harm(way, {"xgb": scratch - 0.005, "xgb-plain": scratch + np.array([[0.02], [-0.02], [0.0]])}) == ""
    assert gpu_spaces.harm(way, {"xgb": scratch - 0.2, "xgb-plain": scratch}).startswith("xgb after 10 (61.0 and 81.0), 20")


def test_folders_and_files_that_are_no_spaces_are_named(folder: Path) -> None:
    with pytest.raises(SystemExit, match=r"kernel_none.csv.gz is not there"):
        gpu_spaces.spaces(folder, "kernel_none", "kernel_one")
    with gzip.open(folder / "kernel_one.csv.gz", "wt") as f:
        f.write("block,time\n1,2\n")
    with pytest.raises(SystemExit, match="columns time_ms and status"):
        gpu_spaces.load(folder, "kernel_one")
    with pytest.raises(SystemExit):
        gpu_spaces.main([str(folder), "--only", "no such space"])
