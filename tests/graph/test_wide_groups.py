"""Groups of convolutions widened for an array: the same integers, fewer groups, and work for the array."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.graph.oracle import onnxruntime_outputs

from tilewright.codegen.commands import Host, walk
from tilewright.graph import load
from tilewright.graph.offloading import offloaded
from tilewright.graph.wide_groups import multiplied, wide_groups
from tilewright.hw import load_machine
from tilewright.hw.library.gemmini import gemmini
from tilewright.sim.gemmini.offload import Offload

MACHINE = load_machine("gemmini")


def grouped(
    channels: int,
    groups: int,
    kernels: int,
    *,
    size: int = 9,
    stride: int = 1,
    zeros: bool = False,
    dtype: type[np.int8] | type[np.uint8] = np.int8,
    relu: bool = True,
) -> ModelProto:
    """A QLinearConv of 3 x 3 windows, with ``zeros`` other than 0 for input and weights (the second one for each kernel)."""
    rng = np.random.default_rng(groups)
    info = np.iinfo(dtype)
    weights = rng.integers(info.min, info.max, (kernels, channels // groups, 3, 3)).astype(dtype)
    points = rng.integers(info.min // 8, info.max // 8, kernels).astype(dtype) if zeros else np.zeros((), dtype)
    values = {
        "x_scale": np.float32(0.02),
        "x_zero": np.int8(7 if zeros else 0),
        "w": weights,
        "w_scale": np.float32(0.01),
        "w_zero": points,
        "y_scale": np.float32(0.03 * (channels // groups) ** 0.5),
        "y_zero": np.int8(0),
        "bias": rng.integers(-3000, 3000, kernels).astype(np.int32),
    }
    nodes = [helper.make_node("QLinearConv", ["x", *values], ["t"], pads=[1] * 4, group=groups, strides=[stride] * 2)]
    if relu:
        nodes.append(helper.make_node("Relu", ["t"], ["y"]))
    out = (size - 1) // stride + 1
    ends = [
        helper.make_tensor_value_info(n, TensorProto.INT8, s)
        for n, s in (("x", (1, channels, size, size)), ("y" if relu else "t", (1, kernels, out, out)))
    ]
    constants = [numpy_helper.from_array(np.asarray(v), n) for n, v in values.items()]
    graph = helper.make_graph(nodes, "grouped", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def inputs(model: ModelProto) -> dict[str, np.ndarray]:
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(1).integers(-128, 128, shape).astype(np.int8)}


@pytest.mark.parametrize(
    ("channels", "groups", "kernels", "left"),
    [(32, 32, 32, 2), (24, 24, 24, 2), (17, 17, 17, 1), (38, 38, 38, 19), (32, 8, 16, 2), (8, 8, 24, 2), (64, 2, 64, 2)],
)
@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zero points"])
def test_the_integers_stay_the_same(channels: int, groups: int, kernels: int, left: int, zeros: bool) -> None:
    """By ONNX Runtime, before and after; 17 are one group of 17 on no array of 16."""
    model = grouped(channels, groups, kernels, zeros=zeros, relu=False)
    machine = gemmini("wide", dim=32) if channels == 17 else MACHINE
    wide = wide_groups(model, machine)
    assert next(a.i for a in wide.graph.node[0].attribute if a.name == "group") == left
    for name, want in onnxruntime_outputs(model, inputs(model)).items():
        np.testing.assert_array_equal(onnxruntime_outputs(wide, inputs(model))[name], want)
        assert want.std() > 5


@pytest.mark.parametrize(("channels", "groups", "kernels", "stride"), [(32, 32, 32, 1), (20, 20, 20, 2), (32, 2, 48, 1)])
def test_the_array_computes_them(channels: int, groups: int, kernels: int, stride: int) -> None:
    model = grouped(channels, groups, kernels, stride=stride)
    offload = Offload(MACHINE)
    network = offloaded(load(wide_groups(model, MACHINE)), MACHINE, offload.prepare)
    step = next(s for s in network.steps if "QLinearConv" in s.operators)
    assert step.operators == ("QLinearConv", "Relu")
    program = offload.programs[step.call.kernel, network.constants(step)]
    assert not any(isinstance(i, Host) for i in walk(program.body))
    got = network.executed(inputs(model), offload)
    for name, want in onnxruntime_outputs(model, inputs(model)).items():
        np.testing.assert_array_equal(got[name], want)


def test_what_stays() -> None:
    """Machines that multiply no matrices by words, weights that are no constants, groups that no number of fits."""
    model = grouped(32, 32, 32)
    assert multiplied(MACHINE) == 16 and multiplied(load_machine("x86.avx512")) == 1
    assert wide_groups(model, load_machine("x86.avx512")) == model
    assert wide_groups(grouped(37, 37, 37), MACHINE) == grouped(37, 37, 37)
    late = grouped(32, 32, 32)
    weights = next(t for t in late.graph.initializer if t.name == "w")
    late.graph.initializer.remove(weights)
    late.graph.input.append(helper.make_tensor_value_info("w", TensorProto.INT8, weights.dims))
    assert wide_groups(late, MACHINE) == late
