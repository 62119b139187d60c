"""Models against measured cycles: which array and tiles ran, and the figures on the published table where it is."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from benchmarks import rtl_residual
from tilewright.cost.residual import ArrayTime, Rates
from tilewright.hw.library.gemmini_costs import RTL_RATES

MEASURED = Path(__file__).parents[3] / "shared" / "data" / "gemmini_rtl_latency.csv.gz"
ARCH = {"meshX": 128, "mem2_entries": 1 << 20, "mem1_entries": 2048}


def write(path: Path, rows: list[tuple[str, dict[str, int], float]]) -> Path:
    table = []
    for mapping, sizes, cycles in rows:
        problem = {"N": 1, "K": 1, "C": 1, "P": 1, "Q": 1, "R": 1, "S": 1, **sizes}
        problem |= {f"{a}{b}": 1 for a in "HW" for b in ("stride", "dilation")}
        row = {"target.cycle": cycles, "mapping.mapping": mapping}
        table.append(row | {f"prob.{k}": v for k, v in problem.items()} | {f"arch.{k}": v for k, v in ARCH.items()})
    with gzip.open(path, "wt", newline="") as f:
        out = csv.DictWriter(f, list(table[0]))
        out.writeheader()
        out.writerows(table)
    return path


def test_what_ran_is_read_off_the_mapping(tmp_path: Path) -> None:
    product = "L3[WIO] K8 C8 P8 - L2[WI] N1 K4X - L1[O] K4 C4 P2 C4X - L0[W] P8"
    window = "L3[WIO] K8 - L2[WI] N1 K12X - L1[O] R3 S3 P8 Q8 C3X - L0[W] N1"
    square, filtered = {"K": 128, "C": 128, "P": 128}, {"K": 96, "C": 3, "P": 8, "Q": 8, "R": 3, "S": 3}
    data = rtl_residual.load(write(tmp_path / "t.csv.gz", [(product, square, 4e6), (window, filtered, 1e5)]))
    assert data.env["dim"].tolist() == [4, 16]
    assert data.env["tiles"].tolist() == [32**3, 8]  # blocks of sixteen, made as blocks of four
    assert data.env["tile.K"].tolist() == [4, 12] and data.env["tile.Q"].tolist() == [1, 8]


def test_a_missing_table_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        rtl_residual.main(["no_such_file.csv.gz"])
    assert "no_such_file.csv.gz is not a file" in capsys.readouterr().err


@pytest.mark.skipif(not MEASURED.is_file(), reason=f"the measured table is not at {MEASURED.name} beside the repository (../shared/data)")
def test_layers_held_out_are_ranked_better_than_by_the_roofline() -> None:
    data = rtl_residual.load(MEASURED)
    found = {(r["rows"], r["model"] == "roofline"): r for r in rtl_residual.results(data)}
    for rows in {k[0] for k in found}:
        ours, plain = found[rows, False], found[rows, True]
        assert ours["spearman"] > plain["spearman"] and ours["mean_error"] < plain["mean_error"]
    assert found["all", False]["spearman"] >= 0.93 and found["all but the four misprinted layers", False]["spearman"] >= 0.97
    assert found["all", False]["chosen"] < found["all", True]["chosen"]


@pytest.mark.skipif(not MEASURED.is_file(), reason=f"the measured table is not at {MEASURED.name} beside the repository (../shared/data)")
def test_the_constants_of_the_machine_are_those_of_the_fit() -> None:
    data = rtl_residual.load(MEASURED)
    rows = {k: v[~data.misprinted] for k, v in data.env.items()}
    fitted = ArrayTime.fit(rows, data.cycles[~data.misprinted]).predict(rows)
    assert np.allclose(ArrayTime(Rates(**RTL_RATES)).predict(rows), fitted, rtol=0.01)
