"""Programs of the guides run. (Those about mapping, rules, machines and lowering are tried beside their packages.)"""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.tune.test_network import Stub

from tilewright.cost.estimate import estimate
from tilewright.cost.features import extractor, features
from tilewright.cost.traffic import analyse
from tilewright.hw import load_machine
from tilewright.ir.types import i8, i32
from tilewright.lang import parse
from tilewright.mapping.operators import build_operator
from tilewright.runtime.records import Record, RecordStore, Session, Task
from tilewright.space.default import default_schedule

DOCS = Path(__file__).parents[1] / "docs"


def run(page: str, tmp_path: Path, chosen: slice, *, shorter: tuple[tuple[str, str], ...] = (), **given: object) -> dict[str, Any]:
    """The ``chosen`` Python blocks of a page, in one file, as kernels are read from their source. What the page assumes is ``given``."""
    text = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)[chosen])
    for old, new in shorter:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "guide.py").write_text(text)
    return runpy.run_path(str(tmp_path / "guide.py"), init_globals=given)


def test_simulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it writes a trace
    found = run("simulate", tmp_path, slice(0, 2))
    assert (found["memory"].array(found["gemm"].c, (64, 64), np.int8) == 64).all()
    assert found["run"].cycles > 64**3 // 256 and (tmp_path / "trace.json").exists()


def test_simulate_on_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ziglang")
    pytest.importorskip("unicorn")
    monkeypatch.chdir(tmp_path)
    found = run("simulate", tmp_path, slice(0, 4))
    assert "Outcome(exit_code=0, console='', custom=12)" in capsys.readouterr().out
    assert found["elf"][:4] == b"\x7fELF"


def test_codesign(tmp_path: Path) -> None:
    assert run("codesign", tmp_path, slice(0, 1))["cost"].cycles > 0
    found = run("codesign", tmp_path, slice(2, 3), shorter=(("100_000", "2_000"),))["found"]
    assert found.hardware["dim"] >= 1


def test_commands(tmp_path: Path) -> None:
    machine = load_machine("gemmini")
    kernel = build_operator("matmul", types=(i8, i8, i32), i=32, j=32, k=32)
    scheduled = default_schedule(kernel, machine).kernel
    arrays = {b.name: np.ones((32, 32), b.dtype.to_numpy()) for b in kernel.args}
    names = dict(zip("abc", arrays.values(), strict=True))
    renamed = ('{"a": a, "b": b, "c": c}', "arrays")
    shorter = (renamed, ('forms=("loop_ws",))  # searches', 'forms=("loop_ws",), measured=2)  # searches'))
    found = run("commands", tmp_path, slice(0, 2), shorter=shorter, kernel=scheduled, as_written=kernel, arrays=arrays, **names)
    assert found["parse_program"](str(found["program"])) == found["program"]
    assert found["found"].cycles > 0 and any((a == 32).all() for a in arrays.values())


def dense(columns: int) -> ModelProto:
    """A network of one product."""
    value = helper.make_tensor_value_info
    weights = numpy_helper.from_array(np.ones((16, columns), np.float32), "w")
    ends = [value("x", TensorProto.FLOAT, [8, 16])], [value("y", TensorProto.FLOAT, [8, columns])]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], f"dense{columns}", *ends, [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Scheduled(Stub):
    """In the place of worker processes: it schedules, and takes times from a formula."""

    def __init__(self, *_: object, **options: object):
        super().__init__()

    def __enter__(self) -> Scheduled:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured, and nobody warned of other programs."""
    for module in ("runtime.workers", "tune.session", "tune.network"):
        monkeypatch.setattr(f"tilewright.{module}.Workers", Scheduled)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))


def test_tuning_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    """A session, an author of one's own, and workers with other limits."""
    monkeypatch.chdir(tmp_path)
    kernel = build_operator("matmul", i=16, j=32, k=16)
    shorter = (("trials=100", "trials=2"), ("author=Greedy(space), seconds=20", "author=Greedy(space), trials=2"))
    found = run("tune", tmp_path, slice(0, 1), shorter=shorter[:1], kernel=kernel)
    assert "ms untuned" in capsys.readouterr().out and (tmp_path / "gemm.db").exists()
    a, b, c = (np.ones(x.static_shape, np.float32) for x in kernel.args)
    found["module"](a, b, c)
    assert (c == 16).all() and len(found["found"].history) == 3
    own = run("tune", tmp_path, slice(3, 5), shorter=(*shorter[1:], ("seconds=20)", "trials=1)")), kernel=kernel)
    assert len(own["Greedy"](own["space"]).propose(4)) == 4


def test_tuning_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    monkeypatch.chdir(tmp_path)
    for name, columns in (("model", 24), ("vit", 24), ("bert", 40)):
        onnx.save(dense(columns), tmp_path / f"{name}.onnx")
    shorter = (("seconds=300", "trials=2"), ('dims={"batch": 1}', "dims={}"), ("seconds=1200", "trials=2, threads=1"))
    found = run("tune", tmp_path, slice(1, 3), shorter=shorter, inputs=[np.ones((8, 16), np.float32)])
    assert (found["outputs"]["y"] == 16).all() and found["bert"].seconds > 0


def test_records_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILEWRIGHT_RECORDS", str(tmp_path / "vit.db"))
    kernel, machine = (build_operator("matmul", i=16, j=32, k=16), load_machine("host"))
    with RecordStore() as store:
        for task in (Task.of(kernel, machine, 1), Task.of(build_operator("matmul", i=32, j=32, k=16), machine, 1)):
            store.add_tasks([task])
            session = store.save(Session("vit.onnx", {task.key: 1.0}, "xgb", 0, trials=1, id=f"20261121-0830-{task.key[:4]}"))
            trace = default_schedule(task.kernel(), machine, threads=1).trace.to_json()
            store.add(Record(task, "ok", (1e-3,), trace, {"sketch": "rows", "knobs": {}}, session=session.id))
    found = run("records", tmp_path, slice(0, 1), kernel=kernel, machine=machine)
    assert str(found["fastest"].kernel) == str(default_schedule(kernel, machine, threads=1).kernel)
    assert f"for host on 1 thread ({task.key[:8]})" in capsys.readouterr().out, "the other shape"
    run("report", tmp_path, slice(0, 1), shorter=(('"20261121-0830"', f'"{session.id}"'),))
    assert (tmp_path / "report.html").stat().st_size > 5_000 and f"({task.key[:8]}) None" in capsys.readouterr().out


def test_cost(tmp_path: Path) -> None:
    program = run("cost", tmp_path, slice(0, 1))["program"]
    machine, env = load_machine("x86.avx512"), {"m": np.array([4, 8]), "n": np.array([32, 16])}
    assert len(analyse(program, {"m": 4, "n": 32}, machine)) >= 3
    assert (estimate(program, machine, env, 1) > 0).all()
    assert features(program, machine, env).shape == (2, 2, 194) and len(extractor(program, machine, 1)(env)) == 2
    assert parse(str(program)) == program
