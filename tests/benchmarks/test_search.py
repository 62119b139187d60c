"""The measured spaces and what is made of them, on a small one; the tuning benchmark on one workload."""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.peers import contenders
from benchmarks.search_spaces import Measured
from benchmarks.workloads import TUNED, WORKLOADS, Workload, attention, gemm, mlp
from tests.space.operators import matmul_gelu
from tests.tune.gemm_space import GemmSpace
from tests.tune.simulated import landscape

from benchmarks import search_quality, search_spaces, tune_operators
from tilewright.hw import load_machine
from tilewright.runtime.jobs import Job, Outcome
from tilewright.runtime.measurement import Conditions, processor_name
from tilewright.space.space import Space

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


def stored(tmp_path: Path, **changes: Any) -> tuple[Space, np.ndarray]:
    """Half of a GEMM space as a file written when its sketches and knobs had another order, and one more sketch."""
    space = Space(gemm(64, 64, 64).kernel(), load_machine("x86.avx512"), 1)
    points = np.unique(space.sample(300, np.random.default_rng(0)), axis=0)
    names = ["retired", *reversed([x.name for x in space.sketches])]
    knobs = [["a"], *([k.name for k in reversed(x.knobs)] for x in reversed(space.sketches))]
    old = points.copy()
    old[:, 0] = len(space.sketches) - points[:, 0]
    for row, p in zip(old, points, strict=True):
        n = len(space.sketches[p[0]].knobs)
        row[1 : 1 + n] = p[1 : 1 + n][::-1]
    old[:3, 0] = 0
    seconds = np.linspace(1e-3, 2e-3, len(old))
    features = np.zeros((len(old), 1, 1))
    file = {
        "points": old, "seconds": seconds, "estimates": seconds, "features": features, "sketches": names, "knobs": json.dumps(knobs),
        "program": str(space.kernel), **changes,
    }  # fmt: skip
    np.savez(tmp_path / "gemm.npz", **{k: v for k, v in file.items() if v is not None})
    return space, points


def test_stored_points_are_found_again_in_a_space_whose_rules_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, points = stored(tmp_path)
    monkeypatch.setitem(search_spaces.KERNELS, "gemm", gemm(64, 64, 64).kernel)
    monkeypatch.setattr(search_spaces, "Space", lambda kernel, threads: space)
    found, text = search_spaces.renewed("gemm", tmp_path)
    np.testing.assert_array_equal(found.points, points[3:])
    np.testing.assert_allclose(found.estimates, space.estimate(points[3:]))
    np.testing.assert_allclose(found.columns, space.features(points[3:]))
    assert found.best > 1e-3
    assert f"{len(points) - 3} of {len(points)} stored points" in text and "sketches gone: 'retired'" in text and "present model's" in text
    assert "of the others 1.000 ms" in text
    # The formulas are followed between the values that were measured, and only measured points are proposed.
    assert all(set(k.values) <= set(found.points[:, n].tolist()) for f in found.forms for n, k in enumerate(f.knobs, 1))
    wild = found.points + np.arange(found.points.shape[1]) % 2
    np.testing.assert_array_equal(found.nearest(found.points), found.points)
    assert set(map(tuple, found.nearest(np.where(np.arange(wild.shape[1]) == 0, found.points, wild)))) <= set(map(tuple, found.points))
    assert len(search_quality.curve(found, "gradient", 0, 20)) == 20


@pytest.mark.parametrize(
    ("changes", "reason"), [({"knobs": None}, "does not name its knobs"), ({"program": "another"}, "program is another one")]
)
def test_spaces_that_cannot_be_found_again_are_taken_as_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], reason: str
) -> None:
    _, points = stored(tmp_path, **changes)
    monkeypatch.setitem(search_spaces.KERNELS, "gemm", gemm(64, 64, 64).kernel)
    found, text = search_spaces.renewed("gemm", tmp_path)
    assert found.size == len(points) and reason in text and "day of measurement" in text
    np.testing.assert_allclose(found.estimates, found.seconds)


def test_curves_rise_to_the_best_point(folder: Path) -> None:
    space = Measured.load("gemm", folder)
    c = search_quality.curve(space, "random", 0, space.size)
    assert len(c) == space.size and (np.diff(c) >= 0).all() and c[-1] == 1.0 and c[0] < 1.0


def test_how_far_repeated_measurements_are_apart_is_said(folder: Path) -> None:
    space = Measured.load("gemm", folder)
    assert space.scatter == ""
    repeated = replace(space, seconds=np.linspace(1.0, 2.0, space.size), control=np.array([0.9, 1.1, np.nan]))
    one, two = (int((repeated.seconds <= 1 + n * np.sqrt(0.02)).sum()) for n in (1, 2))
    assert repeated.scatter == (
        f" One schedule measured 2 times has a standard deviation of 14.1 %: {one} points are within one of the best, {two} within two."
    )


def test_the_table_of_curves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "quality.json"
    assert search_quality.main(["--folder", str(folder), "--seeds", "2", "--json", str(out)]) == 0
    written = json.loads(out.read_text())["results"]
    # Stored estimates have no formulas: nothing to follow.
    assert [r["author"] for r in written] == [a for a in search_quality.AUTHORS if a != "gradient"] and np.array(
        written[0]["curves"]
    ).shape == (2, 100)
    text = capsys.readouterr().out
    assert "percent of the best" in text and "gemm, 10" in text and "Wanted of xgb: 99 % after 50 trials: gemm" in text
    with pytest.raises(SystemExit):
        search_quality.main(["--folder", str(folder / "nowhere")])


def test_where_the_default_author_is_not_clearly_above_others_is_said() -> None:
    """Clearly: the mean difference over the seeds is more than two of its standard errors."""
    high, low = np.full((4, 100), 0.99), np.full((4, 100), 0.9)
    unsure = low + np.array([-0.2, 0.3, 0.25, -0.1])[:, None]
    assert search_quality.clearly_above(high[:, 0], low[:, 0]) and not search_quality.clearly_above(low[:, 0], low[:, 0])
    assert not search_quality.clearly_above(unsure[:, 0], low[:, 0]) and not search_quality.clearly_above(low[:, 0], high[:, 0])
    curves = {"gemm": {"xgb": unsure, "random": low, "xgb-plain": low - 0.5}}
    notes = search_quality.overview(curves).notes
    assert "above random. It is not: gemm after 10 (96.2 and 90.0), gemm after 20" in notes[2]
    assert notes[3].endswith("above xgb-plain. It is everywhere.")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(search_spaces.KERNELS))
def test_the_default_author_finds_the_best_of_measured_spaces_in_time(name: str) -> None:
    with np.load(search_spaces.DATA / f"{name}.npz") as data:
        measured_on = str(data["conditions"])
    if processor_name() not in measured_on:
        pytest.skip(f"times and estimates are of different processors: {measured_on.split(';')[1].split(',')[0]} and {processor_name()}")
    space, _ = search_spaces.renewed(name)
    curves = np.array([search_quality.curve(space, search_quality.DEFAULT, seed, max(search_quality.WANTED)) for seed in range(10)])
    for trials, share in search_quality.WANTED.items():
        assert curves[:, trials - 1].mean() >= share, f"{name} after {trials} trials"


def test_points_stored_before_results_had_a_place_are_found() -> None:
    """Then they were consumed on tiles, or at the end where the reduction is in blocks."""
    space = Space(matmul_gelu(32, 64, 512), load_machine("x86.avx512"), 1)
    points = space.sample(400, np.random.default_rng(0))
    ends = {s.name: s.structural[0].values[-1] if "blocks of" in s.name else 0 for s in space.sketches}
    usual = np.array([space.values(p)["epilogue"] == ends[space.sketch(p).name] for p in points])
    knobs = [[k.name for k in s.knobs if k.name != "epilogue"] for s in space.sketches]
    stored = np.zeros((usual.sum(), space.columns), np.int64)
    for row, p in zip(stored, points[usual], strict=True):
        row[0] = p[0]
        row[1 : 1 + len(knobs[p[0]])] = [space.values(p)[n] for n in knobs[p[0]]]
    found = search_spaces.Presence.of(space, stored, [s.name for s in space.sketches], knobs)
    assert found.there.all()
    assert np.array_equal(found.points, points[usual])


@pytest.mark.parametrize("limit", [150, 700])
def test_a_part_of_a_space_is_made_of_grids_around_the_default(limit: int) -> None:
    space = Space(gemm(197, 768, 768).kernel(), load_machine("x86.avx512"), 1)
    points = search_spaces.regular_part(space, limit)
    assert 0.5 * limit < len(points) <= limit < space.size
    assert space.valid(points).all() and len(np.unique(points, axis=0)) == len(points)
    assert (points == space.default()).all(axis=1).any()
    for s, rows in space.groups(points):
        part = points[rows]
        values = [np.unique(part[:, c]) for c in range(part.shape[1])]
        grid = np.array(list(itertools.product(*values)))
        assert len(grid[space.valid(grid)]) == len(part), f"sketch {s}: not every valid combination"


class Busy:
    """Workers on a machine where the second and third batch meet other programs; ``cut`` ends it after so many batches."""

    def __init__(self, cut: int | None = None):
        self.batches: list[list[tuple[int, ...]]] = []
        self.cut = cut

    def __enter__(self) -> Busy:
        return self

    def __exit__(self, *unused: object) -> None:
        pass

    def run(self, jobs: list[Job]) -> list[Outcome]:
        if len(self.batches) == self.cut:
            raise KeyboardInterrupt
        slow = 2.0 if len(self.batches) in (1, 2) else 1.0
        points = [j.trace.point for j in jobs]  # type: ignore[union-attr]
        self.batches.append(points)
        return [Outcome("ok", (slow * (1 + hash(p) % 97) * 1e-4,)) for p in points]


def test_a_cut_collection_goes_on_and_busy_batches_are_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Busy(cut=5), Busy()
    options = ["gemm", "--limit", "400", "--folder", str(tmp_path)]
    monkeypatch.setattr(search_spaces, "Workers", lambda: first)
    with pytest.raises(KeyboardInterrupt):
        search_spaces.main(options)
    assert (tmp_path / "gemm.part.npz").exists() and not (tmp_path / "gemm.npz").exists()
    second.batches = [[]] * 3  # past the busy time
    monkeypatch.setattr(search_spaces, "Workers", lambda: second)
    assert search_spaces.main(options) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["gemm.npz"]
    done = [*first.batches, *second.batches[3:]]
    with np.load(tmp_path / "gemm.npz") as data:
        points, seconds, control = data["points"], data["seconds"], data["control"]
    assert len(done) == len(control) + 2 and done[-2:] == done[1:3]  # two batches once more, none of the others
    np.testing.assert_allclose(seconds, [(1 + hash(tuple(map(int, p))) % 97) * 1e-4 for p in points], rtol=1e-6)
    assert control.min() == control.max()
    assert "measured on a busy machine" not in capsys.readouterr().out
    assert search_spaces.main([*options, "--missing"]) == 0 and len(second.batches) == 3 + len(done) - 5


def test_collecting_within_a_time_says_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search_spaces, "Workers", Busy)
    assert search_spaces.main(["gemm", "--limit", "60", "--folder", str(tmp_path), "--minutes", "0"]) == 1
    assert "nothing was measured within 0 minutes" in capsys.readouterr().out


@pytest.mark.slow
def test_spaces_are_collected_and_operators_tuned(tmp_path: Path) -> None:
    assert search_spaces.main(["gemm", "--limit", "20", "--folder", str(tmp_path)]) == 0
    space = Measured.load("gemm", tmp_path)
    assert 2 <= space.size <= 20 and np.isfinite(space.seconds).all()
    out = tmp_path / "tuned.json"
    options = ["--threads", "1", "--only", "^gemv 4096$|^softmax 768", "--trials", "3", "--seconds", "120", "--repeats", "2"]
    assert tune_operators.main([*options, "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["results"]
    assert [(r["workload"], r["trials"]) for r in rows] == [("gemv 4096", 4), ("softmax 768x197", 4)]
    assert all({"default", "tuned", "onnxruntime"} <= {t["name"] for t in r["timings"]} for r in rows)


def test_rows_of_tuned_operators_are_kept_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, made = tmp_path / "tuned.json", list[str]()

    def run(w: Workload, threads: int, options: argparse.Namespace) -> dict[str, Any]:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(w.name)
        timings = [{"name": n, "samples": [t] * 3, "calls": 1} for n, t in (("default", 4.0), ("tuned", 1.0), ("torch", 2.0))]
        conditions = Conditions("", "", "", 1, (0,), 0.0, 0, 3, 0.0)
        key = dict(zip(tune_operators.KEY, tune_operators._key(w, threads, options), strict=True))
        return {**key, "group": w.group, "trials": 5, "seconds": 2.0, "point": "", "timings": timings, "conditions": asdict(conditions)}

    monkeypatch.setattr(tune_operators, "run", run)
    options = ["--threads", "1", "--only", "^gemm", "--json", str(out), "--markdown", str(tmp_path / "page.md"), "--resume"]
    with pytest.raises(KeyboardInterrupt):
        tune_operators.main(options)
    assert [r["workload"] for r in json.loads(out.read_text())["results"]] == made == ["gemm 512x512x512", "gemm 1024x1024x1024"]
    for expected in (4, 6):  # two more each time, then none
        made_before = list(made)
        made.clear()
        try:
            tune_operators.main(options)
        except KeyboardInterrupt:
            assert expected == 4
        assert len(json.loads(out.read_text())["results"]) == expected and not set(made) & set(made_before)
    assert "gain: 4.000" in (tmp_path / "page.md").read_text() and "gemm 2.00; all 2.00" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize("workload", [w for w in TUNED if w not in WORKLOADS], ids=lambda w: w.name)
def test_all_runtimes_agree_on_tuned_workloads(workload: Workload) -> None:
    small = {"attention": attention(2, 20, 16), "mlp": mlp(5, 32, 48)}[workload.group]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s, dtype=np.float32) for s in small.inputs]
    kernel = small.kernel()
    assert [b.static_shape for b in kernel.args] == [*small.inputs, small.output]
    space = Space(kernel, threads=1, constants=[kernel.args[n].name for n in small.constants])
    ours = np.array(tune_operators._bound(small, space.schedule(space.default()), arrays, 1, 0)())
    for name, (_, result) in contenders(small, arrays, 1).items():
        np.testing.assert_allclose(result(), ours, rtol=1e-4, atol=1e-4 * np.abs(ours).max(), err_msg=name)
