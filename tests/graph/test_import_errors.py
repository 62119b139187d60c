"""What must be refused at import, and that the message names the object, the rule and the way out."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
import onnx
import pytest
from examples.vit import ViTConfig, vit
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tilewright.graph import Network, load, loading
from tilewright.graph.lowering import StaticOperandRequired
from tilewright.util.errors import ImportFailure, RuntimeFailure, UnsupportedOperator

F32, I64 = TensorProto.FLOAT, TensorProto.INT64


def model(
    nodes: list, inputs: dict, outputs: dict, opset: int = 17, weights: dict | None = None, domains: tuple[str, ...] = ()
) -> ModelProto:
    def infos(values: dict) -> list:
        return [helper.make_tensor_value_info(n, t, s) for n, (t, s) in values.items()]

    initial = [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()]
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(helper.make_graph(nodes, "g", infos(inputs), infos(outputs), initial), opset_imports=opsets)


def relu(shape: list) -> ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], {"x": (F32, shape)}, {"y": (F32, shape)})


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImportFailure, match=r"cannot read model .*none\.onnx"):
        load(tmp_path / "none.onnx")


def test_devices_are_no_models() -> None:
    with pytest.raises(ImportFailure, match="/dev/full is neither a file nor a pipe"):
        load("/dev/full")


def test_pipes_are_read_as_far_as_a_model_can_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def piped(data: bytes) -> Path:
        path = tmp_path / f"{len(data)}"
        os.mkfifo(path)
        Thread(target=write, args=(path, data), daemon=True).start()
        return path

    def write(path: Path, data: bytes) -> None:
        with suppress(BrokenPipeError):
            path.write_bytes(data)

    assert load(piped(relu([2]).SerializeToString())).outputs
    monkeypatch.setattr(loading, "_LARGEST_FILE", 10)
    with pytest.raises(ImportFailure, match="has more than an ONNX file can hold"):
        load(piped(bytes(4 << 20)))
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(ImportFailure, match="has 11 bytes, more than an ONNX file can hold"):
        load(tmp_path / "large")


@pytest.mark.parametrize("data", [b"", b"\x00\x01\x02garbage", b"not a model at all"])
def test_bytes_that_are_no_model(data: bytes) -> None:
    with pytest.raises(ImportFailure, match=r"empty|not an ONNX model|no graph"):
        load(data)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated_model(part: float, tmp_path: Path) -> None:
    data = vit().SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ImportFailure):
        load(path, dims={"batch": 1})


def test_random_damage_is_an_import_failure_or_a_valid_model() -> None:
    data = vit(ViTConfig(image=16, width=16, heads=2, mlp=24, layers=1, classes=5)).SerializeToString()
    rng = np.random.default_rng(11)
    refused = 0
    for _ in range(80):
        damaged = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(data))] = rng.integers(256)
        try:
            Network.interpreted(load(bytes(damaged), dims={"batch": 1}))
        except ImportFailure:
            refused += 1
    assert refused > 4


def test_damaged_weight() -> None:
    bad = relu([2])
    bad.graph.initializer.append(TensorProto(name="w", data_type=F32, dims=[4], raw_data=b"\x00" * 7))
    with pytest.raises(ImportFailure, match="tensor 'w'"):
        load(bad)


def test_external_data_missing(tmp_path: Path) -> None:
    big = model(
        [helper.make_node("Add", ["x", "w"], ["y"])], {"x": (F32, [512])}, {"y": (F32, [512])}, weights={"w": np.ones(512, np.float32)}
    )
    path = tmp_path / "m.onnx"
    onnx.save(big, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert load(path).constants
    (tmp_path / "m.data").unlink()
    with pytest.raises(ImportFailure, match=r"external data|cannot be read") as error:
        load(path)
    assert "'w'" in str(error.value) and "put the whole data file beside the model" in str(error.value)


@pytest.mark.parametrize("size", [-1, 2.5, "4", float("nan"), None, 1 << 41])
def test_sizes_that_are_none_are_refused_by_name(size: object) -> None:
    with pytest.raises(ImportFailure, match="dimension 0 of input 'x' is ") as error:
        load(relu(["batch", 3]), dims={"batch": size})  # type: ignore[dict-item]
    assert "integers from 0 to" in str(error.value)
    with pytest.raises(ImportFailure, match="dimension 0 of input 'x' is "):
        load(relu(["batch", 3]), shapes={"x": (size, 3)})  # type: ignore[dict-item]
    assert load(relu(["batch", 3]), dims={"batch": np.int64(4)}).inputs[0].buffer.static_shape == (4, 3)  # type: ignore[dict-item]


def test_arrays_beyond_all_memory_are_refused() -> None:
    with pytest.raises(ImportFailure, match="has 1152921504606846976 elements"):
        load(relu([1 << 30, 1 << 30]))


def test_dynamic_dimensions_are_named_with_the_flag() -> None:
    dynamic = relu(["batch", 3, None])
    with pytest.raises(ImportFailure, match=r"batch, x\.2") as error:
        load(dynamic)
    assert "--dim batch=N" in str(error.value)
    bound = load(dynamic, dims={"batch": 2, "x.2": 5})
    assert bound.inputs[0].buffer.static_shape == (2, 3, 5)
    assert load(dynamic, shapes={"x": (1, 3, 4)}).inputs[0].buffer.static_shape == (1, 3, 4)
    with pytest.raises(ImportFailure, match="no input has a dimension 'bach'"):
        load(dynamic, dims={"bach": 2, "batch": 1, "x.2": 1})
    with pytest.raises(ImportFailure, match="dimension 1 of input 'x' is 3"):
        load(dynamic, shapes={"x": (1, 4, 4)})


def test_every_unsupported_operator_is_listed_at_once() -> None:
    nodes = [
        helper.make_node("StringSplit", ["x"], ["a"], name="first"),
        helper.make_node("Frobnicate", ["a"], ["b"], name="second", domain="my.ops"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    with pytest.raises(UnsupportedOperator) as error:
        load(model(nodes, {"x": (F32, [2])}, {"y": (F32, [2])}, opset=20, domains=("my.ops",)))
    text = str(error.value)
    assert "StringSplit (opset 20), node 'first'" in text
    assert "my.ops::Frobnicate (opset 1), node 'second'" in text
    assert "replace the node before export" in text and "fallback" not in text
    assert "Relu" not in text


def test_shape_decided_by_data_asks_for_a_constant() -> None:
    reshape = model([helper.make_node("Reshape", ["x", "s"], ["y"])], {"x": (F32, [2, 3]), "s": (I64, [1])}, {"y": (F32, [6])})
    with pytest.raises(StaticOperandRequired, match=r"shape must be known .* s") as error:
        load(reshape)
    assert error.value.sources == {"s"}
    assert load(reshape, constants={"s": np.asarray([6])}).outputs[0].buffer.static_shape == (6,)


@pytest.mark.parametrize(
    ("node", "inputs", "match"),
    [
        (helper.make_node("MatMul", ["x", "w"], ["y"]), {"x": [2, 3], "w": [4, 5]}, "do not multiply: 3 columns meet 4 rows"),
        (helper.make_node("Add", ["x", "w"], ["y"]), {"x": [2, 3], "w": [4]}, r"\[2, 3\], \[4\] do not broadcast"),
        (helper.make_node("Conv", ["x", "w"], ["y"]), {"x": [1, 3, 8, 8], "w": [4, 2, 3, 3]}, "channels do not fit"),
        (helper.make_node("Conv", ["x", "w"], ["y"]), {"x": [1, 3, 2, 8], "w": [4, 3, 3, 3]}, "does not fit spatial dimension 0"),
        (helper.make_node("Softmax", ["x"], ["y"], axis=5), {"x": [2, 3]}, "axis 5 is outside the 2 dimensions"),
        (helper.make_node("Relu", ["x", "w"], ["y"]), {"x": [2], "w": [2]}, "2 operands do not fit"),
        (helper.make_node("Relu", ["nowhere"], ["y"]), {"x": [2]}, "reads 'nowhere', which nothing before it produces"),
    ],
)
def test_malformed_nodes(node: onnx.NodeProto, inputs: dict, match: str) -> None:
    with pytest.raises(ImportFailure, match=match):
        load(model([node], {n: (F32, s) for n, s in inputs.items()}, {"y": (F32, None)}))


def test_wrong_inputs_of_a_network() -> None:
    network = Network.interpreted(load(relu([2, 3])))
    x = np.ones((2, 3), np.float32)
    with pytest.raises(RuntimeFailure, match=r"missing x; unknown z") as error:
        network.reference({"z": x})
    assert "x: f32[2, 3]" in str(error.value)
    with pytest.raises(RuntimeFailure, match=r"shape \[3, 2\], expected \[2, 3\]"):
        network.reference({"x": x.T})
    with pytest.raises(RuntimeFailure, match="element type f64, expected f32"):
        network.reference({"x": x.astype(np.float64)})
    with pytest.raises(RuntimeFailure, match="takes 1 inputs, got 2"):
        network.reference([x, x])
    with pytest.raises(RuntimeFailure, match="was not compiled"):
        network(x)
