"""The comparison of map spaces: the arithmetic of its table on rows made here, and a small run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import codesign_spaces as script
from tilewright.codesign.layer import Layer


def test_medians_are_divided() -> None:
    rows = [
        {"network": n, "capped": False, "space": space, "seed": seed, "best": best * (1 + 2 * seed)}
        for n in "ab"
        for space, best in ((script.PLAIN, 10.0), ("with padding", 5.0 if n == "a" else 20.0))
        for seed in range(3)
    ]
    (table,) = script.tables(rows)
    assert table.columns == ("space", "a", "b") and "default machine" in table.title
    assert table.rows == ((script.PLAIN, "1.000", "1.000"), ("with padding", "0.500", "2.000"))


def test_a_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "workload", lambda _: (Layer.gemm("g", 197, 17, 31),))
    out, page = tmp_path / "rows.json", tmp_path / "page.md"
    given = ["--json", str(out), "--networks", "tiny", "--seeds", "0", "--budget", "600", "--cap", "--markdown", str(page)]
    assert script.main(given) == 0
    rows = json.loads(out.read_text())["results"]
    assert len(rows) == 2 * len(script.SPACES) and page.read_text().count("with a bypass") == 2
    best = {(r["capped"], r["space"]): r["best"] for r in rows}
    assert best[False, "with padding"] < best[False, script.PLAIN]
    assert script.main([*given, "--resume"]) == 0 and json.loads(out.read_text())["results"] == rows
