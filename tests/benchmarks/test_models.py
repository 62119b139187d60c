"""The benchmark networks: valid ONNX with outputs that say something, and a table of the ways of fusion."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from benchmarks.models import MODELS, bert_base, detr_transformer, mobilenet_v2, random_inputs, resnet18, vit_base
from onnx import ModelProto
from tests.graph.oracle import accumulated_bound, onnxruntime_outputs, reduction_depths

from benchmarks import fusion
from tilewright.graph import compile

SMALL: dict[str, Callable[[], ModelProto]] = {
    "vit_b16": lambda: vit_base(1),
    "bert_base": lambda: bert_base(tokens=16, layers=1, width=48, heads=4, vocabulary=50),
    "detr": lambda: detr_transformer(1, 1, tokens=30, queries=7, width=32, heads=4, mlp=64),
    "resnet18": resnet18,
    "mobilenet_v2": mobilenet_v2,
}


@pytest.mark.parametrize("name", [n if n in ("bert_base", "detr") else pytest.param(n, marks=pytest.mark.slow) for n in SMALL])
@pytest.mark.parametrize("way", ["greedy", "dp"])
def test_network_is_valid_and_agrees_with_onnxruntime(name: str, way: str) -> None:
    model = SMALL[name]()
    onnx.checker.check_model(model, full_check=True)
    network = compile(model, threads=1, dims={"batch": 1} if name == "vit_b16" else None, fusion=way)  # type: ignore[arg-type]
    inputs = random_inputs({v.name: (v.buffer.dtype.to_numpy(), v.buffer.static_shape) for v in network.graph.inputs})
    for output, want in onnxruntime_outputs(model, inputs).items():
        scale = float(np.abs(want).max())
        assert want.std() > 1e-3 * scale, "degenerate weights: nothing would be tested"
        np.testing.assert_allclose(network(inputs)[output], want, rtol=0, atol=accumulated_bound(reduction_depths(model), scale))


def test_every_network_has_a_builder() -> None:
    assert set(SMALL) <= set(MODELS)


def test_fusion_table_counts_kernels_of_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fusion, "MODELS", {"bert_base": SMALL["bert_base"]})
    assert fusion.main(["--counts", "--markdown", str(tmp_path / "page.md")]) == 0
    counted = (tmp_path / "page.md").read_text()
    assert fusion.main(["--repeats", "2", "--json", str(tmp_path / "fusion.json")]) == 0
    (result,) = json.loads((tmp_path / "fusion.json").read_text())["results"]
    ways = {w["way"]: w for w in result["ways"]}
    assert list(ways) == ["none", "greedy", "dp"]
    assert ways["dp"]["kernels"] < ways["greedy"]["kernels"] < ways["none"]["kernels"]
    for w in ways.values():
        assert f" {w['kernels']} ({sum(w['weights'].values())}) |" in counted, "counting alone says the same"
        assert sum(int(calls) * kinds for calls, kinds in w["weights"].items()) == w["kernels"]
    assert "bert_base" in capsys.readouterr().out
