"""Quantised networks on the simulated Gemmini, the host doing the rest: bit for bit the reference semantics, and ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import pytest
from examples.quantised_resnet import resnet
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from tests.graph.oracle import onnxruntime_outputs

from tilewright.codegen.commands import Host, walk
from tilewright.graph import Network, load
from tilewright.graph.integers import integer_form
from tilewright.graph.layout import choose_layouts
from tilewright.graph.offloading import offloaded
from tilewright.hw import load_machine
from tilewright.sim.gemmini.offload import Offload

MACHINE = load_machine("gemmini")


class Quantised:
    """Builds a chain of QOperator nodes on int8 tensors, symmetric, with one scale for each tensor."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, array: np.ndarray | np.generic) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def weights(self, *shape: int) -> str:
        return self.constant(self.rng.integers(-127, 128, shape).astype(np.int8))

    def scaled(self, tensor: str, scale: float) -> tuple[str, str, str]:
        return tensor, self.constant(np.float32(scale)), self.constant(np.int8(0))

    def node(self, kind: str, inputs: list[str], **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def dense(self, x: str, depth: int, width: int) -> str:
        result = self.scaled("", 0.008 * depth**0.5)[1:]
        return self.node("QLinearMatMul", [*self.scaled(x, 0.02), *self.scaled(self.weights(depth, width), 0.01), *result])

    def conv(self, x: str, channels: int, filters: int, window: int) -> str:
        depth = channels * window**2
        result = self.scaled("", 0.008 * depth**0.5)[1:]
        bias = self.constant(self.rng.integers(-3000, 3000, filters).astype(np.int32))
        inputs = [*self.scaled(x, 0.02), *self.scaled(self.weights(filters, channels, window, window), 0.01), *result, bias]
        return self.node("QLinearConv", inputs, pads=[window // 2] * 4)

    def rectified(self, x: str) -> str:
        return self.node("Max", [x, self.constant(np.int8(0))])

    def added(self, a: str, b: str) -> str:
        """The sum of two tensors as floats, quantised again."""
        floats = [self.node("DequantizeLinear", list(self.scaled(x, 0.02))) for x in (a, b)]
        return self.node("QuantizeLinear", list(self.scaled(self.node("Add", floats), 0.03)))

    def model(self, shape: tuple[int, ...], result: tuple[int, ...]) -> ModelProto:
        ends = [helper.make_tensor_value_info(n, TensorProto.INT8, s) for n, s in (("x", shape), (self.nodes[-1].output[0], result))]
        graph = helper.make_graph(self.nodes, "quantised", ends[:1], ends[1:], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_relu_between_a_convolution_and_its_quantisation_leaves_with_its_results() -> None:
    """The form in which quantisers leave a convolution of floats: its ReLU and its pool come before the one quantisation.

    The pool is the host's here, as its result has the channels first.
    """
    q = Quantised(3)
    real = [q.node("DequantizeLinear", list(q.scaled(x, s))) for x, s in (("x", 0.02), (q.weights(16, 8, 3, 3), 0.01))]
    y = q.node("MaxPool", [q.node("Relu", [q.node("Conv", real, pads=[1] * 4)])], kernel_shape=[2, 2], strides=[2, 2])
    q.node("QuantizeLinear", list(q.scaled(y, 0.05)))
    model = integer_form(q.model((1, 8, 12, 12), (1, 16, 6, 6)))
    offload = Offload(MACHINE)
    network = offloaded(load(model), MACHINE, offload.prepare)
    inputs = {"x": np.random.default_rng(7).integers(-128, 128, (1, 8, 12, 12)).astype(np.int8)}
    (name, got), *_ = network.executed(inputs, offload).items()
    np.testing.assert_array_equal(got, onnxruntime_outputs(model, inputs)[name])
    step = next(s for s in network.steps if "QLinearConv" in s.operators)
    assert step.operators == ("QLinearConv", "Relu") and [s.operators for s in network.steps[-1:]] == [("MaxPool",)]
    program = offload.programs[step.call.kernel, network.constants(step)]
    assert not any(isinstance(i, Host) for i in walk(program.body))


def on_gemmini(model: ModelProto, shape: tuple[int, ...]) -> Offload:
    """Runs the model three ways on the same input; the array's share of it."""
    network = Network.interpreted(load(model), fusion="none")
    inputs = {"x": np.random.default_rng(7).integers(-128, 128, shape).astype(np.int8)}
    offload = Offload(load_machine("gemmini"))
    got, reference, runtime = network.executed(inputs, offload), network.reference(inputs), onnxruntime_outputs(model, inputs)
    for name, want in reference.items():
        assert want.std() > 10, "degenerate weights: nothing would be tested"
        np.testing.assert_array_equal(got[name], want)
        np.testing.assert_array_equal(want, runtime[name])
    return offload


def test_dense_layers_run_on_the_array_and_the_rest_on_the_host() -> None:
    q = Quantised(0)
    hidden = q.rectified(q.dense("x", 40, 50))
    q.dense(q.rectified(q.dense(hidden, 50, 30)), 30, 10)
    offload = on_gemmini(q.model((20, 40), (20, 10)), (20, 40))
    assert [k.name.startswith("qlinearmatmul") for k, _ in offload.programs] == [True] * 3
    assert all(r.startswith("nothing in it is work for the array: no sums of products") for r in offload.refused.values())


def test_residual_block() -> None:
    q = Quantised(1)
    inner = q.dense(q.rectified(q.dense("x", 24, 20)), 20, 24)
    q.rectified(q.added(inner, "x"))
    offload = on_gemmini(q.model((17, 24), (17, 24)), (17, 24))
    assert len(offload.programs) == 2


def test_a_sum_is_divided_from_what_the_host_makes_of_it() -> None:
    """The floats behind a residual sum are the host's, the sum itself is not."""
    q = Quantised(3)
    ends = [q.scaled(x, 0.02) for x in ("x", "x")]
    total = q.node("QLinearAdd", [*ends[0], *ends[1], *q.scaled("", 0.02)[1:]], domain="com.microsoft")
    q.node("QuantizeLinear", list(q.scaled(q.node("Exp", [q.node("DequantizeLinear", list(q.scaled(total, 0.02)))]), 0.5)))
    model, shape = q.model((16, 24), (16, 24)), (16, 24)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    offload = Offload(MACHINE)
    network = offloaded(load(model), MACHINE, offload.prepare)
    inputs = {"x": np.random.default_rng(7).integers(-128, 128, shape).astype(np.int8)}
    got, want = network.executed(inputs, offload), network.reference(inputs)
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value)
    assert [(s.call.kernel, network.constants(s)) in offload.programs for s in network.steps if "QLinearAdd" in s.operators] == [True]
    assert all(s.operators == ("QLinearAdd",) for s in network.steps if "QLinearAdd" in s.operators)


def test_convolutions_have_their_channels_last_between_copies_at_the_borders() -> None:
    q = Quantised(2)
    q.node("Relu", [q.conv(q.node("Relu", [q.conv("x", 5, 8, 3)]), 8, 20, 1)])
    model, shape = q.model((1, 5, 7, 6), (1, 20, 7, 6)), (1, 5, 7, 6)
    offload = Offload(MACHINE)
    network = offloaded(load(model), MACHINE, offload.prepare)
    inputs = {"x": np.random.default_rng(7).integers(-128, 128, shape).astype(np.int8)}
    got = network.executed(inputs, offload)
    assert [s.operators for s in network.steps] == [("Copy",), ("QLinearConv", "Relu"), ("QLinearConv", "Relu"), ("Copy",)]
    layouts = [str(network.graph.buffers[n].layout) for s in network.steps for n in s.call.writes]
    assert layouts == ["0 2 3 1"] * 3 + ["None"]
    for name, want in onnxruntime_outputs(model, inputs).items():
        np.testing.assert_array_equal(got[name], want)
        assert want.std() > 10
    done = [w for s in network.steps if (w := (s.call.kernel, network.constants(s))) in offload.programs]
    assert len(done) == 2 and all(offload.cycles(*work) > 0 for work in done)
    assert not any(isinstance(i, Host) for work in done for i in walk(offload.programs[work].body))


@pytest.fixture(scope="module")
def offload() -> Offload:
    return Offload(MACHINE)


@pytest.mark.parametrize("qdq", [False, True], ids=["operators on integers", "floats between conversions"])
def test_residual_network_is_bit_equal_to_onnx_runtime(qdq: bool, offload: Offload) -> None:
    model = resnet(12, (8,), 1, 10, qdq)
    array, host = run(model, 12, offload)
    relu = "QLinearConv+Relu"
    # One scale for all activations: the shortcut's sum is one of integers, and happens as they are loaded.
    assert array == [f"{relu}+MaxPool", relu, "QLinearConv", "QLinearAdd+Relu", "QGemm" if qdq else "QLinearMatMul"]
    assert host == ["QuantizeLinear", "QLinearGlobalAveragePool", "DequantizeLinear"]


@pytest.mark.slow
@pytest.mark.parametrize("qdq", [False, True], ids=["operators on integers", "floats between conversions"])
def test_deeper_residual_network(qdq: bool, offload: Offload) -> None:
    """Blocks that halve the image and have a convolution in their shortcut."""
    array, _ = run(resnet(64, (16, 32, 64), 2, 100, qdq), 64, offload)
    assert len(array) == 1 + 3 * 2 * (2 + 1) + 2 + 1


def run(model: ModelProto, size: int, offload: Offload) -> tuple[list[str], list[str]]:
    """Runs a network on the array and in ONNX Runtime; the kernels with and without work for the array.

    Both run the integer form: of patterns of floats ONNX Runtime runs some as floats, which round on their way.
    """
    model = integer_form(model)
    network = offloaded(load(model), MACHINE, offload.prepare)
    inputs = {"image": np.random.default_rng(1).normal(0, 1, (1, 3, size, size)).astype(np.float32)}
    got = network.executed(inputs, offload)
    for name, want in onnxruntime_outputs(model, inputs).items():
        np.testing.assert_array_equal(got[name], want)
        assert want.std() > 0.1, "degenerate weights: nothing would be tested"
    kinds = [("+".join(s.operators), (s.call.kernel, network.constants(s)) in offload.programs) for s in network.steps]
    return [k for k, there in kinds if there], [k for k, there in kinds if not there]


def test_a_network_of_floats_on_an_array_for_them() -> None:
    """Products, rectified and residual sums leave the host; it keeps pooling between pixels and what changes shapes."""
    rng = np.random.default_rng(4)
    sizes = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "b2": (16,), "w3": (256, 10), "b3": (10,)}
    constants = [numpy_helper.from_array((rng.standard_normal(shape) * 0.2).astype(np.float32), n) for n, shape in sizes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1] * 4),
        helper.make_node("Add", ["c2", "r1"], ["s"]),
        helper.make_node("Relu", ["s"], ["r2"]),
        helper.make_node("MaxPool", ["r2"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in (("x", (1, 3, 8, 8)), ("y", (1, 10)))]
    graph = helper.make_graph(nodes, "floats", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    inputs = {"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)}
    machine = load_machine("gemmini.fp32")
    offload = Offload(machine)
    got = Network.interpreted(choose_layouts(load(model), machine), fusion="none").executed(inputs, offload)["y"]
    np.testing.assert_allclose(got, onnxruntime_outputs(model, inputs)["y"], rtol=1e-4, atol=1e-4)
    assert sorted(k.name for k, _ in offload.programs) == ["add", "conv", "conv", "gemm", "relu"]
    assert not any(isinstance(i, Host) for p in offload.programs.values() for i in walk(p.body))  # biases are where sums start
