"""The co-design comparison: rows, resumption, and the arithmetic of its tables on rows made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import codesign
from tilewright.codesign.layer import Layer


def row(what: str, best: float, seed: int = 0, history: list[list[float]] | None = None, **more: Any) -> dict[str, Any]:
    made = {"network": "n", "capped": False, "what": what, "seed": seed, "best": best, "seconds": 20.0, "processor": 10.0, **more}
    hardware = {"dim": 16.0, "scratchpad_bytes": 2048.0, "accumulator_bytes": 1024.0}
    return {**made, "hardware": hardware} if history is None else {**made, "hardware": hardware, "history": history, "evaluations": 100}


def test_tables_say_gap_ratios_and_arrival() -> None:
    rows = [
        row("optimum", 100.0),
        row("default machine", 400.0),
        row(codesign.LIBRARY, 505.0),
        row("gradient", 101.0, 0, [[10, 0.5, 150.0], [20, 1.0, 101.0]]),
        row("gradient", 104.0, 1, [[10, 0.25, 104.0]]),
        row("gradient", 100.5, 2, [[10, 0.5, 100.5]]),
        row("dosa", 202.0, 0, [[50, 5.0, 202.0]]),
        row("dosa", 156.0, 1, [[50, 5.0, 156.0]]),
    ]
    overview, network = codesign.tables(rows)
    assert overview.rows == (("n", "+1.00%", "+4.00%", "1.73x", "1.50x", "over 13x", "15.0x", "5.00x", "3.96x", "16/2/1"),)
    assert network.rows[0] == ("gradient", "1.005", "1.010", "1.040", "2 of 3", "15", "1.0x")
    assert network.rows[1] == ("dosa", "1.560", "1.790", "2.020", "0 of 2", "never", "over 13.3x")
    lost = codesign.tables([*rows, row("dosa", float("inf"), 2, [])])
    assert lost[0].rows[0][3:5] == ("1.73x (2 of 3 found one)", "1.50x")
    longer = codesign.tables([*rows, row("dosa x4", 101.5, 0, [[90, 30.0, 103.0]], processor=60.0)])
    assert longer[0].rows[0][5] == "over 80x"
    longer = codesign.tables([*rows, row("dosa x4", 101.5, 0, [[90, 30.0, 100.5]])])
    assert longer[0].rows[0][3:6] == ("1.73x", "1.50x", "40x")
    better = codesign.tables([*rows[:5], row("dosa", 90.0, 1, [[50, 5.0, 90.0]]), row("dosa", float("inf"), 0, [])])
    assert better[0].rows[0][6] == "0.0x"  # ours never was as good; infinity is no result
    limited = codesign.tables([{**r, "capped": "history" in r or r["what"] == "optimum"} for r in rows])
    assert limited[0].rows[0][5:7] == ("over 7x", "5.0x") and limited[1].columns[-1] == "evaluations, over ours"
    assert limited[1].rows[1][-1] == "over 6.7x"
    assert network.rows[2][:4] == ("optimum", "1.000", "1.000", "1.000") and network.rows[3][1] == "4.000"


def test_a_run_is_resumed_and_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(codesign, "MAPPED", 200)
    monkeypatch.setattr(codesign, "workload", lambda _: (Layer.gemm("g", 8, 12, 16), Layer.gemm("h", 4, 4, 4)))
    out, page = tmp_path / "rows.json", tmp_path / "page.md"
    given = ["--json", str(out), "--networks", "tiny", "--methods", "gradient", "dosa", "--seeds", "0", "7", "--budget", "400", "--cap"]
    assert codesign.main([*given, "--markdown", str(page)]) == 0
    rows = json.loads(out.read_text())["results"]
    assert len(rows) == 2 + 3 + 2 + 2 * 2 * 2
    exact = {r["capped"]: r["best"] for r in rows if r["what"] == "optimum"}
    for r in rows:
        if "history" in r:
            assert r["evaluations"] <= 800 * 1.05 and r["best"] >= exact[r["capped"]] * 0.97
    assert exact[False] <= exact[True] and "tiny, area at most" in page.read_text()
    capsys.readouterr()
    assert codesign.main([*given, "--resume"]) == 0
    assert json.loads(out.read_text())["results"] == rows and "/15" not in capsys.readouterr().err


def test_operators_and_parts_of_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--networks", "gemv", "--seeds", "0", "--budget", "300", "--no-exact", "--no-given"]
    assert codesign.main([*few, "--methods", "dosa+", "--ablation"]) == 0
    shown = capsys.readouterr().out
    assert "gemv" in shown and "dosa+" in shown and all(part in shown for part in codesign.PARTS)
    with pytest.raises(SystemExit):
        codesign.main([*few, "--methods", "dosa x4", "luck"])
    assert "no method 'luck'" in capsys.readouterr().err
    assert "without descent" in codesign.PARTS and "Eyeriss" not in shown
