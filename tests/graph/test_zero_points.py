"""Zero points of inputs in the bias: ONNX Runtime's numbers, and products that the array does alone."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper
from tests.graph.oracle import onnxruntime_outputs

from tilewright.codegen.commands import Host, walk
from tilewright.graph import Network, load
from tilewright.graph.integers import integer_form
from tilewright.graph.offloading import offloaded
from tilewright.hw import load_machine
from tilewright.sim.gemmini.offload import Offload


def quantised(
    kind: str, shape: tuple[int, ...], weights: tuple[int, ...], zeros: tuple[int, int] = (-7, 0), **attributes: object
) -> ModelProto:
    """One quantised operator with a bias; ``zeros`` of the input and of the weights."""
    rng = np.random.default_rng(2)
    values = {
        "w": rng.integers(-127, 128, weights).astype(np.int8),
        "b": rng.integers(-900, 900, weights[0]).astype(np.int32),
        **{n: np.float32(v) for n, v in (("xs", 0.05), ("ws", 0.01), ("ys", 0.1))},
        **{n: np.int8(v) for n, v in (("xz", zeros[0]), ("wz", zeros[1]), ("yz", 0))},
    }
    inputs = ["x", "xs", "xz", "w", "ws", "wz", *(["ys", "yz", "b"] if kind == "QLinearConv" else ["b", "ys", "yz"])]
    node = helper.make_node(kind, inputs, ["y"], domain="" if kind == "QLinearConv" else "com.microsoft", **attributes)
    ends = [
        helper.make_tensor_value_info("x", TensorProto.INT8, shape),
        helper.make_tensor_value_info("y", TensorProto.INT8, [None] * len(shape)),
    ]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(np.asarray(v), n) for n, v in values.items()])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def zero_point(m: ModelProto) -> int:
    arrays = {t.name: numpy_helper.to_array(t) for t in m.graph.initializer}
    return int(arrays[m.graph.node[0].input[2]])


FOLDED = [
    quantised("QLinearConv", (1, 5, 6, 7), (8, 5, 3, 3)),
    quantised("QLinearConv", (2, 6, 5, 4), (4, 3, 1, 1), group=2, strides=[2, 2]),
    quantised("QGemm", (3, 9), (6, 9), transB=1),
]


@pytest.mark.parametrize("source", FOLDED, ids=["windows", "groups", "dense"])
def test_the_bias_takes_the_zero_point(source: ModelProto) -> None:
    found = integer_form(source)
    assert (zero_point(source), zero_point(found)) == (-7, 0)
    checker.check_model(found)
    shape = tuple(d.dim_value for d in source.graph.input[0].type.tensor_type.shape.dim)
    inputs = {"x": np.random.default_rng(1).integers(-128, 128, shape).astype(np.int8)}
    want = onnxruntime_outputs(source, inputs)["y"]
    np.testing.assert_array_equal(Network.interpreted(load(found)).reference(inputs)["y"], want)
    np.testing.assert_array_equal(onnxruntime_outputs(found, inputs)["y"], want)
    assert want.std() > 5


@pytest.mark.parametrize(
    "source",
    [
        quantised("QLinearConv", (1, 5, 6, 7), (8, 5, 3, 3), pads=[1] * 4),
        quantised("QLinearConv", (1, 5, 6, 7), (8, 5, 3, 3), auto_pad="SAME_UPPER"),
        quantised("QGemm", (3, 9), (6, 9), (-7, 2), transB=1),
    ],
    ids=["padded", "padded as needed", "weights with a zero point"],
)
def test_what_would_not_be_exact_stays(source: ModelProto) -> None:
    assert zero_point(integer_form(source)) == -7


def test_the_array_does_it_alone() -> None:
    machine = load_machine("gemmini")
    offload = Offload(machine)
    source = integer_form(FOLDED[2])
    network = offloaded(load(source), machine, offload.prepare)
    inputs = {"x": np.random.default_rng(1).integers(-128, 128, (3, 9)).astype(np.int8)}
    np.testing.assert_array_equal(network.executed(inputs, offload)["y"], onnxruntime_outputs(source, inputs)["y"])
    assert len(offload.programs) == 1 and not offload.refused
    assert not any(isinstance(i, Host) for p in offload.programs.values() for i in walk(p.body))
