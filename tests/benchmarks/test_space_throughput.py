"""The table of what a second of one core does in a schedule space."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.workloads import conv, softmax

from benchmarks import space_throughput


def test_rates_and_the_goals_they_are_held_against(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_throughput, "SPACES", [conv("3x3", 8, 16, 16), softmax(8, 64)])
    out, page = tmp_path / "rates.json", tmp_path / "page.md"
    assert space_throughput.main(["--points", "200", "--repeats", "1", "--json", str(out), "--markdown", str(page)]) == 0
    rows = json.loads(out.read_text())["results"]
    assert [(r["name"], r["threads"]) for r in rows] == [(n, t) for n in ("conv 3x3 8x8x16->16", "softmax 8x64") for t in (1, 2)]
    assert all(set(r["rates"]) == {"sampled", "neighbours", "estimate", "features", "both"} for r in rows)
    assert all(r["sketches"] >= 1 and r["size"] >= 1 and min(r["rates"].values()) > 0 for r in rows)
    assert all(r["rejection_rate"] == 0.0 for r in rows), "measured: sampling gives valid points only"
    text = page.read_text()
    reached = [sum(r["rates"][what] >= least for r in rows[:2]) for what, least in (("sampled", 20_000), ("both", 100_000))]
    assert f"Of 2 conv2d spaces {reached[0]} reach 20,000 points a second in sampling, {reached[1]} 100,000 in both." in text
    with pytest.raises(SystemExit):
        space_throughput.main(["--only", "no such space"])
