"""The comparison with published evaluations: its arithmetic on a table made here, its figures on the published table."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import timeloop
from tilewright.hw.library.gemmini import hierarchy
from tilewright.util.errors import MappingError

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "timeloop_mappings.csv.gz"
PROBLEM = {"R": 3, "S": 3, "Hstride": 1, "Wstride": 1, "Hdilation": 1, "Wdilation": 1}
ARCH = {"meshX": 16, "mem2_entries": 1 << 18, "mem1_entries": 1024}
#: A matrix product, a window walked by rows, one whose rows take up again where the filter's rows end.
MAPPINGS = {
    "L3[WIO] K4 C2 P7 - L2[WI] N1 K4X - L1[O] K2 C4 Q14 P2 C8X - L0[W] N1": {"R": 1, "S": 1},
    "L3[WIO] K4 C2 P7 - L2[WI] N1 K4X - L1[O] K2 S3 R3 C4 Q14 P2 C8X - L0[W] N1": {},
    "L3[WIO] K4 P7 C2 R3 - L2[WI] N1 K4X - L1[O] K2 S3 C4 Q14 P2 C8X - L0[W] N1": {},
}


def write(path: Path, mappings: dict[str, dict[str, int]], cycles: list[float], energy: list[float]) -> Path:
    rows = []
    for (text, changes), c, e in zip(mappings.items(), cycles, energy, strict=True):
        layer = {f"prob.{k}": v for k, v in {**PROBLEM, **changes}.items()}
        machine = {f"arch.{k}": v for k, v in ARCH.items()}
        rows.append({"target.cycle": c, "target.energy": e, "mapping.mapping": text, **layer, **machine})
    with gzip.open(path, "wt", newline="") as f:
        out = csv.DictWriter(f, list(rows[0]))
        out.writeheader()
        out.writerows(rows)
    return path


def test_errors_are_counted_by_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = timeloop.load(write(tmp_path / "draft.csv.gz", MAPPINGS, [1, 1, 1], [1, 1, 1]))
    cycles, energy = (e + 1 for e in timeloop.errors(data, hierarchy()))  # what the model says: the table says 1
    off = write(tmp_path / "off.csv.gz", MAPPINGS, list(cycles * [1, 1.01, 1]), list(energy * [1, 1, 0.8]))
    assert timeloop.main([str(off), "--markdown", "--json", str(tmp_path / "out.json")]) == 0
    found = {r["kind"]: r for r in json.loads((tmp_path / "out.json").read_text())["results"] if "rows" in r}
    assert {k: r["rows"] for k, r in found.items() if not k.startswith("all")} == dict.fromkeys(
        ("1x1 and matrix products", "windows", "windows whose outer loop resumes the inner"), 1
    )
    assert [r["close_cycles"] for r in found.values()] == [1, 0, 1, 1, 0.5]
    assert found["windows whose outer loop resumes the inner"]["mean_energy_error"] == pytest.approx(0.25, rel=1e-4)
    assert found["windows"]["mean_energy_error"] < 1e-9
    out = capsys.readouterr().out
    assert "| windows | 1 | 0.00% | 0.000% | 0.000% | 0.000% |" in out and "Energy saved" in out


def test_a_row_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="'L3 P2' is not a level"):
        timeloop.load(write(tmp_path / "bad.csv.gz", {"L3 P2": {}}, [1], [1]))


def test_a_missing_table_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        timeloop.main(["no_such_file.csv.gz"])
    assert "no_such_file.csv.gz is not a file" in capsys.readouterr().err


@pytest.mark.skipif(
    not PUBLISHED.is_file(), reason=f"the published table is not at {PUBLISHED.name} beside the repository (../shared/data)"
)
def test_the_model_agrees_with_published_evaluations() -> None:
    data = timeloop.load(PUBLISHED, rows=500)
    cycles, energy = (np.abs(e) for e in timeloop.errors(data, hierarchy()))
    assert np.mean(cycles <= 1e-3) >= 0.99
    assert energy[~data.window].mean() <= 0.001 and energy[data.window].mean() <= 0.002
    resumed = timeloop.kinds(data)["windows whose outer loop resumes the inner"]
    assert energy[~resumed].max() <= 0.005
    with gzip.open(PUBLISHED, "rt", newline="") as f:
        texts = {row["mapping.mapping"] for row in csv.DictReader(f)}
    assert len(texts) > 10_000 and all(str(timeloop.parse_nest(t)) == t for t in texts)
