"""`tilewright bench`: contenders, checks, figures on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.cli.command import tilewright

from tilewright.cli import bench
from tilewright.cli.operator_models import MODELS, one_node
from tilewright.cli.peers import OnnxRuntime
from tilewright.graph import compile as compile_network
from tilewright.runtime.measurement import Measurement
from tilewright.util.errors import RuntimeFailure

SMALL = {
    "gmm": {"i": 5, "j": 6, "k": 7},
    "gmv": {"i": 5, "k": 7},
    "c2d": {"k": 4, "p": 5, "q": 6, "c": 3, "stride": 2, "dilation": 2},
    "dep": {"c": 3, "m": 2, "p": 4, "q": 5, "stride": 2},
    "grp": {"g": 2, "k": 3, "p": 4, "q": 4, "c": 2},
    "dil": {"k": 3, "p": 4, "q": 4, "c": 2},
}


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_one_node_models_say_what_they_compute(name: str, constant: bool) -> None:
    node = one_node(name, SMALL[name])
    operands = node.operands()
    model = node.model(operands["w"] if constant else None)
    inputs = {"x": operands["x"]} if constant else operands
    theirs = OnnxRuntime(model.SerializeToString())(inputs)["y"]
    assert theirs.shape == node.result
    np.testing.assert_allclose(compile_network(model, threads=1)(inputs)["y"], theirs, rtol=1e-4, atol=1e-5)


def test_bench_of_an_operator_writes_all_samples(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    result = tilewright("bench", "matmul", "--shape", "i=16,j=32,k=8", "--threads", "1", "--repeats", "3", "--json", str(path))
    assert result.exit_code == 0, result.output
    assert "1 threads, 3 rounds" in result.output and "vs" in result.output
    measured = Measurement.from_json(path.read_text())
    assert {"tilewright", "onnxruntime"} <= {t.name for t in measured.timings}
    assert all(len(t.samples) == 3 for t in measured.timings)


def test_bench_of_a_network(model: Path) -> None:
    result = tilewright("bench", str(model), "--dim", "batch=1", "--threads", "1", "--repeats", "2")
    assert result.exit_code == 0 and "onnxruntime" in result.output


def test_results_that_differ_end_with_their_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    right = OnnxRuntime.__call__
    monkeypatch.setattr(OnnxRuntime, "__call__", lambda self, inputs: {n: a + 1 for n, a in right(self, inputs).items()})
    result = tilewright("bench", "matvec", "--shape", "i=8,k=8", "--threads", "1", "--repeats", "1")
    assert result.exit_code == 3 and "DIFFERS" in result.output


def test_without_peers_we_are_timed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "installed", lambda package: False)
    monkeypatch.setattr(bench, "torch_call", lambda *args: None)
    result = tilewright("bench", "matmul", "--shape", "i=8,j=16,k=8", "--threads", "1", "--repeats", "1")
    assert result.exit_code == 0 and "no peer is installed" in result.output and "tilewright" in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("sort",), "there is no operator 'sort' to time"),
        (("matmul", "--shape", "z=4"), "extents, at least 1: i, j, k"),
        (("x.onnx",), "cannot read model"),
    ],
)
def test_bench_refuses(args: tuple[str, ...], message: str) -> None:
    result = tilewright("bench", *args)
    assert result.exit_code == 1 and message in result.output


def test_a_model_onnxruntime_refuses_is_an_error_with_its_words() -> None:
    with pytest.raises(RuntimeFailure, match="ONNX Runtime refuses the model"):
        OnnxRuntime(b"not a model")
