"""Folding, fusion, canonical kernels and memory planning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.graph.oracle import onnxruntime_outputs

from tilewright.graph import Graph, Network, compile, load
from tilewright.graph.fusion import Fusion, fuse
from tilewright.graph.memory import ALIGNMENT, plan_memory
from tilewright.graph.network import plan_steps
from tilewright.ir.stmt import For

F32 = TensorProto.FLOAT


def build(
    nodes: list, inputs: dict[str, list], outputs: list[str], weights: dict[str, np.ndarray] | None = None, opset: int = 17
) -> ModelProto:
    values = [helper.make_tensor_value_info(n, F32, s) for n, s in inputs.items()]
    results = [helper.make_tensor_value_info(n, F32, None) for n in outputs]
    initial = [numpy_helper.from_array(a.astype(a.dtype), n) for n, a in (weights or {}).items()]
    return helper.make_model(
        helper.make_graph(nodes, "g", values, results, initial), opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )


def node(kind: str, inputs: str, outputs: str, **attributes: object) -> object:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def kinds(graph: Graph, fusion: Fusion = "greedy") -> list[str]:
    return ["+".join(s.operators) for s in plan_steps(graph, fuse(graph, fusion).groups)]


def agree(model: ModelProto, seed: int = 0, tolerance: float = 1e-5) -> Network:
    network = compile(model, threads=1)
    rng = np.random.default_rng(seed)
    inputs = {v.name: rng.standard_normal(v.buffer.static_shape).astype(np.float32) for v in network.graph.inputs}
    want = onnxruntime_outputs(model, inputs)
    for results in (network(inputs), network.reference(inputs)):
        for name, w in want.items():
            np.testing.assert_allclose(results[name], w, rtol=tolerance, atol=tolerance)
    return network


RNG = np.random.default_rng(7)


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {n: RNG.uniform(0.5, 1.5, s).astype(np.float32) for n, s in shapes.items()}


def test_batch_norm_and_scaling_fold_into_the_convolution() -> None:
    w = weights(w=(4, 3, 3, 3), s=(4,), b=(4,), m=(4,), v=(4,), f=(4, 1, 1))
    nodes = [node("Conv", "x w", "c"), node("BatchNormalization", "c s b m v", "n"), node("Mul", "n f", "z"), node("Relu", "z", "y")]
    network = agree(build(nodes, {"x": [1, 3, 6, 6]}, ["y"], w))
    assert kinds(network.graph) == ["Conv+Relu"]


def test_batch_norm_does_not_fold_when_the_convolution_is_used_elsewhere() -> None:
    w = weights(w=(4, 3, 3, 3), s=(4,), b=(4,), m=(4,), v=(4,))
    nodes = [node("Conv", "x w", "c"), node("BatchNormalization", "c s b m v", "n"), node("Add", "n c", "y")]
    assert "BatchNormalization" in "".join(kinds(agree(build(nodes, {"x": [1, 3, 6, 6]}, ["y"], w)).graph))


def test_constant_shape_arithmetic_disappears() -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "rows", axis=0),
        node("Mul", "rows two", "r2"),
        node("Unsqueeze", "r2 zero1", "u"),
        node("Concat", "u minus", "target", axis=0),
        node("Reshape", "x target", "y"),
    ]
    w = {"zero": np.asarray(0), "two": np.asarray(2), "zero1": np.asarray([0]), "minus": np.asarray([-1])}
    graph = agree(build(nodes, {"x": [3, 4]}, ["y"], w)).graph
    assert graph.outputs[0].buffer.static_shape == (6, 2)
    assert [op.kind for op in graph.operations] == ["Copy"]


def test_residual_joins_the_later_producer() -> None:
    w = weights(a=(8, 8), b=(8, 8))
    nodes = [node("MatMul", "x a", "p"), node("MatMul", "x b", "q"), node("Add", "p q", "s"), node("Relu", "s", "y")]
    network = agree(build(nodes, {"x": [4, 8]}, ["y"], w))
    assert kinds(network.graph) == ["MatMul", "MatMul+Add+Relu"]
    assert kinds(network.graph, "none") == ["MatMul", "MatMul", "Add", "Relu"]


def test_fusion_refuses_what_would_close_a_cycle() -> None:
    # y = relu(p) + matmul(relu(p)): the sum may join the product, never the kernel of p.
    w = weights(a=(4, 4))
    nodes = [node("MatMul", "x a", "p"), node("Relu", "p", "r"), node("MatMul", "r a", "m"), node("Add", "r m", "y")]
    assert kinds(agree(build(nodes, {"x": [4, 4]}, ["y"], w)).graph) == ["MatMul+Relu", "MatMul+Add"]


def test_shared_value_takes_its_element_wise_readers_along() -> None:
    w = weights(a=(6, 6), b=(6,))
    nodes = [node("MatMul", "x a", "m"), node("Add", "m b", "h"), node("Erf", "h", "e"), node("Mul", "h e", "y")]
    (step,) = agree(build(nodes, {"x": [4, 6]}, ["y"], w)).steps
    assert step.operators == ("MatMul", "Add", "Erf", "Mul")
    assert len([s for s in step.call.kernel.body.stmts if isinstance(s, For)]) == 3  # zero, accumulate, one epilogue


def test_fusion_respects_dependences_through_other_groups() -> None:
    # z joins the product q; the sum reads p (needs z) and q: it must not put q's kernel before z's.
    w = weights(a=(4, 4), b=(4, 4), c=(4, 4))
    nodes = [
        node("MatMul", "x a", "m"),
        node("Relu", "m", "r"),
        node("MatMul", "r b", "p"),
        node("MatMul", "x c", "q"),
        node("Add", "p m", "s"),
        node("Mul", "s q", "t"),
        node("Add", "t r", "y"),
    ]
    agree(build(nodes, {"x": [4, 4]}, ["y"], w), tolerance=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_random_networks_keep_their_meaning_when_fused(data: st.DataObject) -> None:
    names, nodes = ["x"], []
    for k in range(data.draw(st.integers(2, 14))):
        kind = data.draw(st.sampled_from(["MatMul", "Add", "Mul", "Tanh", "Transpose", "Softmax", "Concat", "Reshape"]))
        first, second = data.draw(st.sampled_from(names[-5:])), data.draw(st.sampled_from(names))
        match kind:
            case "MatMul" | "Add" | "Mul":
                nodes.append(node(kind, f"{first} {second}", f"t{k}"))
            case "Concat":
                nodes += [node("Concat", f"{first} {second}", f"c{k}", axis=0), node("Slice", f"c{k} one three", f"t{k}")]
            case "Reshape":
                nodes += [node("Reshape", f"{first} flat", f"v{k}"), node("Reshape", f"v{k} square", f"t{k}")]
            case _:
                nodes.append(node(kind, first, f"t{k}"))
        names.append(f"t{k}")
    outputs = [names[-1], *data.draw(st.lists(st.sampled_from(names[1:-1]), max_size=2, unique=True))] if len(names) > 2 else [names[-1]]
    constants = {"one": np.asarray([1]), "three": np.asarray([4]), "flat": np.asarray([9]), "square": np.asarray([3, 3])}
    graph = load(build(nodes, {"x": [3, 3]}, outputs, constants))
    x = {"x": data.draw(st.integers(0, 1000).map(lambda s: np.random.default_rng(s).uniform(-1, 1, (3, 3)).astype(np.float32)))}
    fused, plain = Network.interpreted(graph).reference(x), Network.interpreted(graph, fusion="none").reference(x)
    assert all(np.allclose(fused[n], plain[n], rtol=1e-5, atol=1e-6) for n in outputs)


def test_value_that_is_also_an_output_stays_visible() -> None:
    nodes = [node("Relu", "x", "r"), node("Exp", "r", "y")]
    network = agree(build(nodes, {"x": [5]}, ["y", "r"]))
    assert len(network.steps) == 2


def test_views_of_outputs_inputs_and_repeated_outputs() -> None:
    nodes = [
        node("Relu", "x", "r"),
        node("Reshape", "r s", "v"),
        node("Neg", "v", "y"),
        node("Identity", "x", "i"),
        node("Identity", "r", "r2"),
    ]
    agree(build(nodes, {"x": [2, 3]}, ["y", "r", "v", "i", "r2"], {"s": np.asarray([3, 2])}))


def test_chain_becomes_one_nest() -> None:
    nodes = [node("Mul", "x x", "a"), node("Add", "a x", "b"), node("Sigmoid", "b", "c"), node("Sub", "c x", "y")]
    (step,) = agree(build(nodes, {"x": [6]}, ["y"])).steps
    assert len(step.call.kernel.body.stmts) == 1


def test_concatenation_is_not_taken_for_an_element_wise_result() -> None:
    nodes = [node("Concat", "x z", "c", axis=0), node("Relu", "c", "y")]
    agree(build(nodes, {"x": [3, 2], "z": [4, 2]}, ["y"]))


@pytest.mark.parametrize("rows", [0, 2])
def test_empty_arrays_are_concatenated(rows: int) -> None:
    """The result is there for who reads it even if nothing is in it."""
    nodes = [node("Concat", "x z x", "c", axis=0), node("Add", "c c", "y")]
    agree(build(nodes, {"x": [rows, 2], "z": [0, 2]}, ["y"]))


def test_equal_groups_become_one_kernel() -> None:
    w = weights(a=(6, 6), b=(6, 6))
    nodes = [node("MatMul", "x a", "p"), node("Relu", "p", "r"), node("MatMul", "r b", "q"), node("Relu", "q", "y")]
    one, two = agree(build(nodes, {"x": [6, 6]}, ["y"], w)).steps
    assert one.call.kernel == two.call.kernel
    assert one.call.arguments != two.call.arguments


@pytest.mark.parametrize("shape", [[0, 3], [2, 0]])
def test_zero_size_dimensions(shape: list[int]) -> None:
    nodes = [node("Relu", "x", "r"), node("ReduceSum", "r", "y", keepdims=0)]
    agree(build(nodes, {"x": shape}, ["y"]))


def test_integer_arithmetic_wraps_and_nan_stays() -> None:
    info = helper.make_tensor_value_info
    nodes = [node("Add", "i i", "a"), node("Log", "x", "l")]
    graph = helper.make_graph(
        nodes, "g", [info("i", TensorProto.INT32, [2]), info("x", F32, [2])], [info("a", TensorProto.INT32, [2]), info("l", F32, [2])]
    )
    network = compile(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), threads=1)
    got = network({"i": np.asarray([2**31 - 1, 5], np.int32), "x": np.asarray([-1.0, 1.0], np.float32)})
    assert got["a"].tolist() == [-2, 10]
    assert np.isnan(got["l"][0])
    assert got["l"][1] == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_memory_plan_never_overlaps_live_values(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 12))
    nodes, sizes, scalars = [], {}, ["x"]
    for k in range(length):  # spread one element to many, then reduce to one again
        sizes[f"n{k}"] = np.asarray([data.draw(st.integers(2, 300))])
        source = data.draw(st.sampled_from(scalars[-4:]))
        nodes += [node("Expand", f"{source} n{k}", f"t{k}"), node("ReduceMax", f"t{k}", f"m{k}", keepdims=1)]
        scalars.append(f"m{k}")
    outputs = [f"m{length - 1}", *(f"t{k}" for k in range(2, length, 3))]
    graph = load(build(nodes, {"x": [1]}, outputs, sizes))
    steps = plan_steps(graph, fuse(graph, data.draw(st.sampled_from(["none", "greedy", "dp"]))).groups)
    plan = plan_memory(graph, [s.call.arguments for s in steps], [s.call.writes for s in steps])
    live = _lifetimes(graph, steps)
    for a, (first, last) in live.items():
        assert plan.offsets[a] % ALIGNMENT == 0
        assert plan.offsets[a] + graph.buffers[a].nbytes <= plan.size
        for b, (f, l) in live.items():
            if a < b and f <= last and first <= l:
                lo, hi = sorted((a, b), key=lambda n: plan.offsets[n])
                assert plan.offsets[lo] + graph.buffers[lo].nbytes <= plan.offsets[hi]


def _lifetimes(graph: Graph, steps: list) -> dict[str, tuple[int, int]]:
    """First write and last use of every written buffer, recomputed step by step."""
    outputs = {graph.storage(v.buffer.name) for v in graph.outputs}
    written = {n for s in steps for n in s.call.writes}
    touched = {n: [k for k, s in enumerate(steps) if n in {graph.storage(a) for a in s.call.arguments}] for n in written}
    return {n: (t[0], len(steps) if n in outputs else t[-1]) for n, t in touched.items()}
