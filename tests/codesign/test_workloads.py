"""Workloads: known networks against the published lists and their own arithmetic, files, ONNX models, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from examples.light import light_model

from tilewright.codesign.architectures import NETWORKS, bert_base, bert_layer, gpt2, llama2_7b, products, resnet50, retinanet, unet, vit_b16
from tilewright.codesign.layer import Layer, unique
from tilewright.codesign.workloads import layers_of, onnx_layers, workload
from tilewright.util.errors import ImportFailure, SpaceError

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "codesign_workloads.json"
here = pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"{PUBLISHED.name} is not beside the repository (../shared/data)")


def operations(layers: list[Layer]) -> float:
    return sum(x.operations * x.count for x in layers)


def shapes(layers: Any) -> dict[Any, int]:
    return {x.shape[:2]: x.count for x in unique(tuple(layers))}


@here
@pytest.mark.parametrize("name, made", [("resnet50", resnet50), ("unet", unet), ("retinanet", retinanet), ("bert", bert_layer)])
def test_networks_are_those_published(name: str, made: Any) -> None:
    assert shapes(made()) == shapes(workload(f"{PUBLISHED}:{name}"))


def test_networks_have_their_known_arithmetic() -> None:
    """Multiply-accumulates as their papers and other tools count them."""
    assert operations(resnet50()) == pytest.approx(4.09e9, rel=0.01)
    assert operations(vit_b16()) == pytest.approx(17.5e9, rel=0.02)
    assert operations(bert_base(128)) == pytest.approx(11.2e9, rel=0.02)
    # A decoder's parameters, each used once for a token, without attention to earlier ones and embeddings.
    assert operations(gpt2(1, 1)) == pytest.approx(124.4e6 - 1024 * 768, rel=0.01)
    assert operations(llama2_7b(1, 1)) == pytest.approx(6.61e9, rel=0.01)
    assert sum(x.count for x in resnet50()) == 54 and len(workload("resnet50")) == 24
    assert retinanet(4)[3].count == 8


def test_every_known_network_and_product_is_made() -> None:
    for name in NETWORKS:
        assert workload(name) == unique(workload(name))
    vectors = [x for x in products() if x.sizes["P"] == 1]
    assert len(vectors) == 9 and len(list(products())) == 9 * 6


def test_files_are_read(tmp_path: Path) -> None:
    one = tmp_path / "one.json"
    one.write_text(json.dumps([{"K": 8, "C": 4, "P": 6, "stride": [2, 1], "count": 3}, {"K": 8, "C": 4, "P": 6, "stride": [2, 1]}]))
    (layer,) = workload(one)
    assert layer.count == 4 and layer.parameters["SH"] == 2 and layer.sizes["Q"] == 1
    both = tmp_path / "both.json"
    both.write_text(json.dumps({"a": [{"K": 1, "C": 1}], "b": [{"K": 2, "C": 2}]}))
    assert workload(f"{both}:b")[0].sizes["K"] == 2
    with pytest.raises(SpaceError, match="2 networks") as e:
        workload(both)
    assert "a, b" in str(e.value.hint)
    with pytest.raises(SpaceError, match="no network 'c'"):
        workload(f"{both}:c")
    with pytest.raises(SpaceError, match="cannot read"):
        workload(tmp_path / "none.json")
    one.write_text("[{")
    with pytest.raises(SpaceError, match="is not JSON"):
        workload(one)
    one.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(SpaceError, match="is nested too deeply"):
        workload(one)
    one.write_text(json.dumps({"a": [], "b": [{"K": 1}]}))
    for name, wrong in (("a", "network .a. of .*one.json has no layers"), ("b", "layer 0 of network .b. of .*one.json lacks C")):
        with pytest.raises(SpaceError, match=wrong):
            workload(f"{one}:{name}")


@pytest.mark.parametrize(
    "content, message",
    [
        ([{"K": 0, "C": 1}], "layer 0 of the workload has K = 0"),
        ([{"K": 1, "C": 1}, {"K": 1, "C": -2}], "layer 1 of the workload has C = -2"),
        ([{"K": 1, "C": 1.5}], "has C = 1.5"),
        ([{"K": 1, "C": True}], "has C = True"),
        ([{"K": 1, "C": 1, "count": 0}], "has count = 0"),
        ([{"K": 1, "C": 1, "stride": [1, 0]}], "has SW = 0"),
        ([{"K": 1, "C": 1, "stride": 2}], "has stride 2"),
        ([{"K": 1}], "lacks C"),
        ([{"K": 1, "C": 1, "H": 3}], "unknown field 'H'"),
        ([3], "layer 0 of the workload is 3"),
        ([], "the workload has no layers"),
        ([[[[[[[[[[3]]]]]]]]]], r"layer 0 of the workload is \[+\.\.\.\]+"),
        ({"K": 1}, "is not a list of layers"),
    ],
)
def test_wrong_layers_are_named(content: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as e:
        layers_of(content)
    assert e.value.hint


def test_an_unknown_workload_lists_what_there_is() -> None:
    with pytest.raises(SpaceError, match="no workload 'resnet'") as e:
        workload("resnet")
    assert "resnet50" in str(e.value.hint)


def test_sizes_are_bound_in_models_only(tmp_path: Path) -> None:
    layers = tmp_path / "layers.json"
    layers.write_text('[{"K": 1, "C": 1}]')
    for source in ("resnet50", layers):
        assert workload(source, {}) == workload(source)
        with pytest.raises(SpaceError, match="has no open size 'N'") as e:
            workload(source, {"N": 4})
        assert "--dim" in str(e.value.hint)


def test_layers_of_an_onnx_network_are_those_of_the_architecture() -> None:
    found = onnx_layers(light_model("resnet50"))
    wanted = shapes(resnet50())
    # That file strides in the first convolution of a block (the paper's version), ours in the 3 x 3 one.
    assert sum(x.count for x in found) == 54
    same = [s for s, n in shapes(found).items() if wanted.get(s) == n]
    assert len(same) >= 15
    grouped = onnx_layers(light_model("shufflenet"))
    assert any(x.sizes["C"] == 1 and x.count > 100 for x in grouped)


def test_matrix_products_of_an_onnx_model(tmp_path: Path) -> None:
    info = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="weights"),
        onnx.helper.make_node("Transpose", ["y"], ["t"], perm=[0, 2, 1]),
        onnx.helper.make_node("MatMul", ["y", "t"], ["z"], name="scores"),
    ]
    w = onnx.numpy_helper.from_array(np.zeros((16, 24), np.float32), "w")
    graph = onnx.helper.make_graph(nodes, "g", [info("x", 1, ["b", 10, 16])], [info("z", 1, ["b", 10, 10])], [w])
    path = tmp_path / "m.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    weights, scores = workload(path, {"b": 3})
    assert (weights.name, weights.sizes["P"], weights.sizes["K"], weights.sizes["C"], weights.count) == ("weights", 30, 24, 16, 1)
    assert (scores.name, scores.sizes["P"], scores.sizes["K"], scores.sizes["C"], scores.count) == ("scores", 10, 10, 24, 3)
    with pytest.raises(ImportFailure, match="without a value"):
        workload(path)
    with pytest.raises(SpaceError, match="'x' of weights has a size of 0"):
        workload(path, {"b": 0})
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [info("x", 1, [2])], [info("y", 1, [2])])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    with pytest.raises(SpaceError, match="no convolution and no matrix product"):
        workload(path)


def test_batches_share_weights_where_there_are_some() -> None:
    network = unique(tuple(Layer(x.name, x.sizes, count=x.count, weights=x.weights).batched(4) for x in bert_base(16)))
    assert operations(list(network)) == 4 * operations(bert_base(16))
    assert {x.name: (x.sizes["N"], x.count) for x in network} == {
        "projections": (4, 48), "scores": (1, 576), "values": (1, 576), "up": (4, 12), "down": (4, 12),
    }  # fmt: skip
    for batch in (0, -1, 1.5, True):
        with pytest.raises(SpaceError, match=f"the batch is {batch}"):
            Layer("x", {"K": 4}).batched(batch)  # type: ignore[arg-type]
    assert len(unique((Layer("a", {"K": 4}), Layer("b", {"K": 4}, weights=False)))) == 2
    (both,) = layers_of([{"K": 4, "C": 8, "weights": False}])
    assert not both.weights
    with pytest.raises(SpaceError, match="layer 0 of the workload has weights = 1"):
        layers_of([{"K": 4, "C": 8, "weights": 1}])
