"""The ablation: variants with equal budgets, and trials until a latency is reached."""

from __future__ import annotations

import functools
import json
from math import inf
from pathlib import Path

import pytest
from benchmarks.workloads import gemm
from tests.tune.test_network import Stub, network

from benchmarks import ablation, network_peers, networks
from tilewright.hw import load_machine
from tilewright.runtime.records import Record, Task
from tilewright.tune.network import tune_network


def record(task: Task, seconds: float | None, role: str = "trial") -> Record:
    return Record(task, "ok" if seconds else "crash", () if seconds is None else (seconds, 2 * seconds), role=role)


def test_history_sums_the_best_times_known_after_each_trial() -> None:
    machine = load_machine("x86.avx512")
    a, b, other = (Task.of(gemm(n, 8, 8).kernel(), machine, 1, ()) for n in (8, 16, 24))
    records = [
        record(a, 4.0, "baseline"), record(b, 2.0, "baseline"),
        record(a, 3.0), record(a, None), record(b, 5.0), record(other, 0.1), record(b, 1.0), record(a, 0.1, "final"),
    ]  # fmt: skip
    weights = {a.key: 1.0, b.key: 10.0}
    assert ablation.history(records, weights) == [24.0, 23.0, 23.0, 23.0, 13.0]
    assert ablation.history(records[:1], weights) == [inf]


def test_trials_to_match_are_read_off_the_scaled_curve() -> None:
    curve = [24.0, 20.0, 13.0]
    assert ablation.trials_to(curve, measured=26.0, wanted=48.0) == 0  # twice as long as its kernels alone
    assert ablation.trials_to(curve, measured=26.0, wanted=40.0) == 1
    assert ablation.trials_to(curve, measured=26.0, wanted=25.9) is None


def test_variants_are_tuned_equally_long_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    stub = Stub()
    monkeypatch.setattr(ablation, "MODELS", {"layers": network})
    monkeypatch.setattr(networks, "MODELS", {"layers": network})
    monkeypatch.setattr(ablation, "tune_network", functools.partial(tune_network, executor=stub))
    monkeypatch.setattr(network_peers, "installed", lambda package: package == "onnxruntime")
    path = tmp_path / "ablation.json"
    options = [
        "--network", "layers", "--trials", "24", "--author", "random", "--repeats", "2", "--records", str(tmp_path / "records"),
        "--json", str(path), "--only", "^all$|no fusion|one mapping|turns",
    ]  # fmt: skip
    assert ablation.main(options) == 0
    rows = {r["variant"]: r for r in json.loads(path.read_text())["results"]}
    assert list(rows) == ["all", "no fusion", "one mapping", "turns"]
    assert rows["no fusion"]["kernels"] > rows["all"]["kernels"] == rows["turns"]["kernels"]
    for r in rows.values():
        assert len(r["curve"]) == 25 and r["curve"] == sorted(r["curve"], reverse=True)
        assert {t["name"] for t in r["timings"]} == {"default", "onnxruntime", *rows}
    jobs = len(stub.jobs)
    text = capsys.readouterr().out
    assert "Trials to match" in text and "one mapping" in text
    assert ablation.main([*options, "--resume"]) == 0
    assert len(stub.jobs) == jobs
    assert len({p.name for p in (tmp_path / "records").glob("*.db")}) == 4
