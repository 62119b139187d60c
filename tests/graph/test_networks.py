"""Whole networks against ONNX Runtime: the light models of the onnx wheel and a 2-layer ViT."""

from __future__ import annotations

import numpy as np
import pytest
from examples.light import NAMES, light_model
from examples.vit import ViTConfig, vit
from onnx import ModelProto
from tests.graph.oracle import accumulated_bound, onnxruntime_outputs, reduction_depths

from tilewright.graph import Network, compile, load

QUICK = ("squeezenet", "shufflenet")


def check(model: ModelProto, **options: object) -> Network:
    network = compile(model, threads=1, **options)
    rng = np.random.default_rng(1)
    inputs = {v.name: rng.standard_normal(v.buffer.static_shape).astype(np.float32) for v in network.graph.inputs}
    expected = onnxruntime_outputs(model, inputs)
    got = network(inputs)
    assert list(got) == list(expected)
    depths = reduction_depths(model)
    for name, want in expected.items():
        scale = float(np.abs(want).max())
        assert want.std() > 1e-3 * scale, "degenerate weights: nothing would be tested"
        np.testing.assert_allclose(got[name], want, rtol=0, atol=accumulated_bound(depths, scale))
    again = network(inputs)
    assert all(np.array_equal(again[n], got[n]) for n in got)
    return network


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_light_model_agrees_with_onnxruntime(name: str) -> None:
    network = check(light_model(name))
    assert network.memory.size < network.memory.unshared


def test_batch_norm_and_chains_are_fused_in_resnet50() -> None:
    network = Network.interpreted(load(light_model("resnet50")))
    kinds = ["+".join(s.operators) for s in network.steps]
    assert len(kinds) == 56
    assert kinds.count("Conv+Relu") == 33
    assert kinds.count("Conv+Sum+Relu") == 16
    assert len({s.call.kernel for s in network.steps}) < 35


@pytest.mark.parametrize("opset", [13, 17])
def test_vit_agrees_with_onnxruntime(opset: int) -> None:
    check(vit(ViTConfig(opset=opset)), dims={"batch": 2})


def test_vit_reference_semantics_agree_with_onnxruntime() -> None:
    config = ViTConfig(image=16, width=16, heads=2, mlp=24, layers=1, classes=5)
    model = vit(config)
    network = Network.interpreted(load(model, dims={"batch": 1}))
    inputs = {"image": np.random.default_rng(2).standard_normal((1, 3, 16, 16)).astype(np.float32)}
    got, want = network.reference(inputs), onnxruntime_outputs(model, inputs)
    np.testing.assert_allclose(got["logits"], want["logits"], rtol=0, atol=accumulated_bound(reduction_depths(model), 4.0))
