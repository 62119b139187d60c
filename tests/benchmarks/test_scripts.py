"""Each benchmark script runs on one small workload and writes what its readers need."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.report import Table, geometric_mean
from benchmarks.workloads import WORKLOADS, Workload

from benchmarks import block_language, compile_time, gemmini_functional, networks, operators
from tilewright import lang
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import f32
from tilewright.runtime.measurement import Timing

pytest.importorskip("onnxruntime")


def test_operators_measure_every_contender_and_replace_their_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, data = tmp_path / "performance.md", tmp_path / "operators.json"
    document.write_text("before\n<!-- operators -->\nold\n<!-- end of operators -->\nafter\n")
    options = ["--only", "^gemv 4096$", "--threads", "1", "--repeats", "2", "--min-time", "0"]
    assert operators.main([*options, "--json", str(data), "--markdown", str(document)]) == 0
    written = json.loads(data.read_text())
    (row,) = written["results"]
    assert row["workload"] == "gemv 4096" and row["flops"] == 2 * 4096**2 and row["bytes"] == 4 * (4096**2 + 2 * 4096)
    assert {"tilewright", "onnxruntime", "numpy"} <= {t["name"] for t in row["timings"]}
    assert all(len(t["samples"]) == 2 for t in row["timings"]) and row["best"] != "tilewright"
    assert written["conditions"]["versions"]["numpy"] and row["conditions"]["threads"] == 1
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.count("| gemv 4096 |") == 1 and "Geometric mean" in text
    assert "gemv 4096" in capsys.readouterr().out


def test_unknown_workload_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        operators.main(["--only", "no such operator"])
    assert "gemm 512x512x512" in capsys.readouterr().err


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_kernels_have_the_shapes_the_peers_get(workload: Workload) -> None:
    kernel = workload.kernel()
    assert isinstance(kernel, Kernel)
    assert [b.static_shape for b in kernel.args] == [*workload.inputs, workload.output]


def test_wrong_results_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    right = next(w for w in WORKLOADS if w.name == "gelu 197x3072")

    def doubled() -> Kernel:
        x = lang.tensor("x", f32, right.output)
        return lang.build("gelu", [x], [lang.compute("y", right.output, lambda i, j: x[i, j] * 2.0)])

    monkeypatch.setattr(operators, "WORKLOADS", (replace(right, kernel=doubled),))
    with pytest.raises(SystemExit, match="results differ"):
        operators.main(["--threads", "1", "--repeats", "1"])


def test_network_row(tmp_path: Path) -> None:
    data = tmp_path / "networks.json"
    assert networks.main(["--only", "^squeezenet$", "--threads", "1", "--repeats", "2", "--json", str(data)]) == 0
    (row,) = json.loads(data.read_text())["results"]
    assert row["name"] == "squeezenet" and 0 <= row["error"] <= row["allowed"] and row["flops"] > 5e8


def test_compile_times_come_from_fresh_processes(tmp_path: Path) -> None:
    data = tmp_path / "compile.json"
    assert compile_time.main(["--only", "^import$", "--repeats", "2", "--json", str(data)]) == 0
    (row,) = json.loads(data.read_text())["results"]
    assert row["name"] == "import tilewright" and len(row["samples"]) == 2 and 0 < min(row["samples"]) < 1


def test_failing_process_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such module"):
        compile_time.Processes(tmp_path).numbers("raise ImportError('no such module')")


def test_missed_limits_are_marked() -> None:
    assert compile_time.Figure("slow", (2.0, 4.0, 3.0), 1.0).row() == ("slow", "3", "2.00 s", "3.00 s", "1.00 s missed")
    assert compile_time.Figure("fast", (0.01,), 0.1).row()[-1] == "100 ms"


def test_tables_and_means() -> None:
    assert Table("t", ("a", "b"), (("x|y", "1"),), ("note",)).markdown().splitlines() == [
        "### t", "", "| a | b |", "| --- | ---: |", "| x\\|y | 1 |", "", "note",
    ]  # fmt: skip
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0) and math.isnan(geometric_mean([]))
    assert Timing("x", (1.0, 3.0, 2.0), 1).median == 2.0


def test_block_programs_are_compared_in_turns(tmp_path: Path) -> None:
    document, data = tmp_path / "block.md", tmp_path / "block.json"
    options = ["--only", "^add 98432$", "--threads", "1", "--repeats", "2", "--json", str(data), "--markdown", str(document)]
    assert block_language.main(options) == 0
    (row,) = json.loads(data.read_text())["results"]
    assert (
        row["workload"] == "add 98432" and {"block", "numpy"} <= {t["name"] for t in row["timings"]} and row["conditions"]["threads"] == 1
    )
    assert document.read_text().startswith("<!-- block programs -->") and "| add 98432 |" in document.read_text()


def test_the_functional_model_is_timed_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemmini_functional, "SHAPES", {"70 x 40 x 50": (70, 40, 50)})
    document, data = tmp_path / "simulate.md", tmp_path / "functional.json"
    assert gemmini_functional.main(["--repeats", "2", "--json", str(data), "--markdown", str(document)]) == 0
    rows = json.loads(data.read_text())["results"]
    assert [r["form"] for r in rows] == ["loop_ws", "commands", "words"] and {r["computes"] for r in rows} == {5 * 3 * 4}
    assert "| 70 x 40 x 50 | words |" in document.read_text()
