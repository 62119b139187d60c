"""The co-design tables: what is drawn, what the library's tiles cost, and the arithmetic on rows made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import codesign_tables as script
from tilewright.codesign.layer import Layer
from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.problem import Problem
from tilewright.cost.loopnest import parse_nest
from tilewright.hw.library.gemmini import family


def test_operators_are_drawn_once_and_for_all() -> None:
    drawn = script.operators(9)
    assert drawn == script.operators(9) and list(drawn) == list(script.PUBLISHED)
    assert all(len({x.shape for x in own}) == len({x.name for x in own}) == 9 for own in drawn.values())
    assert all(x.sizes["P"] == 1 for x in drawn["gemv"]) and any(x.sizes["P"] > 1 for x in drawn["gemm"])
    assert all(x.sizes["Q"] == 1 < x.sizes["R"] for x in drawn["conv1d"])


def test_the_librarys_tiles_cost_what_the_same_mapping_costs_a_search() -> None:
    layer = Layer.gemm("small", 64, 32, 48)
    problem = Problem(MapSpace([layer], family()), hardware=script.DEFAULT)
    whole = problem.space.encode([parse_nest("L3[WIO] N1 - L2[WI] N1 K16X - L1[O] K2 C3 P64 C16X - L0[W] N1")])
    found = problem.evaluate(whole[None])
    assert script.library(layer) == pytest.approx((found.cycles[0, 0], found.energy[0, 0]))


def row(table: str, case: str, what: str, **more: Any) -> dict[str, Any]:
    return {"table": table, "case": case, "what": what, "seed": 0, **more}


def test_tables_divide_geometric_means() -> None:
    rows = []
    for what in script.MACHINES:
        for capped in (False, True):
            for one in (False, True):
                for n, case in enumerate("ab"):
                    scale = (1 if what == "ours" else 6) * (2 if capped else 1) * (3 if one else 1)
                    rows.append(row("gemv", case, script._named(what, capped, one), cycles=10.0 ** (n + 1) * scale, energy=4e6))
    parts = list(script.PARTS)
    rows += [row("parts", "free", parts[0], best=80.0), row("parts", "free", parts[-1], best=10.0)]
    rows += [{**row("parts", "free", parts[-1], best=20.0), "seed": s} for s in (1, 2)]
    rows += [row("parts", "capped", parts[0], best=80.0), row("parts", "capped", parts[2], best=float("inf"))]
    gemv, gains = script.tables(rows)
    assert gemv.rows[-1] == ("ours", "32", "4.0", "1.00x", "1.00x", "1.00x", "1.00x", "1.00x")
    assert gemv.rows[0] == ("Eyeriss", "190", "4.0", "6.00x", "3.00x", "2.00x", "1.00x", "16.72x")
    assert gemv.rows[-2][3:7] == ("6.00x", "6.00x", "6.00x", "6.00x")
    assert gains.rows[0][1:] == ("1.00x", "1.00 to 1.00", "1.00x", "1.00 to 1.00", "1.00x")
    assert gains.rows[2][3:] == ("none found", "", "1.87x")
    lost = [{**r, "cycles": float("inf")} if "DOSA, capped" in r["what"] and r["case"] == "a" else r for r in rows]
    assert script.tables(lost)[0].rows[-2][4] == "6.00x (1 of 2)"
    lost = [{**r, "cycles": float("inf")} if "DOSA, capped" in r["what"] else r for r in rows]
    assert script.tables(lost)[0].rows[-2][4] == "none found"
    again = [
        {**r, "seed": 1, "cycles": r["cycles"] * (4 if r["what"] == "DOSA" else 1)} for r in rows if r["what"].startswith(("ours", "DOSA"))
    ]
    seeds = script.tables(rows + again)[0]
    assert seeds.rows[-2][3:5] == ("12.00x, 6.00 to 24.00", "6.00x") and seeds.rows[0][3] == "6.00x"
    assert gains.rows[-1][1:] == ("4.00x", "4.00 to 8.00", "not used", "", "")


def test_a_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few = {"gemv": [Layer.gemm("v", 1, 12, 16), Layer.gemm("w", 1, 8, 64)]}
    monkeypatch.setattr(script, "operators", lambda cases: few)
    monkeypatch.setattr(script, "workload", lambda name: few["gemv"])
    out, page = tmp_path / "rows.json", tmp_path / "page.md"
    given = ["--json", str(out), "--seeds", "0", "--budget", "200", "--markdown", str(page)]
    assert script.main(given) == 0
    rows = json.loads(out.read_text())["results"]
    assert len(rows) == 2 * (len(script.PARTS) - 1) + 2 * (2 + 3 + 4) + 2 * 4
    assert "### gemv" in page.read_text() and all("EDP" in t or "gain" in t for t in page.read_text().split("###")[1:])
    capsys.readouterr()
    assert script.main([*given, "--resume"]) == 0
    assert json.loads(out.read_text())["results"] == rows and "gemv: v" not in capsys.readouterr().err
