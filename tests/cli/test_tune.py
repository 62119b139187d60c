"""tune and what its records are good for, end to end."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from io import StringIO
from math import inf
from pathlib import Path

import onnx
import pytest
from rich.console import Console
from tests.cli.command import tilewright, words
from tests.tune.test_network import network

from tilewright.cli.options import short_names
from tilewright.cli.tune import _Bar, _models
from tilewright.ir.expr import compare
from tilewright.runtime.jobs import Done, Job, Outcome
from tilewright.runtime.records import RecordStore
from tilewright.space import Context, Knob, Sketch
from tilewright.tune import Progress
from tilewright.tune.results import NetworkProgress
from tilewright.tune.search import Trial


def test_tuned_operator_is_recorded_and_found_again(tmp_path: Path) -> None:
    args = ("tune", "matmul", "--shape", "i=16,j=32,k=24", "--trials", "6", "--threads", "1", "--author", "random")
    first = tilewright(*args, "--records", str(tmp_path / "r.db"))
    assert first.exit_code == 0, first.output
    assert "MatMul" in first.output and "times as fast" in first.output
    again = tilewright(*args, "--records", str(tmp_path / "r.db"))
    assert re.search(r"MatMul .* 6\b", again.output), again.output
    listed = tilewright("records", "list", "--records", str(tmp_path / "r.db"))
    assert "matmul" in listed.output


def test_a_local_cluster_measures_and_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    from tilewright.runtime import cluster

    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")

    class Watched(cluster.Cluster):
        def run(self, jobs: Sequence[Job], done: Done | None = None) -> list[Outcome]:
            asked.extend(jobs)
            processes.update(self.local_processes())
            return super().run(jobs, done)

    asked: list[Job] = []
    processes: set[int] = set()
    monkeypatch.setattr(cluster, "Cluster", Watched)
    records = tmp_path / "r.db"
    args = ("tune", "matmul", "--shape", "i=16,j=32,k=24", "--trials", "4", "--threads", "1", "--author", "random")
    result = tilewright(*args, "--cluster", "local:2", "--records", str(records))
    assert result.exit_code == 0, result.output
    assert re.search(r"MatMul .* 4\b", result.output) and "network in turns" not in result.output
    with RecordStore(records) as store:
        assert len(store.records(role="trial")) == 4 and len(asked) == 5 and len(processes) == 2
    assert not any(Path(f"/proc/{p}").exists() for p in processes)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What a terminal of 160 columns would be sent on stderr."""
    shown = StringIO()
    monkeypatch.setattr(
        "tilewright.cli.tune.Console", lambda stderr: Console(file=shown, force_terminal=True, width=160, color_system=None)
    )
    return shown


def lines(shown: StringIO) -> list[str]:
    """What stood on the terminal, in order; escapes removed."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    return [line.strip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


def test_the_progress_bar_shows_trials_time_and_the_best(terminal: StringIO) -> None:
    with _Bar(40, None) as bar:
        (task,) = bar._bar.tasks
        assert (task.total, task.completed) == (40, 0)
        bar.network(NetworkProgress("MatMul+Relu", 10, 3.0, 5e-3, 4e-3))
        assert task.completed == 10 and task.fields["text"] == "10 trials, 4.00 ms (untuned 5.00 ms) MatMul+Relu"
        bar.network(NetworkProgress("Softmax", 20, 6.0, inf, inf))
        assert task.completed == 20 and "20 trials" in task.fields["text"] and task.fields["text"].endswith("Softmax")
        bar._bar.refresh()
    assert any(re.search(r"tuning .*0:00:0\d .*20 trials.*Softmax", line) for line in lines(terminal)), lines(terminal)
    assert terminal.getvalue().rstrip("\n").endswith("\x1b[2K"), "it leaves nothing behind"


def test_with_a_budget_of_seconds_the_bar_is_the_time(terminal: StringIO) -> None:
    trial = Trial((0, 1), Outcome("ok", (1e-3,)), 1e-3)
    with _Bar(40, 20.0) as bar:
        (task,) = bar._bar.tasks
        bar.kernel(Progress(7, 40, 5.0, 20.0, 1e-3, 2e-3, 0, trial))
        assert (task.total, task.completed) == (20.0, 5.0) and task.fields["text"] == "7 trials, 1.00 ms (untuned 2.00 ms) "
        bar.kernel(Progress(8, 40, 6.0, 20.0, 1e-3, 2e-3, 3, trial))
        assert task.fields["text"] == "8 trials, 1.00 ms (untuned 2.00 ms) 3 failed"


def test_a_file_is_sent_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    written = StringIO()
    monkeypatch.setattr("tilewright.cli.tune.Console", lambda stderr: Console(file=written))
    with _Bar(40, None) as bar:
        bar.network(NetworkProgress("Softmax", 20, 6.0, 5e-3, 4e-3))
    assert not written.getvalue().strip()


@pytest.mark.parametrize("what", ["operator", pytest.param("kernel", marks=pytest.mark.slow)])
def test_a_terminal_sees_progress(what: str, kernels: Path, tmp_path: Path, terminal: StringIO) -> None:
    program = ("matmul", "--shape", "i=16,j=32,k=24") if what == "operator" else (f"{kernels}:gemm",)
    args = ("tune", *program, "--trials", "3", "--threads", "1", "--author", "random", "--records", str(tmp_path / "r.db"))
    result = tilewright(*args)
    assert result.exit_code == 0, result.output
    said = [line for line in lines(terminal) if line.startswith("tuning")]
    assert said and "3 trials" in said[-1] and "untuned" in said[-1]


def test_networks_of_one_name_are_told_apart_by_their_paths() -> None:
    """Two files called model.onnx: what is said of one must not bind the other."""
    programs = ["a/model.onnx", "b/model.onnx"]
    one, two = _models(programs, "", ["a/model.onnx:batch=1", "length=7"], [])
    assert (one.dims, two.dims) == ({"batch": 1, "length": 7}, {"length": 7})
    assert short_names(programs) == programs
    vit, bert = _models(["a/vit.onnx", "b/bert.onnx"], "", ["vit:batch=1", "length=7"], [])
    assert (vit.dims, bert.dims) == ({"batch": 1, "length": 7}, {"length": 7})


def test_several_networks_share_a_session(tmp_path: Path) -> None:
    model, other, records = tmp_path / "model.onnx", tmp_path / "other.onnx", str(tmp_path / "r.db")
    onnx.save(network(1), model)
    onnx.save(network(1, 16), other)
    how = ("--threads", "1", "--author", "random", "--trials", "12", "--records", records)
    result = tilewright("tune", str(model), str(other), "--goal", "1000000", "--goal", "0", *how)
    assert result.exit_code == 0, result.output
    first, second = re.split(r"(?m)^other ", result.output)
    assert "ended by goal" in first and "ended by trials" in second
    assert len(re.findall(r"session \S+ in", result.output)) == 1
    with RecordStore(records) as store:
        assert len(store.sessions()) == 1 and len(store.records(role="trial")) == 12


def test_compile_uses_records_and_says_how_it_fused(model: Path, tmp_path: Path) -> None:
    records = str(tmp_path / "r.db")
    how = ("--dim", "batch=1", "--threads", "1", "--records", records)
    tuned = tilewright("tune", str(model), *how, "--trials", "12", "--author", "random", "--fusion", "dp")
    assert tuned.exit_code == 0, tuned.output
    for way, expected in (("dp", r"tuned: .* by random|as without tuning: "), ("none", "fusion none")):
        result = tilewright("compile", str(model), *how, "--fusion", way)
        assert result.exit_code == 0, result.output
        assert re.search(expected, result.output) and f"fusion {way}" in result.output


@pytest.mark.parametrize("way", ["none", "greedy", "dp", pytest.param("measured", marks=pytest.mark.slow)])
def test_every_fusion_agrees_with_onnxruntime(model: Path, way: str) -> None:
    result = tilewright("run", str(model), "--dim", "batch=1", "--threads", "1", "--compare", "--fusion", way)
    assert result.exit_code == 0, result.output


def test_a_kernel_that_cannot_be_tuned_is_refused_with_the_constraint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tall(context: Context) -> list[Sketch]:
        rows = Knob("rows", (8, 16))
        return [Sketch("tall", (rows,), (compare("<=", rows.var, 4),), context.kernel, lambda values: context.base)]

    monkeypatch.setattr("tilewright.space.rule.discover", lambda: (tall,))
    result = tilewright("tune", "matmul", "--shape", "i=16,j=32,k=24", "--trials", "6", "--records", str(tmp_path / "r.db"))
    assert result.exit_code == 1
    assert re.search(r"no kernel can be tuned: .* no values of rows satisfy rows <= 4 .*relax the constraint", words(result.output))


def test_a_rule_of_one_s_own_is_searched_and_its_schedules_need_it_no_more(
    kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, so that whatever is measured is its."""
    monkeypatch.setattr("tilewright.cli.tune.discover", lambda: ())
    rules = tmp_path / "rules.py"
    rules.write_text(
        "from tilewright.space import Knob, Sketch\n"
        "def blocks(context):\n"
        "    block = Knob('block', (2, 4, 8))\n"
        "    def steps(values):\n"
        "        sch = context.base.copy()\n"
        "        sch.split(next(iter(context.stages[-1].loops)), values['block'])\n"
        "        return sch\n"
        "    yield Sketch('blocks', (block,), (), context.base.kernel, steps)\n"
    )
    args = ("--trials", "3", "--threads", "1", "--author", "random", "--rule", f"{rules}:blocks")
    for n, what in enumerate(((f"{kernels}:gemm",), ("matmul", "--shape", "i=16,j=32,k=24"))):
        result = tilewright("tune", *what, *args, "--records", str(tmp_path / f"{n}.db"))
        assert result.exit_code == 0, result.output
        with RecordStore(tmp_path / f"{n}.db") as store:
            found = store.records()
            best = store.best(found[0].task)
        assert {r.status for r in found} == {"ok"} and {(r.point or {})["sketch"] for r in found} == {"blocks"}
        assert best is not None and "split" in best.trace


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("nosuch",), 1, "no operator 'nosuch'"),
        (("matmul", "--trials", "0"), 2, "greater than or equal to 1|>=1"),
        (("a.onnx", "b.onnx", "--goal", "3"), 2, "1 for 2 networks: give one each"),
        (("a.onnx", "matmul"), 2, "only networks .MODEL.onnx. are tuned together"),
        (("f.py:f", "--goal", "3"), 2, "--goal: is for networks"),
        (("f.py:f", "--dim", "batch=1"), 2, "--dim: is for networks"),
        (("f.py:f", "--fusion", "dp"), 2, "--fusion: is for networks"),
        (("f.py:f", "--layouts", "plain"), 2, "--layouts: is for networks"),
        (("f.py:f", "--shape", "i=3"), 2, "--shape: is for operators, and f.py:f is none"),
        (("a.onnx", "--shape", "i=3"), 2, "--shape: is for operators, and a.onnx is none"),
        (("matmul", "--machine", "gemmini", "--trials", "2"), 1, "a trial for machine gemmini is compiled for riscv64"),
        (("matmul", "--rule", "nowhere.py:f"), 1, "there is no file .*nowhere.py"),
        (("matmul", "--cluster", "local:two"), 1, "'local:two' names no cluster"),
        (("matmul", "--author", "nobody", "--trials", "2"), 1, "no author 'nobody'"),
        (("matmul", "--fusion", "all"), 2, "none of none, greedy, dp, measured"),
        (("matmul", "--seconds", "0.001"), 1, "nothing was measured within the budget"),
    ],
)
def test_tune_says_what_is_wrong(tmp_path: Path, args: tuple[str, ...], code: int, message: str) -> None:
    result = tilewright("tune", *args, "--records", str(tmp_path / "r.db"))
    assert result.exit_code == code, result.output
    assert re.search(message, words(result.output))
