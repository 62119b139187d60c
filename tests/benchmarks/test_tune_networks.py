"""Tuned networks against their peers: rows are written as they come, and a run that was cut goes on."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.models import bert_base, detr_transformer, random_inputs, vit_base
from benchmarks.report import Rows, measurement_of
from onnx import ModelProto
from tests.graph.oracle import accumulated_bound, onnxruntime_outputs, reduction_depths
from tests.tune.test_network import Stub, network

from benchmarks import network_peers, networks, tune_networks
from tilewright.tune.network import tune_network

pytest.importorskip("onnxruntime")


def small_bert() -> ModelProto:
    return bert_base(tokens=16, layers=1, width=48, heads=4, vocabulary=50)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Tuning takes no measurements, networks are small, ONNX Runtime is the only peer."""
    made = Stub()
    monkeypatch.setattr(tune_networks, "MODELS", {"layers": network})
    monkeypatch.setattr(networks, "MODELS", {"layers": network})
    monkeypatch.setattr(tune_networks, "tune_network", functools.partial(tune_network, executor=made))
    monkeypatch.setattr(network_peers, "installed", lambda package: package == "onnxruntime")
    return made


def options(folder: Path, *more: str) -> list[str]:
    return [
        "--threads", "1", "--minutes", "5", "--trials", "20", "--author", "random", "--repeats", "2",
        "--records", str(folder / "r.db"), "--json", str(folder / "rows.json"), "--markdown", str(folder / "page.md"), *more,
    ]  # fmt: skip


def written(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / "rows.json").read_text())["results"])


def test_a_network_is_tuned_compared_and_written(stub: Stub, tmp_path: Path) -> None:
    assert tune_networks.main(options(tmp_path)) == 0
    (row,) = written(tmp_path)
    assert row["name"] == "layers" and row["trials"] == 20 == sum(t["trials"] for t in row["tasks"])
    assert {t.name for t in measurement_of(row).timings} == {"default", "tuned", "onnxruntime"}
    assert max(row["errors"].values()) < 1e-4
    page = (tmp_path / "page.md").read_text()
    assert "Networks tuned for 5 minutes each, 1 thread" in page and "| layers |" in page and "x best" in page


def test_finished_rows_are_taken_over_and_other_budgets_are_not(stub: Stub, tmp_path: Path) -> None:
    assert tune_networks.main(options(tmp_path)) == 0
    before, jobs = written(tmp_path), len(stub.jobs)
    assert tune_networks.main(options(tmp_path, "--resume")) == 0
    assert written(tmp_path) == before and len(stub.jobs) == jobs
    assert tune_networks.main(options(tmp_path, "--resume", "--minutes", "4")) == 0
    assert [r["minutes"] for r in written(tmp_path)] == [5, 4]


def test_a_cut_network_goes_on_with_what_is_left_of_its_budget(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*unused: object, **also: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(tune_networks, "compared", killed)
        with pytest.raises(Killed):
            tune_networks.main(options(tmp_path))
    (cut,) = written(tmp_path)
    assert cut["spent"] > 0 and "timings" not in cut
    given: list[float] = []

    def recorded(*positional: Any, seconds: float, **named: Any) -> Any:
        given.append(seconds)
        return tune_network(*positional, seconds=seconds, executor=stub, **named)

    monkeypatch.setattr(tune_networks, "tune_network", recorded)
    assert tune_networks.main(options(tmp_path, "--resume")) == 0
    (row,) = written(tmp_path)
    assert row["spent"] > cut["spent"] and row["trials"] == 20
    assert given == [pytest.approx(300 - cut["spent"], abs=0.01)]


def test_a_row_is_not_made_with_part_of_its_budget(stub: Stub, tmp_path: Path) -> None:
    stub.stop_after = 12
    with pytest.raises(KeyboardInterrupt):
        tune_networks.main(options(tmp_path))
    (cut,) = written(tmp_path)
    assert "timings" not in cut
    stub.stop_after = None
    assert tune_networks.main(options(tmp_path, "--resume")) == 0
    (row,) = written(tmp_path)
    assert row["trials"] == 20 and "timings" in row


def test_rows_replace_their_own_key_and_survive_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = Rows(path, ("name",), {"load": 0.1})
    rows.put({"name": "a", "value": 1.234567})
    rows.put({"name": "b"})
    rows.put({"name": "a", "value": 2})
    again = Rows(path, ("name",), {"load": 2}, resume=True)
    assert again.conditions == {"load": 0.1}
    assert again.rows == [{"name": "a", "value": 2}, {"name": "b"}] and again.find("b") == {"name": "b"} and again.find("c") is None
    again.put({"name": "c"})
    assert again.conditions == {"load": 2} == Rows(path, ("name",), {}, resume=True).conditions
    assert Rows(path, ("name",), {}).rows == []
    assert [p.name for p in tmp_path.iterdir()] == ["rows.json"]


@pytest.mark.parametrize(
    "build",
    [small_bert, lambda: detr_transformer(1, 1, tokens=30, queries=7, width=32, heads=4, mlp=64), lambda: vit_base(1)],
    ids=["bert", "detr", "vit"],
)
def test_torch_modules_compute_what_the_networks_say(build: Any) -> None:
    torch = pytest.importorskip("torch")
    from benchmarks.torch_networks import torch_module

    model = build()
    shapes = {v.name: tuple(d.dim_value or 1 for d in v.type.tensor_type.shape.dim) for v in model.graph.input}
    kinds = {v.name: np.dtype(np.int64 if v.type.tensor_type.elem_type == 7 else np.float32) for v in model.graph.input}
    inputs = random_inputs({n: (kinds[n], s) for n, s in shapes.items()})
    module = torch_module(model, shapes)
    with torch.inference_mode():
        outputs = module(*(torch.from_numpy(inputs[n]) for n in shapes))
    for got, want in zip(outputs, onnxruntime_outputs(model, inputs).values(), strict=True):
        scale = float(np.abs(want).max())
        np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=accumulated_bound(reduction_depths(model), scale))
    called = {n.target for n in module.graph.nodes if n.op == "call_function"}
    functional = torch.nn.functional
    assert {functional.linear, functional.scaled_dot_product_attention} <= called
    assert functional.softmax not in called and torch.erf not in called
